//! Who wrote which fields, and server-side apply, which is decided by that.

use super::failure::Failure;
use super::fields::{Fields, merge, prune};
use super::kinds::Kind;
use super::object;
use super::shape::Shape;
use serde_json::{Value, json};

/// Who writes, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Writer {
    /// The name it gives itself.
    pub manager: String,
    /// The part of the object that is written, or empty for the main one.
    pub subresource: String,
    /// When.
    pub time: String,
}

/// An entry of `managedFields`.
#[derive(Clone, Debug)]
struct Entry {
    manager: String,
    applies: bool,
    api_version: String,
    subresource: String,
    time: String,
    fields: Fields,
}

impl Entry {
    fn parse(json: &Value) -> Entry {
        let text = |pointer| object::text(json, pointer).to_owned();
        Entry {
            manager: text("/manager"),
            applies: text("/operation") == "Apply",
            api_version: text("/apiVersion"),
            subresource: text("/subresource"),
            time: text("/time"),
            fields: Fields::parse(json.get("fieldsV1").unwrap_or(&Value::Null)),
        }
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "manager": self.manager,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.json(),
        });
        if !self.subresource.is_empty() {
            json["subresource"] = self.subresource.clone().into();
        }
        json
    }

    fn is_of(&self, writer: &Writer, applies: bool) -> bool {
        self.manager == writer.manager && self.subresource == writer.subresource && self.applies == applies
    }

    /// As in messages.
    fn owner(&self) -> String {
        let part = if self.subresource.is_empty() {
            String::new()
        } else {
            format!(" with subresource {:?}", self.subresource)
        };
        format!("{:?}{part} using {}", self.manager, self.api_version)
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    object::items(object, "/metadata/managedFields").map(Entry::parse).collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    if entries.is_empty() {
        object::metadata(object).remove("managedFields");
    } else {
        let entries: Vec<Value> = entries.iter().map(Entry::json).collect();
        object::metadata(object).insert("managedFields".into(), entries.into());
    }
}

/// The fields that somebody can own: not those that the server writes, nor those that say which object it is.
fn owned(mut fields: Fields) -> Fields {
    const SERVERS: [&str; 10] = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ];
    for field in ["apiVersion", "kind"] {
        fields.remove_field(&[field]);
    }
    for field in SERVERS {
        fields.remove_field(&["metadata", field]);
    }
    fields
}

/// Notes in `new` who wrote what of it, after a write that was no apply.
pub fn note(old: Option<&Value>, new: &mut Value, kind: &Kind, writer: &Writer) {
    // Events are many, and nobody applies them.
    if kind.is_event() {
        return;
    }
    let shape = Shape::of(kind);
    let changed = owned(Fields::changed(old, new, shape));
    let mut removed = old.map(|old| owned(Fields::of(old, shape))).unwrap_or_default();
    removed.remove(&owned(Fields::of(new, shape)));
    let mut entries = entries(new);
    for entry in &mut entries {
        if !entry.is_of(writer, false) {
            entry.fields.remove(&changed);
        }
        entry.fields.remove(&removed);
    }
    if !changed.is_empty() {
        let version = kind.api_version();
        let own = entries.iter_mut().find(|entry| entry.is_of(writer, false) && entry.api_version == version);
        if let Some(own) = own {
            own.fields.add(&changed);
            own.time = writer.time.clone();
        } else {
            entries.push(Entry {
                manager: writer.manager.clone(),
                applies: false,
                api_version: version,
                subresource: writer.subresource.clone(),
                time: writer.time.clone(),
                fields: changed,
            });
        }
    }
    write(new, entries);
}

/// What an object becomes when `applied` is applied to it.
pub fn apply(
    live: &Value,
    mut applied: Value,
    kind: &Kind,
    writer: &Writer,
    force: bool,
) -> Result<Value, Failure> {
    if object::items(&applied, "/metadata/managedFields").next().is_some() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    without_nulls(&mut applied);
    let shape = Shape::of(kind);
    let mut fields = owned(Fields::of(&applied, shape));
    // Each part of an object has its own door; what is said at the wrong one is not heard.
    if writer.subresource == "status" {
        fields.keep_field("status");
        object::map(&mut applied).retain(|name, _| matches!(name.as_str(), "status" | "metadata"));
        object::metadata(&mut applied).clear();
    } else if kind.has_status() {
        fields.remove_field(&["status"]);
        object::map(&mut applied).remove("status");
    }
    for field in ["resourceVersion", "uid", "creationTimestamp", "generation", "selfLink", "managedFields"] {
        object::metadata(&mut applied).remove(field);
    }
    let mut result = live.clone();
    merge(&mut result, &applied, shape);

    let (own, mut others): (Vec<Entry>, Vec<Entry>) =
        entries(live).into_iter().partition(|entry| entry.is_of(writer, true));
    let changed = owned(Fields::changed(Some(live), &result, shape));
    let mut conflicts = vec![];
    for entry in &mut others {
        let taken = entry.fields.common(&changed);
        if !force {
            conflicts.extend(taken.paths().into_iter().map(|path| (entry.owner(), path)));
        }
        entry.fields.remove(&taken);
    }
    if !conflicts.is_empty() {
        return Err(Failure::field_conflicts(&conflicts));
    }

    let mut last = Fields::default();
    own.iter().for_each(|entry| last.add(&entry.fields));
    let mut theirs = Fields::default();
    others.iter().for_each(|entry| theirs.add(&entry.fields));
    prune(&mut result, shape, &last, &fields, &theirs);

    let mut removed = owned(Fields::of(live, shape));
    removed.remove(&owned(Fields::of(&result, shape)));
    others.iter_mut().for_each(|entry| entry.fields.remove(&removed));
    // An apply that says the same again changes nothing, not even the time.
    let same = own.first().filter(|own| own.fields == fields && result == *live).map(|own| own.time.clone());
    let entry = Entry {
        manager: writer.manager.clone(),
        applies: true,
        api_version: kind.api_version(),
        subresource: writer.subresource.clone(),
        time: same.unwrap_or_else(|| writer.time.clone()),
        fields,
    };
    others.push(entry);
    // In the order of the managers, so that the same managers always give the same list.
    others.sort_by(|a, b| {
        (b.applies, &a.manager, &a.subresource).cmp(&(a.applies, &b.manager, &b.subresource))
    });
    write(&mut result, others);
    Ok(result)
}

/// In a configuration that is applied, nothing and `null` are the same.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// The object without what only says who wrote it.
pub fn without_managers(object: &Value) -> Value {
    let mut object = object.clone();
    object::metadata(&mut object).remove("managedFields");
    object
}
