//! Events, which two groups show in two ways. They are stored as those of the core group.

use super::kinds::Kind;
use super::object;
use serde_json::Value;

/// What a field is called in the core group, and in `events.k8s.io`.
const NAMES: [(&str, &str); 8] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    // The same in both.
    ("reportingInstance", "reportingInstance"),
];

fn is_new(kind: &Kind) -> bool {
    kind.is("events.k8s.io", "events")
}

/// The `apiVersion` in the store.
pub fn stored_version(kind: &Kind) -> String {
    if kind.is_event() { "v1".into() } else { kind.api_version() }
}

/// An object as it is stored.
pub fn received(kind: &Kind, mut object: Value) -> Value {
    if is_new(kind) {
        let map = object::map(&mut object);
        for (core, new) in NAMES {
            if let Some(value) = map.remove(new) {
                map.insert(core.into(), value);
            }
        }
    }
    object
}

/// An object as this version of its group shows it.
pub fn present(kind: &Kind, object: &Value) -> Value {
    let mut object = object.clone();
    let map = object::map(&mut object);
    map.insert("apiVersion".into(), kind.api_version().into());
    if is_new(kind) {
        for (core, new) in NAMES {
            if let Some(value) = map.remove(core) {
                map.insert(new.into(), value);
            }
        }
    }
    object
}
