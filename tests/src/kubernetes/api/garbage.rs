//! What goes because of something else: what nobody owns any more, what lay in a namespace, and objects of a definition.
//!
//! An owner is known by its uid: another object of the same name is another owner.

use super::definition::CLEANUP;
use super::delete::{FOREGROUND, ORPHAN, Options, Propagation};
use super::kinds::Kind;
use super::object::{self, items, text};
use super::state::{Call, State};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// Who does it, for `managedFields`.
const MANAGER: &str = "kube-controller-manager";

/// One thing that is to be done.
enum Work {
    Delete(Propagation),
    /// Owners, by uid, that it no longer has.
    Disown(Vec<String>),
    Unhold(&'static str),
    /// At last.
    Remove,
}

/// Does what there is to do now. Says whether that was anything: there may be more then.
pub fn collect(state: &mut State) -> bool {
    let work = work(state);
    let is_any = !work.is_empty();
    for (kind, object, work) in work {
        let call = Call::own(&kind, &object, MANAGER);
        // Each decision is about an object in one version; what has changed since is decided anew.
        let Ok(now) = state.get(&call).cloned() else { continue };
        if object::version(&now) != object::version(&object) {
            continue;
        }
        let mut new = (*now).clone();
        match work {
            Work::Delete(propagation) => {
                let _ = state.delete(&call, &Options { propagation, ..Options::default() });
                continue;
            }
            Work::Remove => {
                state.remove(&call, &new);
                continue;
            }
            Work::Disown(owners) => {
                if let Some(list) =
                    object::metadata(&mut new).get_mut("ownerReferences").and_then(Value::as_array_mut)
                {
                    list.retain(|owner| !owners.iter().any(|uid| uid == text(owner, "/uid")));
                }
                if items(&new, "/metadata/ownerReferences").next().is_none() {
                    object::metadata(&mut new).remove("ownerReferences");
                }
            }
            Work::Unhold(finalizer) => object::remove_finalizer(&mut new, finalizer),
        }
        let _ = state.write(&call, &now, new, false);
    }
    is_any
}

type Owners<'a> = HashMap<&'a str, (&'a Arc<str>, &'a Arc<Value>)>;

fn work(state: &State) -> Vec<(Arc<Kind>, Arc<Value>, Work)> {
    let all: Vec<(&Arc<str>, &Arc<Value>)> =
        state.store.everything().filter(|(resource, _)| ***resource != *"events").collect();
    let owners: Owners =
        all.iter().map(|(resource, object)| (object::uid(object), (*resource, *object))).collect();
    let mut work = vec![];
    for (resource, object) in &all {
        let Some(kind) = state.kinds.stored(resource) else { continue };
        let mut push = |what| work.push((kind.clone(), (*object).clone(), what));
        if object::is_deleting(object) {
            if kind.is("", "namespaces") && is_empty(state, &all, object::name(object)) {
                push(Work::Remove);
            } else if kind.is("apiextensions.k8s.io", "customresourcedefinitions")
                && object::has_finalizer(object, CLEANUP)
                && state.store.list(object::name(object), "").next().is_none()
            {
                push(Work::Unhold(CLEANUP));
            } else if object::has_finalizer(object, FOREGROUND) && !is_waited_for(&all, object::uid(object)) {
                push(Work::Unhold(FOREGROUND));
            } else if object::has_finalizer(object, ORPHAN)
                && !all.iter().any(|(_, other)| owner(other, object::uid(object)).is_some())
            {
                push(Work::Unhold(ORPHAN));
            }
        }
        if let Some(what) = of_owned(state, &owners, object) {
            push(what);
        } else if !object::is_deleting(object) && is_in_vain(state, resource, object) {
            push(Work::Delete(Propagation::Background));
        }
    }
    // What lies in a namespace that goes, events too.
    for (resource, object) in state.store.everything().filter(|(resource, _)| ***resource == *"events") {
        if let Some(kind) = state.kinds.stored(resource)
            && is_in_vain(state, resource, object)
        {
            work.push((kind.clone(), object.clone(), Work::Delete(Propagation::Background)));
        }
    }
    work
}

fn owner<'a>(object: &'a Value, uid: &str) -> Option<&'a Value> {
    items(object, "/metadata/ownerReferences").find(|owner| text(owner, "/uid") == uid)
}

/// Whether something that is owned by it must go before it.
fn is_waited_for(all: &[(&Arc<str>, &Arc<Value>)], uid: &str) -> bool {
    all.iter().any(|(_, object)| owner(object, uid).is_some_and(|owner| owner["blockOwnerDeletion"] == true))
}

fn is_empty(state: &State, all: &[(&Arc<str>, &Arc<Value>)], namespace: &str) -> bool {
    let is_in = |object: &Value| object::namespace(object) == namespace;
    !all.iter().any(|(_, object)| is_in(object)) && state.store.list("events", namespace).next().is_none()
}

/// Whether its namespace, or its definition, goes.
fn is_in_vain(state: &State, resource: &str, object: &Value) -> bool {
    let goes = |found: Option<&Arc<Value>>| found.is_some_and(|found| object::is_deleting(found));
    let namespace = object::namespace(object);
    goes(state.store.get("customresourcedefinitions.apiextensions.k8s.io", "", resource))
        || !namespace.is_empty() && goes(state.store.get("namespaces", "", namespace))
}

/// What becomes of an object by what becomes of its owners.
fn of_owned(state: &State, owners: &Owners, object: &Value) -> Option<Work> {
    let (mut solid, mut absent, mut waiting, mut leaving) = (0, vec![], vec![], vec![]);
    for reference in items(object, "/metadata/ownerReferences") {
        let uid = text(reference, "/uid").to_owned();
        let found = owners.get(uid.as_str()).map(|(_, owner)| *owner);
        // An owner in another namespace is none.
        let found = found.filter(|owner| {
            let namespace = object::namespace(owner);
            namespace.is_empty() || namespace == object::namespace(object)
        });
        match found {
            Some(owner) if object::is_deleting(owner) && object::has_finalizer(owner, ORPHAN) => {
                leaving.push(uid)
            }
            Some(owner) if object::is_deleting(owner) && object::has_finalizer(owner, FOREGROUND) => {
                waiting.push(uid)
            }
            Some(_) => solid += 1,
            // Of what nobody knows, nobody knows whether it is there.
            None if !is_known(state, reference) => solid += 1,
            None => absent.push(uid),
        }
    }
    if !leaving.is_empty() {
        return Some(Work::Disown(leaving));
    }
    if solid > 0 {
        let gone: Vec<String> = absent.into_iter().chain(waiting).collect();
        return (!gone.is_empty()).then_some(Work::Disown(gone));
    }
    if object::is_deleting(object) || absent.is_empty() && waiting.is_empty() {
        return None;
    }
    let is_owner = owners.values().any(|(_, other)| owner(other, object::uid(object)).is_some());
    let foreground = !waiting.is_empty() && is_owner;
    Some(Work::Delete(if foreground { Propagation::Foreground } else { Propagation::Background }))
}

fn is_known(state: &State, reference: &Value) -> bool {
    let (version, kind) = (text(reference, "/apiVersion"), text(reference, "/kind"));
    state.kinds.iter().any(|known| known.kind == kind && known.api_version() == version)
}
