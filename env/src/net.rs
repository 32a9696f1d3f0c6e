//! Sockets.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A boxed future of this module.
pub type NetFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// What a world's network can do.
pub trait NetworkBackend: Send + Sync {
    /// Listens on `addr` (`host:port`; port 0 takes a free one).
    fn bind<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Listener>;
    /// Connects to `addr` (`host:port`). Has no deadline of its own: use [`crate::Clock::timeout`].
    fn dial<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Conn>;
}

/// The network as one node sees it. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<dyn NetworkBackend>);

impl Network {
    /// A network on `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn NetworkBackend>) -> Self {
        Self(backend)
    }

    /// Listens on `addr` (`host:port`; port 0 takes a free one).
    ///
    /// # Errors
    /// The address is malformed, in use, or not this machine's.
    pub async fn bind(&self, addr: &str) -> io::Result<Listener> {
        self.0.bind(addr).await
    }

    /// Connects to `addr` (`host:port`). Has no deadline of its own: use [`crate::Clock::timeout`].
    ///
    /// # Errors
    /// Nobody listens, or the way is cut.
    pub async fn dial(&self, addr: &str) -> io::Result<Conn> {
        self.0.dial(addr).await
    }
}

/// How a world accepts connections.
pub trait ListenerBackend: Send + Sync {
    /// Waits for a connection. Cancel-safe.
    fn accept(&mut self) -> NetFuture<'_, Conn>;
    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;
}

/// A listening socket.
pub struct Listener(Box<dyn ListenerBackend>);

impl Listener {
    /// A listener on `backend`.
    #[must_use]
    pub fn new(backend: Box<dyn ListenerBackend>) -> Self {
        Self(backend)
    }

    /// Waits for a connection. Cancel-safe.
    ///
    /// # Errors
    /// The system is out of descriptors or buffers: wait a little before the next try.
    pub async fn accept(&mut self) -> io::Result<Conn> {
        self.0.accept().await
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }
}

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// A stream of bytes to a peer, without Nagle's delay.
pub struct Conn {
    io: Box<dyn Io>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Conn {
    /// A connection over `io`.
    #[must_use]
    pub fn new(io: Box<dyn Io>, peer: SocketAddr, local: SocketAddr) -> Self {
        Self { io, peer, local }
    }

    /// The other side's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
