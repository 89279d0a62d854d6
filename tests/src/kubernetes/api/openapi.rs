//! OpenAPI version 3: what `kubectl explain` prints, and by what kubectl sees that this server checks fields itself.

use super::kinds::{Kind, Kinds};
use serde_json::{Map, Value, json};

/// The page at a path below `/openapi/v3`.
pub fn page(kinds: &Kinds, path: &str) -> Option<Value> {
    let root = |kind: &Kind| if kind.group.is_empty() { "api" } else { "apis" };
    let below = |kind: &Kind| format!("{}/{}", root(kind), kind.api_version());
    if path.is_empty() {
        let paths: Map<String, Value> = kinds
            .iter()
            .map(|kind| below(kind))
            .map(|path| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")})))
            .collect();
        return Some(json!({"paths": paths}));
    }
    let own: Vec<_> = kinds.iter().filter(|kind| below(kind) == path).collect();
    let first = own.first()?;
    let prefix = format!("/{}", below(first));
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    schemas.insert(
        METADATA.into(),
        json!({"type": "object", "description": "The metadata that every object has."}),
    );
    for kind in &own {
        schemas.insert(name(kind), schema(kind));
        let place = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        paths.insert(format!("{prefix}{place}/{}/{{name}}", kind.plural), json!({"patch": patch(kind)}));
    }
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Names go from the general to the particular: `dev.sarsen.v1alpha1.SarsenCluster`.
fn name(kind: &Kind) -> String {
    let group: Vec<&str> = kind.group.split('.').rev().filter(|part| !part.is_empty()).collect();
    let group = if group.is_empty() { "io.k8s.api.core".to_owned() } else { group.join(".") };
    format!("{group}.{}.{}", kind.version, kind.kind)
}

fn which(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn schema(kind: &Kind) -> Value {
    let mut schema = match &kind.definition {
        Some(definition) => definition.schema.clone(),
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    schema["x-kubernetes-group-version-kind"] = json!([which(kind)]);
    let text = |what: &str| json!({"type": "string", "description": what});
    for (field, described) in [
        ("apiVersion", text("The version of the schema of this object.")),
        ("kind", text("The resource that this object represents.")),
        (
            "metadata",
            json!({"allOf": [{"$ref": format!("#/components/schemas/{METADATA}")}], "description": "Standard metadata."}),
        ),
    ] {
        schema["properties"][field] = described;
    }
    schema
}

fn patch(kind: &Kind) -> Value {
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter).into();
    json!({
        "operationId": format!("patch{}{}", kind.version, kind.kind), "parameters": parameters, "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": which(kind),
    })
}
