//! The store against what etcd would do.

use super::super::{Compacted, Compare, LEASE_MAX_TTL_S, LEASE_MIN_TTL_S, Txn, TxnOp, WatchEvent, Watcher};
use super::*;
use crate::rng::Rng;

const NOW: Time = Time(0);

fn seconds(n: u64) -> Time {
    NOW + Duration::secs(n)
}

fn store() -> Store {
    Store::restore(NOW, Retention { revisions: u64::MAX, bytes: u64::MAX }, Saved::default()).expect("nothing is wrong")
}

fn put_op(key: &str, value: &str, lease: u64) -> TxnOp {
    TxnOp::Put { key: key.into(), value: value.into(), lease }
}

fn txn(
    store: &mut Store,
    compare: Vec<Compare>,
    success: Vec<TxnOp>,
    failure: Vec<TxnOp>,
) -> Result<Response, Refused> {
    let done = store.apply(NOW, Request::Txn(Txn { compare, success, failure }));
    store.check();
    done
}

fn put(store: &mut Store, key: &str, value: &str) -> u64 {
    txn(store, vec![], vec![put_op(key, value, 0)], vec![]).expect("a plain put");
    store.revision()
}

fn values(store: &Store, keys: &Span, revision: u64) -> Vec<(String, String)> {
    let text = |kv: &Arc<KeyValue>| (kv.key.clone(), String::from_utf8_lossy(&kv.value).into_owned());
    store.range(keys, revision).expect("readable").iter().map(text).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[test]
fn a_fresh_store_is_at_revision_one_and_reads_change_nothing() {
    let mut store = store();
    let answer = store.apply(NOW, Request::Range(Keys::Prefix("/".into())));
    assert_eq!(answer, Ok(Response::Range { revision: 1, kvs: vec![] }));
    txn(&mut store, vec![], vec![TxnOp::Delete(Keys::One("/a".into()))], vec![]).expect("deletes nothing");
    assert_eq!(store.revision(), 1);
}

#[test]
fn versions_and_revisions_count_as_in_etcd() {
    let mut store = store();
    assert_eq!(put(&mut store, "/a", "1"), 2);
    assert_eq!(put(&mut store, "/a", "1"), 3);
    let kv = store.range(&Span::one("/a"), 0).expect("readable").remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    txn(&mut store, vec![], vec![TxnOp::Delete(Keys::One("/a".into()))], vec![]).expect("deletes");
    assert_eq!(put(&mut store, "/a", "2"), 5);
    let kv = store.range(&Span::one("/a"), 0).expect("readable").remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
    assert_eq!(values(&store, &Span::one("/a"), 4), []);
    assert_eq!(values(&store, &Span::one("/a"), 3), pairs(&[("/a", "1")]));
    assert_eq!(store.range(&Span::one("/a"), 6), Err(Refused::FutureRevision));
}

#[test]
fn a_transaction_compares_then_acts_as_one_and_reads_its_own_writes() {
    let mut store = store();
    let create = |value: &str| {
        let success = vec![put_op("/a", value, 0), put_op("/b", value, 0), TxnOp::Range(Keys::Prefix("/".into()))];
        (vec![Compare::ModRevision("/a".into(), 0)], success, vec![TxnOp::Range(Keys::One("/a".into()))])
    };
    let (compare, success, failure) = create("x");
    let Ok(Response::Txn { revision: 2, succeeded: true, results }) = txn(&mut store, compare, success, failure) else {
        panic!("the key is not there yet");
    };
    assert!(
        matches!(&results[2], TxnResult::Range(kvs) if kvs.len() == 2 && kvs.iter().all(|kv| kv.mod_revision == 2))
    );
    let (compare, success, failure) = create("y");
    let Ok(Response::Txn { revision: 2, succeeded: false, results }) = txn(&mut store, compare, success, failure)
    else {
        panic!("the key is there");
    };
    assert!(matches!(&results[..], [TxnResult::Range(kvs)] if kvs[0].value == b"x"));
}

#[test]
fn compares_know_missing_keys() {
    let mut store = store();
    put(&mut store, "/a", "1");
    for (compare, expected) in [
        (Compare::ModRevision("/a".into(), 2), true),
        (Compare::ModRevision("/a".into(), 3), false),
        (Compare::CreateRevision("/b".into(), 0), true),
        (Compare::CreateRevision("/a".into(), 0), false),
        (Compare::Value("/a".into(), b"1".to_vec()), true),
        (Compare::Value("/b".into(), b"".to_vec()), false),
    ] {
        let answer = txn(&mut store, vec![compare.clone()], vec![], vec![]);
        assert!(matches!(answer, Ok(Response::Txn { succeeded, .. }) if succeeded == expected), "{compare:?}");
    }
}

#[test]
fn refusals_change_nothing() {
    let mut store = store();
    put(&mut store, "/a", "1");
    let many = vec![TxnOp::Range(Keys::One("/a".into())); crate::limits::TXN_OPS + 1];
    let overlap = vec![put_op("/a/b", "", 0), TxnOp::Delete(Keys::Prefix("/a".into()))];
    let large = vec![put_op("/l", &"x".repeat(super::super::TRANSACTION_MAX_BYTES), 0)];
    for (success, refused) in [
        (many, Refused::TooManyOperations),
        (vec![put_op("/b", "", 0), put_op("/b", "", 0)], Refused::DuplicateKey),
        (overlap, Refused::DuplicateKey),
        (vec![put_op("/b", "", 0), put_op("/c", "", 77)], Refused::LeaseNotFound),
        (vec![put_op("", "", 0)], Refused::EmptyKey),
        (large, Refused::TooLarge),
    ] {
        assert_eq!(txn(&mut store, vec![], success.clone(), vec![]), Err(refused));
        if refused != Refused::LeaseNotFound {
            assert_eq!(txn(&mut store, vec![], vec![], success), Err(refused), "in the other branch");
        }
    }
    let whole = store.range(&Span::prefix(""), 0).expect("readable");
    assert_eq!((whole.len(), store.revision()), (1, 2));
}

#[test]
fn a_lease_takes_its_keys_along_in_one_revision() {
    let mut store = store();
    let (lease, ttl) = store.grant(NOW, 0, 5).expect("granted");
    txn(&mut store, vec![], vec![put_op("/a", "", lease), put_op("/b", "", lease)], vec![]).expect("puts");
    txn(&mut store, vec![], vec![put_op("/c", "", lease)], vec![]).expect("puts");
    put(&mut store, "/c", "detached");
    assert_eq!(ttl, 5);
    store.keep_alive(seconds(4), lease).expect("lives");
    assert!(!store.tick(seconds(8)));
    assert_eq!(store.next_deadline(), Some(seconds(9)));
    let mut watcher = Watcher::new(Span::prefix("/"), store.revision() + 1);
    assert!(store.tick(seconds(9)));
    store.check();
    let delete = |key: &str| WatchEvent::Delete { key: key.into(), revision: 5 };
    assert_eq!(watcher.poll(&store), Ok(Some((5, vec![delete("/a"), delete("/b")]))));
    assert_eq!(store.keep_alive(seconds(9), lease), None);
    assert_eq!(store.revoke(seconds(9), lease), Err(Refused::LeaseNotFound));
    assert_eq!(values(&store, &Span::prefix("/"), 0), pairs(&[("/c", "detached")]));
}

#[test]
fn leases_have_bounds_and_fresh_ids() {
    let mut store = store();
    assert_eq!(store.grant(NOW, 2, 1), Ok((2, LEASE_MIN_TTL_S)));
    assert_eq!(store.grant(NOW, 0, 60), Ok((1, 60)));
    assert_eq!(store.grant(NOW, 0, 60), Ok((3, 60)), "2 is taken");
    assert_eq!(store.grant(NOW, 2, 60), Err(Refused::LeaseExists));
    assert_eq!(store.grant(NOW, 0, LEASE_MAX_TTL_S + 1), Err(Refused::LeaseTtlTooLarge));
    store.revoke(NOW, 3).expect("there");
    assert_eq!(store.grant(NOW, 0, 60), Ok((4, 60)), "3 was given before");
    store.prolong_leases(Duration::secs(3));
    store.check();
    assert_eq!(store.lease(NOW, 2).map(|lease| lease.left_s), Some(5));
    assert_eq!(store.leases().collect::<Vec<_>>(), [1, 2, 4]);
}

#[test]
fn compaction_keeps_what_can_still_be_seen() {
    let mut store = store();
    put(&mut store, "/a", "2");
    put(&mut store, "/b", "3");
    put(&mut store, "/a", "4");
    txn(&mut store, vec![], vec![TxnOp::Delete(Keys::One("/b".into()))], vec![]).expect("deletes");
    put(&mut store, "/a", "6");
    assert_eq!(store.compact(7), Err(Refused::FutureRevision));
    store.compact(5).expect("possible");
    store.check();
    assert_eq!(store.compact(5), Err(Refused::Compacted));
    assert_eq!(store.range(&Span::prefix("/"), 4), Err(Refused::Compacted));
    assert_eq!(values(&store, &Span::prefix("/"), 5), pairs(&[("/a", "4")]));
    assert_eq!(values(&store, &Span::prefix("/"), 0), pairs(&[("/a", "6")]));
    let mut early = Watcher::new(Span::prefix("/"), 4);
    assert_eq!(early.poll(&store), Err(Compacted { revision: 5 }));
    let mut watcher = Watcher::new(Span::prefix("/"), 5);
    let (revision, events) = watcher.poll(&store).expect("not compacted").expect("two changes");
    assert_eq!((revision, events.len()), (6, 2));
    assert_eq!(watcher.poll(&store), Ok(None));
}

#[test]
fn history_is_bounded_in_revisions_and_bytes() {
    let mut by_count = Store::new(Retention { revisions: 10, bytes: u64::MAX });
    let mut by_bytes = Store::new(Retention { revisions: u64::MAX, bytes: 100 });
    for n in 0..100 {
        put(&mut by_count, &format!("/{}", n % 3), "x");
        put(&mut by_bytes, "/k", "12345678");
    }
    assert_eq!(by_count.compacted(), by_count.revision() - 10);
    assert_eq!(by_bytes.compacted(), by_bytes.revision() - 9, "ten changes of ten bytes");
    put(&mut by_bytes, "/k", &"x".repeat(1_000));
    assert_eq!(by_bytes.compacted(), by_bytes.revision(), "the last revision stays");
}

#[test]
fn a_watcher_gets_whole_revisions_once() {
    let mut store = store();
    let mut watcher = Watcher::new(Span::prefix("/a/"), 1);
    for n in 0..5 {
        let ops = ["/a/1", "/b", "/a/2"].map(|key| put_op(key, &n.to_string(), 0));
        txn(&mut store, vec![], ops.to_vec(), vec![]).expect("puts");
    }
    let mut seen = Vec::new();
    loop {
        let taken = watcher.take(&store, 3).expect("not compacted");
        if taken.is_empty() {
            break;
        }
        assert_eq!(taken.len() % 2, 0, "half a revision");
        seen.extend(taken.iter().map(|change| (change.revision, change.key().to_string())));
    }
    let expected: Vec<_> = (2..7).flat_map(|n| [(n, "/a/1".to_string()), (n, "/a/2".to_string())]).collect();
    assert_eq!(seen, expected);
    put(&mut store, "/elsewhere", "");
    assert_eq!(watcher.poll(&store), Ok(None));
    assert_eq!(watcher.next(), store.revision() + 1);
}

/// What a disk would hold after these records.
#[derive(Default)]
struct Disk {
    rows: std::collections::BTreeMap<(u64, u32), Record>,
    leases: std::collections::BTreeMap<u64, u64>,
    compacted: u64,
    last_chosen: u64,
}

impl Disk {
    fn write(&mut self, record: Record) {
        match &record {
            Record::Put { index, kv } => drop(self.rows.insert((kv.mod_revision, *index), record)),
            Record::Delete { revision, index, .. } => drop(self.rows.insert((*revision, *index), record)),
            Record::Forget { revision, index } => {
                self.rows.remove(&(*revision, *index)).expect("only what was written is forgotten");
            }
            Record::Compacted(revision) => self.compacted = *revision,
            Record::Lease { lease, ttl, last_chosen } => {
                self.leases.insert(*lease, *ttl);
                self.last_chosen = *last_chosen;
            }
            Record::LeaseEnded(lease) => {
                self.leases.remove(lease).expect("only what was granted ends");
            }
        }
    }

    fn saved(&self) -> Saved {
        Saved {
            rows: self.rows.values().cloned().collect(),
            compacted: self.compacted,
            leases: self.leases.iter().map(|(lease, ttl)| (*lease, *ttl)).collect(),
            last_chosen_lease: self.last_chosen,
        }
    }
}

fn random_step(store: &mut Store, rng: &mut Rng) {
    let key = |rng: &mut Rng| format!("/{}", rng.below(6));
    let leases: Vec<u64> = store.leases().collect();
    let lease = leases.get(rng.below(4) as usize).copied().unwrap_or(0);
    match rng.below(12) {
        0 => drop(store.grant(NOW, 0, 10)),
        1 if lease != 0 => store.revoke(NOW, lease).expect("there"),
        2 => drop(store.compact(store.revision() - rng.below(8).min(store.revision()))),
        3 | 4 => drop(txn(store, vec![], vec![TxnOp::Delete(Keys::One(key(rng)))], vec![])),
        5 => drop(txn(store, vec![], vec![TxnOp::Delete(Keys::Prefix("/".into()))], vec![])),
        _ => {
            let ops = vec![put_op(&key(rng), "x", lease), put_op(&key(rng), "y", 0)];
            drop(txn(store, vec![], ops, vec![]));
        }
    }
    store.check();
}

/// A store made again from its journal answers every question as the one that was lost.
#[test]
fn the_journal_holds_everything() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut store = store();
        let mut disk = Disk::default();
        for _ in 0..120 {
            random_step(&mut store, &mut rng);
            store.take_journal().into_iter().for_each(|record| disk.write(record));
        }
        let again = Store::restore(NOW, store.retention, disk.saved()).expect("whole");
        again.check();
        assert_eq!((again.revision(), again.compacted()), (store.revision(), store.compacted()), "seed {seed}");
        for revision in store.compacted().max(1)..=store.revision() {
            let all = Span::prefix("");
            assert_eq!(again.range(&all, revision), store.range(&all, revision), "seed {seed} at {revision}");
            let from = |store: &Store| Watcher::new(Span::prefix(""), revision).poll(store);
            assert_eq!(from(&again), from(&store), "seed {seed} from {revision}");
        }
        let leases = |store: &Store| store.leases().map(|id| (id, store.lease(NOW, id))).collect::<Vec<_>>();
        assert_eq!(leases(&again), leases(&store), "seed {seed}");
    }
}

#[test]
fn contradicting_rows_are_refused() {
    let mut store = store();
    let lease = store.grant(NOW, 0, 10).expect("granted").0;
    txn(&mut store, vec![], vec![put_op("/a", "", lease)], vec![]).expect("puts");
    put(&mut store, "/a", "");
    let mut disk = Disk::default();
    store.take_journal().into_iter().for_each(|record| disk.write(record));
    let restore = |saved: Saved| Store::restore(NOW, Retention::default(), saved).map(|_| ());
    assert_eq!(restore(disk.saved()), Ok(()));
    let mut backwards = disk.saved();
    backwards.rows.reverse();
    assert!(restore(backwards).expect_err("order").contains("out of order"));
    let mut leaseless = disk.saved();
    leaseless.rows.pop();
    leaseless.leases.clear();
    assert!(restore(leaseless).expect_err("lease").contains("which is missing"));
}
