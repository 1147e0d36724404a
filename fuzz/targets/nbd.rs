//! Whatever an NBD client sends, in pieces of any size, negotiation and parsing of requests end without a panic, and the
//! same bytes in other pieces lead to the same answers.
#![no_main]

use ashlar_client::nbd::{ExportInfo, Negotiation, REQUEST_BYTES, Request, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece, data)) = data.split_first() else { return };
    let whole = negotiate(data, data.len().max(1));
    let pieces = negotiate(data, usize::from(*piece).max(1));
    assert_eq!(whole, pieces);
    for header in data.windows(REQUEST_BYTES) {
        let header: &[u8; REQUEST_BYTES] = header.try_into().expect("a window of this size");
        if let Ok(request) = Request::parse(header) {
            let _ = (request.known_flags(), request.is_write());
        }
    }
});

/// All answers, and where it ended.
fn negotiate(data: &[u8], piece: usize) -> (Vec<u8>, Step) {
    let mut out = Vec::new();
    let mut negotiation = Negotiation::new(&mut out);
    let mut pending = Vec::new();
    for bytes in data.chunks(piece) {
        pending.extend_from_slice(bytes);
        loop {
            let (used, mut step) = negotiation.receive(&pending, &mut out);
            pending.drain(..used);
            let more = step != Step::Read;
            match &step {
                Step::List => negotiation.list(&["pool/demo".into(), "x".into()], &mut out),
                Step::Find(name) => {
                    let export = ExportInfo { size_bytes: 1 << 30, read_only: name.len() % 2 == 1 };
                    let found = if name.starts_with('!') { Err("there is none") } else { Ok(export) };
                    step = negotiation.found(found, &mut out);
                }
                _ => {}
            }
            if matches!(step, Step::Transmit(_) | Step::Close) {
                return (out, step);
            }
            if !more {
                break;
            }
        }
    }
    (out, Step::Read)
}
