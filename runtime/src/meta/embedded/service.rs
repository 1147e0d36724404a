//! The embedded store's gRPC service: requests with one answer, and the renewals of leases.

use super::api::{self, header, lease, proto, refusal, revision, signed};
use super::engine::{Engine, Stopped};
use super::watching::Watching;
use ashlar_core::meta::{Operation, Outcome, Transacted, Transaction};
use proto::cluster_server::{Cluster, ClusterServer};
use proto::kv_server::{Kv, KvServer};
use proto::lease_server::{Lease, LeaseServer};
use proto::maintenance_server::{Maintenance, MaintenanceServer};
use proto::watch_server::{Watch, WatchServer};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::Uri;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// A connection is probed so often, to free what belongs to clients that are gone.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Requests and watches of one connection. A monitor sends many transactions at once; beyond, clients wait.
const STREAMS: u32 = 4_096;
/// What clients are told of the API's version: that of the etcd whose API this is.
const API_VERSION: &str = "3.4.0";
/// Answers that may wait for a slow client before the store waits for it.
const ANSWERS: usize = 64;

/// Serves until `stop`, or until its sender is gone.
pub(super) fn serve(engine: Arc<Engine>, listener: TcpListener, stop: oneshot::Receiver<()>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(async {
        tokio::select! {
            served = listen(engine, listener) => served,
            _ = stop => Ok(()),
        }
    });
    // Open watches would wait for ever.
    runtime.shutdown_background();
    served
}

async fn listen(engine: Arc<Engine>, listener: TcpListener) -> Result<(), String> {
    listener.set_nonblocking(true).map_err(|error| error.to_string())?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let service = Service::new(engine);
    let mut routes = Routes::builder();
    routes
        .add_service(KvServer::from_arc(Arc::new(service.clone())))
        .add_service(WatchServer::new(service.clone()))
        .add_service(LeaseServer::new(service.clone()))
        .add_service(ClusterServer::new(service.clone()))
        .add_service(MaintenanceServer::new(service));
    let router = routes.routes().into_axum_router().fallback(async |uri: Uri| not_served(&uri));
    server()
        .add_routes(Routes::from(router))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
        .map_err(|error| error.to_string())
}

/// A server with nothing to serve yet.
pub(super) fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PROBE_INTERVAL))
        .http2_keepalive_timeout(Some(PROBE_INTERVAL))
        .max_concurrent_streams(Some(STREAMS))
}

fn not_served(uri: &Uri) -> tonic::codegen::http::Response<tonic::body::Body> {
    Status::unimplemented(format!("the embedded metadata store does not serve {}", uri.path())).into_http()
}

impl From<Stopped> for Status {
    fn from(_: Stopped) -> Status {
        Status::unavailable("the metadata store has stopped; the request may have been carried out")
    }
}

/// The services of one store.
#[derive(Clone)]
pub(super) struct Service {
    engine: Arc<Engine>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Service { engine }
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, Status> {
        self.engine.run(|store, now| store.transact(now, transaction)).await?.map_err(refusal)
    }

    /// A transaction of one operation.
    async fn operate(&self, operation: Operation) -> Result<(Outcome, u64), Status> {
        let transaction = Transaction { success: vec![operation], ..Transaction::default() };
        let mut done = self.transact(transaction).await?;
        Ok((done.outcomes.remove(0), done.revision))
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn range(&self, request: Request<proto::RangeRequest>) -> Answer<proto::RangeResponse> {
        let request = request.into_inner();
        let keys = api::span(request.key.clone(), request.range_end.clone())?;
        let at = revision(request.revision);
        let (kvs, now) = self.engine.run(move |store, _| (store.range(&keys, at), store.revision())).await?;
        Ok(Response::new(api::range(&request, kvs.map_err(refusal)?, now)))
    }

    async fn put(&self, request: Request<proto::PutRequest>) -> Answer<proto::PutResponse> {
        let request = request.into_inner();
        let show = request.prev_kv;
        match self.operate(api::put(request)?).await? {
            (Outcome::Put(previous), now) => Ok(Response::new(api::put_response(previous.as_ref(), show, now))),
            (other, _) => panic!("{other:?} of a put"),
        }
    }

    async fn delete_range(&self, request: Request<proto::DeleteRangeRequest>) -> Answer<proto::DeleteRangeResponse> {
        let request = request.into_inner();
        let show = request.prev_kv;
        match self.operate(Operation::Delete(api::span(request.key, request.range_end)?)).await? {
            (Outcome::Deleted(previous), now) => Ok(Response::new(api::delete_response(&previous, show, now))),
            (other, _) => panic!("{other:?} of a delete"),
        }
    }

    async fn txn(&self, request: Request<proto::TxnRequest>) -> Answer<proto::TxnResponse> {
        let (transaction, success, failure) = api::transaction(request.into_inner())?;
        let done = self.transact(transaction).await?;
        let show = if done.succeeded { success } else { failure };
        let outcomes = show.iter().zip(done.outcomes);
        let responses = outcomes.map(|(show, outcome)| api::response_op(show, outcome, done.revision)).collect();
        Ok(Response::new(proto::TxnResponse { header: header(done.revision), succeeded: done.succeeded, responses }))
    }

    async fn compact(&self, request: Request<proto::CompactionRequest>) -> Answer<proto::CompactionResponse> {
        let at = revision(request.into_inner().revision);
        let (done, now) = self.engine.run(move |store, _| (store.compact(at), store.revision())).await?;
        done.map_err(refusal)?;
        Ok(Response::new(proto::CompactionResponse { header: header(now) }))
    }
}

#[tonic::async_trait]
impl Lease for Service {
    async fn lease_grant(&self, request: Request<proto::LeaseGrantRequest>) -> Answer<proto::LeaseGrantResponse> {
        let request = request.into_inner();
        let (id, ttl) = (request.id, request.ttl);
        let granted = self.engine.run(move |store, time| {
            let granted = store.grant(time, lease(id), u64::try_from(ttl).unwrap_or(0));
            (granted, store.revision())
        });
        let (granted, now) = granted.await?;
        let (id, ttl) = granted.map_err(refusal)?;
        let (id, ttl) = (signed(id), signed(ttl));
        Ok(Response::new(proto::LeaseGrantResponse { header: header(now), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(&self, request: Request<proto::LeaseRevokeRequest>) -> Answer<proto::LeaseRevokeResponse> {
        let id = lease(request.into_inner().id);
        let (done, now) = self.engine.run(move |store, time| (store.revoke(time, id), store.revision())).await?;
        done.map_err(refusal)?;
        Ok(Response::new(proto::LeaseRevokeResponse { header: header(now) }))
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<proto::LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<proto::LeaseKeepAliveRequest>>,
    ) -> Answer<Self::LeaseKeepAliveStream> {
        let mut renewals = request.into_inner();
        let service = self.clone();
        let (answers, stream) = mpsc::channel(ANSWERS);
        tokio::spawn(async move {
            while let Ok(Some(renewal)) = renewals.message().await {
                let answer = service.renew(renewal.id).await;
                if answers.send(answer).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<proto::LeaseTimeToLiveRequest>,
    ) -> Answer<proto::LeaseTimeToLiveResponse> {
        let request = request.into_inner();
        let id = lease(request.id);
        let (status, now) = self.engine.run(move |store, time| (store.lease(time, id), store.revision())).await?;
        let mut response =
            proto::LeaseTimeToLiveResponse { header: header(now), id: request.id, ttl: -1, ..Default::default() };
        if let Some(status) = status {
            (response.ttl, response.granted_ttl) = (signed(status.left_s), signed(status.granted_s));
            if request.keys {
                response.keys = status.keys.iter().map(|key| key.as_bytes().to_vec()).collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<proto::LeaseLeasesRequest>) -> Answer<proto::LeaseLeasesResponse> {
        let leases = self.engine.run(|store, _| (store.leases().collect::<Vec<_>>(), store.revision()));
        let (leases, now) = leases.await?;
        let leases = leases.into_iter().map(|id| proto::LeaseStatus { id: signed(id) }).collect();
        Ok(Response::new(proto::LeaseLeasesResponse { header: header(now), leases }))
    }
}

impl Service {
    /// A lease that is gone has no time left.
    async fn renew(&self, id: i64) -> Result<proto::LeaseKeepAliveResponse, Status> {
        let renew = self.engine.run(move |store, time| (store.keep_alive(time, lease(id)), store.revision()));
        let (ttl, now) = renew.await?;
        Ok(proto::LeaseKeepAliveResponse { header: header(now), id, ttl: ttl.map_or(0, signed) })
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = ReceiverStream<Result<proto::WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<proto::WatchRequest>>) -> Answer<Self::WatchStream> {
        let (answers, stream) = mpsc::channel(ANSWERS);
        tokio::spawn(Watching::new(Arc::clone(&self.engine), answers).run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn member_list(&self, _: Request<proto::MemberListRequest>) -> Answer<proto::MemberListResponse> {
        let now = self.engine.run(|store, _| store.revision()).await?;
        let member = proto::Member { id: api::MEMBER_ID, name: "embedded".into(), ..Default::default() };
        Ok(Response::new(proto::MemberListResponse { header: header(now), members: vec![member] }))
    }
}

#[tonic::async_trait]
impl Maintenance for Service {
    /// There are no alarms: a store that cannot write stops.
    async fn alarm(&self, _: Request<proto::AlarmRequest>) -> Answer<proto::AlarmResponse> {
        let now = self.engine.run(|store, _| store.revision()).await?;
        Ok(Response::new(proto::AlarmResponse { header: header(now) }))
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Answer<proto::StatusResponse> {
        let now = self.engine.run(|store, _| store.revision()).await?;
        Ok(Response::new(proto::StatusResponse {
            header: header(now),
            version: API_VERSION.into(),
            leader: api::MEMBER_ID,
            raft_index: now,
            raft_term: 1,
            raft_applied_index: now,
            ..Default::default()
        }))
    }
}
