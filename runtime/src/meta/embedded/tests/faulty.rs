//! Mishaps between a member's connection and its service: requests that are carried out and not answered, answered and
//! carried out later, neither; errors of all kinds; streams that break or stand still.

use super::members::{Cluster, Shared, lock};
use ashlar_core::rng::Rng;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};

/// What happens to a request with one answer.
enum Fate {
    /// Carried out and answered, after a while.
    Served(Duration),
    /// Not answered; carried out after a while, or never.
    Mute(Option<Duration>),
    /// An error is the answer; it is carried out before that.
    FailedAfter(Status),
    /// An error is the answer; it is carried out after a while, or never.
    FailedBefore(Status, Option<Duration>),
}

/// What happens to a stream.
enum Course {
    Refused(Status),
    /// Stands still after a while, for so long; breaks after a while.
    Runs {
        still: (Duration, Duration),
        breaks: Option<Duration>,
    },
}

/// Longer than any client waits.
const FOR_EVER: Duration = Duration::from_secs(60);

/// Errors that say nothing about what became of a request.
fn vague(rng: &mut Rng) -> Status {
    let (code, message) = [
        (Code::Unavailable, "etcdserver: request timed out"),
        (Code::Unavailable, "etcdserver: leader changed"),
        (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost"),
        (Code::DeadlineExceeded, "context deadline exceeded"),
        (Code::Cancelled, "context canceled"),
        (Code::Unknown, "something else"),
        (Code::Internal, "stream terminated"),
        (Code::Unavailable, "etcdserver: server stopped"),
    ][below(rng, 8)];
    Status::new(code, message)
}

/// Errors that say that nothing was done.
fn clear(rng: &mut Rng) -> Status {
    let (code, message) = [
        (Code::Unavailable, "etcdserver: no leader"),
        (Code::ResourceExhausted, "etcdserver: too many requests"),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
    ][below(rng, 3)];
    Status::new(code, message)
}

fn below(rng: &mut Rng, bound: u64) -> usize {
    usize::try_from(rng.below(bound)).expect("small")
}

fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}

impl Shared {
    fn fate(&mut self) -> Fate {
        let (mishaps, rng) = (self.mishaps, &mut self.rng);
        if !rng.chance(mishaps, 1000) {
            return Fate::Served(Duration::ZERO);
        }
        match rng.below(8) {
            0 => Fate::Served(millis(rng, 100, 1500)),
            1 => Fate::Served(millis(rng, 1500, 9000)),
            2 => Fate::Mute(Some(millis(rng, 0, 300))),
            3 => Fate::Mute(Some(millis(rng, 4000, 9000))),
            4 => Fate::Mute(None),
            5 => Fate::FailedAfter(vague(rng)),
            6 => {
                let late = rng.chance(1, 2).then(|| millis(rng, 100, 4000));
                Fate::FailedBefore(vague(rng), late)
            }
            _ => Fate::FailedBefore(clear(rng), None),
        }
    }

    fn course(&mut self) -> Course {
        let (mishaps, rng) = (self.mishaps, &mut self.rng);
        if rng.chance(mishaps, 2000) {
            self.refused_streams += 1;
            return Course::Refused(if rng.chance(1, 2) { vague(rng) } else { clear(rng) });
        }
        let unlucky = rng.chance(mishaps, 1000);
        let still = if unlucky { (millis(rng, 0, 2000), millis(rng, 100, 5000)) } else { Default::default() };
        let breaks = (unlucky && rng.chance(1, 2)).then(|| millis(rng, 50, 4000));
        Course::Runs { still, breaks }
    }
}

/// A service with mishaps.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    cluster: Cluster,
}

impl<S> Faulty<S> {
    pub fn new(inner: S, cluster: &Cluster) -> Self {
        Faulty { inner, cluster: cluster.clone() }
    }
}

impl<S: NamedService> NamedService for Faulty<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Faulty<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let path = request.uri().path();
        if path.ends_with("/Watch") || path.ends_with("/LeaseKeepAlive") {
            let course = lock(&self.cluster).course();
            return Box::pin(async move {
                match course {
                    Course::Refused(status) => Ok(status.into_http()),
                    Course::Runs { still, breaks } => {
                        let response = inner.call(request).await?;
                        Ok(response.map(|body| Body::new(Uneven::new(body, still, breaks))))
                    }
                }
            });
        }
        let fate = lock(&self.cluster).fate();
        Box::pin(async move { meet(fate, inner, whole(request).await).await })
    }
}

async fn meet<S>(fate: Fate, mut inner: S, request: Request<Body>) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
{
    // On its own: a client that goes away does not stop it.
    let (sender, served) = tokio::sync::oneshot::channel();
    let serve = |after: Duration| async move {
        tokio::time::sleep(after).await;
        let response = inner.call(request).await;
        // Of some fates nobody wants to know.
        drop(sender.send(response));
    };
    match fate {
        Fate::Served(after) => {
            tokio::spawn(serve(after));
            served.await.expect("it answers")
        }
        Fate::Mute(after) => {
            after.map(|after| tokio::spawn(serve(after)));
            tokio::time::sleep(FOR_EVER).await;
            Ok(Status::unavailable("etcdserver: server stopped").into_http())
        }
        Fate::FailedAfter(status) => {
            tokio::spawn(serve(Duration::ZERO));
            let _ = served.await;
            Ok(status.into_http())
        }
        Fate::FailedBefore(status, after) => {
            after.map(|after| tokio::spawn(serve(after)));
            Ok(status.into_http())
        }
    }
}

/// A request with all its bytes.
async fn whole(request: Request<Body>) -> Request<Body> {
    let (parts, mut body) = request.into_parts();
    let mut frames = VecDeque::new();
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frames.extend(frame.into_data().ok());
    }
    Request::from_parts(parts, Body::new(Frames(frames)))
}

/// Bytes that are there.
struct Frames(VecDeque<Bytes>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// A stream that stands still for a while, and may break.
struct Uneven {
    inner: Body,
    still_from: Pin<Box<tokio::time::Sleep>>,
    still_until: Pin<Box<tokio::time::Sleep>>,
    breaks: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Uneven {
    fn new(inner: Body, (from, length): (Duration, Duration), breaks: Option<Duration>) -> Self {
        let sleep = |time| Box::pin(tokio::time::sleep(time));
        Uneven { inner, still_from: sleep(from), still_until: sleep(from + length), breaks: breaks.map(sleep) }
    }
}

impl HttpBody for Uneven {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if self.breaks.as_mut().is_some_and(|breaks| breaks.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Some(Err(Status::unavailable("the stream breaks"))));
        }
        if self.still_from.as_mut().poll(cx).is_ready() && self.still_until.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }
}
