//! Objects of all resources, and what happened to them lately.
//!
//! One counter orders all changes: its value is the resource version of what was written. The history holds the last changes, so that a
//! watch can begin in the past; one that begins before it is told that it is too late.

use super::object;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Changes that a watch can still be told of.
pub const HISTORY_MAX: usize = 10_000;

/// A change of an object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that the change made.
    pub version: u64,
    /// Of which resource.
    pub resource: Arc<str>,
    /// What was there before.
    pub before: Option<Arc<Value>>,
    /// What is there now; of one that was removed, its last state.
    pub object: Arc<Value>,
    /// Whether it was removed.
    pub removed: bool,
    /// When.
    pub at: Instant,
}

/// Namespace and name.
pub type Key = (String, String);

/// All objects.
pub struct Store {
    version: u64,
    objects: BTreeMap<Arc<str>, BTreeMap<Key, Arc<Value>>>,
    history: VecDeque<Change>,
    history_max: usize,
    newest: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Store {
        // A version of 0 has a meaning of its own in requests.
        let version = 1;
        Store {
            version,
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            history_max: HISTORY_MAX,
            newest: watch::Sender::new(version),
        }
    }
}

impl Store {
    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Tells of new changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// An object.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(resource)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Objects of a resource by namespace and name, of one namespace when one is given.
    pub fn list<'a>(&'a self, resource: &str, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Value>> {
        let all = self.objects.get(resource).into_iter().flatten();
        let all = all.filter(move |((of, _), _)| namespace.is_empty() || of == namespace);
        all.map(|(_, object)| object)
    }

    /// Objects of all resources.
    pub fn everything(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Value>)> {
        self.objects
            .iter()
            .flat_map(|(resource, objects)| objects.values().map(move |object| (resource, object)))
    }

    /// Writes an object, which gets a new version.
    pub fn put(&mut self, resource: &str, object: Value) -> Arc<Value> {
        self.change(resource, object, false)
    }

    /// Removes an object. Its last state gets a version, too.
    pub fn remove(&mut self, resource: &str, object: &Value) -> Arc<Value> {
        self.change(resource, object.clone(), true)
    }

    fn change(&mut self, resource: &str, mut object: Value, removed: bool) -> Arc<Value> {
        self.version += 1;
        object::metadata(&mut object).insert("resourceVersion".into(), self.version.to_string().into());
        let object = Arc::new(object);
        let key = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        let resource: Arc<str> = match self.objects.get_key_value(resource) {
            Some((resource, _)) => resource.clone(),
            None => resource.into(),
        };
        let objects = self.objects.entry(resource.clone()).or_default();
        let before = if removed { objects.remove(&key) } else { objects.insert(key, object.clone()) };
        let change = Change {
            version: self.version,
            resource,
            before,
            object: object.clone(),
            removed,
            at: Instant::now(),
        };
        self.history.push_back(change);
        self.forget();
        self.newest.send_replace(self.version);
        object
    }

    fn forget(&mut self) {
        while self.history.len() > self.history_max {
            self.history.pop_front();
        }
    }

    /// Holds no more than so many changes from now on.
    pub fn keep(&mut self, changes: usize) {
        self.history_max = changes;
        self.forget();
    }

    /// The changes after a version, or the oldest version that can be asked for.
    pub fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, u64> {
        let oldest = self.history.front().map_or(self.version, |change| change.version - 1);
        if version < oldest {
            return Err(oldest);
        }
        let begin = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.range(begin..))
    }
}
