//! etcd's messages, and what they mean to the store.
//!
//! Owns the translation and the parts of etcd's API that are only presentation: sorting, limits, filters of ranges.

use ashlar_core::meta::{
    Change, ChangeKind, Condition, End, KeyValue, Operation, Outcome, Refused, Relation, Span, Target, Transaction,
};
use proto::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::range_request::{SortOrder, SortTarget};
use proto::request_op::Request;
use proto::response_op::Response;
use std::cmp::Ordering;
use std::sync::Arc;
use tonic::{Code, Status};

/// Generated from `proto/rpc.proto`.
#[allow(missing_docs, reason = "etcd's documentation describes them")]
pub(super) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Generated from `proto/kv.proto`.
#[allow(missing_docs, reason = "etcd's documentation describes them")]
pub(super) mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub(super) use etcdserverpb as proto;

/// The only member of a store without replicas.
pub(super) const MEMBER_ID: u64 = 1;

pub(super) fn header(revision: u64) -> Option<proto::ResponseHeader> {
    let revision = signed(revision);
    Some(proto::ResponseHeader { cluster_id: MEMBER_ID, member_id: MEMBER_ID, revision, raft_term: 1 })
}

/// Revisions, versions and leases in etcd's signed fields; none is beyond them.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A revision as etcd reads it: what is not positive means now.
pub(super) fn revision(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A lease; a negative id is one that nobody has.
pub(super) fn lease(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

pub(super) fn refusal(refused: Refused) -> Status {
    let code = match refused {
        Refused::LeaseNotFound => Code::NotFound,
        Refused::LeaseExists => Code::FailedPrecondition,
        Refused::LeaseTtlTooLarge | Refused::Compacted | Refused::FutureRevision => Code::OutOfRange,
        Refused::EmptyKey
        | Refused::TooManyOperations
        | Refused::TooLarge
        | Refused::DuplicateKey
        | Refused::KeyNotFound => Code::InvalidArgument,
    };
    Status::new(code, refused.to_string())
}

fn text(key: Vec<u8>) -> Result<String, Status> {
    String::from_utf8(key).map_err(|_| Status::invalid_argument("keys of this metadata store must be UTF-8 text"))
}

/// etcd's way to name a range: no end is one key, an end of one zero byte is no end.
pub(super) fn span(key: Vec<u8>, range_end: Vec<u8>) -> Result<Span, Status> {
    if key.is_empty() {
        return Err(refusal(Refused::EmptyKey));
    }
    let end = match range_end.as_slice() {
        [] => End::Only,
        [0] => End::Never,
        _ => End::Before(range_end),
    };
    Ok(Span::new(text(key)?, end))
}

pub(super) fn put(request: proto::PutRequest) -> Result<Operation, Status> {
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    Ok(Operation::Put {
        key: text(request.key)?,
        value: (!request.ignore_value).then_some(request.value),
        lease: (!request.ignore_lease).then(|| lease(request.lease)),
    })
}

/// How the result of an operation is shown.
pub(super) enum Show {
    Range(Box<proto::RangeRequest>),
    Put { previous: bool },
    Delete { previous: bool },
}

/// A transaction, with how its results are shown: those of success, and those of failure.
pub(super) type Shown = (Transaction, Vec<Show>, Vec<Show>);

pub(super) fn transaction(request: proto::TxnRequest) -> Result<Shown, Status> {
    let conditions = request.compare.into_iter().map(condition).collect::<Result<_, _>>()?;
    let (success, show_success) = operations(request.success)?;
    let (failure, show_failure) = operations(request.failure)?;
    Ok((Transaction { conditions, success, failure }, show_success, show_failure))
}

fn operations(list: Vec<proto::RequestOp>) -> Result<(Vec<Operation>, Vec<Show>), Status> {
    list.into_iter().map(operation).collect::<Result<Vec<_>, _>>().map(|list| list.into_iter().unzip())
}

fn operation(op: proto::RequestOp) -> Result<(Operation, Show), Status> {
    match op.request {
        Some(Request::RequestRange(mut request)) => {
            let keys = span(std::mem::take(&mut request.key), std::mem::take(&mut request.range_end))?;
            let operation = Operation::Range { keys, revision: revision(request.revision) };
            Ok((operation, Show::Range(Box::new(request))))
        }
        Some(Request::RequestPut(request)) => {
            let show = Show::Put { previous: request.prev_kv };
            Ok((put(request)?, show))
        }
        Some(Request::RequestDeleteRange(request)) => {
            let show = Show::Delete { previous: request.prev_kv };
            Ok((Operation::Delete(span(request.key, request.range_end)?), show))
        }
        Some(Request::RequestTxn(_)) => {
            Err(Status::unimplemented("this metadata store has no transactions within transactions"))
        }
        None => Err(Status::invalid_argument("etcdserver: key not found")),
    }
}

fn condition(compare: proto::Compare) -> Result<Condition, Status> {
    let relation = match compare.result() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
    };
    let target = target(compare.target(), compare.target_union)?;
    Ok(Condition { keys: span(compare.key, compare.range_end)?, target, relation })
}

/// An absent value is zero, or empty.
fn target(target: CompareTarget, value: Option<TargetUnion>) -> Result<Target, Status> {
    Ok(match (target, value) {
        (CompareTarget::Version, None) => Target::Version(0),
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Target::Version(revision(version)),
        (CompareTarget::Create, None) => Target::CreateRevision(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => Target::CreateRevision(revision(number)),
        (CompareTarget::Mod, None) => Target::ModRevision(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => Target::ModRevision(revision(number)),
        (CompareTarget::Value, None) => Target::Value(Vec::new()),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Target::Value(value),
        (CompareTarget::Lease, None) => Target::Lease(0),
        (CompareTarget::Lease, Some(TargetUnion::Lease(number))) => Target::Lease(lease(number)),
        (target, Some(_)) => {
            return Err(Status::invalid_argument(format!(
                "a comparison of {target:?} gives another value to compare with"
            )));
        }
    })
}

pub(super) fn key_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone().into_bytes(),
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        value: kv.value.clone(),
        lease: signed(kv.lease),
    }
}

fn key_values(kvs: &[Arc<KeyValue>]) -> Vec<mvccpb::KeyValue> {
    kvs.iter().map(|kv| key_value(kv)).collect()
}

/// Sorts, filters and cuts as the request says.
pub(super) fn range(request: &proto::RangeRequest, mut kvs: Vec<Arc<KeyValue>>, now: u64) -> proto::RangeResponse {
    let count = i64::try_from(kvs.len()).unwrap_or(i64::MAX);
    let header = header(now);
    if request.count_only {
        return proto::RangeResponse { header, count, ..Default::default() };
    }
    kvs.retain(|kv| is_wanted(request, kv));
    sort(request, &mut kvs);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    let mut kvs = key_values(&kvs);
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    proto::RangeResponse { header, kvs, more, count }
}

fn is_wanted(request: &proto::RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |number: u64, min: i64, max: i64| (min == 0 || signed(number) >= min) && (max == 0 || signed(number) <= max);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

fn sort(request: &proto::RangeRequest, kvs: &mut [Arc<KeyValue>]) {
    let by: fn(&KeyValue, &KeyValue) -> Ordering = match request.sort_target() {
        // They are in this order already.
        SortTarget::Key => |_, _| Ordering::Equal,
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::Create => |a, b| a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => |a, b| a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => |a, b| a.value.cmp(&b.value),
    };
    match (request.sort_order(), request.sort_target()) {
        (SortOrder::Descend, SortTarget::Key) => kvs.reverse(),
        (SortOrder::Descend, _) => kvs.sort_by(|a, b| by(b, a)),
        (SortOrder::None | SortOrder::Ascend, _) => kvs.sort_by(|a, b| by(a, b)),
    }
}

pub(super) fn put_response(previous: Option<&Arc<KeyValue>>, show: bool, now: u64) -> proto::PutResponse {
    let prev_kv = previous.filter(|_| show).map(|kv| key_value(kv));
    proto::PutResponse { header: header(now), prev_kv }
}

pub(super) fn delete_response(previous: &[Arc<KeyValue>], show: bool, now: u64) -> proto::DeleteRangeResponse {
    let prev_kvs = if show { key_values(previous) } else { Vec::new() };
    let deleted = i64::try_from(previous.len()).unwrap_or(i64::MAX);
    proto::DeleteRangeResponse { header: header(now), deleted, prev_kvs }
}

/// One result of a transaction.
pub(super) fn response_op(show: &Show, outcome: Outcome, now: u64) -> proto::ResponseOp {
    let response = match (show, outcome) {
        (Show::Range(request), Outcome::Range(kvs)) => Response::ResponseRange(range(request, kvs, now)),
        (Show::Put { previous: show }, Outcome::Put(previous)) => {
            Response::ResponsePut(put_response(previous.as_ref(), *show, now))
        }
        (Show::Delete { previous: show }, Outcome::Deleted(previous)) => {
            Response::ResponseDeleteRange(delete_response(&previous, *show, now))
        }
        (_, outcome) => panic!("{outcome:?} is of another operation"),
    };
    proto::ResponseOp { response: Some(response) }
}

/// A change as a watcher sees it.
pub(super) fn event(change: &Change, previous: bool) -> mvccpb::Event {
    let (kind, kv) = match &change.kind {
        ChangeKind::Put(kv) => (mvccpb::event::EventType::Put, key_value(kv)),
        ChangeKind::Delete(key) => {
            let mod_revision = signed(change.revision);
            let kv = mvccpb::KeyValue { key: key.as_bytes().to_vec(), mod_revision, ..Default::default() };
            (mvccpb::event::EventType::Delete, kv)
        }
    };
    let prev_kv = change.previous.as_ref().filter(|_| previous).map(|kv| key_value(kv));
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}
