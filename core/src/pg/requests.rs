//! Requests that versions include: each write takes effect once, however often it is sent.
//!
//! Owns the rules of the list that is stored with a version, and what each session has seen of this group's answers.
//! Does not own the list's storage (the store keeps it with the version).

use crate::id::{RequestId, Requests, Session, Version};
use crate::limits::REQUESTS_PER_OBJECT;
use crate::msg::Refusal;
use crate::planted::{Bug, planted};
use crate::time::{Duration, Time};
use std::collections::BTreeMap;

/// How far each session has seen answers of this group, as far as this primary was told. Only of use within an epoch:
/// what was sent under an older one is refused by its epoch.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    since: Time,
    known: BTreeMap<Session, Progress>,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    seen: u64,
    last: Time,
    /// Requests that were answered without a change: their duplicates must not change anything either.
    declined: Vec<(u64, Result<Version, Refusal>)>,
}

/// A session that sent nothing for so long is taken to have ended, if room is needed.
const SILENCE: Duration = Duration::secs(600);

impl Sessions {
    /// None known at `now`.
    pub fn new(now: Time) -> Self {
        Sessions { since: now, known: BTreeMap::new() }
    }

    /// A request arrived that says `seen`. False: the request itself is a late duplicate, its answer was seen.
    pub fn arrived(&mut self, now: Time, id: RequestId, seen: u64) -> bool {
        let known = self.known.entry(id.session).or_default();
        known.seen = known.seen.max(seen);
        known.last = now;
        let seen = known.seen;
        known.declined.retain(|(number, _)| *number > seen);
        id.number > seen
    }

    /// A request was answered, and changed nothing.
    pub fn decline(&mut self, id: RequestId, outcome: Result<Version, Refusal>) {
        self.known.entry(id.session).or_default().declined.push((id.number, outcome));
    }

    /// How a request was answered that changed nothing.
    pub fn declined(&self, id: RequestId) -> Option<Result<Version, Refusal>> {
        let declined = &self.known.get(&id.session)?.declined;
        declined.iter().find(|(number, _)| *number == id.number).map(|(_, outcome)| *outcome)
    }

    fn has_seen(&self, id: RequestId) -> bool {
        self.known.get(&id.session).is_some_and(|known| id.number <= known.seen)
    }

    fn is_silent(&self, now: Time, session: Session) -> bool {
        let last = self.known.get(&session).map_or(self.since, |known| known.last);
        now.since(last) > SILENCE
    }

    /// Whether no request of a list can be retried any more.
    pub fn have_seen(&self, list: &Requests) -> bool {
        list.iter().all(|id| self.has_seen(*id))
    }

    /// The list of the version after one that includes `base`; `None`: no room, as long as clients have not seen more
    /// answers.
    pub fn extended(&self, now: Time, base: &Requests, id: RequestId) -> Option<Requests> {
        let mut list: Requests = base.iter().copied().filter(|other| !self.has_seen(*other)).collect();
        if list.len() >= REQUESTS_PER_OBJECT {
            // Sessions that ended leave their last requests behind.
            let place = list.iter().position(|other| self.is_silent(now, other.session))?;
            list.remove(place);
        }
        list.push(id);
        Some(list)
    }
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
        assert_eq!(sessions.declined(id(1, 1, 5)), None);
        sessions.decline(id(1, 1, 5), Err(Refusal::NoSpace));
        assert_eq!(sessions.declined(id(1, 1, 5)), Some(Err(Refusal::NoSpace)));
        sessions.arrived(Time(0), id(1, 1, 6), 5);
        assert_eq!(sessions.declined(id(1, 1, 5)), None);
    }

    #[test]
    fn an_older_session_is_refused() {
        let list = Requests::from_slice(&[id(1, 2, 1)]);
        assert_eq!(look_up(&list, Version::NONE, id(1, 1, 9)), Known::Superseded);
        assert_eq!(look_up(&list, Version::NONE, id(2, 1, 9)), Known::New);
    }

    #[test]
    fn a_full_list_forgets_only_sessions_that_are_silent() {
        let mut sessions = Sessions::new(Time(0));
        let full: Requests = (0..REQUESTS_PER_OBJECT as u64).map(|n| id(n, 1, 1)).collect();
        assert_eq!(sessions.extended(Time(0), &full, id(99, 1, 1)), None);
        let later = Time(0) + SILENCE + Duration(1);
        sessions.arrived(later, id(0, 1, 2), 0);
        let next = sessions.extended(later, &full, id(99, 1, 1)).unwrap();
        assert_eq!((next.len(), next[0], next[1]), (REQUESTS_PER_OBJECT, id(0, 1, 1), id(2, 1, 1)));
    }
}
