//! Objects: JSON whose `metadata` has a meaning.

use crate::random::{Random, mix};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// The text at a JSON pointer, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list at a JSON pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Its name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Its namespace; empty when it lies in none.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// Who it is: another object of the same name has another one.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// The version that was written last.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or(0)
}

/// Whether it is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
}

/// Who must have done something before it is gone.
pub fn finalizers(object: &Value) -> Vec<&str> {
    items(object, "/metadata/finalizers").filter_map(Value::as_str).collect()
}

/// Whether it has this finalizer.
pub fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    finalizers(object).contains(&finalizer)
}

/// Adds a finalizer.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !has_finalizer(object, finalizer) {
        let finalizers = metadata(object).entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = finalizers.as_array_mut() {
            list.push(finalizer.into());
        }
    }
}

/// Takes a finalizer off; the list goes with its last one.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let left: Vec<Value> =
        finalizers(object).into_iter().filter(|other| *other != finalizer).map(Value::from).collect();
    if left.is_empty() {
        metadata(object).remove("finalizers");
    } else {
        metadata(object).insert("finalizers".into(), left.into());
    }
}

/// The object as a map. What is no object is none of ours, and becomes an empty one.
pub fn map(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    object.as_object_mut().expect("it is an object")
}

/// Its metadata.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    map(map(object).entry("metadata").or_insert_with(|| json!({})))
}

/// Copies a field of the metadata, or takes it away where `from` has none.
pub fn copy_metadata(from: &Value, to: &mut Value, fields: &[&str]) {
    for field in fields {
        match from.get("metadata").and_then(|metadata| metadata.get(*field)) {
            Some(value) => drop(metadata(to).insert((*field).into(), value.clone())),
            None => drop(metadata(to).remove(*field)),
        }
    }
}

/// Copies a field at the top, or takes it away where `from` has none.
pub fn copy_field(from: &Value, to: &mut Value, field: &str) {
    match from.get(field) {
        Some(value) => drop(map(to).insert(field.into(), value.clone())),
        None => drop(map(to).remove(field)),
    }
}

/// A time as Kubernetes writes it: in seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Something that nobody else has got.
pub fn new_uid() -> String {
    let mut random = fresh();
    let (high, low) = (random.number(), random.number());
    let text = format!("{high:016x}{low:016x}");
    // Version 4: random.
    let variant = b"89ab"[(low >> 62) as usize] as char;
    format!("{}-{}-4{}-{variant}{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}

/// The five characters behind a `generateName`.
pub fn new_suffix() -> String {
    // No vowels, so that no words come out.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = fresh();
    (0..5).map(|_| *random.pick(LETTERS) as char).collect()
}

fn fresh() -> Random {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let nanos = Timestamp::now().as_nanosecond() as u64;
    Random::new(mix(nanos) ^ mix(u64::from(std::process::id()) << 32 | call))
}
