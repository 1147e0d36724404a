//! The network under the tokio driver: the real one, or a simulated one in tests.

use crate::os;
use ashlar_core::time::Time;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};

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
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn connect(&self, address: &str) -> io::Result<Self::Stream> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
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
        let socket = tokio::net::TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
