//! The connection over which the map comes.
//!
//! One node at a time is subscribed to. It pushes changes by itself; while requests wait for news it is asked as well,
//! and if that does not help, the next node is tried: it may know more, or the present one may be cut off. It is asked,
//! too, while somebody else owes an answer for suspiciously long: if that one's host is gone, this node may be gone with
//! it, and the news that somebody else serves would never come. Candidates are the configured addresses and then those of
//! all OSDs in the map; one at the address of a node that was silent is passed over if there is another.

use super::backoff::Backoff;
use super::map::ClientMap;
use crate::id::{LinkId, Revision};
use crate::io::{Effect, Env, PeerName};
use crate::msg::{MapMessage, Message};
use crate::time::{Duration, Time};

/// From one candidate to the next; a whole cluster that is away is asked for every two seconds.
const RECONNECT: Backoff = Backoff { base: Duration::millis(10), cap: Duration::secs(2) };
/// Between questions while requests wait.
const ASK: Backoff = Backoff { base: Duration::millis(250), cap: Duration::secs(2) };
/// Fruitless questions after which another node is tried.
const ASKS_PER_NODE: u32 = 3;
/// Questions in a row that were not answered by anything, after which another node is tried.
const UNHEARD: u32 = 2;
/// A candidate to which no connection comes about within this time is left; doubles with each failure, since it may be
/// the network that is slow.
const PATIENCE: Duration = Duration::millis(500);
/// Doublings of [`PATIENCE`]: 4 s at most, as long as runtimes try.
const PATIENCE_DOUBLINGS: u32 = 3;

/// Why news is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// It is not.
    No,
    /// Somebody owes an answer; it may be on its way.
    InDoubt,
    /// Nothing goes on without.
    Needed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    /// To this candidate, until this time.
    Connecting(u32, Time),
    Up(LinkId),
    BackOff(Time),
}

/// The map's source.
#[derive(Clone, Debug)]
pub(super) struct Seeds {
    addresses: Vec<String>,
    next: u32,
    state: State,
    failures: u32,
    /// When to ask again, while news is wanted.
    ask_at: Option<Time>,
    /// Questions since the last news.
    asks: u32,
    /// Questions to the present node since it last said anything.
    unheard: u32,
    /// Ask for everything: a pool may have gone.
    everything: bool,
    /// Of the present candidate.
    address: String,
    /// Where the last one was that was left because it was silent.
    silent_host: Option<String>,
}

impl Seeds {
    /// With the configured addresses.
    pub fn new(addresses: Vec<String>) -> Self {
        assert!(!addresses.is_empty(), "a client needs the address of at least one node");
        Seeds {
            addresses,
            next: 0,
            state: State::Idle,
            failures: 0,
            ask_at: None,
            asks: 0,
            unheard: 0,
            everything: false,
            address: String::new(),
            silent_host: None,
        }
    }

    /// Whether this connection carries the map.
    pub fn is(&self, link: LinkId) -> bool {
        self.state == State::Up(link)
    }

    /// The connection.
    pub fn up(&self) -> Option<LinkId> {
        match self.state {
            State::Up(link) => Some(link),
            State::Idle | State::Connecting(..) | State::BackOff(_) => None,
        }
    }

    /// Connects to the next candidate, unless a connection is up or on its way. Gives the time at which to look after it.
    pub fn connect(&mut self, env: &mut Env<'_>, map: &ClientMap) -> Option<Time> {
        if self.state != State::Idle {
            return None;
        }
        self.address = self.choose(map);
        let until = env.now + Duration(PATIENCE.0 << self.failures.min(PATIENCE_DOUBLINGS));
        self.state = State::Connecting(self.next, until);
        env.out.push(Effect::Connect { target: PeerName::Seed(self.next), address: self.address.clone() });
        Some(until)
    }

    /// The address of the next candidate that is not where the silent one is; of the next, if there is none.
    fn choose(&mut self, map: &ClientMap) -> String {
        let candidates = self.addresses.len() + map.addresses();
        for _ in 0..candidates {
            let address = self.candidate(map, self.next as usize % candidates);
            if self.silent_host.as_deref() != Some(host(address)) {
                return address.to_string();
            }
            self.next = self.next.wrapping_add(1);
        }
        self.candidate(map, self.next as usize % candidates).to_string()
    }

    fn candidate<'a>(&'a self, map: &'a ClientMap, index: usize) -> &'a str {
        match self.addresses.get(index) {
            Some(address) => address,
            None => map.nth_address(index - self.addresses.len()).expect("below the number of addresses"),
        }
    }

    /// A connection that we opened is up. False: it is not wanted any more and was closed.
    ///
    /// The whole map is asked for: revisions of two servers do not compare (each may have told changes above the one
    /// that it names), so what another server told may be undone here without being listed as a change.
    pub fn on_up(&mut self, env: &mut Env<'_>, number: u32, link: LinkId) -> bool {
        if !self.is_connecting(number) {
            env.out.push(Effect::Close(link));
            return false;
        }
        self.state = State::Up(link);
        self.unheard = 0;
        self.subscribe(env, Revision(0));
        true
    }

    /// An attempt failed, or the connection ended. Gives the time of the next try.
    pub fn on_lost(&mut self, env: &mut Env<'_>, which: Result<LinkId, u32>) -> Option<Time> {
        let ours = match which {
            Ok(link) => self.is(link),
            Err(number) => self.is_connecting(number),
        };
        // Whoever is left may be dead for good, and the silent one back by now.
        if ours {
            self.silent_host = None;
        }
        ours.then(|| self.back_off(env))
    }

    fn is_connecting(&self, number: u32) -> bool {
        matches!(self.state, State::Connecting(wanted, _) if wanted == number)
    }

    /// The present candidate says nothing: on to the next. Gives the time of that.
    fn leave(&mut self, env: &mut Env<'_>) -> Time {
        self.silent_host = Some(host(&self.address).to_string());
        self.back_off(env)
    }

    fn back_off(&mut self, env: &mut Env<'_>) -> Time {
        let until = env.now + RECONNECT.pause(env.rng, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.next = self.next.wrapping_add(1);
        self.state = State::BackOff(until);
        until
    }

    /// A pause may be over, or patience. Gives the time at which to look again.
    pub fn on_timer(&mut self, env: &mut Env<'_>, map: &ClientMap) -> Option<Time> {
        match self.state {
            State::BackOff(until) if until <= env.now => {
                self.state = State::Idle;
                self.connect(env, map)
            }
            State::Connecting(_, until) if until <= env.now => Some(self.leave(env)),
            _ => None,
        }
    }

    /// The node said something; `news`: that changed the map.
    pub fn heard(&mut self, news: bool) {
        (self.failures, self.unheard) = (0, 0);
        self.silent_host = None;
        if news {
            self.asks = 0;
        }
    }

    /// A pool is unknown to an OSD: have the whole map sent.
    pub fn want_everything(&mut self) {
        self.everything = true;
    }

    /// Requests wait for news. Gives the time at which to look again, if none is set.
    pub fn want_news(&mut self, env: &mut Env<'_>, have: Revision) -> Option<Time> {
        if self.ask_at.is_some() {
            return None;
        }
        self.ask(env, have);
        self.ask_at
    }

    fn ask(&mut self, env: &mut Env<'_>, have: Revision) {
        self.ask_at = Some(env.now + ASK.pause(env.rng, self.asks));
        self.asks = self.asks.saturating_add(1);
        self.unheard += 1;
        self.subscribe(env, have);
    }

    fn subscribe(&mut self, env: &mut Env<'_>, have: Revision) {
        if let State::Up(link) = self.state {
            let have = if std::mem::take(&mut self.everything) { Revision(0) } else { have };
            env.out.send(link, Message::Map(MapMessage::Subscribe { have }));
        }
    }

    /// Time to look whether news is still wanted. Gives the time of the next look, or that of the next connection.
    pub fn on_ask(&mut self, env: &mut Env<'_>, wanted: Wanted, have: Revision) -> Asked {
        if self.ask_at.is_none_or(|at| at > env.now) {
            return Asked::Nothing;
        }
        self.ask_at = None;
        if wanted == Wanted::No {
            self.asks = 0;
            return Asked::Nothing;
        }
        if let State::Up(link) = self.state
            && self.is_no_help(wanted)
        {
            env.out.push(Effect::Close(link));
            let until = if self.unheard >= UNHEARD { self.leave(env) } else { self.back_off(env) };
            self.ask_at = Some(env.now + ASK.pause(env.rng, self.asks));
            self.asks = self.asks.saturating_add(1);
            return Asked::Moved(until, self.ask_at.expect("set above"));
        }
        self.ask(env, have);
        Asked::Again(self.ask_at.expect("set by ask"))
    }

    /// Whether to try another node: this one is silent, or what it says does not bring on what depends on news.
    fn is_no_help(&self, wanted: Wanted) -> bool {
        let fruitless = self.asks > 0 && self.asks.is_multiple_of(ASKS_PER_NODE);
        self.unheard >= UNHEARD || (fruitless && wanted == Wanted::Needed)
    }
}

/// An address without its port.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// What came of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// No news is wanted.
    Nothing,
    /// Asked again; look again then.
    Again(Time),
    /// The node was left: connect to the next at the first time, look again at the second.
    Moved(Time, Time),
}
