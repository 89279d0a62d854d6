//! Sets of fields, as in `metadata.managedFields`: who wrote what.
//!
//! ```text
//! {"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}
//!  a field                      an item by its keys    it, and its field
//! ```
//!
//! `v:` stands for an item of a set. A node without anything below is a member, one with something below is one when it has a `.`.

use super::shape::{List, Shape, item_name};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    member: bool,
    children: BTreeMap<String, Fields>,
}

impl Fields {
    /// From `fieldsV1`.
    pub fn parse(json: &Value) -> Fields {
        let mut fields = Fields::default();
        for (name, below) in json.as_object().into_iter().flatten() {
            if name == "." {
                fields.member = true;
                continue;
            }
            let mut child = Fields::parse(below);
            child.member |= child.children.is_empty();
            fields.children.insert(name.clone(), child);
        }
        fields
    }

    /// As `fieldsV1`.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        map.extend(self.children.iter().map(|(name, child)| (name.clone(), child.json())));
        Value::Object(map)
    }

    /// All fields that `value` has.
    pub fn of(value: &Value, shape: Shape) -> Fields {
        Fields::changed(None, value, shape)
    }

    /// The fields of `new` that are not there, or not the same, in `old`.
    pub fn changed(old: Option<&Value>, new: &Value, shape: Shape) -> Fields {
        let mut fields = Fields::default();
        match new {
            Value::Object(map) if !map.is_empty() && !shape.is_atomic() => {
                for (name, value) in map {
                    let below = Fields::changed(old.and_then(|old| old.get(name)), value, shape.field(name));
                    fields.adopt(format!("f:{name}"), below);
                }
            }
            Value::Array(list) if !matches!(shape.list(), List::Atomic) => {
                for item in list {
                    let (name, is_map) = element(item, shape);
                    let before = old.and_then(|old| find(old, &name, shape));
                    let mut below = match is_map {
                        true => Fields::changed(before, item, shape.item()),
                        false => Fields::default(),
                    };
                    below.member = before.is_none();
                    fields.adopt(name, below);
                }
            }
            _ => fields.member = old != Some(new),
        }
        fields
    }

    fn adopt(&mut self, name: String, below: Fields) {
        if !below.is_empty() {
            self.children.insert(name, below);
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds fields.
    pub fn add(&mut self, other: &Fields) {
        self.member |= other.member;
        for (name, child) in &other.children {
            self.children.entry(name.clone()).or_default().add(child);
        }
    }

    /// Takes fields away.
    pub fn remove(&mut self, other: &Fields) {
        self.member &= !other.member;
        for (name, child) in &other.children {
            if let Some(own) = self.children.get_mut(name) {
                own.remove(child);
                if own.is_empty() {
                    self.children.remove(name);
                }
            }
        }
    }

    /// Takes a field at the top away, with everything below.
    pub fn remove_field(&mut self, path: &[&str]) {
        let [name, below @ ..] = path else { return };
        let name = format!("f:{name}");
        if below.is_empty() {
            self.children.remove(&name);
        } else if let Some(child) = self.children.get_mut(&name) {
            child.remove_field(below);
            if child.is_empty() {
                self.children.remove(&name);
            }
        }
    }

    /// Keeps only a field at the top, with everything below.
    pub fn keep_field(&mut self, field: &str) {
        let field = format!("f:{field}");
        self.children.retain(|name, _| *name == field);
    }

    /// Fields that are in both.
    pub fn common(&self, other: &Fields) -> Fields {
        let mut common = Fields { member: self.member && other.member, children: BTreeMap::new() };
        for (name, child) in &self.children {
            if let Some(theirs) = other.children.get(name) {
                common.adopt(name.clone(), child.common(theirs));
            }
        }
        common
    }

    /// The members as people write them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![];
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, path: &str, into: &mut Vec<String>) {
        if self.member && !path.is_empty() {
            into.push(path.to_owned());
        }
        for (name, child) in &self.children {
            let part = match name.split_at(2) {
                ("f:", field) => format!(".{field}"),
                ("k:", keys) => {
                    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                    let keys: Vec<String> =
                        keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    format!("[{}]", keys.join(","))
                }
                (_, value) => format!("[={value}]"),
            };
            child.collect(&format!("{path}{part}"), into);
        }
    }

    fn child(&self, name: &str) -> Option<&Fields> {
        self.children.get(name)
    }
}

/// Takes out of `value` what `last` has, `now` has no longer, and none of the `others` has.
pub fn prune(value: &mut Value, shape: Shape, last: &Fields, now: &Fields, others: &Fields) {
    let nothing = Fields::default();
    let mut gone = vec![];
    for (name, before) in &last.children {
        let (after, theirs) = (now.child(name), others.child(name));
        let Some(place) = place(value, name, shape) else { continue };
        // A map that was never a field by itself goes with its last one.
        let is_whole = before.member || before.children.is_empty();
        if after.is_none() && theirs.is_none() && is_whole {
            gone.push(name);
            continue;
        }
        let below = below(shape, name);
        prune(place, below, before, after.unwrap_or(&nothing), theirs.unwrap_or(&nothing));
        let is_empty =
            place.as_object().is_some_and(Map::is_empty) || place.as_array().is_some_and(Vec::is_empty);
        if is_empty && after.is_none() && theirs.is_none() {
            gone.push(name);
        }
    }
    for name in gone {
        match value {
            Value::Object(map) => drop(map.remove(&name[2..])),
            Value::Array(list) => list.retain(|item| element(item, shape).0 != *name),
            _ => {}
        }
    }
}

fn below<'a>(shape: Shape<'a>, name: &'a str) -> Shape<'a> {
    if let Some(field) = name.strip_prefix("f:") { shape.field(field) } else { shape.item() }
}

fn place<'a>(value: &'a mut Value, name: &str, shape: Shape) -> Option<&'a mut Value> {
    match value {
        Value::Object(map) => map.get_mut(name.strip_prefix("f:")?),
        Value::Array(list) => list.iter_mut().find(|item| element(item, shape).0 == name),
        _ => None,
    }
}

/// How an item is named, and whether it has fields of its own.
fn element(item: &Value, shape: Shape) -> (String, bool) {
    match shape.list() {
        List::Map(keys) => (format!("k:{}", item_name(item, &keys)), true),
        _ => (format!("v:{item}"), false),
    }
}

fn find<'a>(list: &'a Value, name: &str, shape: Shape) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| element(item, shape).0 == name)
}

/// `value` with everything that `applied` says: maps and lists by key are merged, all else is replaced.
pub fn merge(value: &mut Value, applied: &Value, shape: Shape) {
    match (value, applied) {
        (Value::Object(map), Value::Object(applied)) if !shape.is_atomic() => {
            for (name, field) in applied {
                match map.get_mut(name) {
                    Some(place) => merge(place, field, shape.field(name)),
                    None => drop(map.insert(name.clone(), field.clone())),
                }
            }
        }
        (Value::Array(list), Value::Array(applied)) if !matches!(shape.list(), List::Atomic) => {
            for item in applied {
                let (name, is_map) = element(item, shape);
                match list.iter_mut().find(|own| element(own, shape).0 == name) {
                    Some(own) if is_map => merge(own, item, shape.item()),
                    Some(_) => {}
                    None => list.push(item.clone()),
                }
            }
        }
        (value, applied) => *value = applied.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Shape = Shape::Known { kind: "Pod", field: "" };

    #[test]
    fn fields_are_written_as_the_real_server_writes_them() {
        let pod = json!({
            "metadata": {"labels": {"a": "1"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["1", "2"]}], "nodeSelector": {"a": "b"}},
        });
        let fields = Fields::of(&pod, POD);
        let expected = json!({
            "f:metadata": {"f:labels": {"f:a": {}}, "f:finalizers": {"v:\"x/y\"": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {}}},
                "f:nodeSelector": {},
            },
        });
        assert_eq!(fields.json(), expected);
        assert_eq!(Fields::parse(&expected), fields);
        assert!(fields.paths().contains(&".spec.containers[name=\"c\"].image".to_owned()));
    }

    #[test]
    fn what_is_no_longer_applied_goes_unless_somebody_else_has_it() {
        let mut live = json!({"data": {"mine": "1", "ours": "2", "theirs": "3"}});
        let set = |value: &Value| Fields::of(value, POD);
        let last = set(&json!({"data": {"mine": "1", "ours": "2"}}));
        let others = set(&json!({"data": {"ours": "2", "theirs": "3"}}));
        prune(&mut live, POD, &last, &Fields::default(), &others);
        assert_eq!(live, json!({"data": {"ours": "2", "theirs": "3"}}));
    }
}
