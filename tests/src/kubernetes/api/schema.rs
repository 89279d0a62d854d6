//! Schemas of custom resources: what is left out, what is added, and what is wrong.

use super::failure::Cause;
use super::object;
use super::shape::item_name;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Fields of every object, which no schema describes.
const OUTSIDE: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn is(schema: &Value, field: &str) -> bool {
    schema.get(field) == Some(&Value::Bool(true))
}

fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// The schema of a field: its own, or the one of all fields of a map.
fn field_schema<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    let own = schema.get("properties").and_then(|fields| fields.get(field));
    own.or_else(|| schema.get("additionalProperties").filter(|all| all.is_object()))
}

/// Takes out what the schema does not know, and says what that was.
pub fn prune(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut unknown = vec![];
    prune_below(object, schema, "", true, &mut unknown);
    unknown
}

fn prune_below(value: &mut Value, schema: &Value, path: &str, is_root: bool, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keeps_all =
                is(schema, "x-kubernetes-preserve-unknown-fields") || is(schema, "additionalProperties");
            map.retain(|field, value| {
                if is_root && OUTSIDE.contains(&field.as_str()) {
                    return true;
                }
                let path = below(path, field);
                let Some(schema) = field_schema(schema, field) else {
                    if !keeps_all {
                        unknown.push(path);
                    }
                    return keeps_all;
                };
                prune_below(value, schema, &path, false, unknown);
                true
            });
        }
        Value::Array(list) => {
            let Some(items) = schema.get("items") else { return };
            for (at, item) in list.iter_mut().enumerate() {
                prune_below(item, items, &format!("{path}[{at}]"), false, unknown);
            }
        }
        _ => {}
    }
}

/// Adds what is missing and has a default, into what was added by default too.
pub fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (field, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let Some(default) = schema.get("default") else { continue };
                let is_null = map.get(field).is_some_and(Value::is_null) && !is(schema, "nullable");
                if is_null || !map.contains_key(field) {
                    map.insert(field.clone(), default.clone());
                }
            }
            for (field, value) in map.iter_mut() {
                if let Some(schema) = field_schema(schema, field) {
                    self::default(value, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|item| default(item, items));
            }
        }
        _ => {}
    }
}

/// What is wrong with an object.
pub fn validate(object: &Value, schema: &Value) -> Vec<Cause> {
    let mut causes = vec![];
    let mut inner = object.clone();
    object::map(&mut inner).retain(|field, _| !OUTSIDE.contains(&field.as_str()));
    check(&inner, schema, "", &mut causes);
    causes
}

fn check(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && is(schema, "nullable") {
        return;
    }
    if let Some(why) = wrong_type(value, schema) {
        let why = format!("{path} in body must be of type {why}: {value}");
        causes.push(Cause::new("FieldValueTypeInvalid", path, format!("Invalid value: {value}: {why}")));
        return;
    }
    let mut invalid =
        |why: String| causes.push(Cause::invalid(path, value, &format!("{path} in body {why}")));
    let number = |field: &str| schema.get(field).and_then(Value::as_f64);
    if let Some(is) = value.as_f64() {
        if let Some(least) = number("minimum").filter(|least| is < *least) {
            invalid(format!("should be greater than or equal to {least}"));
        }
        if let Some(most) = number("maximum").filter(|most| is > *most) {
            invalid(format!("should be less than or equal to {most}"));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as f64;
        if let Some(least) = number("minLength").filter(|least| length < *least) {
            invalid(format!("should be at least {least} chars long"));
        }
        if let Some(most) = number("maxLength").filter(|most| length > *most) {
            invalid(format!("should be at most {most} chars long"));
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
            && !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
        {
            invalid(format!("should match '{pattern}'"));
        }
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let shown: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let why = format!("Unsupported value: {value}: supported values: {}", shown.join(", "));
        causes.push(Cause::new("FieldValueNotSupported", path, why));
    }
    match value {
        Value::Object(map) => check_map(map, schema, path, causes),
        Value::Array(list) => check_list(list, schema, path, causes),
        _ => {}
    }
    check_alternatives(value, schema, path, causes);
}

fn wrong_type(value: &Value, schema: &Value) -> Option<String> {
    let is_integer =
        value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0);
    if is(schema, "x-kubernetes-int-or-string") {
        return (!is_integer && !value.is_string()).then(|| "integer,string".to_owned());
    }
    let wanted = schema.get("type").and_then(Value::as_str)?;
    let is_right = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer,
        "number" => value.is_number(),
        _ => true,
    };
    (!is_right).then(|| wanted.to_owned())
}

fn check_map(map: &Map<String, Value>, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for required in object::items(schema, "/required").filter_map(Value::as_str) {
        let is_outside = path.is_empty() && OUTSIDE.contains(&required);
        if !is_outside && !map.contains_key(required) {
            causes.push(Cause::required(below(path, required), ""));
        }
    }
    let count = |field: &str| schema.get(field).and_then(Value::as_u64);
    if count("maxProperties").is_some_and(|most| map.len() as u64 > most) {
        causes.push(Cause::new("FieldValueTooMany", path, format!("Too many: {}", map.len())));
    }
    if let Some(least) = count("minProperties").filter(|least| (map.len() as u64) < *least) {
        causes.push(Cause::invalid(
            path,
            &Value::Null,
            &format!("{path} in body should have at least {least} properties"),
        ));
    }
    for (field, value) in map {
        if let Some(schema) = field_schema(schema, field) {
            check(value, schema, &below(path, field), causes);
        }
    }
}

fn check_list(list: &[Value], schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let count = |field: &str| schema.get(field).and_then(Value::as_u64);
    if let Some(most) = count("maxItems").filter(|most| list.len() as u64 > *most) {
        let why = format!("Too many: {}: must have at most {most} items", list.len());
        causes.push(Cause::new("FieldValueTooMany", path, why));
    }
    if let Some(least) = count("minItems").filter(|least| (list.len() as u64) < *least) {
        let why = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, &Value::Array(list.to_vec()), &why));
    }
    let keys: Vec<&str> =
        object::items(schema, "/x-kubernetes-list-map-keys").filter_map(Value::as_str).collect();
    let kind = schema.get("x-kubernetes-list-type").and_then(Value::as_str).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (at, item) in list.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let name = if kind == "map" { item_name(item, &keys) } else { item.to_string() };
        if matches!(kind, "map" | "set") && !seen.insert(name.clone()) {
            causes.push(Cause::new("FieldValueDuplicate", path.clone(), format!("Duplicate value: {name}")));
        }
        if let Some(items) = schema.get("items") {
            check(item, items, &path, causes);
        }
    }
}

fn check_alternatives(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let holds = |schema: &&Value| {
        let mut causes = vec![];
        check(value, schema, path, &mut causes);
        causes.is_empty()
    };
    let all = |field: &str| schema.get(field).and_then(Value::as_array);
    let wrong = all("allOf").is_some_and(|all| !all.iter().all(|schema| holds(&schema)))
        || all("anyOf").is_some_and(|any| !any.iter().any(|schema| holds(&schema)))
        || all("oneOf").is_some_and(|one| one.iter().filter(holds).count() != 1)
        || schema.get("not").is_some_and(|not| holds(&not));
    // A number or a text is described as alternatives, too.
    if wrong && !is(schema, "x-kubernetes-int-or-string") {
        causes.push(Cause::invalid(
            path,
            value,
            &format!("{path} in body must validate the schemas of allOf, anyOf, oneOf and not"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["image"], "properties": {
            "image": {"type": "string", "minLength": 1},
            "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
            "inner": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3, "maximum": 5}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "groups": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}}}},
        }}}})
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"kind": "X", "metadata": {"x": 1}, "more": 1,
            "spec": {"image": "i", "free": {"any": 1}, "groups": [{"name": "a", "other": 1}]}});
        assert_eq!(prune(&mut object, &schema()), ["more", "spec.groups[0].other"]);
        default(&mut object, &schema());
        let expected = json!({"kind": "X", "metadata": {"x": 1}, "spec": {"image": "i", "free": {"any": 1},
            "groups": [{"name": "a"}], "mode": "A", "inner": {"n": 3}}});
        assert_eq!(object, expected);
        assert_eq!(validate(&object, &schema()), []);
    }

    #[test]
    fn each_mistake_is_found() {
        for (spec, count) in [
            (json!({"image": "i", "size": 1}), 0),
            (json!({"image": "i", "size": "1"}), 0),
            (json!({}), 1),
            (json!({"image": ""}), 1),
            (json!({"image": 1}), 1),
            (json!({"image": "i", "size": true}), 1),
            (json!({"image": "i", "mode": "C"}), 1),
            (json!({"image": "i", "inner": {"n": 6}}), 1),
            (json!({"image": "i", "inner": {"n": "6"}}), 1),
            (json!({"image": "i", "groups": [{"name": "A"}]}), 1),
            (json!({"image": "i", "groups": [{"name": "a"}, {"name": "a"}]}), 1),
            (json!("text"), 1),
        ] {
            let causes = validate(&json!({"spec": spec}), &schema());
            assert_eq!(causes.len(), count, "{spec}: {causes:?}");
        }
    }
}
