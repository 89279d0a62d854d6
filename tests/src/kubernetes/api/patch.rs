//! Patches that say what to change: JSON patch (RFC 6902), JSON merge patch (RFC 7386), and strategic merge, which merges lists by key.

use super::failure::Failure;
use super::shape::Shape;
use serde_json::{Map, Value};

/// Merges maps, takes away what is `null`, replaces everything else.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let map = super::object::map(target);
    for (name, value) in patch {
        if value.is_null() {
            map.remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Merges maps and lists that have a key; `$patch`, `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys` direct it.
pub fn strategic(target: &mut Value, patch: &Value, shape: Shape) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|directive| directive == "replace") {
        *target = Value::Object(plain(patch));
        return;
    }
    let map = super::object::map(target);
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        let shape = shape.field(name);
        match value {
            Value::Null => drop(map.remove(name)),
            Value::Object(below) if below.get("$patch").is_some_and(|directive| directive == "delete") => {
                map.remove(name);
            }
            Value::Object(_) => strategic(map.entry(name.clone()).or_insert(Value::Null), value, shape),
            Value::Array(items) => {
                strategic_list(map.entry(name.clone()).or_insert(Value::Null), items, shape)
            }
            value => drop(map.insert(name.clone(), value.clone())),
        }
    }
}

fn strategic_list(target: &mut Value, patch: &[Value], shape: Shape) {
    let is_replaced =
        patch.iter().any(|item| item.get("$patch").is_some_and(|directive| directive == "replace"));
    let key = shape.merge_key();
    let list = match target {
        Value::Array(list) if !is_replaced => list,
        _ => {
            *target = Value::Array(vec![]);
            target.as_array_mut().expect("it is a list")
        }
    };
    let Some(key) = key else {
        if matches!(shape.list(), super::shape::List::Set) {
            let new: Vec<Value> = patch.iter().filter(|item| !list.contains(item)).cloned().collect();
            list.extend(new);
        } else {
            *list = patch.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
        }
        return;
    };
    for item in patch {
        let Some(value) = item.get(key) else { continue };
        let at = list.iter().position(|own| own.get(key) == Some(value));
        match (item.get("$patch").and_then(Value::as_str), at) {
            (Some("delete"), Some(at)) => drop(list.remove(at)),
            (Some("delete"), None) => {}
            (_, Some(at)) => strategic(&mut list[at], item, shape.item()),
            (_, None) => {
                let mut new = Value::Null;
                strategic(&mut new, item, shape.item());
                list.push(new);
            }
        }
    }
}

fn plain(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Does the operations in their order, or none of them.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), Failure> {
    let operations =
        patch.as_array().ok_or_else(|| Failure::bad_request("a JSON patch is a list of operations"))?;
    let mut result = target.clone();
    for operation in operations {
        step(&mut result, operation).map_err(|why| {
            let why =
                format!("the server rejected our request due to an error in our request: {why}: {operation}");
            Failure::new(422, "Invalid", why)
        })?;
    }
    *target = result;
    Ok(())
}

fn step(target: &mut Value, operation: &Value) -> Result<(), &'static str> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let path = text("path").ok_or("there is no path")?;
    let value = || operation.get("value").cloned().ok_or("there is no value");
    let from = |target: &Value| {
        let from = text("from").ok_or("there is no from")?;
        target.pointer(from).cloned().ok_or("there is nothing to take it from")
    };
    match text("op").unwrap_or_default() {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            *target.pointer_mut(path).ok_or("there is nothing to replace")? = value()?;
            Ok(())
        }
        "test" => {
            let is_same = target.pointer(path).unwrap_or(&Value::Null) == &value()?;
            if is_same { Ok(()) } else { Err("the test failed") }
        }
        "copy" => {
            let value = from(target)?;
            add(target, path, value)
        }
        "move" => {
            let value = from(target)?;
            remove(target, text("from").unwrap_or_default())?;
            add(target, path, value)
        }
        _ => Err("there is no such operation"),
    }
}

fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), &'static str> {
    let (parent, last) = path.rsplit_once('/').ok_or("the path does not begin with a slash")?;
    let last = last.replace("~1", "/").replace("~0", "~");
    Ok((target.pointer_mut(parent).ok_or("there is no such place")?, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), &'static str> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    match parent(target, path)? {
        (Value::Object(map), name) => drop(map.insert(name, value)),
        (Value::Array(list), name) => {
            let at = if name == "-" { list.len() } else { name.parse().map_err(|_| "that is no index")? };
            if at > list.len() {
                return Err("the index is behind the end");
            }
            list.insert(at, value);
        }
        _ => return Err("there is nothing that has parts"),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, &'static str> {
    match parent(target, path)? {
        (Value::Object(map), name) => map.remove(&name).ok_or("there is nothing to remove"),
        (Value::Array(list), name) => {
            let at: usize = name.parse().map_err(|_| "that is no index")?;
            if at < list.len() { Ok(list.remove(at)) } else { Err("the index is behind the end") }
        }
        _ => Err("there is nothing to remove"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_json_patch_is_done_as_a_whole_or_not_at_all() {
        let mut target = json!({"a": [1, 2], "b": {"c/d": 1}});
        let patch = json!([
            {"op": "test", "path": "/b/c~1d", "value": 1}, {"op": "add", "path": "/a/-", "value": 3},
            {"op": "remove", "path": "/a/0"}, {"op": "move", "from": "/b/c~1d", "path": "/e"},
        ]);
        json(&mut target, &patch).unwrap();
        assert_eq!(target, json!({"a": [2, 3], "b": {}, "e": 1}));
        let failing = json!([{"op": "remove", "path": "/e"}, {"op": "test", "path": "/a/0", "value": 9}]);
        assert!(json(&mut target, &failing).is_err());
        assert_eq!(target["e"], 1);
    }

    #[test]
    fn a_strategic_patch_merges_lists_by_their_key() {
        let shape = Shape::Known { kind: "Pod", field: "" };
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]},
            "metadata": {"finalizers": ["f"]}});
        let patch = json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"$patch": "delete", "name": "b"}, {"name": "c"}]},
            "metadata": {"finalizers": ["g"]}});
        strategic(&mut pod, &patch, shape);
        let expected = json!({"spec": {"containers": [{"name": "a", "image": "2", "args": ["x"]}, {"name": "c"}]},
            "metadata": {"finalizers": ["f", "g"]}});
        assert_eq!(pod, expected);
    }
}
