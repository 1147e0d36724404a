//! Random requests in etcd's language, and what a store answers: from core's state machine directly, or from a server
//! through etcd's client. Revisions are told relative to where the case began, so that answers can be compared.

use ashlar_core::meta::{
    Change, ChangeKind, Compacted, Condition, End, KeyValue, Operation, Outcome, Relation, Span, Store, Target,
    Transaction, Watcher,
};
use ashlar_core::time::Time;
use etcd_client as etcd;
use proptest::collection::vec;
use proptest::prelude::*;

/// All keys of the tests begin with it.
pub const ROOT: &str = "/";
const KEYS: [&str; 5] = ["/a", "/a/x", "/a/y", "/b", "/c"];
/// Nothing expires during a case.
const TTL: i64 = 3_600;

#[derive(Clone, Debug)]
pub enum Keys {
    One(usize),
    Prefix(usize),
    All,
    Between(usize, usize),
    From(usize),
}

impl Keys {
    /// First key and end, as etcd writes them.
    fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        let key = |place: usize| KEYS[place].as_bytes().to_vec();
        let after = |mut prefix: Vec<u8>| {
            *prefix.last_mut().expect("not empty") += 1;
            prefix
        };
        match *self {
            Keys::One(place) => (key(place), vec![]),
            Keys::Prefix(place) => (key(place), after(key(place))),
            Keys::All => (ROOT.into(), after(ROOT.into())),
            Keys::Between(a, b) if a == b => (key(a), vec![]),
            Keys::Between(a, b) => (key(a.min(b)), key(a.max(b))),
            Keys::From(place) => (key(place), vec![0]),
        }
    }

    fn span(&self) -> Span {
        let (start, end) = self.bounds();
        let end = match end.as_slice() {
            [] => End::Only,
            [0] => End::Never,
            _ => End::Before(end),
        };
        Span::new(String::from_utf8(start).expect("text"), end)
    }
}

#[derive(Clone, Debug)]
pub enum Step {
    /// At a revision of the case, or now.
    Range(Keys, Option<u64>),
    /// A range of which the store shows a part, in some order. Core leaves that to its server.
    Shown {
        keys: Keys,
        limit: i64,
        keys_only: bool,
        target: u8,
        descending: bool,
        min_mod: i64,
    },
    Put {
        key: usize,
        value: Option<u8>,
        lease: u64,
    },
    Delete(Keys),
}

#[derive(Clone, Debug)]
pub struct If {
    keys: Keys,
    target: u8,
    value: u64,
    relation: u8,
}

#[derive(Clone, Debug)]
pub enum Request {
    One(Step),
    Txn(Vec<If>, Vec<Step>, Vec<Step>),
    Compact(u64),
    Grant(u64),
    Revoke(u64),
    KeepAlive(u64),
    TimeToLive(u64),
}

fn key() -> impl Strategy<Value = usize> {
    0..KEYS.len()
}

fn keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        3 => key().prop_map(Keys::One),
        2 => key().prop_map(Keys::Prefix),
        1 => Just(Keys::All),
        1 => (key(), key()).prop_map(|(a, b)| Keys::Between(a, b)),
    ]
}

/// etcd does not find overlaps of endless deletions within a transaction, so those stand alone.
fn keys_alone() -> impl Strategy<Value = Keys> {
    prop_oneof![5 => keys(), 1 => key().prop_map(Keys::From)]
}

fn lease() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0u64), 3 => 1..4u64]
}

/// etcd checks a kept value and the lease in this order in transactions, and in the other in a lone put: no put has both.
fn put() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (key(), 0..4u8, lease()).prop_map(|(key, value, lease)| Step::Put { key, value: Some(value), lease }),
        1 => key().prop_map(|key| Step::Put { key, value: None, lease: 0 }),
    ]
}

fn range() -> impl Strategy<Value = Step> {
    (keys_alone(), prop::option::weighted(0.3, 0..30u64)).prop_map(|(keys, at)| Step::Range(keys, at))
}

fn shown() -> impl Strategy<Value = Step> {
    (keys_alone(), 0..4i64, any::<bool>(), 0..5u8, any::<bool>(), 0..12i64).prop_map(
        |(keys, limit, keys_only, target, descending, min_mod)| Step::Shown {
            keys,
            limit,
            keys_only,
            target,
            descending,
            min_mod,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => put(), 2 => keys().prop_map(Step::Delete), 2 => range()]
}

fn condition() -> impl Strategy<Value = If> {
    (keys(), 0..5u8, 0..12u64, 0..4u8).prop_map(|(keys, target, value, relation)| If { keys, target, value, relation })
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        8 => put().prop_map(Request::One),
        3 => keys_alone().prop_map(|keys| Request::One(Step::Delete(keys))),
        3 => range().prop_map(Request::One),
        3 => shown().prop_map(Request::One),
        8 => (vec(condition(), 0..3), vec(step(), 0..4), vec(step(), 0..4)).prop_map(|(a, b, c)| Request::Txn(a, b, c)),
        1 => (0..30u64).prop_map(Request::Compact),
        3 => (1..4u64).prop_map(Request::Grant),
        2 => (1..4u64).prop_map(Request::Revoke),
        1 => (1..4u64).prop_map(Request::KeepAlive),
        1 => (1..4u64).prop_map(Request::TimeToLive),
    ]
}

pub fn requests() -> impl Strategy<Value = Vec<Request>> {
    vec(request(), 1..40)
}

/// A key as told: revisions are relative.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kv {
    key: String,
    value: Vec<u8>,
    created: u64,
    changed: u64,
    version: u64,
    lease: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Range(Vec<Kv>, bool, u64),
    Put(Option<Kv>),
    Deleted(Vec<Kv>),
    Txn(bool, Vec<Told>),
    Granted(u64),
    Kept(u64),
    Lease(u64, Vec<String>),
    NoLease,
    Done,
    Refused(String),
    /// Core has no opinion.
    Unasked,
}

/// A change as a watcher was told: revision, key or deleted key, what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: u64,
    pub now: Result<Kv, String>,
    pub before: Option<Kv>,
}

/// What a store tells of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub told: Told,
    pub revision: u64,
}

/// Core's state machine, with the revision at which the case began.
pub struct Machine {
    pub store: Store,
    pub base: u64,
}

const NOW: Time = Time(0);

impl Machine {
    /// Deletes everything; what follows is relative to this.
    pub fn begin(&mut self) {
        for lease in self.store.leases().collect::<Vec<_>>() {
            self.store.revoke(NOW, lease).expect("it is there");
        }
        self.run(vec![], vec![Operation::Delete(Keys::All.span())], vec![]).expect("possible");
        self.base = self.store.revision();
    }

    fn run(
        &mut self,
        conditions: Vec<Condition>,
        success: Vec<Operation>,
        failure: Vec<Operation>,
    ) -> Result<(bool, Vec<Outcome>), String> {
        let done = self.store.transact(NOW, Transaction { conditions, success, failure });
        done.map(|done| (done.succeeded, done.outcomes)).map_err(|refused| refused.to_string())
    }

    fn kv(&self, kv: &KeyValue) -> Kv {
        Kv {
            key: kv.key.clone(),
            value: kv.value.clone(),
            created: kv.create_revision - self.base,
            changed: kv.mod_revision - self.base,
            version: kv.version,
            lease: kv.lease,
        }
    }

    fn told(&self, outcome: &Outcome) -> Told {
        match outcome {
            Outcome::Range(kvs) => Told::Range(kvs.iter().map(|kv| self.kv(kv)).collect(), false, kvs.len() as u64),
            Outcome::Put(previous) => Told::Put(previous.as_ref().map(|kv| self.kv(kv))),
            Outcome::Deleted(kvs) => Told::Deleted(kvs.iter().map(|kv| self.kv(kv)).collect()),
        }
    }

    fn operation(&self, step: &Step) -> Option<Operation> {
        Some(match step {
            Step::Range(keys, at) => {
                Operation::Range { keys: keys.span(), revision: at.map_or(0, |at| self.base + at) }
            }
            Step::Put { key, value, lease } => {
                Operation::Put { key: KEYS[*key].into(), value: value.map(|value| vec![value]), lease: Some(*lease) }
            }
            Step::Delete(keys) => Operation::Delete(keys.span()),
            Step::Shown { .. } => return None,
        })
    }

    fn condition(&self, condition: &If) -> Condition {
        let value = condition.value;
        let target = match condition.target {
            0 => Target::Version(value),
            1 => Target::CreateRevision(self.base + value),
            2 => Target::ModRevision(self.base + value),
            3 => Target::Value(vec![u8::try_from(value).expect("small")]),
            _ => Target::Lease(value),
        };
        let relations = [Relation::Equal, Relation::Greater, Relation::Less, Relation::NotEqual];
        Condition { keys: condition.keys.span(), target, relation: relations[usize::from(condition.relation)] }
    }

    pub fn answer(&mut self, request: &Request) -> Answer {
        let told = self.tell(request).unwrap_or_else(Told::Refused);
        self.store.check();
        Answer { told, revision: self.store.revision() - self.base }
    }

    fn tell(&mut self, request: &Request) -> Result<Told, String> {
        let text = |refused: ashlar_core::meta::Refused| refused.to_string();
        match request {
            Request::One(step) => {
                let Some(operation) = self.operation(step) else { return Ok(Told::Unasked) };
                let (_, outcomes) = self.run(vec![], vec![operation], vec![])?;
                Ok(self.told(&outcomes[0]))
            }
            Request::Txn(conditions, success, failure) => {
                let conditions = conditions.iter().map(|condition| self.condition(condition)).collect();
                let operations = |steps: &[Step]| steps.iter().filter_map(|step| self.operation(step)).collect();
                let (success, failure) = (operations(success), operations(failure));
                let (succeeded, outcomes) = self.run(conditions, success, failure)?;
                Ok(Told::Txn(succeeded, outcomes.iter().map(|outcome| self.told(outcome)).collect()))
            }
            Request::Compact(at) => self.store.compact(self.base + at).map(|()| Told::Done).map_err(text),
            Request::Grant(lease) => {
                let granted = self.store.grant(NOW, *lease, TTL.unsigned_abs());
                granted.map(|(_, ttl)| Told::Granted(ttl)).map_err(text)
            }
            Request::Revoke(lease) => self.store.revoke(NOW, *lease).map(|()| Told::Done).map_err(text),
            Request::KeepAlive(lease) => Ok(Told::Kept(self.store.keep_alive(NOW, *lease).unwrap_or(0))),
            Request::TimeToLive(lease) => Ok(match self.store.lease(NOW, *lease) {
                Some(status) => Told::Lease(status.granted_s, status.keys.iter().map(|key| key.to_string()).collect()),
                None => Told::NoLease,
            }),
        }
    }

    /// Changes from a revision of the case on, or the revision before which there is nothing.
    pub fn seen(&self, from: u64) -> Result<Vec<Seen>, u64> {
        let changes = Watcher::new(Keys::All.span(), self.base + from).take(&self.store, usize::MAX);
        let relative = |compacted: Compacted| compacted.revision - self.base;
        Ok(changes.map_err(relative)?.into_iter().map(|change| self.see(change)).collect())
    }

    fn see(&self, change: &Change) -> Seen {
        Seen {
            revision: change.revision - self.base,
            now: match &change.kind {
                ChangeKind::Put(kv) => Ok(self.kv(kv)),
                ChangeKind::Delete(key) => Err(key.to_string()),
            },
            before: change.previous.as_ref().map(|kv| self.kv(kv)),
        }
    }
}

/// A server, with the revision at which the case began.
pub struct Remote {
    pub client: etcd::Client,
    pub base: i64,
}

type Asked<T> = Result<T, etcd::Error>;

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).expect("not negative")
}

/// What a refusal says.
pub fn refusal(error: &etcd::Error) -> String {
    match error {
        etcd::Error::GRpcStatus(status) => status.message().to_string(),
        other => panic!("{other}"),
    }
}

impl Remote {
    pub async fn begin(&mut self) -> Asked<()> {
        for lease in self.client.leases().await?.leases() {
            self.client.lease_revoke(lease.id()).await?;
        }
        let (key, end) = Keys::All.bounds();
        let done = self.client.delete(key, Some(etcd::DeleteOptions::new().with_range(end))).await?;
        self.base = done.header().expect("a header").revision();
        Ok(())
    }

    fn revision(&self, header: Option<&etcd::ResponseHeader>) -> u64 {
        unsigned(header.expect("a header").revision() - self.base)
    }

    fn kv(&self, kv: &etcd::KeyValue) -> Kv {
        Kv {
            key: kv.key_str().expect("text").into(),
            value: kv.value().into(),
            created: unsigned(kv.create_revision() - self.base),
            changed: unsigned(kv.mod_revision() - self.base),
            version: unsigned(kv.version()),
            lease: unsigned(kv.lease()),
        }
    }

    fn range(&self, response: &etcd::GetResponse) -> Told {
        let kvs = response.kvs().iter().map(|kv| self.kv(kv)).collect();
        Told::Range(kvs, response.more(), unsigned(response.count()))
    }

    fn txn_op(&self, step: &Step) -> etcd::TxnOp {
        match step {
            Step::Range(keys, _) | Step::Shown { keys, .. } => {
                etcd::TxnOp::get(keys.bounds().0, Some(self.get_options(step, keys)))
            }
            Step::Put { key, value, lease } => {
                etcd::TxnOp::put(KEYS[*key], value.as_slice(), Some(put_options(*value, *lease)))
            }
            Step::Delete(keys) => {
                let (key, end) = keys.bounds();
                etcd::TxnOp::delete(key, Some(etcd::DeleteOptions::new().with_range(end).with_prev_key()))
            }
        }
    }

    fn get_options(&self, step: &Step, keys: &Keys) -> etcd::GetOptions {
        let options = etcd::GetOptions::new().with_range(keys.bounds().1);
        match *step {
            Step::Range(_, Some(at)) => options.with_revision(self.base + i64::try_from(at).expect("small")),
            Step::Shown { limit, keys_only, target, descending, min_mod, .. } => {
                use etcd::SortTarget::{Create, Key, Mod, Value, Version};
                let target = [Key, Version, Create, Mod, Value][usize::from(target)];
                let order = if descending { etcd::SortOrder::Descend } else { etcd::SortOrder::Ascend };
                let min_mod = if min_mod == 0 { 0 } else { self.base + min_mod };
                let options = options.with_limit(limit).with_sort(target, order).with_min_mod_revision(min_mod);
                if keys_only { options.with_keys_only() } else { options }
            }
            _ => options,
        }
    }

    fn compare(&self, condition: &If) -> etcd::Compare {
        use etcd::CompareOp::{Equal, Greater, Less, NotEqual};
        let (key, end) = condition.keys.bounds();
        let relation = [Equal, Greater, Less, NotEqual][usize::from(condition.relation)];
        let value = i64::try_from(condition.value).expect("small");
        let compare = match condition.target {
            0 => etcd::Compare::version(key, relation, value),
            1 => etcd::Compare::create_revision(key, relation, self.base + value),
            2 => etcd::Compare::mod_revision(key, relation, self.base + value),
            3 => etcd::Compare::value(key, relation, vec![u8::try_from(value).expect("small")]),
            _ => etcd::Compare::lease(key, relation, value),
        };
        compare.with_range(end)
    }

    fn told(&self, response: &etcd::TxnOpResponse) -> Told {
        match response {
            etcd::TxnOpResponse::Get(response) => self.range(response),
            etcd::TxnOpResponse::Put(response) => Told::Put(response.prev_key().map(|kv| self.kv(kv))),
            etcd::TxnOpResponse::Delete(response) => {
                assert_eq!(unsigned(response.deleted()), response.prev_kvs().len() as u64);
                Told::Deleted(response.prev_kvs().iter().map(|kv| self.kv(kv)).collect())
            }
            etcd::TxnOpResponse::Txn(_) => panic!("nobody asked for it"),
        }
    }

    pub async fn answer(&mut self, request: &Request) -> Answer {
        match self.tell(request).await {
            Ok((told, Some(revision))) => Answer { told, revision },
            Ok((told, None)) => Answer { told, revision: self.now().await },
            Err(error) => Answer { told: Told::Refused(refusal(&error)), revision: self.now().await },
        }
    }

    async fn now(&mut self) -> u64 {
        let response = self.client.get("/none", None).await.expect("a read");
        self.revision(response.header())
    }

    async fn tell(&mut self, request: &Request) -> Asked<(Told, Option<u64>)> {
        match request {
            Request::One(step) => self.tell_one(step).await,
            Request::Txn(conditions, success, failure) => {
                let txn = etcd::Txn::new()
                    .when(conditions.iter().map(|condition| self.compare(condition)).collect::<Vec<_>>())
                    .and_then(success.iter().map(|step| self.txn_op(step)).collect::<Vec<_>>())
                    .or_else(failure.iter().map(|step| self.txn_op(step)).collect::<Vec<_>>());
                let done = self.client.txn(txn).await?;
                let told = done.op_responses().iter().map(|response| self.told(response)).collect();
                Ok((Told::Txn(done.succeeded(), told), Some(self.revision(done.header()))))
            }
            Request::Compact(at) => {
                let done = self.client.compact(self.base + i64::try_from(*at).expect("small"), None).await?;
                Ok((Told::Done, Some(self.revision(done.header()))))
            }
            Request::Grant(lease) => {
                let options = etcd::LeaseGrantOptions::new().with_id(i64::try_from(*lease).expect("small"));
                let done = self.client.lease_grant(TTL, Some(options)).await?;
                Ok((Told::Granted(unsigned(done.ttl())), None))
            }
            Request::Revoke(lease) => {
                let done = self.client.lease_revoke(i64::try_from(*lease).expect("small")).await?;
                Ok((Told::Done, Some(self.revision(done.header()))))
            }
            Request::KeepAlive(lease) => Ok((self.keep_alive(i64::try_from(*lease).expect("small")).await?, None)),
            Request::TimeToLive(lease) => {
                let options = etcd::LeaseTimeToLiveOptions::new().with_keys();
                let done = self.client.lease_time_to_live(i64::try_from(*lease).expect("small"), Some(options)).await?;
                let mut keys: Vec<String> =
                    done.keys().iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
                keys.sort();
                let told = if done.ttl() < 0 { Told::NoLease } else { Told::Lease(unsigned(done.granted_ttl()), keys) };
                Ok((told, None))
            }
        }
    }

    /// One operation by its own request, not as a transaction.
    async fn tell_one(&mut self, step: &Step) -> Asked<(Told, Option<u64>)> {
        match step {
            Step::Range(keys, _) | Step::Shown { keys, .. } => {
                let options = self.get_options(step, keys);
                let done = self.client.get(keys.bounds().0, Some(options)).await?;
                Ok((self.range(&done), Some(self.revision(done.header()))))
            }
            Step::Put { key, value, lease } => {
                let done = self.client.put(KEYS[*key], value.as_slice(), Some(put_options(*value, *lease))).await?;
                Ok((Told::Put(done.prev_key().map(|kv| self.kv(kv))), Some(self.revision(done.header()))))
            }
            Step::Delete(keys) => {
                let (key, end) = keys.bounds();
                let options = etcd::DeleteOptions::new().with_range(end).with_prev_key();
                let done = self.client.delete(key, Some(options)).await?;
                let told = Told::Deleted(done.prev_kvs().iter().map(|kv| self.kv(kv)).collect());
                Ok((told, Some(self.revision(done.header()))))
            }
        }
    }

    async fn keep_alive(&mut self, lease: i64) -> Asked<Told> {
        match self.client.lease_keep_alive(lease).await {
            Ok((mut keeper, mut stream)) => {
                keeper.keep_alive().await?;
                Ok(Told::Kept(unsigned(stream.message().await?.expect("an answer").ttl())))
            }
            Err(etcd::Error::LeaseKeepAliveError(_)) => Ok(Told::Kept(0)),
            Err(error) => Err(error),
        }
    }

    /// Watches all keys from a revision of the case on.
    pub async fn watch(&mut self, from: u64) -> etcd::WatchStream {
        let (key, end) = Keys::All.bounds();
        let from = self.base + i64::try_from(from).expect("small");
        let options = etcd::WatchOptions::new().with_range(end).with_start_revision(from).with_prev_key();
        self.client.watch(key, Some(options)).await.expect("a watch")
    }

    /// What the watch tells next: events up to a revision of the case, or the revision before which there is nothing.
    pub async fn see(&self, stream: &mut etcd::WatchStream, up_to: u64) -> Result<Vec<Seen>, u64> {
        let mut seen: Vec<Seen> = Vec::new();
        while seen.last().is_none_or(|last| last.revision < up_to) {
            let message = tokio::time::timeout(crate::support::PATIENCE, stream.message()).await;
            let message = message.expect("an event in time").expect("no error").expect("a message");
            if message.canceled() {
                return Err(unsigned(message.compact_revision() - self.base));
            }
            seen.extend(message.events().iter().map(|event| self.seen(event)));
        }
        Ok(seen)
    }

    fn seen(&self, event: &etcd::Event) -> Seen {
        let kv = event.kv().expect("a key");
        Seen {
            revision: unsigned(kv.mod_revision() - self.base),
            now: match event.event_type() {
                etcd::EventType::Put => Ok(self.kv(kv)),
                etcd::EventType::Delete => Err(kv.key_str().expect("text").into()),
            },
            before: event.prev_kv().map(|kv| self.kv(kv)),
        }
    }
}

fn put_options(value: Option<u8>, lease: u64) -> etcd::PutOptions {
    let options = etcd::PutOptions::new().with_prev_key().with_lease(i64::try_from(lease).expect("small"));
    if value.is_none() { options.with_ignore_value() } else { options }
}
