//! The network under the tokio driver: the real one, or a simulated one in tests.

use crate::os;
use ashlar_core::time::Time;
use socket2::{SockRef, TcpKeepalive};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A silent connection is probed after this, then every third of it: three probes without an answer end it. Only peers
/// that do not heartbeat (clients) need it, when their host has vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Options of every connection. One without them still works: it is slower, or ends later.
pub fn tune(socket: SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
    let tuned = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        tracing::debug!("cannot set a connection's options: {error}");
    }
}

/// As [`tune`], of a connection of tokio's.
pub fn tune_stream(stream: &tokio::net::TcpStream) {
    tune(SockRef::from(stream));
}

/// Connections and the clock that goes with them.
pub trait Network: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    /// Where connections arrive.
    type Listener: Send + Sync + 'static;
    /// Waits for a connection.
    fn accept(&self, listener: &Self::Listener) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// Opens a connection to `host:port`.
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// The node's clock.
    fn now(&self) -> Time;
}

/// TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    type Stream = tokio::net::TcpStream;
    type Listener = Listener;

    async fn accept(&self, listener: &Listener) -> io::Result<Self::Stream> {
        let (stream, _) = listener.socket.accept().await?;
        tune_stream(&stream);
        Ok(stream)
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        tune_stream(&stream);
        Ok(stream)
    }

    fn now(&self) -> Time {
        os::now()
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    socket: tokio::net::TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens at `host:port`; port 0: any free one.
    pub async fn bind(address: &str) -> io::Result<Listener> {
        Listener::on(tokio::net::TcpListener::bind(address).await?)
    }

    /// Listens on a socket that somebody else has bound, and that does not block.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Listener> {
        Listener::on(tokio::net::TcpListener::from_std(listener)?)
    }

    fn on(socket: tokio::net::TcpListener) -> io::Result<Listener> {
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
