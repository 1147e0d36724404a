//! The connection to a cluster: core's machine on the tokio driver, and who waits for its completions.

use crate::Image;
use ashlar_core::buf::{Buf, BufPool};
use ashlar_core::client::{Client as Machine, ClientConfig, ClientLimits, ClientStats};
use ashlar_core::client::{Completion, ImageId, ImageOp, OpError, OpId, Outcome};
use ashlar_core::id::ClientId;
use ashlar_core::io::{Env, Input, Node, PeerId};
use ashlar_core::stages::ClientStages;
use ashlar_core::time::Time;
use ashlar_core::wire::Versions;
use ashlar_core::wire::handshake::Identity;
use ashlar_runtime::driver::{Driver, Setup, Tcp};
use ashlar_runtime::os;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Why an operation did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The cluster, or the image, does not allow it.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The client was stopped; a write may have been carried out.
    #[error("the client was stopped")]
    Stopped,
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers (/dev/urandom cannot be read)")]
    NoRandomness,
}

type Answer = Result<Outcome, OpError>;

/// The machine and who waits for it. An operation's place in `waiting` is that of its record in the machine's slab.
pub(crate) struct Endpoint {
    machine: Machine,
    waiting: Vec<Option<oneshot::Sender<Answer>>>,
    room: Arc<Semaphore>,
}

fn place(op: OpId) -> usize {
    usize::try_from(op.0 & u64::from(u32::MAX)).expect("32 bits fit")
}

impl Endpoint {
    fn wait(&mut self, op: OpId) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        if self.waiting.len() <= place(op) {
            self.waiting.resize_with(place(op) + 1, || None);
        }
        let before = self.waiting[place(op)].replace(sender);
        assert!(before.is_none(), "two operations wait in one place");
        receiver
    }

    fn complete(&mut self, completion: Completion) {
        self.room.add_permits(1);
        if let Some(sender) = self.waiting[place(completion.op)].take() {
            // Nobody may be interested any more: its future was dropped.
            let _ = sender.send(completion.result);
        }
    }
}

impl Node for Endpoint {
    fn handle(&mut self, env: &mut Env<'_>, input: Input) {
        self.machine.handle(env, input);
    }

    fn end_of_round(&mut self, env: &mut Env<'_>) {
        self.machine.end_of_round(env);
        while let Some(completion) = self.machine.next_completion() {
            self.complete(completion);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.machine.next_deadline()
    }

    fn check(&self) {
        self.machine.check();
    }
}

struct Shared {
    driver: Driver<Endpoint>,
    room: Arc<Semaphore>,
    bufs: Mutex<BufPool>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.stop();
    }
}

/// A client of one cluster. Clones share it; the last one to go ends it.
///
/// Operations wait for a cluster that is away, for ever; drop their futures (or [`Client::stop`]) to give up.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Starts a client on the current tokio runtime. `seeds` are addresses (`host:port`) of OSDs or monitors, at least
    /// one; returns at once and connects in the background. Panics outside of a runtime or without seeds.
    pub fn connect(seeds: Vec<String>) -> Result<Client, Error> {
        Client::connect_within(seeds, ClientLimits::default())
    }

    /// The same with other bounds.
    pub fn connect_within(seeds: Vec<String>, limits: ClientLimits) -> Result<Client, Error> {
        let random = || os::random_u64().map_err(|_| Error::NoRandomness);
        let config = ClientConfig { limits, ..ClientConfig::new(ClientId(random()?), seeds) };
        let peer = PeerId::Client(config.session);
        let setup = Setup {
            identity: Identity { cluster: None, peer, versions: Versions::OURS },
            listener: None,
            meta: None,
            seed: random()?,
        };
        let room = Arc::new(Semaphore::new(limits.operations));
        let endpoint = Endpoint { machine: Machine::new(config), waiting: Vec::new(), room: Arc::clone(&room) };
        let driver = Driver::start(endpoint, Tcp, setup);
        Ok(Client { shared: Arc::new(Shared { driver, room, bufs: Mutex::new(BufPool::new()) }) })
    }

    /// Opens an image: `NAME`, or `POOL/NAME` where names are not unique.
    pub async fn open(&self, name: &str) -> Result<Image, Error> {
        self.enter().await?;
        let receiver = self.shared.driver.with(|endpoint, env| {
            let op = endpoint.machine.open_image(env, name);
            endpoint.wait(op)
        });
        match receiver.await.map_err(|_| Error::Stopped)?? {
            Outcome::Opened(open) => Ok(Image::new(self.clone(), open)),
            other => panic!("opening an image was answered by {other:?}"),
        }
    }

    /// The names of all images, each as `POOL/NAME`, in order.
    pub async fn images(&self) -> Result<Vec<String>, Error> {
        self.enter().await?;
        let receiver = self.shared.driver.with(|endpoint, env| {
            let op = endpoint.machine.list_images(env);
            endpoint.wait(op)
        });
        match receiver.await.map_err(|_| Error::Stopped)?? {
            Outcome::Images(names) => Ok(names),
            other => panic!("a listing was answered by {other:?}"),
        }
    }

    /// Carries out an operation. It is begun when this is first polled, and goes on if the future is dropped.
    pub(crate) async fn perform(&self, image: ImageId, op: ImageOp) -> Result<Outcome, Error> {
        self.enter().await?;
        let receiver = self.shared.driver.with(|endpoint, env| {
            let op = endpoint.machine.submit(env, image, op).expect("a permit stands for room");
            endpoint.wait(op)
        });
        Ok(receiver.await.map_err(|_| Error::Stopped)??)
    }

    /// Waits for room; the permit is given back by the completion.
    async fn enter(&self) -> Result<(), Error> {
        self.shared.room.acquire().await.map_err(|_| Error::Stopped)?.forget();
        Ok(())
    }

    /// A payload buffer with a copy of `bytes`, at most 2 MiB.
    pub(crate) fn buf(&self, bytes: &[u8]) -> Buf {
        self.shared.bufs.lock().unwrap_or_else(PoisonError::into_inner).copy_of(bytes)
    }

    /// Its number: what a lock is for, and who is fenced off.
    pub fn id(&self) -> ClientId {
        self.shared.driver.with(|endpoint, _| endpoint.machine.session().client)
    }

    /// Whether an administrator fenced it off: nothing succeeds any more.
    pub fn is_fenced(&self) -> bool {
        self.shared.driver.with(|endpoint, _| endpoint.machine.is_fenced())
    }

    /// Counts since the start.
    pub fn stats(&self) -> ClientStats {
        self.shared.driver.with(|endpoint, _| endpoint.machine.stats())
    }

    /// Where the time of requests went since the start.
    pub fn stages(&self) -> ClientStages {
        self.shared.driver.with(|endpoint, _| endpoint.machine.stages().clone())
    }

    /// Ends the client: what is under way, and everything after, fails with [`Error::Stopped`].
    pub fn stop(&self) {
        self.shared.room.close();
        self.shared.driver.with(|endpoint, _| endpoint.waiting.iter_mut().for_each(|waiting| *waiting = None));
        self.shared.driver.stop();
    }
}
