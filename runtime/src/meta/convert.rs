//! Between core's words for metadata and the etcd client's.

use super::client::RequestError;
use ashlar_core::meta::{Compare, KeyValue, Keys, Response, Txn, TxnOp, TxnResult, WatchEvent};
use etcd_client as etcd;
use etcd_client::{CompareOp, DeleteOptions, EventType, GetOptions, GetResponse, PutOptions, TxnOpResponse};

/// Numbers of core in etcd's signed fields. Nothing real is beyond them.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Numbers of etcd, of which none is negative.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn get(keys: &Keys) -> (&str, GetOptions) {
    match keys {
        Keys::One(key) => (key, GetOptions::new()),
        Keys::Prefix(prefix) if prefix.is_empty() => (prefix, GetOptions::new().with_all_keys()),
        Keys::Prefix(prefix) => (prefix, GetOptions::new().with_prefix()),
    }
}

pub(super) fn txn(txn: &Txn) -> etcd::Txn {
    etcd::Txn::new()
        .when(txn.compare.iter().map(compare).collect::<Vec<_>>())
        .and_then(txn.success.iter().map(txn_op).collect::<Vec<_>>())
        .or_else(txn.failure.iter().map(txn_op).collect::<Vec<_>>())
}

fn compare(compare: &Compare) -> etcd::Compare {
    match compare {
        Compare::ModRevision(key, revision) => {
            etcd::Compare::mod_revision(key.as_str(), CompareOp::Equal, signed(*revision))
        }
        Compare::CreateRevision(key, revision) => {
            etcd::Compare::create_revision(key.as_str(), CompareOp::Equal, signed(*revision))
        }
        Compare::Value(key, value) => etcd::Compare::value(key.as_str(), CompareOp::Equal, value.clone()),
    }
}

fn txn_op(op: &TxnOp) -> etcd::TxnOp {
    match op {
        TxnOp::Put { key, value, lease } => {
            let options = PutOptions::new().with_lease(signed(*lease));
            etcd::TxnOp::put(key.as_str(), value.clone(), Some(options))
        }
        TxnOp::Delete(keys) => delete(keys),
        TxnOp::Range(keys) => {
            let (key, options) = get(keys);
            etcd::TxnOp::get(key, Some(options))
        }
    }
}

fn delete(keys: &Keys) -> etcd::TxnOp {
    let (key, options) = match keys {
        Keys::One(key) => (key, DeleteOptions::new()),
        Keys::Prefix(prefix) if prefix.is_empty() => (prefix, DeleteOptions::new().with_all_keys()),
        Keys::Prefix(prefix) => (prefix, DeleteOptions::new().with_prefix()),
    };
    etcd::TxnOp::delete(key.as_str(), Some(options))
}

/// An answer that cannot be read says nothing about what was done.
fn unreadable(what: &str) -> RequestError {
    RequestError::Unknown(format!("its answer is unreadable: {what}"))
}

fn revision(header: Option<&etcd::ResponseHeader>) -> Result<u64, RequestError> {
    header.map(|header| unsigned(header.revision())).ok_or_else(|| unreadable("no header"))
}

fn text(key: Vec<u8>) -> Result<String, RequestError> {
    String::from_utf8(key).map_err(|_| unreadable("a key is not text"))
}

fn key_value(kv: etcd::KeyValue) -> Result<KeyValue, RequestError> {
    let (create_revision, mod_revision) = (unsigned(kv.create_revision()), unsigned(kv.mod_revision()));
    let (version, lease) = (unsigned(kv.version()), unsigned(kv.lease()));
    let (key, value) = kv.into_key_value();
    Ok(KeyValue { key: text(key)?, value, create_revision, mod_revision, version, lease })
}

fn key_values(mut response: GetResponse) -> Result<Vec<KeyValue>, RequestError> {
    response.take_kvs().into_iter().map(key_value).collect()
}

pub(super) fn range_response(response: GetResponse) -> Result<Response, RequestError> {
    Ok(Response::Range { revision: revision(response.header())?, kvs: key_values(response)? })
}

pub(super) fn txn_response(response: &etcd::TxnResponse) -> Result<Response, RequestError> {
    let results = response.op_responses().into_iter().map(txn_result).collect::<Result<_, _>>()?;
    Ok(Response::Txn { revision: revision(response.header())?, succeeded: response.succeeded(), results })
}

fn txn_result(response: TxnOpResponse) -> Result<TxnResult, RequestError> {
    match response {
        TxnOpResponse::Put(_) => Ok(TxnResult::Put),
        TxnOpResponse::Delete(deleted) => Ok(TxnResult::Deleted(unsigned(deleted.deleted()))),
        TxnOpResponse::Get(range) => key_values(range).map(TxnResult::Range),
        TxnOpResponse::Txn(_) => Err(unreadable("a transaction in a transaction that had none")),
    }
}

/// An event of a watch, with its revision.
pub(super) fn watch_event(event: &etcd::Event) -> Result<(u64, WatchEvent), RequestError> {
    let kv = event.kv().ok_or_else(|| unreadable("an event without a key"))?;
    let revision = unsigned(kv.mod_revision());
    match event.event_type() {
        EventType::Put => Ok((revision, WatchEvent::Put(key_value(kv.clone())?))),
        EventType::Delete => Ok((revision, WatchEvent::Delete { key: text(kv.key().to_vec())?, revision })),
    }
}
