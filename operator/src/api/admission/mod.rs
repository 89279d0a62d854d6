//! What an API server would let through: defaults, the schema, then the rules. For tests.

mod bounds;
mod rules;

use super::crds;
use kube::core::cel::{Validator, apply_defaults};
use regex::Regex;
use serde_json::{Value, json};

/// The schema of a kind, as it is installed.
pub fn schema(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a kind");
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
    serde_json::to_value(schema.expect("a schema")).expect("JSON")
}

/// The object with defaults, or everything that is wrong with it. `old` is the one that it takes the place of.
pub fn admit(object: &Value, old: Option<&Value>) -> Result<Value, Vec<String>> {
    let schema = schema(object["kind"].as_str().expect("a kind"));
    let object = apply_defaults_deep(&schema, object);
    let mut problems = vec![];
    check(&schema, &object, "", &mut problems);
    // As at a server: rules are for objects that have the right shape.
    if problems.is_empty()
        && let Err(errors) = Validator::new().validate(&schema, &object, old)
    {
        problems.extend(errors.into_vec().into_iter().map(|error| error.message));
    }
    if problems.is_empty() { Ok(object) } else { Err(problems) }
}

/// A default is completed by the defaults in it, too, as servers do.
fn apply_defaults_deep(schema: &Value, object: &Value) -> Value {
    let (mut before, mut after) = (object.clone(), apply_defaults(schema, object));
    while after != before {
        (before, after) = (after.clone(), apply_defaults(schema, &after));
    }
    after
}

/// Adds what is wrong with a value by a schema.
pub fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<String>) {
    let mut problem = |what: String| problems.push(format!("{path}: {what}"));
    let is_type = match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(_)) | (Some("array"), Value::Array(_)) => true,
        (Some("string"), Value::String(_)) | (Some("boolean"), Value::Bool(_)) => true,
        (Some("integer"), Value::Number(number)) => number.is_i64() || number.is_u64(),
        (None, value) if schema["x-kubernetes-int-or-string"] == true => value.is_i64() || value.is_string(),
        (None, _) => true,
        _ => false,
    };
    if !is_type {
        return problem(format!("{value} is no {}", schema["type"]));
    }
    let over = |key: &str, size: usize| schema[key].as_u64().is_some_and(|max| size as u64 > max);
    let under = |key: &str, size: usize| schema[key].as_u64().is_some_and(|min| (size as u64) < min);
    match value {
        Value::String(text) => {
            if over("maxLength", text.len()) || under("minLength", text.len()) {
                problem(format!("the length of {text:?}"));
            }
            if schema["pattern"].as_str().is_some_and(|pattern| !Regex::new(pattern).unwrap().is_match(text))
            {
                problem(format!("{text:?} does not match {}", schema["pattern"]));
            }
            if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
                problem(format!("{text:?} is none of {}", schema["enum"]));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if schema["minimum"].as_f64().is_some_and(|min| number < min)
                || schema["maximum"].as_f64().is_some_and(|max| number > max)
            {
                problem(format!("{number} is out of bounds"));
            }
        }
        Value::Array(items) => {
            if over("maxItems", items.len()) || under("minItems", items.len()) {
                problem(format!("{} items", items.len()));
            }
            if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
                let key = |item: &Value| -> Vec<Value> {
                    keys.iter().map(|key| item[key.as_str().unwrap_or_default()].clone()).collect()
                };
                for (index, item) in items.iter().enumerate() {
                    if items[..index].iter().any(|other| key(other) == key(item)) {
                        problem(format!("duplicate {:?}", key(item)));
                    }
                }
            }
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), problems);
            }
        }
        Value::Object(fields) => {
            if over("maxProperties", fields.len()) {
                problem(format!("{} fields", fields.len()));
            }
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            for missing in required.filter(|name| !fields.contains_key(*name)) {
                problem(format!("{missing} is missing"));
            }
            for (name, value) in fields {
                let inner = schema["properties"].get(name).or(schema.get("additionalProperties"));
                if let Some(inner) = inner {
                    check(inner, value, &format!("{path}.{name}"), problems);
                }
            }
        }
        _ => {}
    }
}

pub fn cluster() -> Value {
    let group =
        |name: &str| json!({ "name": name, "nodes": 2, "topology": { "values": [format!("eu-1{name}")] } });
    let made = |name: &str, last: u64| json!({ "name": name, "lastSerial": last });
    json!({
        "apiVersion": "sarsen.dev/v1alpha1", "kind": "SarsenCluster",
        "metadata": { "name": "metrics", "namespace": "monitoring" },
        "spec": {
            "image": "sarsen:1",
            "groups": [group("a"), group("b"), group("c"), group("d")],
            "storage": { "size": "100Gi", "storageClassName": "local" },
        },
        // For group d nothing was made yet.
        "status": { "groups": [made("a", 2), made("b", 2), made("c", 3), made("d", 0)] },
    })
}

pub fn namespace() -> Value {
    json!({
        "apiVersion": "sarsen.dev/v1alpha1", "kind": "SarsenNamespace",
        "metadata": { "name": "default", "namespace": "monitoring" },
        "spec": { "cluster": "metrics", "retention": "90d" },
    })
}

/// `object` with the value at `pointer` set, or taken away if it is null.
pub fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.into(), value)),
        Value::Array(items) if value.is_null() => drop(items.remove(key.parse().expect("an index"))),
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
        other => panic!("{parent} is {other}"),
    }
    object
}
