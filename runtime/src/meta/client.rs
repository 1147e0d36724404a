//! Requests to the metadata store, over etcd's API: to one member after another, each with a deadline.
//!
//! Owns which member is asked, and what a failure means: *refused* and *unavailable* say that nothing was done, *unknown*
//! that it may have been done, or may be yet. Whatever is not certain is unknown.

use super::convert;
use super::endpoints::{Endpoints, User, deepest};
use ashlar_core::io::MetaError;
use ashlar_core::map::keys;
use ashlar_core::meta::{KeyValue, Keys, Request, Response, Txn, TxnResult};
use etcd_client::{
    ConnectOptions, GetOptions, GetResponse, LeaseKeepAliveStream, LeaseKeeper, ResponseHeader, WatchOptions,
    WatchStream,
};
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status};

/// From the request to its answer, all members included. etcd's own limit for a request is about as long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A renewal that takes longer is better sent again, to another member: sessions live for some seconds only.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that owes an answer for so long is asked whether it is there, by a read that needs no other member. Beside a
/// time-out of peers' heartbeats of a second, a member that died with its host costs little then.
const SILENCE: Duration = Duration::from_millis(200);
/// And is left if it does not answer that either.
const PROBE_LIMIT: Duration = Duration::from_millis(300);
/// What was sent before the members chose another leader went to the old one, and is lost if it is not answered so soon after.
const LATE_ANSWER: Duration = Duration::from_millis(100);
/// To open a watch; a member that is alive answers at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// What a member says to a token from before a change of users or roles; nothing was done.
const OLD_AUTH_REVISION: &str = "etcdserver: revision of auth store is old";
/// How a reason begins that is the connection's and not the member's.
const BROKE: &str = "the connection broke: ";

/// Why a request has no response, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// See [`MetaError::Unknown`].
    #[error("the metadata store did not answer ({0}); the request may have been carried out")]
    Unknown(String),
    /// See [`MetaError::Unavailable`].
    #[error("the metadata store cannot be reached: {0}")]
    Unavailable(String),
    /// See [`MetaError::Refused`].
    #[error("the metadata store refused the request: {0}")]
    Refused(String),
}

impl From<RequestError> for MetaError {
    fn from(error: RequestError) -> MetaError {
        match error {
            RequestError::Unknown(_) => MetaError::Unknown,
            RequestError::Unavailable(_) => MetaError::Unavailable,
            RequestError::Refused(reason) => MetaError::Refused(reason),
        }
    }
}

struct Member {
    address: String,
    client: etcd_client::Client,
    /// Whether the client has a token. One that the member knows no more is renewed by the client.
    is_logged_in: AtomicBool,
    has_answered: AtomicBool,
    /// It did not even answer a probe, and nobody has needed it since.
    is_silent: AtomicBool,
}

impl Member {
    /// Asks for a key that need not exist: any answer will do. `None`: there was none; else the term of its leader, if it
    /// says so.
    async fn probe(&self) -> Option<u64> {
        let mut kv = self.client.kv_client();
        let options = GetOptions::new().with_serializable().with_keys_only();
        let answer = tokio::time::timeout(PROBE_LIMIT, kv.get(keys::leader(), Some(options))).await.ok()?;
        Some(answer.ok().as_ref().and_then(GetResponse::header).map_or(0, ResponseHeader::raft_term))
    }

    /// A failure of this member, for people. A connection that breaks before anything was answered is one of which the
    /// other side wants another kind; whether its last words reach us is chance.
    fn explain(&self, reason: &str) -> String {
        let wants = match self.address.starts_with("https:") {
            _ if self.has_answered.load(Ordering::Relaxed) || !reason.starts_with(BROKE) => "",
            true => " (if it asks for a certificate of ours: --meta-cert FILE --meta-key FILE)",
            false => " (if it has a certificate: https://, and --meta-ca FILE)",
        };
        format!("{}: {reason}{wants}", self.address)
    }
}

/// Why a request is not waited for any longer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GivenUp {
    /// Its member does not even answer a probe.
    Silent,
    /// The members have another leader than when it was sent, which may never have heard of it. Its member is alive.
    LeaderChanged,
}

/// An open renewal stream of one lease, to the member at this place.
struct Renewal {
    place: usize,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// A client of the metadata store, for administration and as the base of [`super::Driver`].
pub struct Client {
    members: Vec<Member>,
    user: Option<User>,
    /// Which member is asked first: the one that answered last.
    preferred: AtomicUsize,
    /// The term of the members' leader, as far as it was told.
    term: AtomicU64,
    /// Counts how often the preferred member changed, for watches.
    moves: watch::Sender<u64>,
    renewals: Mutex<BTreeMap<u64, Renewal>>,
}

impl Client {
    /// A client; it connects when it is first used, and again whenever it must. Needs a tokio runtime.
    pub async fn open(endpoints: &Endpoints) -> Client {
        Client::open_over(endpoints, Endpoint::connect_lazy).await
    }

    /// A client whose connections are made in another way.
    pub(super) async fn open_over(endpoints: &Endpoints, connect: impl Fn(&Endpoint) -> Channel) -> Client {
        let mut members = Vec::new();
        for endpoint in endpoints.members() {
            // A member without a leader then says so instead of letting watches starve.
            let options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
            let channel = etcd_client::Channel::Tonic(connect(endpoint));
            let client = etcd_client::Client::from_channel(channel, Some(options)).await;
            let client = client.expect("only a log-in can fail, and that comes later");
            let address = endpoint.uri().to_string();
            members.push(Member {
                address,
                client,
                is_logged_in: AtomicBool::new(false),
                has_answered: AtomicBool::new(false),
                is_silent: AtomicBool::new(false),
            });
        }
        let user = endpoints.user().cloned();
        Client {
            members,
            user,
            preferred: AtomicUsize::new(0),
            term: AtomicU64::new(0),
            moves: watch::Sender::new(0),
            renewals: Mutex::default(),
        }
    }

    /// Logs in at a member, if there is a user and it was not done before.
    async fn log_in(&self, member: &Member) -> Result<(), RequestError> {
        let Some(user) = self.user.as_ref().filter(|_| !member.is_logged_in.load(Ordering::Relaxed)) else {
            return Ok(());
        };
        let outcome = member.client.clone().update_user(Some(user.credentials())).await.map_err(meaning);
        member.is_logged_in.store(outcome.is_ok(), Ordering::Relaxed);
        match outcome {
            // The request itself was not sent.
            Err(RequestError::Unknown(reason)) => Err(RequestError::Unavailable(reason)),
            outcome => outcome,
        }
    }

    /// Every member has to give a new token before it is used again.
    pub(super) fn log_out(&self) {
        self.members.iter().for_each(|member| member.is_logged_in.store(false, Ordering::Relaxed));
    }

    /// One request, one response.
    pub async fn request(&self, request: Request) -> Result<Response, RequestError> {
        let limit = match request {
            Request::LeaseKeepAlive { .. } => KEEP_ALIVE_TIMEOUT,
            _ => REQUEST_TIMEOUT,
        };
        let changes = !matches!(request, Request::Range(_));
        let asked = AtomicUsize::new(0);
        let outcome = match tokio::time::timeout(limit, self.try_members(&request, &asked)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Not the one that is preferred by now: others may have left this one, for one that answers.
                self.prefer_next(asked.into_inner());
                Err(RequestError::Unknown(format!("no answer within {} s", limit.as_secs())))
            }
        };
        match outcome {
            // What changes nothing has certainly not been carried out.
            Err(RequestError::Unknown(reason)) if !changes => Err(RequestError::Unavailable(reason)),
            outcome => outcome,
        }
    }

    /// Asks members until one has got the request; `asked` is the place of the last.
    async fn try_members(&self, request: &Request, asked: &AtomicUsize) -> Result<Response, RequestError> {
        let mut failures = Vec::new();
        for _ in 0..self.members.len() {
            let place = self.preferred.load(Ordering::Relaxed) % self.members.len();
            asked.store(place, Ordering::Relaxed);
            let member = &self.members[place];
            let (answer, stays) = tokio::select! {
                answer = self.ask(place, request) => (answer, false),
                why = self.gives_up(place) => (Err(Client::given_up(request, why)), why == GivenUp::LeaderChanged),
            };
            if !stays && matches!(answer, Err(RequestError::Unavailable(_) | RequestError::Unknown(_))) {
                self.prefer_next(place);
            }
            match answer {
                Err(RequestError::Unavailable(reason)) => failures.push(member.explain(&reason)),
                Err(RequestError::Unknown(reason)) => return Err(RequestError::Unknown(member.explain(&reason))),
                outcome => {
                    member.has_answered.store(true, Ordering::Relaxed);
                    return outcome;
                }
            }
        }
        Err(RequestError::Unavailable(failures.join("; ")))
    }

    /// Ends when there is no use in waiting for an answer of a member any longer. One that is alive may take longer over a
    /// request, if the store is busy.
    async fn gives_up(&self, place: usize) -> GivenUp {
        let mut known = self.term.load(Ordering::Relaxed);
        loop {
            let Some(term) = self.answers(place).await else { return GivenUp::Silent };
            self.term.fetch_max(term, Ordering::Relaxed);
            known = if known == 0 { term } else { known };
            if term > known {
                tokio::time::sleep(LATE_ANSWER).await;
                return GivenUp::LeaderChanged;
            }
        }
    }

    /// After a while, whether a member answers a probe: the term of its leader, 0 if it does not say. A store of one member has
    /// no other that could be asked, so that one is not probed.
    async fn answers(&self, place: usize) -> Option<u64> {
        let member = &self.members[place];
        tokio::time::sleep(SILENCE).await;
        if self.members.len() == 1 {
            return Some(0);
        }
        let term = member.probe().await;
        if term.is_none() {
            tracing::debug!("{} is silent: leaving it", member.address);
            member.is_silent.store(true, Ordering::Relaxed);
        }
        term
    }

    /// What it means that nobody waits any longer: a renewal, or what changes nothing, may be sent again.
    fn given_up(request: &Request, why: GivenUp) -> RequestError {
        let reason = match why {
            GivenUp::Silent => "it is silent".to_string(),
            GivenUp::LeaderChanged => "its leader changed meanwhile".to_string(),
        };
        match request {
            Request::Range(_) | Request::LeaseKeepAlive { .. } => RequestError::Unavailable(reason),
            _ => RequestError::Unknown(reason),
        }
    }

    /// Leaves a member, unless somebody did already: for the next one that is not known to be silent. (In an election, members
    /// send everybody on; whoever comes to a dead one then would miss what happens next.)
    fn prefer_next(&self, place: usize) {
        let count = self.members.len();
        let mut others = (1..count).map(|step| (place + step) % count);
        let next = others.find(|other| !self.members[*other].is_silent.load(Ordering::Relaxed));
        let next = next.unwrap_or_else(|| {
            self.members.iter().for_each(|member| member.is_silent.store(false, Ordering::Relaxed));
            (place + 1) % count
        });
        let left = self.preferred.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if left && next != place {
            self.moves.send_modify(|moves| *moves += 1);
        }
    }

    /// Tells when another member is preferred from now on.
    pub(super) fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    async fn ask(&self, place: usize, request: &Request) -> Result<Response, RequestError> {
        self.log_in(&self.members[place]).await?;
        match self.ask_logged_in(place, request).await {
            Err(RequestError::Refused(reason)) if reason == OLD_AUTH_REVISION => {
                self.log_out();
                Err(RequestError::Unavailable(reason))
            }
            outcome => outcome,
        }
    }

    async fn ask_logged_in(&self, place: usize, request: &Request) -> Result<Response, RequestError> {
        let member = &self.members[place];
        let mut kv = member.client.kv_client().max_decoding_message_size(usize::MAX);
        let mut lease_client = member.client.lease_client();
        match request {
            Request::Range(keys) => {
                let (key, options) = convert::get(keys);
                let answer = kv.get(key, Some(options)).await.map_err(meaning)?;
                self.learn_term(answer.header());
                convert::range_response(answer)
            }
            Request::Txn(txn) => {
                let answer = kv.txn(convert::txn(txn)).await.map_err(meaning)?;
                self.learn_term(answer.header());
                convert::txn_response(&answer)
            }
            Request::LeaseGrant { ttl } => {
                let granted = lease_client.grant(convert::signed(*ttl), None).await.map_err(meaning)?;
                Ok(Response::LeaseGranted {
                    lease: convert::unsigned(granted.id()),
                    ttl: convert::unsigned(granted.ttl()),
                })
            }
            Request::LeaseRevoke { lease } => {
                drop(self.take_renewal(*lease));
                lease_client.revoke(convert::signed(*lease)).await.map_err(meaning)?;
                Ok(Response::LeaseRevoked)
            }
            Request::LeaseKeepAlive { lease } => self.keep_alive(place, *lease).await,
        }
    }

    fn learn_term(&self, header: Option<&ResponseHeader>) {
        self.term.fetch_max(header.map_or(0, ResponseHeader::raft_term), Ordering::Relaxed);
    }

    /// Renews a lease on its open stream; if that has broken meanwhile, is another member's, or there is none, on a new one.
    async fn keep_alive(&self, place: usize, lease: u64) -> Result<Response, RequestError> {
        if let Some(mut renewal) = self.take_renewal(lease).filter(|renewal| renewal.place == place)
            && let Ok(ttl) = renew(&mut renewal).await
        {
            return Ok(self.kept(lease, ttl, renewal));
        }
        let mut renewal = match self.members[place].client.lease_client().keep_alive(convert::signed(lease)).await {
            Ok((keeper, answers)) => Renewal { place, keeper, answers },
            Err(etcd_client::Error::LeaseKeepAliveError(_)) => return Ok(Response::LeaseKept { lease, ttl: 0 }),
            Err(error) => return Err(meaning(error)),
        };
        let ttl = renew(&mut renewal).await?;
        Ok(self.kept(lease, ttl, renewal))
    }

    fn take_renewal(&self, lease: u64) -> Option<Renewal> {
        self.renewals.lock().expect("nobody panics with the lock").remove(&lease)
    }

    fn kept(&self, lease: u64, ttl: u64, renewal: Renewal) -> Response {
        if ttl > 0 {
            self.renewals.lock().expect("nobody panics with the lock").insert(lease, renewal);
        }
        Response::LeaseKept { lease, ttl }
    }

    /// Opens a watch of all keys that begin with `prefix`, from a revision on, on the preferred member.
    pub(super) async fn watch(&self, prefix: &str, from: u64) -> Result<WatchStream, RequestError> {
        let place = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let options = WatchOptions::new().with_start_revision(convert::signed(from));
        let options = if prefix.is_empty() { options.with_all_keys() } else { options.with_prefix() };
        let member = &self.members[place];
        let mut client = member.client.watch_client().max_decoding_message_size(usize::MAX);
        let open = async {
            self.log_in(member).await?;
            client.watch(prefix, Some(options)).await.map_err(meaning)
        };
        let silence = async { while self.answers(place).await.is_some() {} };
        let opened = tokio::select! {
            opened = open => opened,
            () = silence => Err(RequestError::Unknown("it is silent".into())),
            () = tokio::time::sleep(OPEN_TIMEOUT) => {
                Err(RequestError::Unknown(format!("no answer within {} s", OPEN_TIMEOUT.as_secs())))
            }
        };
        if opened.is_err() {
            self.prefer_next(place);
        }
        opened
    }

    /// All keys that begin with `prefix`, with the revision at which they were read.
    pub async fn get_prefix(&self, prefix: &str) -> Result<(u64, Vec<KeyValue>), RequestError> {
        match self.request(Request::Range(Keys::Prefix(prefix.into()))).await? {
            Response::Range { revision, kvs } => Ok((revision, kvs)),
            other => panic!("{other:?} answers a range"),
        }
    }

    /// One key.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, RequestError> {
        match self.request(Request::Range(Keys::One(key.into()))).await? {
            Response::Range { kvs, .. } => Ok(kvs.into_iter().next()),
            other => panic!("{other:?} answers a range"),
        }
    }

    /// A transaction: whether its compares held, and the results of what was done.
    pub async fn txn(&self, txn: Txn) -> Result<(bool, Vec<TxnResult>), RequestError> {
        match self.request(Request::Txn(txn)).await? {
            Response::Txn { succeeded, results, .. } => Ok((succeeded, results)),
            other => panic!("{other:?} answers a transaction"),
        }
    }
}

/// One renewal: the seconds to live, 0 if the lease is gone.
async fn renew(renewal: &mut Renewal) -> Result<u64, RequestError> {
    renewal.keeper.keep_alive().await.map_err(meaning)?;
    let kept = renewal.answers.message().await.map_err(meaning)?;
    let kept = kept.ok_or_else(|| RequestError::Unknown("the renewal stream ended".into()))?;
    Ok(convert::unsigned(kept.ttl()))
}

/// What a failure says about the request.
fn meaning(error: etcd_client::Error) -> RequestError {
    match error {
        etcd_client::Error::GRpcStatus(status) => meaning_of_status(&status),
        other => RequestError::Unknown(other.to_string()),
    }
}

fn meaning_of_status(status: &Status) -> RequestError {
    if let Some(reason) = never_connected(status) {
        return RequestError::Unavailable(reason);
    }
    let message = status.message().to_string();
    match status.code() {
        // The member checks this before it looks at the request.
        Code::Unavailable if message == "etcdserver: no leader" => RequestError::Unavailable(message),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented => RequestError::Refused(message),
        Code::Ok
        | Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => RequestError::Unknown(match status.source() {
            // Not the member's words but the connection's, of which "transport error" is the outermost.
            Some(reason) => format!("{BROKE}{}", deepest(reason)),
            None => format!("{}: {message}", status.code()),
        }),
    }
}

/// The reason why there was no connection to send the request on, if so.
fn never_connected(status: &Status) -> Option<String> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(ConnectError(reason)) = error.downcast_ref::<ConnectError>() {
            return Some(advised(deepest(&**reason)));
        }
        source = error.source();
    }
    None
}

/// What somebody should do about mistakes that are made when certificates are set up, after what a connection says of them.
const ADVICE: [(&str, &str); 2] = [
    ("UnknownIssuer", "its certificate was signed by another authority than --meta-ca says"),
    ("InvalidContentType", "it does not speak TLS: is its address http://...?"),
];

fn advised(reason: String) -> String {
    let advice = ADVICE.iter().find(|(sign, _)| reason.contains(sign));
    advice.map_or(reason.clone(), |(_, advice)| format!("{reason} ({advice})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_that_are_silent_are_passed_over_until_all_are() {
        let client = Client::open(&Endpoints::parse("a:1,b:1,c:1").expect("three")).await;
        let next = |place| {
            client.preferred.store(place, Ordering::Relaxed);
            client.prefer_next(place);
            client.preferred.load(Ordering::Relaxed)
        };
        assert_eq!([next(0), next(1), next(2)], [1, 2, 0]);
        client.members[1].is_silent.store(true, Ordering::Relaxed);
        assert_eq!([next(0), next(1), next(2)], [2, 2, 0]);
        client.members[2].is_silent.store(true, Ordering::Relaxed);
        assert_eq!(next(0), 1, "nobody else is left: all get another chance");
        assert_eq!([next(0), next(1)], [1, 2]);
    }

    #[test]
    fn only_the_certain_is_certain() {
        let meaning = |code, message: &str| MetaError::from(meaning_of_status(&Status::new(code, message)));
        assert_eq!(meaning(Code::Unavailable, "connection reset"), MetaError::Unknown);
        assert_eq!(meaning(Code::Unavailable, "etcdserver: request timed out"), MetaError::Unknown);
        assert_eq!(meaning(Code::Unavailable, "etcdserver: no leader"), MetaError::Unavailable);
        assert_eq!(meaning(Code::Cancelled, "timeout"), MetaError::Unknown);
        assert_eq!(meaning(Code::NotFound, "no lease"), MetaError::Refused("no lease".into()));
    }
}
