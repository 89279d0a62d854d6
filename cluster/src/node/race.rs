//! A few futures, whichever is ready first.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// A handful of futures. All are polled when one wakes, which is cheaper than a task for each.
pub(super) struct Race<T>(Vec<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Default for Race<T> {
    fn default() -> Race<T> {
        Race(Vec::new())
    }
}

impl<T> Race<T> {
    pub fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0.push(Box::pin(future));
    }

    /// What the first one gives that is ready; `None` if there is none.
    pub async fn next(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            for (place, future) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(value) = future.as_mut().poll(cx) {
                    drop(self.0.swap_remove(place));
                    return Poll::Ready(Some(value));
                }
            }
            Poll::Pending
        })
        .await
    }
}
