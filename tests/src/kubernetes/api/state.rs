//! The verbs: what becomes of an object when somebody writes it.
//!
//! Every write goes one way: who it is about is checked, what only the server may write is restored, the part of the object that this door is
//! not for is restored too, the rules of the kind are checked, changes of the specification are counted, and it is noted who wrote which
//! fields. What is the same afterwards is not written at all.

use super::failure::{Cause, Failure};
use super::kinds::{Kind, Kinds};
use super::managers::{self, Writer};
use super::shape::Shape;
use super::store::Store;
use super::{definition, events, object, patch, rules};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// All that the server knows.
pub struct State {
    /// The resources.
    pub kinds: Kinds,
    /// Their objects.
    pub store: Store,
}

/// A request about an object or a collection, without its body.
#[derive(Clone, Debug)]
pub struct Call {
    /// The resource.
    pub kind: Arc<Kind>,
    /// Empty for all, and for what lies in none.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Who writes.
    pub manager: String,
    /// Whether nothing is to be changed.
    pub dry_run: bool,
    /// Whether a field that is not in the schema is an error. If not, it is left out.
    pub strict: bool,
    /// When.
    pub now: Timestamp,
}

impl Call {
    /// A request of the server itself.
    pub fn own(kind: &Arc<Kind>, object: &Value, manager: &str) -> Call {
        Call {
            kind: kind.clone(),
            namespace: object::namespace(object).into(),
            name: object::name(object).into(),
            subresource: String::new(),
            manager: manager.into(),
            dry_run: false,
            strict: false,
            now: Timestamp::now(),
        }
    }

    fn writer(&self) -> Writer {
        Writer {
            manager: self.manager.clone(),
            subresource: self.subresource.clone(),
            time: object::time(self.now),
        }
    }
}

/// A patch of one of the four kinds.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// That with lists by key.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// What the manager wants.
        config: Value,
        /// Whether to take fields from other managers.
        force: bool,
    },
}

/// A written object, and whether it is new.
pub type Written = (Arc<Value>, bool);

impl Default for State {
    fn default() -> State {
        let mut state = State { kinds: Kinds::default(), store: Store::default() };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let namespace = json!({"metadata": {"name": name}});
            let call = Call::own(&state.kinds.known("", "namespaces").clone(), &namespace, "kube-apiserver");
            state.create(&call, namespace).expect("BUG: a namespace of every cluster can be created");
        }
        state
    }
}

impl State {
    /// An object.
    pub fn get(&self, call: &Call) -> Result<&Arc<Value>, Failure> {
        let found = self.store.get(&call.kind.stored_as(), &call.namespace, &call.name);
        found.ok_or_else(|| Failure::not_found(&call.kind, &call.name))
    }

    /// Makes a new object.
    pub fn create(&mut self, call: &Call, body: Value) -> Result<Arc<Value>, Failure> {
        let object = self.received(call, body)?;
        self.create_as(call, object, false)
    }

    fn create_as(&mut self, call: &Call, mut object: Value, is_noted: bool) -> Result<Arc<Value>, Failure> {
        let kind = &*call.kind;
        let prefix = object::text(&object, "/metadata/generateName").to_owned();
        let metadata = object::metadata(&mut object);
        if metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty) && !prefix.is_empty() {
            metadata.insert("name".into(), format!("{prefix}{}", object::new_suffix()).into());
        }
        if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty())
        {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        for field in
            ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"]
        {
            metadata.remove(field);
        }
        if !is_noted {
            metadata.remove("managedFields");
        }
        metadata.insert("uid".into(), object::new_uid().into());
        metadata.insert("creationTimestamp".into(), object::time(call.now).into());
        if kind.counts_generations {
            metadata.insert("generation".into(), 1.into());
        }
        let name = object::name(&object).to_owned();
        let causes = rules::metadata(&object);
        if !causes.is_empty() {
            return Err(Failure::invalid(kind, &name, &causes));
        }
        self.check_namespace(call, &name)?;
        if self.store.get(&kind.stored_as(), &call.namespace, &name).is_some() {
            return Err(Failure::already_exists(kind, &name));
        }
        // A node says its status when it says that it is there.
        if kind.has_status() && !kind.is("", "nodes") {
            object::map(&mut object).remove("status");
        }
        rules::complete(kind, &mut object);
        definition::check(call, None, &mut object)?;
        // What a default adds is the writer's, what admission adds is nobody's.
        if !is_noted {
            managers::note(None, &mut object, kind, &call.writer());
        }
        rules::created(self, kind, &mut object)?;
        Ok(self.put(call, object))
    }

    /// Replaces an object.
    pub fn update(&mut self, call: &Call, body: Value) -> Result<Written, Failure> {
        let new = self.received(call, body)?;
        let Some(old) = self.store.get(&call.kind.stored_as(), &call.namespace, &call.name).cloned() else {
            return Err(Failure::not_found(&call.kind, &call.name));
        };
        // Who replaces an object by its uid means this one. A patch with another uid asks for it to be changed, which is something else.
        let (given, is) = (object::uid(&new), object::uid(&old));
        if !given.is_empty() && given != is {
            let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {is}");
            return Err(Failure::conflict(&call.kind, &call.name, &why));
        }
        self.write(call, &old, new, false).map(|object| (object, false))
    }

    /// Changes an object.
    pub fn patch(&mut self, call: &Call, patch: &Patch) -> Result<Written, Failure> {
        let kind = &*call.kind;
        let old = self.store.get(&kind.stored_as(), &call.namespace, &call.name).cloned();
        if let Patch::Apply { config, force } = patch {
            return self.apply(call, old, config.clone(), *force);
        }
        let old = old.ok_or_else(|| Failure::not_found(kind, &call.name))?;
        let mut new = events::present(kind, &old);
        match patch {
            Patch::Json(operations) => patch::json(&mut new, operations)?,
            Patch::Merge(changes) => patch::merge(&mut new, changes),
            Patch::Strategic(_) if kind.definition.is_some() => {
                let why = "the body of the request was in an unknown format - accepted media types include: \
                           application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
                return Err(Failure::new(415, "UnsupportedMediaType", why));
            }
            Patch::Strategic(changes) => patch::strategic(&mut new, changes, Shape::of(kind)),
            Patch::Apply { .. } => {}
        }
        let new = self.received(call, new)?;
        self.write(call, &old, new, false).map(|object| (object, false))
    }

    fn apply(
        &mut self,
        call: &Call,
        old: Option<Arc<Value>>,
        config: Value,
        force: bool,
    ) -> Result<Written, Failure> {
        let kind = &*call.kind;
        let config = self.received(call, config)?;
        let Some(old) = old else {
            if !call.subresource.is_empty() {
                return Err(Failure::not_found(kind, &call.name));
            }
            let uid = object::uid(&config);
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Failure::conflict(kind, &call.name, &why));
            }
            let mut nothing =
                json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}});
            object::copy_metadata(&config, &mut nothing, &["name", "namespace"]);
            let new = managers::apply(&nothing, config, kind, &call.writer(), force)?;
            return Ok((self.create_as(call, new, true)?, true));
        };
        let mut asked = json!({});
        object::copy_metadata(&config, &mut asked, &["resourceVersion", "uid"]);
        let mut new = managers::apply(&old, config, kind, &call.writer(), force)?;
        for (field, value) in object::metadata(&mut asked).clone() {
            object::metadata(&mut new).insert(field, value);
        }
        self.write(call, &old, new, true).map(|object| (object, false))
    }

    /// What came, as it is stored: it must be what the path says.
    fn received(&self, call: &Call, body: Value) -> Result<Value, Failure> {
        let kind = &*call.kind;
        if !body.is_object() {
            return Err(Failure::bad_request("the body of the request is no object"));
        }
        for (field, wanted) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
            let got = body.get(field).and_then(Value::as_str).unwrap_or(&wanted);
            if got != wanted {
                let why =
                    format!("the {field} in the data ({got}) does not match the expected {field} ({wanted})");
                return Err(Failure::bad_request(why));
            }
        }
        let mut object = events::received(kind, body);
        if kind.definition.is_none() {
            rules::without_nulls(&mut object);
        }
        object::map(&mut object).insert("apiVersion".into(), events::stored_version(kind).into());
        object::map(&mut object).insert("kind".into(), kind.kind.clone().into());
        let namespace = object::namespace(&object);
        if !namespace.is_empty() && namespace != call.namespace {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Failure::bad_request(why));
        }
        let name = object::name(&object).to_owned();
        if !call.name.is_empty() && !name.is_empty() && name != call.name {
            let why =
                format!("the name of the object ({name}) does not match the name on the URL ({})", call.name);
            return Err(Failure::bad_request(why));
        }
        let metadata = object::metadata(&mut object);
        if !call.name.is_empty() {
            metadata.insert("name".into(), call.name.clone().into());
        }
        if kind.namespaced {
            metadata.insert("namespace".into(), call.namespace.clone().into());
        } else {
            metadata.remove("namespace");
        }
        Ok(object)
    }

    fn check_namespace(&self, call: &Call, name: &str) -> Result<(), Failure> {
        if !call.kind.namespaced {
            return Ok(());
        }
        let namespaces = self.kinds.known("", "namespaces");
        match self.store.get("namespaces", "", &call.namespace) {
            None => Err(Failure::not_found(namespaces, &call.namespace)),
            Some(namespace) if object::is_deleting(namespace) => {
                let why = "unable to create new content in namespace because it is being terminated";
                Err(Failure::forbidden(&call.kind, name, why))
            }
            Some(_) => Ok(()),
        }
    }

    /// The way of every change of an object that is there.
    pub fn write(
        &mut self,
        call: &Call,
        old: &Arc<Value>,
        mut new: Value,
        is_noted: bool,
    ) -> Result<Arc<Value>, Failure> {
        const SERVERS: [&str; 8] = [
            "name",
            "namespace",
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
        ];
        let (kind, name) = (&*call.kind, object::name(old).to_owned());
        let uid = new
            .pointer("/metadata/uid")
            .filter(|uid| uid.as_str().is_some_and(|uid| uid != object::uid(old)));
        if let Some(uid) = uid {
            let cause = Cause::invalid("metadata.uid", uid, "field is immutable");
            return Err(Failure::invalid(kind, &name, &[cause]));
        }
        let given = object::text(&new, "/metadata/resourceVersion");
        if !given.is_empty() && given != object::text(old, "/metadata/resourceVersion") {
            return Err(Failure::modified(kind, &name));
        }
        object::copy_metadata(old, &mut new, &SERVERS);
        object::copy_metadata(old, &mut new, &["resourceVersion"]);
        if new.pointer("/metadata/managedFields").is_none() {
            object::copy_metadata(old, &mut new, &["managedFields"]);
        }
        self.keep_other_parts(call, old, &mut new);
        let mut causes = rules::metadata(&new);
        if object::is_deleting(old) {
            let before = object::finalizers(old);
            let added: Vec<&str> =
                object::finalizers(&new).into_iter().filter(|new| !before.contains(new)).collect();
            if !added.is_empty() {
                let why = format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                );
                causes.push(Cause::forbidden("metadata.finalizers", &why));
            }
        }
        if call.subresource.is_empty() {
            rules::complete(kind, &mut new);
            causes.extend(rules::changed(self, kind, old, &mut new)?);
        }
        if !causes.is_empty() {
            return Err(Failure::invalid(kind, &name, &causes));
        }
        definition::check(call, Some(old), &mut new)?;
        if kind.counts_generations && is_specified_otherwise(kind, old, &new) {
            let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
            object::metadata(&mut new).insert("generation".into(), (generation + 1).into());
        }
        if !is_noted {
            managers::note(Some(old), &mut new, kind, &call.writer());
        }
        if new == **old {
            return Ok(old.clone());
        }
        let grace = new.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
        if object::is_deleting(&new) && object::finalizers(&new).is_empty() && grace == 0 {
            return Ok(self.remove(call, &new));
        }
        Ok(self.put(call, new))
    }

    /// A door to a part of an object changes no other part.
    fn keep_other_parts(&self, call: &Call, old: &Value, new: &mut Value) {
        let kind = &*call.kind;
        match call.subresource.as_str() {
            "" if kind.has_status() => object::copy_field(old, new, "status"),
            "status" => {
                let mut kept = old.clone();
                object::copy_field(new, &mut kept, "status");
                if kind.definition.is_some() {
                    object::copy_metadata(new, &mut kept, &["managedFields"]);
                } else {
                    // Labels and annotations of the other kinds can be changed here; it is a door that was left open.
                    object::copy_field(new, &mut kept, "metadata");
                    object::copy_metadata(old, &mut kept, &["ownerReferences"]);
                }
                *new = kept;
            }
            _ => {}
        }
    }

    /// Stores an object, unless this is only a try.
    pub fn put(&mut self, call: &Call, object: Value) -> Arc<Value> {
        if call.dry_run {
            return Arc::new(object);
        }
        let object = self.store.put(&call.kind.stored_as(), object);
        if call.kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            definition::serve(&mut self.kinds, &object);
        }
        object
    }

    /// Removes an object at last, unless this is only a try.
    pub fn remove(&mut self, call: &Call, object: &Value) -> Arc<Value> {
        if call.dry_run {
            return Arc::new(object.clone());
        }
        if call.kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            definition::serve_no_longer(&mut self.kinds, object);
        }
        self.store.remove(&call.kind.stored_as(), object)
    }
}

/// Whether anything but the metadata and the status is different.
fn is_specified_otherwise(kind: &Kind, old: &Value, new: &Value) -> bool {
    let specified = |object: &Value| {
        let mut object = object.clone();
        let map = object::map(&mut object);
        map.remove("metadata");
        if kind.has_status() {
            map.remove("status");
        }
        object
    };
    specified(old) != specified(new)
}
