//! The task of one connection: handshake, then reading and writing in turn.
//!
//! ```text
//! connect | accept -> handshake -> up: read, call the node, write -> down
//!                         \-> failed
//! ```

use super::Driver;
use super::state::Permit;
use crate::net::Network;
use ashlar_core::id::LinkId;
use ashlar_core::io::{Node, PeerName};
use ashlar_core::wire::handshake::{Agreed, Handshake, Progress, Refused};
use ashlar_core::wire::{Batch, Inbox};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;

/// An address that does not answer within this is given up. Below the second after which the kernel would send its first
/// packet again, and then ever more rarely: whoever tries again finds a network that came back sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(900);
/// A peer that connects and says nothing is dropped after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(4);
/// What was queued when the node closed a connection is sent for so long at most.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that shake hands at the same time, so that strangers cannot use up memory.
const HANDSHAKES: usize = 256;
/// Parts that one write gathers; more go in the next.
const SLICES: usize = 64;

/// Why there is no connection.
enum Failure {
    Network(io::Error),
    Refused(Refused),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Network(error)
    }
}

impl<N: Node + Send + 'static, W: Network> Driver<N, W> {
    pub(super) async fn accept(self, listener: W::Listener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let place = Arc::clone(&handshakes).acquire_owned().await.expect("never closed");
            match self.shared.network.accept(&listener).await {
                Ok(stream) => {
                    let driver = self.clone();
                    self.spawn(async move { driver.accepted(stream, place).await });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accepted(self, mut stream: W::Stream, place: tokio::sync::OwnedSemaphorePermit) {
        let handshake = Handshake::accept(self.lock().identity());
        match within(HANDSHAKE_TIMEOUT, shake_hands(&mut stream, handshake)).await {
            Ok((agreed, rest)) => {
                drop(place);
                self.run_link(stream, agreed, None, rest).await;
            }
            Err(Failure::Refused(why)) => tracing::warn!("refused a connection: {why}"),
            Err(Failure::Network(error)) => tracing::debug!("a connection ended before it was up: {error}"),
        }
    }

    pub(super) async fn connect(self, target: PeerName, address: String) {
        match self.open(target, &address).await {
            Ok((stream, agreed, rest)) => self.run_link(stream, agreed, Some(target), rest).await,
            Err(failure) => self.connect_failed(target, &address, &failure),
        }
    }

    async fn open(&self, target: PeerName, address: &str) -> Result<(W::Stream, Agreed, Vec<u8>), Failure> {
        let mut stream = within(CONNECT_TIMEOUT, async { Ok(self.shared.network.connect(address).await?) }).await?;
        let (handshake, hello) = Handshake::open(self.lock().identity(), target);
        let exchange = async {
            stream.write_all(&hello).await?;
            shake_hands(&mut stream, handshake).await
        };
        let (agreed, rest) = within(HANDSHAKE_TIMEOUT, exchange).await?;
        Ok((stream, agreed, rest))
    }

    fn connect_failed(&self, target: PeerName, address: &str, failure: &Failure) {
        let mut state = self.lock();
        let refused = match failure {
            Failure::Network(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            Failure::Refused(why) => {
                if state.note_refusal(target, *why) {
                    tracing::warn!("no connection to {target:?} at {address}: {why}");
                }
                why.proves_absence()
            }
        };
        state.connect_failed(self.shared.network.now(), target, refused);
        self.settle(state);
    }

    /// From here on the link is up; ends when it is down.
    async fn run_link(&self, stream: W::Stream, agreed: Agreed, opened: Option<PeerName>, rest: Vec<u8>) {
        let id = self.link_up(&agreed, opened);
        let (inbox, batch) = (Inbox::default(), None);
        let mut task = LinkTask { driver: self, id, stream, inbox, batch, sent: 0, finish: None };
        task.inbox.put_bytes(&rest);
        let ended = poll_fn(|cx| task.poll(cx)).await;
        tracing::debug!("{id:?} to {:?} ended: {ended}", agreed.peer);
        self.link_down(id);
    }

    fn link_up(&self, agreed: &Agreed, opened: Option<PeerName>) -> LinkId {
        let mut state = self.lock();
        let id = state.link_up(self.shared.network.now(), agreed, opened);
        self.settle(state);
        id
    }

    fn link_down(&self, id: LinkId) {
        let mut state = self.lock();
        state.link_down(self.shared.network.now(), id);
        self.settle(state);
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let timeout = |_| Err(Failure::Network(io::ErrorKind::TimedOut.into()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(timeout)
}

async fn shake_hands<S>(stream: &mut S, mut handshake: Handshake) -> Result<(Agreed, Vec<u8>), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut piece = [0; 1024];
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(Failure::Network(io::ErrorKind::UnexpectedEof.into()));
        }
        match handshake.receive(&piece[..count]) {
            Progress::Waiting => {}
            Progress::Done { agreed, answer, rest } => {
                stream.write_all(&answer).await?;
                return Ok((agreed, rest));
            }
            Progress::Refused { why, answer } => {
                stream.write_all(&answer).await?;
                stream.shutdown().await?;
                return Err(Failure::Refused(why));
            }
        }
    }
}

/// A connection that is up.
struct LinkTask<'a, N, W: Network> {
    driver: &'a Driver<N, W>,
    id: LinkId,
    stream: W::Stream,
    inbox: Inbox,
    /// What is being sent, and how much of it is gone.
    batch: Option<Batch>,
    sent: u64,
    /// Runs from when the node closed the connection.
    finish: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<N: Node + Send + 'static, W: Network> LinkTask<'_, N, W> {
    /// Ready when the connection has ended, with the reason.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Err(ended) = self.deliver() {
            return Poll::Ready(ended);
        }
        loop {
            let permit = self.next_batch(cx);
            let write = self.poll_write(cx);
            let read = match permit {
                Permit::Run => self.poll_read(cx),
                Permit::WriteOnly => Poll::Pending,
                Permit::Finish => self.poll_finish(cx),
                Permit::Cut => return Poll::Ready("the peer does not read what it is sent".into()),
            };
            match (write, read) {
                (Poll::Ready(Err(ended)), _) | (_, Poll::Ready(Err(ended))) => return Poll::Ready(ended),
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// Asks what to do, and takes what waits to be sent, unless something is being sent.
    fn next_batch(&mut self, cx: &Context<'_>) -> Permit {
        let mut state = self.driver.lock();
        let (permit, outbox) = state.permit(self.id, cx.waker());
        if self.batch.is_none() && outbox.has_waiting() {
            self.batch = Some(outbox.take());
            self.sent = 0;
        }
        permit
    }

    /// Ready after some progress.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let Some(batch) = &self.batch else { return Poll::Pending };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        batch.slices(self.sent, |bytes| {
            slices[used] = IoSlice::new(bytes);
            used += 1;
            used < SLICES
        });
        let written = match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..used]) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
            Poll::Pending => return Poll::Pending,
        };
        self.sent += written as u64;
        if self.sent == batch.bytes() {
            self.give_back();
        }
        Poll::Ready(Ok(()))
    }

    fn give_back(&mut self) {
        let batch = self.batch.take().expect("a batch was sent");
        self.driver.lock().sent(self.id, batch);
    }

    /// Ready after some progress.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut space = ReadBuf::new(self.inbox.space());
        match Pin::new(&mut self.stream).poll_read(cx, &mut space) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.to_string())),
            Poll::Pending => return Poll::Pending,
        }
        let count = space.filled().len();
        if count == 0 {
            return Poll::Ready(Err("closed by the peer".into()));
        }
        self.inbox.received(count);
        Poll::Ready(self.deliver())
    }

    fn deliver(&mut self) -> Result<(), String> {
        let mut state = self.driver.lock();
        let delivered = state.deliver(self.driver.shared.network.now(), self.id, &mut self.inbox);
        self.driver.settle(state);
        delivered.map_err(|error| format!("received {error}"))
    }

    /// Ready with an error, as reading is at an end: when all is sent, or time is up.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let finish = self.finish.get_or_insert_with(|| Box::pin(tokio::time::sleep(FINISH_TIMEOUT)));
        let late = finish.as_mut().poll(cx).is_ready();
        if late || self.batch.is_none() && !self.driver.lock().has_waiting(self.id) {
            return Poll::Ready(Err("closed by this node".into()));
        }
        Poll::Pending
    }
}
