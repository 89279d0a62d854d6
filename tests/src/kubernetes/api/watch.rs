//! Watches: the changes of a collection, as they happen.
//!
//! A client that selects sees only its part of the world: an object that comes to be selected is added for it, and one that is no longer
//! selected is deleted.

use super::failure::Failure;
use super::kinds::Kind;
use super::present::View;
use super::request::{Parameters, Target};
use super::selector::Selector;
use super::store::Change;
use super::{Shared, events, object};
use futures_util::stream::{self, Stream};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The time between two bookmarks. The real server takes a minute; a test has no minute.
const BOOKMARK: Duration = Duration::from_secs(10);
/// How long a watch lasts that does not say for how long.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// A watch, and where it is.
pub struct Watch {
    shared: Arc<Shared>,
    kind: Arc<Kind>,
    namespace: String,
    selector: Selector,
    view: View,
    user_agent: String,
    bookmarks: bool,
    position: u64,
    ready: VecDeque<Bytes>,
    ends_at: Instant,
    bookmark_at: Instant,
    is_over: bool,
}

impl Watch {
    /// Begins after the version that is asked for, or with all that there is.
    pub fn begin(
        shared: &Arc<Shared>,
        target: &Target,
        parameters: &Parameters,
        view: View,
        user_agent: &str,
    ) -> Result<Watch, Failure> {
        let now = Instant::now();
        let seconds = parameters.get("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0);
        let timeout = seconds.map_or(TIMEOUT, Duration::from_secs);
        let mut watch = Watch {
            shared: shared.clone(),
            kind: target.kind.clone(),
            namespace: target.namespace.clone(),
            selector: parameters.selector(&target.kind)?,
            view,
            user_agent: user_agent.into(),
            bookmarks: parameters.is("allowWatchBookmarks"),
            position: 0,
            ready: VecDeque::new(),
            ends_at: now + timeout,
            bookmark_at: now + BOOKMARK,
            is_over: false,
        };
        let state = shared.state.lock();
        let sends_initial = parameters.is("sendInitialEvents");
        match parameters.version()? {
            Some(version) if version > 0 && !sends_initial => {
                // One that is too old is told at once.
                state.store.since(version).map(drop).map_err(|oldest| Failure::expired(version, oldest))?;
                watch.position = version;
            }
            _ => {
                watch.position = state.store.version();
                let all: Vec<Arc<Value>> =
                    state.store.list(&target.kind.stored_as(), &target.namespace).cloned().collect();
                for object in &all {
                    if watch.selects(object) {
                        watch.tell("ADDED", object);
                    }
                }
                if sends_initial && watch.bookmarks {
                    let bookmark = watch.view.bookmark(&watch.kind, watch.position, true);
                    watch.push(json!({"type": "BOOKMARK", "object": bookmark}));
                }
            }
        }
        drop(state);
        Ok(watch)
    }

    /// The lines of the answer.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(line), watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut newest = self.shared.state.lock().store.subscribe();
        let mut turned = self.shared.faults.subscribe();
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            newest.mark_unchanged();
            turned.mark_unchanged();
            let held_until = self.gather();
            let now = Instant::now();
            if now >= self.bookmark_at || now >= self.ends_at {
                self.bookmark();
                self.bookmark_at = now + BOOKMARK;
                self.is_over = now >= self.ends_at;
            }
            if !self.ready.is_empty() || self.is_over {
                continue;
            }
            let mut wake = self.ends_at.min(self.bookmark_at);
            wake = held_until.map_or(wake, |until| wake.min(until));
            tokio::select! {
                _ = newest.changed() => {}
                _ = turned.changed() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Takes what happened, as far as it may be told. Says when the next may be, if one is held back.
    fn gather(&mut self) -> Option<Instant> {
        let shared = self.shared.clone();
        if shared.faults.is_frozen(&self.user_agent) {
            return None;
        }
        let delay = shared.faults.delay(&self.user_agent);
        let state = shared.state.lock();
        let changes = match state.store.since(self.position) {
            Ok(changes) => changes,
            Err(oldest) => {
                let failure = Failure::expired(self.position, oldest);
                self.push(json!({"type": "ERROR", "object": failure.body()}));
                self.is_over = true;
                return None;
            }
        };
        for change in changes {
            let at = Instant::from_std(change.at) + delay;
            if at > Instant::now() {
                return Some(at);
            }
            self.see(change);
            self.position = change.version;
        }
        None
    }

    fn see(&mut self, change: &Change) {
        let is_here = self.namespace.is_empty() || self.namespace == object::namespace(&change.object);
        if *change.resource != *self.kind.stored_as() || !is_here {
            return;
        }
        let before = change.before.as_ref().is_some_and(|before| self.selects(before));
        let after = !change.removed && self.selects(&change.object);
        match (before, after) {
            (false, true) => self.tell("ADDED", &change.object),
            (true, true) => self.tell("MODIFIED", &change.object),
            (true, false) if change.removed => self.tell("DELETED", &change.object),
            (true, false) => {
                // As it was when it was last selected, in the version that ended that.
                let mut last = change.before.as_deref().cloned().unwrap_or_default();
                object::copy_metadata(&change.object, &mut last, &["resourceVersion"]);
                self.tell("DELETED", &last);
            }
            (false, false) => {}
        }
    }

    fn selects(&self, object: &Value) -> bool {
        if self.kind.is_event() {
            return self.selector.matches(&events::present(&self.kind, object));
        }
        self.selector.matches(object)
    }

    fn tell(&mut self, what: &str, object: &Value) {
        let shown = self.view.object(&self.kind, object);
        self.push(json!({"type": what, "object": shown}));
    }

    fn bookmark(&mut self) {
        if self.bookmarks && !self.shared.faults.is_frozen(&self.user_agent) {
            let bookmark = self.view.bookmark(&self.kind, self.position, false);
            self.push(json!({"type": "BOOKMARK", "object": bookmark}));
        }
    }

    fn push(&mut self, event: Value) {
        self.ready.push_back(Bytes::from(format!("{event}\n")));
    }
}
