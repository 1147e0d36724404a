//! Listening, and ending cleanly.

use super::connection;
use super::disk::Exports;
use anyhow::{Context, bail};
use ashlar_runtime::net;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it cuts all connections; [`Server::shut_down`] ends them cleanly.
pub struct Server<E> {
    exports: E,
    shutdown: watch::Sender<bool>,
    listening: JoinSet<()>,
    unix: Option<PathBuf>,
}

impl<E: Exports> Server<E> {
    /// A server that listens nowhere yet.
    pub fn new(exports: E) -> Self {
        Server { exports, shutdown: watch::Sender::new(false), listening: JoinSet::new(), unix: None }
    }

    /// Listens on `host:port`; returns the address (port 0: a free one is chosen).
    pub async fn listen_tcp(&mut self, address: &str) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}: choose another address or port, or stop who uses it")
        })?;
        let local = listener.local_addr()?;
        let listener = Arc::new(listener);
        self.serve(move || {
            let listener = Arc::clone(&listener);
            async move {
                let (stream, _) = listener.accept().await?;
                // A client whose host vanished without a word ends some day, with what it holds.
                net::tune_stream(&stream);
                Ok(stream)
            }
        });
        Ok(local)
    }

    /// Serves the connections that `next` brings, from whatever network.
    pub fn serve<S, F, A>(&mut self, next: F)
    where
        S: AsyncRead + AsyncWrite + Send + Sync + 'static,
        F: FnMut() -> A + Send + 'static,
        A: Future<Output = io::Result<S>> + Send + 'static,
    {
        self.listening.spawn(accept(self.exports.clone(), self.shutdown.clone(), next));
    }

    /// Listens on a unix socket. One that was left by a server that is gone is replaced.
    pub fn listen_unix(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.exists() {
            if StdUnixStream::connect(path).is_ok() {
                bail!("another server listens on {}: stop it, or choose another path", path.display());
            }
            std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        self.unix = Some(path.to_path_buf());
        let listener = Arc::new(listener);
        self.serve(move || {
            let listener = Arc::clone(&listener);
            async move { Ok(listener.accept().await?.0) }
        });
        Ok(())
    }

    /// Accepts nothing more, lets each connection finish what is in flight, closes all.
    pub async fn shut_down(mut self) {
        self.shutdown.send_replace(true);
        while self.listening.join_next().await.is_some() {}
    }
}

impl<E> Drop for Server<E> {
    fn drop(&mut self) {
        if let Some(path) = &self.unix {
            // Best effort: the next server replaces it anyway.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Accepts until shutdown, then waits for the connections to end.
async fn accept<S, E, F, A>(exports: E, shutdown: watch::Sender<bool>, mut next: F)
where
    S: AsyncRead + AsyncWrite + Send + Sync + 'static,
    E: Exports,
    F: FnMut() -> A,
    A: Future<Output = io::Result<S>>,
{
    let mut connections = JoinSet::new();
    let mut ending = shutdown.subscribe();
    loop {
        tokio::select! {
            accepted = next() => match accepted {
                Ok(stream) => {
                    let (exports, shutdown) = (exports.clone(), shutdown.subscribe());
                    connections.spawn(async move {
                        if let Err(error) = connection::run(stream, exports, shutdown).await {
                            tracing::info!("an NBD connection ended: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = connection::begun(&mut ending) => break,
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}
