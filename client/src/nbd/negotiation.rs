//! The negotiation: fixed newstyle, without I/O, for any bytes that a stranger may send.
//!
//! ```text
//!   Flags ─▶ Option ─▶ Data ─▶ (the export is looked up) ─┬▶ Option   (LIST, INFO, STRUCTURED_REPLY, contexts)
//!               ▲        (or all are listed)              ├▶ Transmit (GO, EXPORT_NAME)
//!               └── Skip (data too long)                  └▶ Close    (ABORT, nonsense)
//! ```

use super::protocol::*;
use std::mem;

/// Longest data of an option that is read: a name of 4 KiB and some hundred queries.
const OPTION_MAX_BYTES: u32 = 64 << 10;
/// Longest data of an option that is skipped; above, the stream is taken for nonsense.
const SKIP_MAX_BYTES: u32 = 16 << 20;
/// Longest name of an export, by the specification.
const NAME_MAX_BYTES: usize = 4096;

/// Options.
mod option {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
mod reply {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const UNSUPPORTED: u32 = (1 << 31) + 1;
    pub const POLICY: u32 = (1 << 31) + 2;
    pub const INVALID: u32 = (1 << 31) + 3;
    pub const UNKNOWN: u32 = (1 << 31) + 6;
    pub const TOO_BIG: u32 = (1 << 31) + 9;
}

const BASE_ALLOCATION: &str = "base:allocation";

/// What the negotiation tells of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportInfo {
    /// Bytes.
    pub size_bytes: u64,
    /// Writes are refused.
    pub read_only: bool,
}

/// How the connection goes on after the negotiation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Replies are structured.
    pub structured: bool,
    /// Block status of `base:allocation` may be asked for.
    pub allocation: bool,
}

/// What is to be done next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Receive more.
    Read,
    /// Look up the export of this name (empty: the default one) and call [`Negotiation::found`].
    Find(String),
    /// Tell the names of the exports by [`Negotiation::list`].
    List,
    /// Serve the export that was found last.
    Transmit(Terms),
    /// End the connection, after sending what is to be sent.
    Close,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Flags,
    Option,
    Data { option: u32, len: u32 },
    Skip { option: u32, left: u32 },
    Finding(Finding),
    Listing,
    Over,
}

/// What an export is looked up for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Finding {
    ExportName,
    Info { option: u32, name: String, tell_name: bool },
    Contexts { option: u32, name: String, allocation: bool },
}

/// One connection's negotiation.
#[derive(Clone, Debug)]
pub struct Negotiation {
    state: State,
    no_zeroes: bool,
    structured: bool,
    /// For which export the context was selected.
    allocation_of: Option<String>,
}

impl Negotiation {
    /// Begins; puts the greeting into `out`.
    pub fn new(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(&GREETING.to_be_bytes());
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        Negotiation { state: State::Flags, no_zeroes: false, structured: false, allocation_of: None }
    }

    /// Takes received bytes; returns how many it used, and what to do next. Call it again with the rest (and more)
    /// after [`Step::Read`].
    pub fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, Step) {
        let mut used = 0;
        while let Some((count, step)) = self.advance(&bytes[used..], out) {
            used += count;
            if let Some(step) = step {
                return (used, step);
            }
        }
        (used, Step::Read)
    }

    /// Takes one element, if it is complete: its length, and a step other than going on.
    fn advance(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<(usize, Option<Step>)> {
        match self.state {
            State::Flags => bytes.first_chunk().map(|flags| (4, self.on_flags(u32::from_be_bytes(*flags)))),
            State::Option => bytes.first_chunk().map(|header| (16, self.on_option(header))),
            State::Data { option, len } => {
                let data = bytes.get(..len as usize)?;
                self.state = State::Option;
                Some((data.len(), self.on_data(option, data, out)))
            }
            State::Skip { option, left } => {
                (!bytes.is_empty()).then(|| (self.skip(option, left, bytes.len(), out), None))
            }
            State::Finding(_) | State::Listing | State::Over => None,
        }
    }

    /// Skips what there is of an option's data; returns how much.
    fn skip(&mut self, option: u32, left: u32, available: usize, out: &mut Vec<u8>) -> usize {
        let count = u32::try_from(available).unwrap_or(u32::MAX).min(left);
        self.state = State::Skip { option, left: left - count };
        if count == left {
            self.state = State::Option;
            put_reply(out, option, reply::TOO_BIG, b"the data of this option is too long");
        }
        count as usize
    }

    fn close(&mut self) -> Option<Step> {
        self.state = State::Over;
        Some(Step::Close)
    }

    fn on_flags(&mut self, flags: u32) -> Option<Step> {
        let known = u32::from(FIXED_NEWSTYLE | NO_ZEROES);
        if flags & !known != 0 || flags & u32::from(FIXED_NEWSTYLE) == 0 {
            return self.close();
        }
        self.no_zeroes = flags & u32::from(NO_ZEROES) != 0;
        self.state = State::Option;
        None
    }

    fn on_option(&mut self, header: &[u8; 16]) -> Option<Step> {
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let magic = u64::from(word(0)) << 32 | u64::from(word(4));
        let (option, len) = (word(8), word(12));
        // EXPORT_NAME has no error reply.
        let limit = if option == option::EXPORT_NAME { NAME_MAX_BYTES as u32 } else { SKIP_MAX_BYTES };
        if magic != OPTION_MAGIC || len > limit {
            return self.close();
        }
        self.state =
            if len <= OPTION_MAX_BYTES { State::Data { option, len } } else { State::Skip { option, left: len } };
        None
    }

    fn on_data(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        match option {
            option::EXPORT_NAME => self.on_export_name(data),
            option::ABORT => {
                put_reply(out, option, reply::ACK, &[]);
                self.close()
            }
            option::LIST if data.is_empty() => {
                self.state = State::Listing;
                Some(Step::List)
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                put_reply(out, option, reply::ACK, &[]);
                None
            }
            option::LIST | option::STRUCTURED_REPLY => {
                put_reply(out, option, reply::INVALID, b"this option has no data");
                None
            }
            option::STARTTLS => {
                put_reply(out, option, reply::POLICY, b"this server offers no TLS; go on without it");
                None
            }
            option::INFO | option::GO => self.on_info(option, data, out),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.on_contexts(option, data, out),
            _ => {
                put_reply(out, option, reply::UNSUPPORTED, b"unknown option");
                None
            }
        }
    }

    fn find(&mut self, name: String, finding: Finding) -> Option<Step> {
        self.state = State::Finding(finding);
        Some(Step::Find(name))
    }

    fn on_export_name(&mut self, data: &[u8]) -> Option<Step> {
        match str::from_utf8(data) {
            Ok(name) => {
                self.allocation_of.take_if(|selected| selected != name);
                self.find(name.to_string(), Finding::ExportName)
            }
            Err(_) => self.close(),
        }
    }

    /// Answers [`Step::List`].
    pub fn list(&mut self, names: &[String], out: &mut Vec<u8>) {
        assert_eq!(self.state, State::Listing, "names for nobody");
        self.state = State::Option;
        for name in names {
            let len = u32::try_from(name.len()).expect("names are short");
            put_reply(out, option::LIST, reply::SERVER, &[&len.to_be_bytes(), name.as_bytes()].concat());
        }
        put_reply(out, option::LIST, reply::ACK, &[]);
    }

    fn on_info(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        const INFO_NAME: u16 = 1;
        let mut fields = Fields(data);
        let parsed = fields.name().and_then(|name| Some((name, fields.u16()?)));
        let exact = parsed.filter(|(_, count)| fields.0.len() == usize::from(*count) * 2);
        let Some((name, _)) = exact else {
            put_reply(out, option, reply::INVALID, b"malformed request for information");
            return None;
        };
        let tell_name = std::iter::from_fn(|| fields.u16()).any(|kind| kind == INFO_NAME);
        self.find(name.clone(), Finding::Info { option, name, tell_name })
    }

    fn on_contexts(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        if option == option::SET_META_CONTEXT {
            self.allocation_of = None;
        }
        if !self.structured {
            put_reply(out, option, reply::INVALID, b"negotiate structured replies first");
            return None;
        }
        let Some((name, queries)) = Fields(data).contexts() else {
            put_reply(out, option, reply::INVALID, b"malformed metadata queries");
            return None;
        };
        let set = option == option::SET_META_CONTEXT;
        let matches = |query: &&str| *query == BASE_ALLOCATION || !set && *query == "base:";
        let allocation = queries.iter().any(matches) || !set && queries.is_empty();
        self.find(name.to_string(), Finding::Contexts { option, name: name.to_string(), allocation })
    }

    /// Tells what became of [`Step::Find`]: the export, or why there is none.
    pub fn found(&mut self, export: Result<ExportInfo, &str>, out: &mut Vec<u8>) -> Step {
        let State::Finding(finding) = mem::replace(&mut self.state, State::Option) else {
            panic!("an export was found that nobody had looked for");
        };
        match (finding, export) {
            (Finding::ExportName, Err(_)) => {
                self.state = State::Over;
                Step::Close
            }
            (Finding::ExportName, Ok(export)) => self.begin_oldstyle(export, out),
            (Finding::Info { option, .. } | Finding::Contexts { option, .. }, Err(reason)) => {
                put_reply(out, option, reply::UNKNOWN, reason.as_bytes());
                Step::Read
            }
            (Finding::Info { option, name, tell_name }, Ok(export)) => {
                self.inform(option, &name, tell_name, export, out)
            }
            (Finding::Contexts { option, name, allocation }, Ok(_)) => {
                self.answer_contexts(option, name, allocation, out);
                Step::Read
            }
        }
    }

    fn answer_contexts(&mut self, option: u32, name: String, allocation: bool, out: &mut Vec<u8>) {
        if allocation {
            let context = [&ALLOCATION_CONTEXT.to_be_bytes(), BASE_ALLOCATION.as_bytes()].concat();
            put_reply(out, option, reply::META_CONTEXT, &context);
        }
        if option == option::SET_META_CONTEXT {
            self.allocation_of = allocation.then_some(name);
        }
        put_reply(out, option, reply::ACK, &[]);
    }

    fn begin_oldstyle(&mut self, export: ExportInfo, out: &mut Vec<u8>) -> Step {
        out.extend_from_slice(&export.size_bytes.to_be_bytes());
        out.extend_from_slice(&self.transmission_flags(export).to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; 124]);
        }
        self.transmit()
    }

    fn transmit(&mut self) -> Step {
        self.state = State::Over;
        Step::Transmit(Terms { structured: self.structured, allocation: self.allocation_of.is_some() })
    }

    fn inform(&mut self, option: u32, name: &str, tell_name: bool, export: ExportInfo, out: &mut Vec<u8>) -> Step {
        let flags = self.transmission_flags(export);
        put_reply(
            out,
            option,
            reply::INFO,
            &[&[0, 0][..], &export.size_bytes.to_be_bytes(), &flags.to_be_bytes()].concat(),
        );
        if tell_name {
            put_reply(out, option, reply::INFO, &[&[0, 1][..], name.as_bytes()].concat());
        }
        // Any byte may be addressed; pages are cheapest.
        let sizes = [1, 4096, PAYLOAD_MAX_BYTES].map(u32::to_be_bytes).concat();
        put_reply(out, option, reply::INFO, &[&[0, 3][..], &sizes].concat());
        put_reply(out, option, reply::ACK, &[]);
        if option == option::INFO {
            return Step::Read;
        }
        self.allocation_of.take_if(|selected| selected != name);
        self.transmit()
    }

    fn transmission_flags(&self, export: ExportInfo) -> u16 {
        use transmission::*;
        let writes =
            if export.read_only { READ_ONLY } else { SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO };
        let structured = if self.structured { SEND_DF } else { 0 };
        HAS_FLAGS | SEND_FLUSH | CAN_MULTI_CONN | writes | structured
    }
}

fn put_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&u32::try_from(data.len()).expect("replies are short").to_be_bytes());
    out.extend_from_slice(data);
}

/// Reads fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = self.u32()?;
        let bytes = self.take(usize::try_from(len).ok()?)?;
        str::from_utf8(bytes).ok().filter(|text| text.len() <= NAME_MAX_BYTES)
    }

    fn name(&mut self) -> Option<String> {
        self.text().map(str::to_string)
    }

    fn contexts(mut self) -> Option<(&'a str, Vec<&'a str>)> {
        let name = self.text()?;
        let count = self.u32()?;
        // Not `with_capacity`: the count is a stranger's.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(self.text()?);
        }
        self.0.is_empty().then_some((name, queries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::rng::Rng;

    const EXPORT: ExportInfo = ExportInfo { size_bytes: 1 << 20, read_only: false };

    fn option(option: u32, data: &[u8]) -> Vec<u8> {
        let len = u32::try_from(data.len()).unwrap();
        [&OPTION_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &len.to_be_bytes(), data].concat()
    }

    fn named(name: &str, rest: &[u8]) -> Vec<u8> {
        [&u32::try_from(name.len()).unwrap().to_be_bytes()[..], name.as_bytes(), rest].concat()
    }

    /// Feeds everything, finding every export but "missing".
    fn run(bytes: &[u8]) -> (Vec<u8>, Step) {
        let mut out = Vec::new();
        let mut negotiation = Negotiation::new(&mut out);
        out.clear();
        let mut at = 0;
        loop {
            let (used, mut step) = negotiation.receive(&bytes[at..], &mut out);
            at += used;
            if step == Step::List {
                negotiation.list(&["demo".into()], &mut out);
                continue;
            }
            let stuck = step == Step::Read;
            if let Step::Find(name) = step {
                let export = if name == "missing" { Err("no such export") } else { Ok(EXPORT) };
                step = negotiation.found(export, &mut out);
            }
            if stuck || step != Step::Read {
                return (out, step);
            }
        }
    }

    /// Kinds of the replies in order.
    fn kinds(mut out: &[u8]) -> Vec<u32> {
        let mut kinds = Vec::new();
        while out.len() >= 20 {
            assert_eq!(out[..8], OPTION_REPLY_MAGIC.to_be_bytes());
            kinds.push(u32::from_be_bytes(out[12..16].try_into().unwrap()));
            out = &out[20 + u32::from_be_bytes(out[16..20].try_into().unwrap()) as usize..];
        }
        assert!(out.is_empty());
        kinds
    }

    #[test]
    fn a_modern_client_gets_everything() {
        let query = [&1u32.to_be_bytes()[..], &named(BASE_ALLOCATION, &[])].concat();
        let bytes = [
            &3u32.to_be_bytes()[..],
            &option(option::STARTTLS, &[]),
            &option(option::STRUCTURED_REPLY, &[]),
            &option(option::LIST, &[]),
            &option(option::LIST_META_CONTEXT, &named("demo", &0u32.to_be_bytes())),
            &option(option::SET_META_CONTEXT, &named("demo", &query)),
            &option(option::INFO, &named("missing", &[0, 0])),
            &option(option::INFO, &named("demo", &[0, 1, 0, 1])),
            &option(99, b"what"),
            &option(option::GO, &named("demo", &[0, 0])),
        ]
        .concat();
        let (out, step) = run(&bytes);
        assert_eq!(step, Step::Transmit(Terms { structured: true, allocation: true }));
        use reply::*;
        let expected = [
            POLICY,
            ACK,
            SERVER,
            ACK,
            META_CONTEXT,
            ACK,
            META_CONTEXT,
            ACK,
            UNKNOWN,
            INFO,
            INFO,
            INFO,
            ACK,
            UNSUPPORTED,
            INFO,
            INFO,
            ACK,
        ];
        assert_eq!(kinds(&out), expected);
    }

    #[test]
    fn a_context_of_another_export_does_not_count() {
        let query = [&1u32.to_be_bytes()[..], &named(BASE_ALLOCATION, &[])].concat();
        let bytes = [
            &3u32.to_be_bytes()[..],
            &option(option::STRUCTURED_REPLY, &[]),
            &option(option::SET_META_CONTEXT, &named("other", &query)),
            &option(option::GO, &named("demo", &[0, 0])),
        ]
        .concat();
        assert_eq!(run(&bytes).1, Step::Transmit(Terms { structured: true, allocation: false }));
    }

    #[test]
    fn an_old_client_gets_size_flags_and_padding() {
        let bytes = [&1u32.to_be_bytes()[..], &option(option::EXPORT_NAME, b"demo")].concat();
        let (out, step) = run(&bytes);
        assert_eq!(step, Step::Transmit(Terms { structured: false, allocation: false }));
        assert_eq!((out.len(), &out[..8]), (8 + 2 + 124, &(1u64 << 20).to_be_bytes()[..]));
        let bytes = [&3u32.to_be_bytes()[..], &option(option::EXPORT_NAME, b"missing")].concat();
        assert_eq!(run(&bytes), (vec![], Step::Close));
    }

    #[test]
    fn every_split_of_the_bytes_gives_the_same() {
        let bytes = [
            &3u32.to_be_bytes()[..],
            &option(option::LIST, &[]),
            &option(77, &[0; 70_000]),
            &option(option::ABORT, &[]),
        ]
        .concat();
        let whole = run(&bytes);
        assert_eq!(
            (kinds(&whole.0), whole.1.clone()),
            (vec![reply::SERVER, reply::ACK, reply::TOO_BIG, reply::ACK], Step::Close)
        );
        for piece in [1, 3, 17, 4096] {
            let mut out = Vec::new();
            let mut negotiation = Negotiation::new(&mut out);
            out.clear();
            let (mut pending, mut last) = (Vec::new(), Step::Read);
            for chunk in bytes.chunks(piece) {
                pending.extend_from_slice(chunk);
                while last == Step::Read {
                    let (used, step) = negotiation.receive(&pending, &mut out);
                    pending.drain(..used);
                    if step == Step::List {
                        negotiation.list(&["demo".into()], &mut out);
                        continue;
                    }
                    last = step;
                    if used == 0 {
                        break;
                    }
                }
            }
            assert_eq!((out, last), whole);
        }
    }

    #[test]
    fn nonsense_closes_or_is_refused_and_never_panics() {
        assert_eq!(run(&0u32.to_be_bytes()).1, Step::Close);
        assert_eq!(run(&[0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0]).1, Step::Close);
        let mut rng = Rng::new(7);
        for _ in 0..3000 {
            let mut bytes = 3u32.to_be_bytes().to_vec();
            for _ in 0..rng.below(6) {
                let data: Vec<u8> = (0..rng.below(40)).map(|_| u8::try_from(rng.below(6)).unwrap()).collect();
                bytes.extend(option(u32::try_from(rng.below(12)).unwrap(), &data));
            }
            if !bytes.is_empty() && rng.chance(1, 2) {
                let place = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
                bytes[place] ^= 1 << rng.below(8);
            }
            run(&bytes);
        }
    }
}
