//! Waiting for durability without a thread.

use super::{Position, Shared};
use crate::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Resolves when everything up to a position is durable, or when the log has failed.
///
/// As a future it only listens: some thread must commit. [`Ticket::wait`] commits by itself.
#[must_use = "nothing is known to be durable before the ticket resolves"]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) upto: Position,
    /// Key of the waker that is waiting, once polled.
    pub(super) id: Option<u64>,
}

impl Ticket {
    /// What it waits for.
    pub fn upto(&self) -> Position {
        self.upto
    }

    /// Blocks, committing if nobody else does.
    pub fn wait(self) -> Result<(), Error> {
        self.shared.commit(self.upto)
    }
}

impl Future for Ticket {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        if let Some(done) = shared.verdict(&state, self.upto) {
            return Poll::Ready(done);
        }
        let id = *self.id.get_or_insert_with(|| {
            state.tickets += 1;
            state.tickets
        });
        state.wakers.insert((self.upto, id), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.state.lock().wakers.remove(&(self.upto, id));
        }
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("upto", &self.upto).finish_non_exhaustive()
    }
}
