//! Connections to primaries.
//!
//! ```text
//!   Idle ──want──▶ Connecting ──Up──▶ Up(link) ──Down, other address, silence──┐
//!    ▲                 └────────────Failed───────────────────┐                 │
//!    └───time is up, new map──────── BackOff(until) ◀────────┴─────────────────┘
//! ```
//!
//! The number of failures in a row is forgotten only when an answer arrives, so a node that accepts and drops
//! connections is not hammered. A node that owes answers and sends nothing at all for a while is dropped, too: only so
//! a connection is noticed whose other end is gone without a trace. Long before that it is *in doubt*: nothing is done to
//! it, but whether the map has changed is asked for.

use super::backoff::Backoff;
use crate::id::{LinkId, OsdId};
use crate::io::{Effect, Env, PeerId, PeerName};
use crate::time::{Duration, Time};
use std::collections::BTreeMap;

/// A restarting OSD is found again within two seconds.
const RECONNECT: Backoff = Backoff { base: Duration::millis(20), cap: Duration::secs(2) };
/// First limit of silence: several times a healthy stall of a disk, well below a guest's patience of 30 s. Doubles with
/// each reconnection that did not help.
const SILENCE: Duration = Duration::secs(4);
/// Doublings of [`SILENCE`]: 64 s at most, as long as the longest stall of a disk that is not given up.
const SILENCE_DOUBLINGS: u32 = 4;
/// Whoever owes an answer for so long is in doubt: far more than a healthy operation takes, and far less than the cluster
/// takes to give the groups of an OSD that died to others.
pub(super) const DOUBT: Duration = Duration::millis(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Connecting,
    Up(LinkId),
    BackOff(Time),
}

#[derive(Clone, Debug)]
struct OsdLink {
    state: State,
    address: String,
    failures: u32,
    /// Tries without an answer on the present connection.
    owed: u64,
    /// When something was last heard, or when it began to owe an answer, or a connection.
    heard: Time,
    watched: bool,
    silences: u32,
}

impl OsdLink {
    fn limit(&self) -> Duration {
        Duration(SILENCE.0 << self.silences.min(SILENCE_DOUBLINGS))
    }

    /// Whether requests depend on hearing from it.
    fn is_awaited(&self) -> bool {
        match self.state {
            State::Up(_) => self.owed > 0,
            State::Connecting => true,
            State::Idle | State::BackOff(_) => false,
        }
    }
}

/// What became due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A new connection may be tried.
    Reconnect,
    /// Look again then.
    Later(Time),
    /// The connection was closed: it owed answers and was silent.
    Lost(LinkId),
}

/// Connections by OSD.
#[derive(Clone, Debug, Default)]
pub(super) struct OsdLinks {
    osds: BTreeMap<OsdId, OsdLink>,
    by_link: BTreeMap<LinkId, OsdId>,
}

impl OsdLinks {
    /// The connection to an OSD.
    pub fn up(&self, osd: OsdId) -> Option<LinkId> {
        match self.osds.get(&osd)?.state {
            State::Up(link) => Some(link),
            State::Idle | State::Connecting | State::BackOff(_) => None,
        }
    }

    /// Whose connection it is.
    pub fn osd(&self, link: LinkId) -> Option<OsdId> {
        self.by_link.get(&link).copied()
    }

    /// Opens a connection, unless there is one, or one is on the way, or it is too early.
    pub fn want(&mut self, env: &mut Env<'_>, osd: OsdId, address: &str) {
        let fresh = || OsdLink {
            state: State::Idle,
            address: String::new(),
            failures: 0,
            owed: 0,
            heard: Time(0),
            watched: false,
            silences: 0,
        };
        let entry = self.osds.entry(osd).or_insert_with(fresh);
        if entry.state == State::Idle {
            (entry.state, entry.heard) = (State::Connecting, env.now);
            entry.address = address.to_string();
            env.out.push(Effect::Connect { target: PeerName::Osd(osd), address: address.to_string() });
        }
    }

    /// A connection that we opened is up. False: it was closed again, since it is not wanted or leads elsewhere; then
    /// with the time of the next try, if there is to be one.
    pub fn on_up(&mut self, env: &mut Env<'_>, osd: OsdId, link: LinkId, peer: PeerId) -> Result<(), Option<Time>> {
        let entry = self.osds.get_mut(&osd).filter(|entry| entry.state == State::Connecting);
        let Some(entry) = entry else {
            env.out.push(Effect::Close(link));
            return Err(None);
        };
        if !matches!(peer, PeerId::Osd(id, _) if id == osd) {
            env.out.push(Effect::Close(link));
            return Err(Some(back_off(entry, env)));
        }
        entry.state = State::Up(link);
        entry.owed = 0;
        self.by_link.insert(link, osd);
        Ok(())
    }

    /// An attempt failed. Gives the time of the next.
    pub fn on_failed(&mut self, env: &mut Env<'_>, osd: OsdId) -> Option<Time> {
        let entry = self.osds.get_mut(&osd).filter(|entry| entry.state == State::Connecting)?;
        Some(back_off(entry, env))
    }

    /// A connection ended. Gives whose it was and the time of the next try.
    pub fn on_down(&mut self, env: &mut Env<'_>, link: LinkId) -> Option<(OsdId, Time)> {
        let osd = self.by_link.remove(&link)?;
        let entry = self.osds.get_mut(&osd).expect("a connection belongs to an OSD");
        Some((osd, back_off(entry, env)))
    }

    /// A request goes out. Gives a time to look whether it was answered, if none is set.
    pub fn sent(&mut self, now: Time, link: LinkId) -> Option<(OsdId, Time)> {
        let osd = self.osd(link)?;
        let entry = self.osds.get_mut(&osd)?;
        if entry.owed == 0 {
            entry.heard = now;
        }
        entry.owed += 1;
        let watch = !std::mem::replace(&mut entry.watched, true);
        watch.then(|| (osd, now + entry.limit()))
    }

    /// An answer arrived.
    pub fn heard(&mut self, now: Time, link: LinkId) {
        if let Some(entry) = self.osd(link).and_then(|osd| self.osds.get_mut(&osd)) {
            entry.owed = entry.owed.saturating_sub(1);
            entry.heard = now;
            (entry.failures, entry.silences) = (0, 0);
        }
    }

    /// Closes connections to OSDs that are not where they were any more; gives them with the time of the next try.
    pub fn moved(
        &mut self,
        env: &mut Env<'_>,
        address: impl Fn(OsdId) -> Option<String>,
    ) -> Vec<(OsdId, LinkId, Time)> {
        let mut closed = Vec::new();
        for (osd, entry) in &mut self.osds {
            if let State::Up(link) = entry.state
                && address(*osd).as_ref() != Some(&entry.address)
            {
                env.out.push(Effect::Close(link));
                self.by_link.remove(&link);
                closed.push((*osd, link, back_off(entry, env)));
            }
        }
        closed
    }

    /// Closes connections to those in doubt from whom nothing is wanted any more: what was sent there may wait long after
    /// the other end is back, since pauses between tries of the network have grown. Gives them with the time of the next
    /// try.
    pub fn abandon(&mut self, env: &mut Env<'_>, wanted: impl Fn(LinkId) -> bool) -> Vec<(OsdId, LinkId, Time)> {
        let mut closed = Vec::new();
        for (osd, entry) in &mut self.osds {
            if let State::Up(link) = entry.state
                && entry.is_awaited()
                && entry.heard + DOUBT <= env.now
                && !wanted(link)
            {
                env.out.push(Effect::Close(link));
                self.by_link.remove(&link);
                closed.push((*osd, link, back_off(entry, env)));
            }
        }
        closed
    }

    /// The cluster has just made it a primary, so it is there: no pause before the next try.
    pub fn believe(&mut self, osd: OsdId) {
        if let Some(entry) = self.osds.get_mut(&osd).filter(|entry| matches!(entry.state, State::BackOff(_))) {
            entry.state = State::Idle;
        }
    }

    /// The end of a pause.
    pub fn on_pause_over(&mut self, now: Time, osd: OsdId) -> Due {
        match self.osds.get_mut(&osd) {
            Some(entry) if matches!(entry.state, State::BackOff(until) if until <= now) => {
                entry.state = State::Idle;
                Due::Reconnect
            }
            _ => Due::Nothing,
        }
    }

    /// Time to look whether an OSD is silent.
    pub fn on_watch(&mut self, env: &mut Env<'_>, osd: OsdId) -> Due {
        let Some(entry) = self.osds.get_mut(&osd) else { return Due::Nothing };
        entry.watched = false;
        let State::Up(link) = entry.state else { return Due::Nothing };
        if entry.owed == 0 {
            return Due::Nothing;
        }
        let limit = entry.heard + entry.limit();
        if env.now < limit {
            entry.watched = true;
            return Due::Later(limit);
        }
        entry.silences += 1;
        env.out.push(Effect::Close(link));
        Due::Lost(link)
    }

    /// When somebody who is awaited comes into doubt, or came.
    pub fn doubt_at(&self) -> Option<Time> {
        self.osds.values().filter(|entry| entry.is_awaited()).map(|entry| entry.heard + DOUBT).min()
    }

    /// Whether the outcome of an attempt to connect is awaited.
    pub fn is_connecting(&self) -> bool {
        self.osds.values().any(|entry| entry.state == State::Connecting)
    }

    /// Panics if the two indices disagree.
    pub fn check(&self) {
        let up = |entry: &OsdLink| matches!(entry.state, State::Up(_));
        assert_eq!(self.osds.values().filter(|entry| up(entry)).count(), self.by_link.len());
        for (link, osd) in &self.by_link {
            assert_eq!(self.osds[osd].state, State::Up(*link), "{osd:?}");
            assert!(self.osds[osd].owed == 0 || self.osds[osd].watched, "{osd:?} owes answers and nobody looks");
        }
    }
}

fn back_off(entry: &mut OsdLink, env: &mut Env<'_>) -> Time {
    let until = env.now + RECONNECT.pause(env.rng, entry.failures);
    entry.failures = entry.failures.saturating_add(1);
    entry.state = State::BackOff(until);
    until
}
