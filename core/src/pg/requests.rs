//! Requests that versions include: each write takes effect once, however often it is sent.
//!
//! Owns the rules of the list that is stored with a version, and what each session has seen of this group's answers.
//! Does not own the list's storage (the store keeps it with the version).
//!
//! A lazy pool's client may send a write again whose answer it has seen, as long as no sync vouched for it: after a power
//! loss it is carried out again if it was lost, and must not be if it survived. So the list keeps a *mark* of each session:
//! the highest number up to which its answers were seen when it last wrote the object. Whoever says that it has seen the
//! answer to `n` has seen all answers below, so each of those writes took effect before the version with the mark `n`, or
//! had nothing to change then (a deletion of what did not exist is in no list), or never will. The mark goes when a sync of
//! the session was answered that covers it.

use crate::id::{RequestId, Requests, Session, Version};
use crate::limits::{REQUESTS_OF_YOUNGER, REQUESTS_PER_OBJECT};
use crate::msg::Refusal;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use std::collections::BTreeMap;

/// How far each session has seen answers of this group, as far as this primary was told. Only of use within an epoch:
/// what was sent under an older one is refused by its epoch.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// Whether answers may be lost with the power.
    lazy: bool,
    since: Time,
    known: BTreeMap<Session, Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    seen: u64,
    /// What it will not send again, durable as it is.
    settled: u64,
    last: Time,
    /// Requests that were answered without a change: their duplicates must not change anything either. With the condition
    /// that they had: a client that was refused for it tries again under the same number, with another one.
    declined: Vec<(u64, Option<Version>, Result<Version, Refusal>)>,
}

/// A session that sent nothing for so long is taken to have ended, if room is needed.
const SILENCE: Duration = Duration::secs(600);

impl Sessions {
    /// None known at `now`, in a pool that is lazy or not.
    pub fn new(now: Time, lazy: bool) -> Self {
        Sessions { lazy, since: now, known: BTreeMap::new() }
    }

    /// A session says that it will send nothing up to this number again: it knows that all of it is durable.
    pub fn settled(&mut self, session: Session, upto: u64) {
        let known = self.known.entry(session).or_default();
        known.settled = known.settled.max(upto);
    }

    /// A request arrived that says `seen`. False: the request itself is a late duplicate, its answer was seen.
    pub fn arrived(&mut self, now: Time, id: RequestId, seen: u64) -> bool {
        let known = self.known.entry(id.session).or_default();
        known.seen = known.seen.max(seen);
        known.last = now;
        let seen = known.seen;
        known.declined.retain(|(number, ..)| *number > seen);
        id.number > seen
    }

    /// Whether a newer session of the same client was heard of: then it must not be carried out any more.
    pub fn is_outdated(&self, session: Session) -> bool {
        let last = Session { client: session.client, number: u64::MAX };
        self.known.range(session..=last).next_back().is_some_and(|(newest, _)| *newest > session)
    }

    /// A request was answered, and changed nothing.
    pub fn decline(&mut self, id: RequestId, expect: Option<Version>, outcome: Result<Version, Refusal>) {
        if self.declined(id, expect).is_none() {
            self.known.entry(id.session).or_default().declined.push((id.number, expect, outcome));
        }
    }

    /// How a request was answered that changed nothing.
    pub fn declined(&self, id: RequestId, expect: Option<Version>) -> Option<Result<Version, Refusal>> {
        let declined = &self.known.get(&id.session)?.declined;
        let same = |(number, expected, _): &&(u64, _, _)| {
            *number == id.number && (*expected == expect || planted(Bug::DeclineByNumber))
        };
        declined.iter().find(same).map(|(.., outcome)| *outcome)
    }

    /// Whether the client has seen this request's answer: another try of it is a late duplicate, also if it arrived
    /// before.
    pub fn has_seen(&self, id: RequestId) -> bool {
        self.known.get(&id.session).is_some_and(|known| match marked(id) {
            Some(upto) => upto <= known.settled,
            None => id.number <= known.seen,
        })
    }

    /// Whether a request is never sent again.
    fn is_settled(&self, id: RequestId) -> bool {
        let settled = self.known.get(&id.session).map_or(0, |known| known.settled);
        self.has_seen(id) && (!self.lazy || marked(id).unwrap_or(id.number) <= settled)
    }

    fn is_silent(&self, now: Time, session: Session) -> bool {
        let last = self.known.get(&session).map_or(self.since, |known| known.last);
        now.since(last) > SILENCE
    }

    /// Whether no request of a list can be retried any more.
    pub fn have_seen(&self, list: &Requests) -> bool {
        list.iter().all(|id| self.is_settled(*id))
    }

    /// The list of the version after one that includes `base`; `None`: no room, as long as clients have not seen more
    /// answers.
    pub fn extended(&self, now: Time, base: &Requests, id: RequestId) -> Option<Requests> {
        let mut list: Requests = base.iter().copied().filter(|other| !self.has_seen(*other)).collect();
        if self.lazy {
            let seen = |other: &&RequestId| self.has_seen(**other) && marked(**other).is_none();
            base.iter().filter(seen).for_each(|other| self.mark(&mut list, *other));
            let own = self.known.get(&id.session).map_or(0, |known| known.seen);
            self.mark(&mut list, RequestId { number: own, ..id });
        }
        if list.len() >= self.room(id) {
            // Sessions that ended leave their last requests behind.
            let place = list.iter().position(|other| self.is_silent(now, other.session))?;
            list.remove(place);
        }
        list.push(id);
        Some(list)
    }

    /// How long a list may be to take a request in. The last places are for those that are the oldest of their session
    /// without an answer: as long as these wait, the client cannot say that it has seen those that fill the list.
    fn room(&self, id: RequestId) -> usize {
        let is_oldest = self.known.get(&id.session).is_some_and(|known| id.number == known.seen + 1);
        if is_oldest || planted(Bug::FillRequestLists) { REQUESTS_PER_OBJECT } else { REQUESTS_OF_YOUNGER }
    }

    /// Marks that a session's writes up to this one are included, unless none of them is ever sent again.
    fn mark(&self, list: &mut Requests, upto: RequestId) {
        if upto.number == 0 || self.is_settled(upto) {
            return;
        }
        let mark = RequestId { number: MARK | upto.number, ..upto };
        match list.iter_mut().find(|other| other.session == upto.session && marked(**other).is_some()) {
            Some(present) => present.number = present.number.max(mark.number),
            // In front: what counts from the end stays true.
            None => list.insert(0, mark),
        }
    }
}

/// Tells a mark from a request: numbers of writes do not have this bit.
const MARK: u64 = 1 << 63;

/// The number up to which a session's writes are included, if this is a mark.
fn marked(id: RequestId) -> Option<u64> {
    (id.number & MARK != 0).then_some(id.number & !MARK)
}

/// What is known of a request, by the list of the object's newest version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was not carried out.
    New,
    /// It was carried out, and made this version or one of those before.
    Included(Version),
    /// A newer session of its client wrote the object: the request must not be carried out any more.
    Superseded,
}

/// Looks a request up in the list stored with `version`.
pub fn look_up(list: &Requests, version: Version, id: RequestId) -> Known {
    if planted(Bug::DropRequestNumbers) {
        return Known::New;
    }
    if let Some(later) = list.iter().rev().position(|other| *other == id) {
        // Each version adds one request at the end, so its own version is at least so many steps back.
        let seq = version.seq.saturating_sub(later as u64);
        return Known::Included(Version { epoch: version.epoch, seq });
    }
    let covers = |other: &RequestId| other.session == id.session && marked(*other) >= Some(id.number);
    if list.iter().any(covers) {
        return Known::Included(version);
    }
    let newer =
        |other: &RequestId| other.session.client == id.session.client && other.session.number > id.session.number;
    if list.iter().any(newer) { Known::Superseded } else { Known::New }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClientId, Epoch};

    fn id(client: u64, session: u64, number: u64) -> RequestId {
        RequestId { session: Session { client: ClientId(client), number: session }, number }
    }

    #[test]
    fn a_request_is_included_once_until_its_answer_was_seen() {
        let mut sessions = Sessions::default();
        assert!(sessions.arrived(Time(0), id(1, 1, 1), 0));
        let list = sessions.extended(Time(0), &Requests::new(), id(1, 1, 1)).unwrap();
        let version = Version { epoch: Epoch(3), seq: 7 };
        assert_eq!(look_up(&list, version, id(1, 1, 1)), Known::Included(version));
        assert_eq!(look_up(&list, version, id(1, 1, 2)), Known::New);
        assert!(sessions.arrived(Time(0), id(1, 1, 2), 1));
        assert!(!sessions.arrived(Time(0), id(1, 1, 1), 0));
        let list = sessions.extended(Time(0), &list, id(1, 1, 2)).unwrap();
        assert_eq!(list.as_slice(), [id(1, 1, 2)]);
    }

    #[test]
    fn what_was_declined_stays_declined() {
        let mut sessions = Sessions::default();
        sessions.arrived(Time(0), id(1, 1, 5), 4);
        assert_eq!(sessions.declined(id(1, 1, 5), None), None);
        sessions.decline(id(1, 1, 5), None, Err(Refusal::NoSpace));
        assert_eq!(sessions.declined(id(1, 1, 5), None), Some(Err(Refusal::NoSpace)));
        sessions.arrived(Time(0), id(1, 1, 6), 5);
        assert_eq!(sessions.declined(id(1, 1, 5), None), None);
    }

    #[test]
    fn a_condition_that_failed_says_nothing_about_another_one() {
        let mut sessions = Sessions::default();
        let (none, newer) = (Some(Version::NONE), Some(Version { epoch: Epoch(3), seq: 7 }));
        let refusal = Err(Refusal::VersionMismatch(newer.expect("just made")));
        sessions.arrived(Time(0), id(1, 1, 5), 4);
        sessions.decline(id(1, 1, 5), none, refusal);
        assert_eq!(sessions.declined(id(1, 1, 5), none), Some(refusal), "also if the object is gone by then");
        assert_eq!(sessions.declined(id(1, 1, 5), newer), None);
    }

    #[test]
    fn a_newer_session_outdates_older_ones_of_its_client() {
        let mut sessions = Sessions::default();
        sessions.arrived(Time(0), id(1, 2, 1), 0);
        sessions.arrived(Time(0), id(2, 9, 1), 0);
        let outdated = |client, number| sessions.is_outdated(id(client, number, 0).session);
        assert_eq!(
            [outdated(1, 1), outdated(1, 2), outdated(1, 3), outdated(2, 8), outdated(3, 1)],
            [true, false, false, true, false]
        );
    }

    #[test]
    fn an_older_session_is_refused() {
        let list = Requests::from_slice(&[id(1, 2, 1)]);
        assert_eq!(look_up(&list, Version::NONE, id(1, 1, 9)), Known::Superseded);
        assert_eq!(look_up(&list, Version::NONE, id(2, 1, 9)), Known::New);
    }

    #[test]
    fn a_lazy_pool_remembers_what_was_seen_until_it_is_synced() {
        let mut sessions = Sessions::new(Time(0), true);
        let mut list = Requests::new();
        for number in 1..=5 {
            sessions.arrived(Time(0), id(1, 1, number), number - 1);
            list = sessions.extended(Time(0), &list, id(1, 1, number)).unwrap();
        }
        assert_eq!(list.as_slice(), [id(1, 1, MARK | 4), id(1, 1, 5)]);
        let version = Version { epoch: Epoch(3), seq: 7 };
        // The next primary knows nothing but the list.
        let mut next = Sessions::new(Time(0), true);
        for number in 1..=5 {
            assert_eq!(look_up(&list, version, id(1, 1, number)), Known::Included(version), "{number}");
        }
        assert_eq!(look_up(&list, version, id(1, 1, 6)), Known::New);
        assert_eq!(look_up(&list, version, id(1, 2, 1)), Known::New);
        assert!(!next.have_seen(&list));
        next.arrived(Time(0), id(1, 1, 7), 6);
        assert!(!next.have_seen(&list), "seen, but it may be lost");
        let list = next.extended(Time(0), &list, id(1, 1, 7)).unwrap();
        assert_eq!(list.as_slice(), [id(1, 1, MARK | 6), id(1, 1, 7)]);
        next.settled(id(1, 1, 0).session, 7);
        next.arrived(Time(0), id(1, 1, 8), 7);
        assert!(next.have_seen(&list));
        assert_eq!(next.extended(Time(0), &list, id(1, 1, 8)).unwrap().as_slice(), [id(1, 1, 8)]);
    }

    #[test]
    fn a_full_list_forgets_only_sessions_that_are_silent() {
        let mut sessions = Sessions::new(Time(0), false);
        let full: Requests = (0..REQUESTS_PER_OBJECT as u64).map(|n| id(n, 1, 1)).collect();
        assert_eq!(sessions.extended(Time(0), &full, id(99, 1, 1)), None);
        sessions.arrived(Time(0), id(99, 1, 1), 0);
        assert_eq!(sessions.extended(Time(0), &full, id(99, 1, 1)), None);
        let later = Time(0) + SILENCE + Duration(1);
        sessions.arrived(later, id(0, 1, 2), 0);
        let next = sessions.extended(later, &full, id(99, 1, 1)).unwrap();
        assert_eq!((next.len(), next[0], next[1]), (REQUESTS_PER_OBJECT, id(0, 1, 1), id(2, 1, 1)));
    }

    #[test]
    fn the_oldest_unanswered_request_of_a_session_gets_a_place_that_younger_ones_leave() {
        let mut sessions = Sessions::new(Time(0), false);
        let mut list = Requests::new();
        // The first of each session is delayed, younger ones fill the list.
        for number in 2.. {
            let id = id(1, 1, number);
            sessions.arrived(Time(0), id, 0);
            let Some(longer) = sessions.extended(Time(0), &list, id) else { break };
            list = longer;
        }
        assert_eq!(list.len(), REQUESTS_OF_YOUNGER);
        let oldest = id(1, 1, 1);
        sessions.arrived(Time(0), oldest, 0);
        let list = sessions.extended(Time(0), &list, oldest).expect("a place for the oldest");
        assert_eq!(list.len(), REQUESTS_OF_YOUNGER + 1);
    }
}
