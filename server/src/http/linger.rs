//! Closing a connection so that its last answer arrives.
//!
//! A request may be answered before its body has been read: it is too large, of the wrong type, or the node is starting.
//! Closing at once would make the kernel answer what is still coming with a reset, and a reset makes the sender's kernel
//! forget an answer that has not been read yet. The sender then sees a broken connection where it should see "413", and
//! tries again for ever. So the answer goes out, this side says that nothing more will come, and what still comes in is
//! read and thrown away, until the sender closes, or within bounds.

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A sender gets this long to finish what it is sending.
const TIME_MAX: Duration = Duration::from_secs(30);

/// And this many bytes: many times what any limit allows.
const BYTES_MAX: usize = 256 << 20;

/// Whether the body of some request of a connection was left unread.
#[derive(Clone, Debug, Default)]
pub struct Unread(Arc<AtomicBool>);

impl Unread {
    /// The same body, watched.
    pub fn watch(&self, body: Incoming) -> Watched {
        let ended = body.is_end_stream();
        Watched { body, ended, unread: self.clone() }
    }
}

/// A body that tells, when it is dropped, that there was more.
#[derive(Debug)]
pub struct Watched {
    body: Incoming,
    ended: bool,
    unread: Unread,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // After an error nothing more can be read either.
        self.ended = !matches!(frame, Some(Ok(_))) || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.unread.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A stream whose shutdown waits for the other side when a body was left [`Unread`].
#[derive(Debug)]
pub struct Lingering<S> {
    stream: S,
    unread: Unread,
    /// Set once this side has said its last word.
    draining: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S> Lingering<S> {
    /// Wraps a stream.
    pub fn new(stream: S, unread: Unread) -> Lingering<S> {
        Lingering { stream, unread, draining: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.draining.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.unread.0.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let (deadline, drained) =
            this.draining.get_or_insert_with(|| (Box::pin(tokio::time::sleep(TIME_MAX)), 0));
        let mut scratch = [0; 16 << 10];
        loop {
            if deadline.as_mut().poll(cx).is_ready() || *drained > BYTES_MAX {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *drained += buf.filled().len(),
                // The sender has closed, or is gone: both are what this was waiting for.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair(unread: bool) -> (Lingering<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (here, there) = tokio::io::duplex(1 << 10);
        (Lingering::new(here, Unread(Arc::new(AtomicBool::new(unread)))), there)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_goes_on_may_finish_and_finds_its_answer() {
        let (mut here, mut there) = pair(true);
        let sender = tokio::spawn(async move {
            there.write_all(&[7; 100_000]).await.unwrap();
            let mut answer = String::new();
            there.read_to_string(&mut answer).await.unwrap();
            answer
        });
        here.write_all(b"413").await.unwrap();
        here.shutdown().await.unwrap();
        assert_eq!(sender.await.unwrap(), "413");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_never_closes_is_left_after_a_while() {
        let (mut here, _there) = pair(true);
        let begun = tokio::time::Instant::now();
        here.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), TIME_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_when_all_was_read() {
        let (mut here, _there) = pair(false);
        let begun = tokio::time::Instant::now();
        here.shutdown().await.unwrap();
        assert_eq!(begun.elapsed().as_millis(), 0);
    }
}
