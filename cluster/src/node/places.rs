//! Room for what other nodes ask of this one.
//!
//! Each kind of work has places of its own, so that queries do not wait behind repair, nor repair behind queries. A request needs a place while
//! it works, and one of its peer's share from its beginning to its end; while its answer waits for the network, others have the place. So a peer
//! that asks for too much, or does not take what it has asked for, holds up itself.
//!
//! The lock is held for a moment, alone.

use crate::placement::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one kind of work.
pub(super) struct Places {
    all: Arc<Semaphore>,
    share: usize,
    shares: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
}

/// A request that may work. Its place is free again when this is dropped.
pub(super) struct Place {
    all: Arc<Semaphore>,
    working: Option<OwnedSemaphorePermit>,
    _share: OwnedSemaphorePermit,
}

impl Places {
    /// So many, of which one peer may have half.
    pub fn new(count: usize) -> Places {
        let count = count.max(1);
        Places { all: Arc::new(Semaphore::new(count)), share: count.div_ceil(2), shares: Mutex::default() }
    }

    fn share(&self, peer: NodeId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        // Of peers that ask for nothing nothing is kept.
        shares.retain(|_, share| Arc::strong_count(share) > 1);
        shares.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(self.share))).clone()
    }

    /// Resolves when the peer may begin; in the order of asking.
    pub async fn take(&self, peer: NodeId) -> Place {
        // They are never closed.
        const OPEN: &str = "BUG: places are closed";
        let share = self.share(peer).acquire_owned().await.expect(OPEN);
        let working = self.all.clone().acquire_owned().await.expect(OPEN);
        Place { all: self.all.clone(), working: Some(working), _share: share }
    }
}

impl Place {
    /// Others may work while this one waits. Blocks; not for threads of the runtime.
    pub fn aside<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        self.working = None;
        let waited = wait();
        self.working = Handle::current().block_on(self.all.clone().acquire_owned()).ok();
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;
    use tokio::sync::oneshot;
    use tokio::task::spawn_blocking;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    /// The place, if it can be had at once.
    async fn at_once(places: &Places, peer: NodeId) -> Option<Place> {
        let mut taking = std::pin::pin!(places.take(peer));
        poll_fn(|context| match taking.as_mut().poll(context) {
            Poll::Ready(place) => Poll::Ready(Some(place)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn one_peer_has_half_of_the_places_and_leaves_the_others_to_the_rest() {
        let places = Places::new(4);
        let first = at_once(&places, A).await.expect("all are free");
        let second = at_once(&places, A).await.expect("half");
        assert!(at_once(&places, A).await.is_none(), "more than half");
        let others = [at_once(&places, B).await.expect("free"), at_once(&places, B).await.expect("free")];
        assert!(at_once(&places, NodeId(3)).await.is_none(), "all are taken");
        drop(first);
        assert!(at_once(&places, NodeId(3)).await.is_some());
        drop((second, others));
        drop(at_once(&places, B).await);
        assert_eq!(places.shares.lock().len(), 1, "of those who left");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn peers_that_do_not_take_their_answers_keep_no_place() {
        let places = Arc::new(Places::new(2));
        let (mut stalled, mut aside) = (Vec::new(), Vec::new());
        for peer in [A, B] {
            let mut place = at_once(&places, peer).await.expect("nobody works");
            let (go, gone) = oneshot::channel::<()>();
            let (waits, waiting) = oneshot::channel();
            stalled.push(spawn_blocking(move || {
                place.aside(|| {
                    waits.send(()).expect("somebody listens");
                    gone.blocking_recv().expect("it ends")
                });
                assert!(place.working.is_some());
            }));
            waiting.await.expect("it waits");
            aside.push(go);
        }
        assert!(at_once(&places, A).await.is_none(), "its share is used up");
        let working = [at_once(&places, NodeId(3)).await, at_once(&places, NodeId(4)).await];
        assert!(working.iter().all(Option::is_some), "two do not take their answers");
        aside.into_iter().for_each(|go| go.send(()).expect("it waits"));
        drop(working);
        for one in stalled {
            one.await.expect("it goes on");
        }
    }
}
