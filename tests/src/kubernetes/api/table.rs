//! Tables, which `kubectl get` prints: the server knows the columns.

use super::kinds::Kind;
use super::present::{Include, metadata};
use serde_json::{Value, json};

/// A `Table` of these objects.
pub fn table(_kind: &Kind, objects: &[Value], list: Value, include: Include) -> Value {
    let row = |object: &Value| {
        let inner = match include {
            Include::Object => object.clone(),
            Include::Metadata => metadata(object),
            Include::None => Value::Null,
        };
        json!({"cells": [object["metadata"]["name"]], "object": inner})
    };
    let rows: Vec<Value> = objects.iter().map(row).collect();
    let columns =
        json!([{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}]);
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": list, "columnDefinitions": columns, "rows": rows})
}
