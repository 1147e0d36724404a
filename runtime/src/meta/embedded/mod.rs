//! The embedded metadata store: [`ashlar_core::meta::Store`], kept in a file, served with etcd's API.
//!
//! Owns the file, the store's thread and its service. Meant for one machine: it is one process, without replicas.
//!
//! ```text
//!   connections --> service (a tokio thread) --jobs--> engine (the store's thread) --records--> file
//!               <-- answers, watch events   <--------  after the commit
//! ```
//! Invariants: what was answered or shown to a watcher is on the disk; a store that cannot write answers nothing more.

mod api;
mod disk;
mod engine;
mod service;
mod watching;

#[cfg(test)]
mod tests;

use disk::Disk;
use engine::Engine;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

/// Why the embedded store cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody listens on the port.
    #[error("port {0} is in use: is another cluster running here? Stop it, or choose another port")]
    PortInUse(SocketAddr),
    /// Listening is not possible for another reason.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Another process has the file open.
    #[error("the metadata store {0} is in use by another process: stop it first")]
    Locked(PathBuf),
    /// The file is something else.
    #[error("{0} is not a metadata store of Ashlar ({1}): choose another path")]
    Foreign(PathBuf, String),
    /// A newer version has written the file.
    #[error("the metadata store {path} has format {found}, this version knows up to {known}: use a newer version")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The file's contents contradict each other.
    #[error("the metadata store {0} is damaged: {1}; restore it from a copy")]
    Damaged(PathBuf, String),
    /// The operating system refuses.
    #[error("cannot open the metadata store {0}: {1}")]
    Unopened(PathBuf, String),
}

/// A running embedded store. It stops when this is dropped; what was acknowledged is on disk then as at any time.
pub struct EmbeddedServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    failure: watch::Receiver<Option<String>>,
}

impl EmbeddedServer {
    /// Opens or creates the file and serves it. With port 0 the system chooses one.
    pub fn start(path: &Path, listen: SocketAddr) -> Result<EmbeddedServer, StartError> {
        let (disk, saved) = Disk::open(path)?;
        let listener = bind(listen)?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(listen, error))?;
        let (report, failure) = watch::channel(None);
        let damaged = |reason| StartError::Damaged(path.into(), reason);
        let (engine, engine_thread) = Engine::start(disk, saved, report.clone()).map_err(damaged)?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            if let Err(reason) = service::serve(Arc::new(engine), listener, stopped) {
                report.send_replace(Some(format!("the service on {address} ended: {reason}")));
            }
        };
        let service_thread = engine::spawn("ashlar-etcd-api", serve);
        Ok(EmbeddedServer { address, stop: Some(stop), threads: vec![service_thread, engine_thread], failure })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the store has failed, with the reason; for ever, if it never does. It must be started anew then.
    pub async fn failure(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("waited for it"),
            Err(_) => "its threads panicked".into(),
        }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the embedded metadata store panicked");
            }
        }
    }
}

fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::PortInUse(listen),
        _ => StartError::Listen(listen, error),
    })
}
