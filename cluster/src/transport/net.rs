//! Sockets: the one place where connections to and from other nodes are made.

use super::Counters;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What is read ahead of the reader of one stream, and of one connection. A frame of many megabytes takes several round trips,
/// and a slow reader holds up its own stream only.
pub(super) const STREAM_WINDOW: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW: u32 = 8 << 20;
/// Longest HTTP/2 frame that is sent or taken.
pub(super) const HTTP_FRAME: u32 = 64 << 10;
/// Longest headers of a request.
pub(super) const HEADERS_MAX: u32 = 8 << 10;

/// Listens for other nodes.
#[derive(Clone, Debug)]
pub struct Listener {
    inner: Arc<TcpListener>,
    address: SocketAddr,
}

impl Listener {
    /// Begins to listen; nobody is answered before the [`super::Transport`] has it.
    pub async fn bind(address: &str) -> io::Result<Listener> {
        let inner = TcpListener::bind(address).await?;
        let address = inner.local_addr()?;
        Ok(Listener { inner: Arc::new(inner), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, from) = self.inner.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, from))
    }
}

/// Connects to another node.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Counts what goes through.
pub(super) struct Counted<S> {
    stream: S,
    counters: Arc<Counters>,
    /// Whether anything came.
    spoke: Arc<AtomicBool>,
}

impl<S> Counted<S> {
    pub fn new(stream: S, counters: Arc<Counters>) -> Counted<S> {
        Counted { stream, counters, spoke: Arc::default() }
    }

    pub fn spoke(&self) -> Arc<AtomicBool> {
        self.spoke.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let read = into.filled().len() - before;
        if read > 0 {
            self.counters.socket_received(read);
            self.spoke.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counters.socket_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.counters.socket_sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
