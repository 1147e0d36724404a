//! Runs any node on tokio: monitors, clients, tools.
//!
//! Owns: the node, its connections (one task each, which reads, calls the node, and writes what was queued), its timer,
//! its metadata client. Does not own disks: a node that wants them belongs on the ring.
//! Invariants: the node is called by one task at a time; a message is delivered only between `Up` and `Down` of its
//! link; every `Connect` is answered once.
//!
//! What several calls of one turn queue on a connection goes out in one write, when tokio next runs that connection's
//! task.

mod link;
mod state;

#[cfg(test)]
mod tests;

pub use crate::net::{Listener, Network, Tcp};

use crate::counters::Counters;
use ashlar_core::io::{Env, Input, MetaEvent, MetaOp, Node};
use ashlar_core::time::Time;
use ashlar_core::wire::handshake::Identity;
use state::{Action, State};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// Where a metadata client puts its events.
pub type MetaSink = Arc<dyn Fn(MetaEvent) + Send + Sync>;

/// A client of the metadata store. Each request gets one response event, each watch events until it is lost.
pub trait MetaClient: Send {
    /// Begins an operation; never blocks.
    fn submit(&mut self, op: MetaOp);
}

/// Opens a metadata client whose events go to the sink.
pub type MetaOpener = Box<dyn FnOnce(MetaSink) -> Box<dyn MetaClient> + Send>;

/// What a driver needs besides the node.
pub struct Setup<L> {
    /// Who the node is.
    pub identity: Identity,
    /// Where connections arrive, if they may.
    pub listener: Option<L>,
    /// The metadata store, if the node talks to it.
    pub meta: Option<MetaOpener>,
    /// Seed of the node's randomness.
    pub seed: u64,
}

/// How a node ended: stopped, or by its own decision, with its reason.
pub type Ending = Result<(), String>;

struct Shared<N, W> {
    state: Mutex<State<N>>,
    network: W,
    runtime: Handle,
    deadline: watch::Sender<Option<Time>>,
    ending: watch::Sender<Option<Ending>>,
}

/// A running node; clones lead to the same one. It runs until [`Driver::stop`] or its own end.
pub struct Driver<N, W: Network = Tcp> {
    shared: Arc<Shared<N, W>>,
}

impl<N, W: Network> Clone for Driver<N, W> {
    fn clone(&self) -> Self {
        Driver { shared: Arc::clone(&self.shared) }
    }
}

impl<N: Node + Send + 'static, W: Network> Driver<N, W> {
    /// Starts a node on the current tokio runtime. Its first input is a tick.
    pub fn start(node: N, network: W, setup: Setup<W::Listener>) -> Self {
        let (meta_events, meta_queue) = mpsc::unbounded_channel();
        let sink: MetaSink = Arc::new(move |event| {
            // The queue is gone only when the node has ended.
            let _ = meta_events.send(event);
        });
        let meta = setup.meta.map(|open| open(sink));
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(node, setup.identity, setup.seed, meta)),
            network,
            runtime: Handle::current(),
            deadline: watch::Sender::new(None),
            ending: watch::Sender::new(None),
        });
        let driver = Driver { shared };
        driver.spawn(driver.clone().deliver_meta(meta_queue));
        driver.spawn(driver.clone().tick());
        if let Some(listener) = setup.listener {
            driver.spawn(driver.clone().accept(listener));
        }
        driver.input(Input::Tick);
        driver
    }

    /// Calls the node and executes the effects. Must not be called from inside itself.
    pub fn with<R>(&self, call: impl FnOnce(&mut N, &mut Env<'_>) -> R) -> R {
        let mut state = self.lock();
        let result = state.call(self.shared.network.now(), call);
        self.settle(state);
        result
    }

    /// What its connections did so far.
    pub fn counters(&self) -> Counters {
        self.lock().counters()
    }

    /// Looks at the marks that the node passed.
    pub fn marks(&self) -> BTreeMap<&'static str, u64> {
        self.lock().marks().clone()
    }

    /// Ends the node: connections are closed, nothing more is delivered.
    pub fn stop(&self) {
        self.end(Ok(()));
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Ending {
        let mut ending = self.shared.ending.subscribe();
        let ended = ending.wait_for(Option::is_some).await.expect("the sender lives as long as this");
        ended.clone().expect("waited for")
    }

    fn lock(&self) -> MutexGuard<'_, State<N>> {
        self.shared.state.lock().expect("a node that panicked is not called again")
    }

    fn input(&self, input: Input) {
        self.with(|node, env| node.handle(env, input));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut ending = self.shared.ending.subscribe();
        let guard = PanicGuard(self.clone());
        self.shared.runtime.spawn(async move {
            let _guard = guard;
            tokio::select! {
                _ = ending.wait_for(Option::is_some) => {}
                () = task => {}
            }
        });
    }

    /// Ends a call of the node: executes what needs tasks.
    fn settle(&self, mut state: MutexGuard<'_, State<N>>) {
        let actions = state.finish_round(self.shared.network.now());
        let next = state.next_deadline();
        drop(state);
        self.shared.deadline.send_if_modified(|deadline| std::mem::replace(deadline, next) != next);
        for action in actions {
            match action {
                Action::Connect { target, address } => self.spawn(self.clone().connect(target, address)),
                Action::Die(reason) => self.end(Err(reason)),
            }
        }
    }

    fn end(&self, ending: Ending) {
        self.shared.ending.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(ending);
            first
        });
    }

    async fn deliver_meta(self, mut queue: mpsc::UnboundedReceiver<MetaEvent>) {
        while let Some(event) = queue.recv().await {
            let mut state = self.lock();
            let now = self.shared.network.now();
            state.call(now, |node, env| node.handle(env, Input::Meta(event)));
            while let Ok(event) = queue.try_recv() {
                state.call(now, |node, env| node.handle(env, Input::Meta(event)));
            }
            self.settle(state);
        }
    }

    async fn tick(self) {
        let mut deadline = self.shared.deadline.subscribe();
        loop {
            let next = *deadline.borrow_and_update();
            let Some(next) = next else {
                if deadline.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let now = self.shared.network.now();
            if next <= now {
                self.input(Input::Tick);
                // A node that is due again at once must not starve the others.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_nanos(next.since(now).0)) => {}
                _ = deadline.changed() => {}
            }
        }
    }
}

/// Ends the node if a task panics: tokio would go on without it.
struct PanicGuard<N: Node + Send + 'static, W: Network>(Driver<N, W>);

impl<N: Node + Send + 'static, W: Network> Drop for PanicGuard<N, W> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end(Err("the node panicked, which is a bug; its message is above".into()));
        }
    }
}
