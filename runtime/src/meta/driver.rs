//! The driver: executes a node's [`MetaOp`]s on a thread of its own and delivers the [`MetaEvent`]s.
//!
//! Owns the thread, the requests in flight and the watches. Each request is answered once, each watch reports until it is
//! lost or ended; nothing is delivered after the driver was dropped.

use super::client::Client;
use super::endpoints::Endpoints;
use super::watch::Watch;
use crate::driver::{MetaClient, MetaOpener};
use ashlar_core::io::{MetaError, MetaEvent, MetaId, MetaOp};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::thread::JoinHandle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet, spawn_local};

/// See the module.
pub struct Driver {
    ops: Option<mpsc::UnboundedSender<MetaOp>>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts a driver. `deliver` is called on the driver's thread and should only hand the event on.
    pub fn start(endpoints: Endpoints, deliver: impl Fn(MetaEvent) + Send + 'static) -> Driver {
        let (ops, queue) = mpsc::unbounded_channel();
        let run = move || run(&endpoints, queue, Rc::new(deliver));
        let thread = std::thread::Builder::new().name("ashlar-meta".into()).spawn(run);
        let thread = thread.expect("a process that starts can have one more thread");
        Driver { ops: Some(ops), thread: Some(thread) }
    }

    /// A function that starts a driver for a node.
    pub fn opener(endpoints: Endpoints) -> MetaOpener {
        Box::new(move |sink| Box::new(Driver::start(endpoints, move |event| sink(event))))
    }

    /// Begins an operation; never blocks.
    pub fn submit(&self, op: MetaOp) {
        let ops = self.ops.as_ref().expect("only dropping takes it");
        ops.send(op).unwrap_or_else(|op| panic!("the metadata thread has ended before {:?}", op.0));
    }
}

impl MetaClient for Driver {
    fn submit(&mut self, op: MetaOp) {
        Driver::submit(self, op);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.ops.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the metadata thread panicked");
        }
    }
}

pub(super) type Deliver = Rc<dyn Fn(MetaEvent)>;

fn run(endpoints: &Endpoints, queue: mpsc::UnboundedReceiver<MetaOp>, deliver: Deliver) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the kernel has a file descriptor left for a process that starts");
    LocalSet::new().block_on(&runtime, async move {
        serve(Client::open(endpoints).await, queue, deliver).await;
    });
}

/// Executes operations until nobody can ask for more.
pub(super) async fn serve(client: Client, mut queue: mpsc::UnboundedReceiver<MetaOp>, deliver: Deliver) {
    let client = Rc::new(client);
    let mut watches = BTreeMap::new();
    while let Some(op) = queue.recv().await {
        execute(op, &client, &deliver, &mut watches);
    }
}

fn execute(op: MetaOp, client: &Rc<Client>, deliver: &Deliver, watches: &mut BTreeMap<MetaId, AbortHandle>) {
    let (client, deliver) = (Rc::clone(client), Rc::clone(deliver));
    match op {
        MetaOp::Request { id, request } => {
            spawn_local(async move {
                let result = client.request(request).await.map_err(|error| {
                    tracing::debug!("metadata request {}: {error}", id.0);
                    MetaError::from(error)
                });
                deliver(MetaEvent::Response { id, result });
            });
        }
        MetaOp::Watch { id, prefix, from } => {
            watches.retain(|_, watch| !watch.is_finished());
            let watch = Watch { id, prefix, next: from };
            let task = spawn_local(async move { watch.run(&client, &*deliver).await });
            if let Some(former) = watches.insert(id, task.abort_handle()) {
                former.abort();
            }
        }
        MetaOp::Unwatch { id } => {
            if let Some(watch) = watches.remove(&id) {
                watch.abort();
            }
        }
    }
}
