//! Deleting: at once, when the kubelet is done, or when the finalizers are.

use super::failure::Failure;
use super::object;
use super::state::{Call, State};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::sync::Arc;

/// The finalizer of an owner that waits for what it owns.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose property is to stay.
pub const ORPHAN: &str = "orphan";

/// What becomes of what the object owns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Propagation {
    /// It goes after the object.
    #[default]
    Background,
    /// It goes before the object.
    Foreground,
    /// It stays.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds that a pod is given.
    pub grace: Option<i64>,
    /// Only the object that is this one.
    pub uid: Option<String>,
    /// Only in this version.
    pub version: Option<String>,
    /// What becomes of what it owns.
    pub propagation: Propagation,
}

impl Options {
    /// From a `DeleteOptions` object.
    pub fn parse(body: &Value) -> Result<Options, Failure> {
        let text = |pointer| body.pointer(pointer).and_then(Value::as_str).map(String::from);
        let propagation = match text("/propagationPolicy").as_deref() {
            None if body.get("orphanDependents") == Some(&Value::Bool(true)) => Propagation::Orphan,
            None | Some("Background") => Propagation::Background,
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            Some(other) => {
                let why =
                    format!("invalid propagationPolicy {other:?}; it is Background, Foreground or Orphan");
                return Err(Failure::bad_request(why));
            }
        };
        Ok(Options {
            grace: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            uid: text("/preconditions/uid"),
            version: text("/preconditions/resourceVersion"),
            propagation,
        })
    }
}

/// An object after its deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this is its last state.
    Gone(Arc<Value>),
    /// It goes when somebody else has done his part.
    Going(Arc<Value>),
}

impl State {
    /// Deletes an object.
    pub fn delete(&mut self, call: &Call, options: &Options) -> Result<Deleted, Failure> {
        let old = self.get(call)?.clone();
        let (kind, name) = (&*call.kind, &call.name);
        for (what, asked, is) in [
            ("UID", &options.uid, object::uid(&old)),
            ("ResourceVersion", &options.version, object::text(&old, "/metadata/resourceVersion")),
        ] {
            if let Some(asked) = asked
                && asked != is
            {
                let why = format!(
                    "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). \
                     The object might have been deleted and then recreated"
                );
                return Err(Failure::conflict(kind, name, &why));
            }
        }
        let mut new = (*old).clone();
        match options.propagation {
            Propagation::Background => {
                if !object::is_deleting(&old) {
                    object::remove_finalizer(&mut new, FOREGROUND);
                    object::remove_finalizer(&mut new, ORPHAN);
                }
            }
            Propagation::Foreground => object::add_finalizer(&mut new, FOREGROUND),
            Propagation::Orphan => object::add_finalizer(&mut new, ORPHAN),
        }
        let grace = if kind.is_pod() { grace_of_pod(&old, options.grace) } else { 0 };
        // A namespace goes when everything in it is gone.
        let waits = !object::finalizers(&new).is_empty() || grace > 0 || kind.is("", "namespaces");
        if !waits {
            return Ok(Deleted::Gone(self.remove(call, &new)));
        }
        let before = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        if !object::is_deleting(&old) {
            begin(&mut new, grace, call.now);
        } else if before.is_some_and(|before| grace < before) {
            // It may be hurried, but not given more time.
            shorten(&mut new, grace, call.now);
        }
        if kind.is("", "namespaces") && !call.dry_run {
            new["status"]["phase"] = "Terminating".into();
        }
        Ok(Deleted::Going(if new == *old { old } else { self.put(call, new) }))
    }
}

fn grace_of_pod(pod: &Value, asked: Option<i64>) -> i64 {
    // Nobody could say that a pod which runs nowhere has ended.
    let is_over = matches!(object::text(pod, "/status/phase"), "Succeeded" | "Failed");
    if object::text(pod, "/spec/nodeName").is_empty() || is_over {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
    match asked.unwrap_or(own) {
        // What is negative is meant to be as short as can be.
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

fn begin(object: &mut Value, grace: i64, now: Timestamp) {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let metadata = object::metadata(object);
    // The time at which it is to be gone.
    let at = now + SignedDuration::from_secs(grace);
    metadata.insert("deletionTimestamp".into(), object::time(at).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if let Some(generation) = generation {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

fn shorten(object: &mut Value, grace: i64, now: Timestamp) {
    let metadata = object::metadata(object);
    metadata.insert("deletionTimestamp".into(), object::time(now + SignedDuration::from_secs(grace)).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
}
