//! What the driver may say, judged by what the store knows.

use super::members::Shared;
use super::node::{Answered, Asked, Record, Watched};
use ashlar_core::io::MetaError;
use ashlar_core::meta::{Change, ChangeKind, KeyValue, Keys, Request, Response, Txn, TxnOp, TxnResult, WatchEvent};
use ashlar_core::time::{Duration, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The driver's limits for a request and for a renewal, and time for a simulated step or two.
const ANSWER: Duration = Duration::millis(5_200);
const RENEWAL: Duration = Duration::millis(2_200);

/// Everything, at the end of a run, when nothing is under way any more.
pub fn all(record: &Record, shared: &Shared) -> Result<(), String> {
    for asked in &record.asked {
        request(asked, shared).map_err(|error| format!("{error}: {asked:?}"))?;
    }
    for (_, watched) in &record.watches {
        watch(watched, shared).map_err(|error| format!("{error}: {watched:?}"))?;
    }
    Ok(())
}

/// What there was to be seen: a run without mishaps proves nothing.
pub fn kinds(record: &Record, shared: &Shared) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    for asked in &record.asked {
        let result = asked.answer.as_ref().map(|answer| &answer.result);
        let times = match &asked.request {
            Request::Txn(txn) => done(txn, shared).map(|times| times.len()),
            _ => None,
        };
        kinds.insert(match (result, times) {
            (None, Some(1..)) => "forgotten, done",
            (Some(Err(MetaError::Unknown)), Some(0)) => "unknown, not done",
            (Some(Err(MetaError::Unknown)), Some(_)) => "unknown, done",
            (Some(Err(MetaError::Unavailable)), _) => "unavailable",
            (Some(Err(MetaError::Refused(_))), _) => "refused",
            (Some(Ok(Response::Txn { succeeded: false, .. })), _) => "a condition that does not hold",
            (Some(Ok(Response::LeaseKept { ttl: 0, .. })), _) => "a lease that is gone",
            _ => "fine",
        });
    }
    let lost = record.watches.iter().any(|(_, watched)| watched.lost);
    kinds.extend(lost.then_some("a watch that is lost"));
    let lasting = |watched: &Watched| watched.told.len() > 20 && !watched.lost;
    kinds.extend(record.watches.iter().any(|(_, watched)| lasting(watched)).then_some("a watch that lasts"));
    kinds
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

fn request(asked: &Asked, shared: &Shared) -> Result<(), String> {
    let Some(answer) = &asked.answer else {
        return ensure(asked.forgotten, "it was never answered");
    };
    let limit = if matches!(asked.request, Request::LeaseKeepAlive { .. }) { RENEWAL } else { ANSWER };
    ensure(answer.at.since(asked.at) <= limit, "the answer came late")?;
    if let Request::Txn(txn) = &asked.request {
        outcome(txn, answer, shared)?;
    }
    match (&asked.request, &answer.result) {
        (Request::Range(_), Err(MetaError::Unknown)) => Err("reading does nothing that could be unknown".into()),
        (_, Err(_)) => Ok(()),
        (Request::Range(keys), Ok(Response::Range { revision, kvs })) => {
            let then = asked.revision..=answer.revision;
            ensure(then.contains(revision), "it is not linearizable")?;
            ensure(*kvs == at(&shared.changes, *revision, keys), "it is not what was there")
        }
        (Request::Txn(_), Ok(Response::Txn { .. })) => Ok(()),
        (Request::LeaseGrant { .. }, Ok(Response::LeaseGranted { lease, .. })) => {
            ensure(shared.leases.contains_key(lease), "nobody granted it")
        }
        (Request::LeaseKeepAlive { lease }, Ok(Response::LeaseKept { lease: kept, ttl })) if lease == kept => {
            let alive = alive_within(shared, *lease, asked.at, answer.at);
            let dead = shared.leases[lease].until.is_some_and(|until| until <= answer.at);
            ensure(if *ttl > 0 { alive } else { dead }, "it says wrongly whether the lease lives")
        }
        (Request::LeaseRevoke { lease }, Ok(Response::LeaseRevoked)) => {
            ensure(shared.leases[lease].until.is_some_and(|until| until <= answer.at), "the lease lives on")
        }
        _ => Err("it answers something else".into()),
    }
}

fn alive_within(shared: &Shared, lease: u64, from: Time, to: Time) -> bool {
    let life = shared.leases[&lease];
    life.from <= to && life.until.is_none_or(|until| until >= from)
}

/// When a transaction was carried out; `None` of those that cannot be told from others.
fn done(txn: &Txn, shared: &Shared) -> Option<Vec<u64>> {
    let [TxnOp::Put { value, .. }] = txn.success.as_slice() else { return None };
    let is_it = |change: &&Change| matches!(&change.kind, ChangeKind::Put(kv) if kv.value == *value);
    Some(shared.changes.iter().filter(is_it).map(|change| change.revision).collect())
}

/// How often a transaction was carried out, beside what its answer says of that.
fn outcome(txn: &Txn, answer: &Answered, shared: &Shared) -> Result<(), String> {
    let Some(times) = done(txn, shared) else { return Ok(()) };
    match &answer.result {
        Ok(Response::Txn { succeeded: true, revision, results }) => {
            ensure(times == [*revision] && results == &[TxnResult::Put], "it was not done as was said")
        }
        Ok(Response::Txn { succeeded: false, results, .. }) => {
            ensure(times.is_empty() && matches!(results.as_slice(), [TxnResult::Range(_)]), "it was done all the same")
        }
        Ok(_) => Err("it answers something else".into()),
        Err(MetaError::Unknown) => ensure(times.len() <= 1, "it was done twice"),
        Err(MetaError::Unavailable | MetaError::Refused(_)) => ensure(times.is_empty(), "it was done all the same"),
    }
}

/// What the store held at a revision.
fn at(changes: &[Change], revision: u64, keys: &Keys) -> Vec<KeyValue> {
    let mut there: BTreeMap<&str, &KeyValue> = BTreeMap::new();
    for change in changes.iter().take_while(|change| change.revision <= revision) {
        match &change.kind {
            ChangeKind::Put(kv) => drop(there.insert(&kv.key, kv)),
            ChangeKind::Delete(key) => drop(there.remove(&**key)),
        }
    }
    let wanted = |key: &str| match keys {
        Keys::One(one) => key == one,
        Keys::Prefix(prefix) => key.starts_with(prefix.as_str()),
    };
    there.values().filter(|kv| wanted(&kv.key)).map(|kv| (*kv).clone()).collect()
}

fn changed_at(event: &WatchEvent) -> u64 {
    match event {
        WatchEvent::Put(kv) => kv.mod_revision,
        WatchEvent::Delete { revision, .. } => *revision,
    }
}

/// Without gap and without repetition, whole revisions, up to the last change unless it was ended.
fn watch(watched: &Watched, shared: &Shared) -> Result<(), String> {
    let changes = shared.changes.iter().filter(|change| change.revision >= watched.from.max(1));
    let expected: Vec<WatchEvent> =
        changes.filter(|change| change.key().starts_with(watched.prefix)).map(WatchEvent::from).collect();
    let told: Vec<&WatchEvent> = watched.told.iter().flat_map(|(_, events)| events).collect();
    ensure(
        told.len() <= expected.len() && told.iter().zip(&expected).all(|(told, change)| **told == *change),
        "a gap",
    )?;
    let mut up_to = 0;
    for (revision, events) in &watched.told {
        let ascends = events.iter().all(|event| changed_at(event) > up_to && changed_at(event) <= *revision);
        ensure(ascends && !events.is_empty(), "a revision is split or repeated")?;
        up_to = *revision;
    }
    let next = told.last().map_or(watched.from, |last| changed_at(last) + 1);
    if watched.lost {
        let compacted = shared.compactions.iter().any(|revision| *revision >= next);
        return ensure(compacted || shared.refused_streams > 0, "it was lost without a reason");
    }
    ensure(watched.ended || told.len() == expected.len(), "it does not go on")
}
