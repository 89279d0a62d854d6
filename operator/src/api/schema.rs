//! What the API server lets through, in the parts that the types alone do not say.
//!
//! **Invariant: what the schema accepts can be read.** One object that cannot would end the list of all of them, and with it the work on every other
//! cluster. So there are bounds on all numbers, and whatever is another API's (tolerations, variables) is spelled out.

use super::{SarsenCluster, SarsenNamespace};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

/// The kinds, as they are installed.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![SarsenCluster::crd(), SarsenNamespace::crd()];
    let versions = crds.iter_mut().flat_map(|crd| &mut crd.spec.versions);
    for schema in versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut()) {
        clean(schema);
    }
    crds
}

/// Takes off what is Rust's: formats that Kubernetes does not know and warns of, and `nullable`, so that a null is as good as nothing there, for rules, too.
fn clean(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.format = schema.format.take().filter(|format| !format.starts_with("uint"));
    let properties = schema.properties.iter_mut().flat_map(|properties| properties.values_mut());
    properties.for_each(clean);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        clean(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        clean(values);
    }
}

/// The size of a volume. No bare number: that would be bytes, which nobody means.
pub fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 32, "pattern": r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)$" })
}

/// Compute resources, without the parts that only newer clusters know.
pub fn resources(_: &mut SchemaGenerator) -> Schema {
    let amount = json!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "maxLength": 32,
        "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$",
    });
    let amounts = json!({ "type": "object", "maxProperties": 32, "additionalProperties": amount });
    json_schema!({ "type": "object", "properties": { "requests": amounts, "limits": amounts } })
}

/// Reads [`resources`]: `cpu: 2` is a number in YAML, and a person means what `cpu: "2"` says.
pub fn amounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ResourceRequirements>, D::Error> {
    let mut value = Value::deserialize(deserializer)?;
    for part in ["requests", "limits"] {
        let amounts = value.get_mut(part).and_then(Value::as_object_mut).into_iter();
        for amount in amounts.flat_map(|amounts| amounts.values_mut()).filter(|amount| amount.is_number()) {
            *amount = Value::String(amount.to_string());
        }
    }
    serde_json::from_value(value).map_err(D::Error::custom)
}

/// When images are pulled.
pub fn pull_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["Always", "IfNotPresent", "Never"] })
}

/// Secrets by name.
pub fn references(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": { "type": "object", "required": ["name"], "properties": { "name": text(253) } },
    })
}

/// Taints that pods stand.
pub fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {
            "type": "object",
            "properties": {
                "key": text(317),
                "operator": { "type": "string", "enum": ["Exists", "Equal"] },
                "value": text(63),
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" },
            },
        },
    })
}

/// Environment variables: a value, or where it stands.
pub fn variables(_: &mut SchemaGenerator) -> Schema {
    let key = json!({
        "type": "object",
        "required": ["key", "name"],
        "properties": { "name": text(253), "key": text(253), "optional": { "type": "boolean" } },
    });
    let field =
        json!({ "type": "object", "required": ["fieldPath"], "properties": { "fieldPath": text(253) } });
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "minLength": 1, "maxLength": 253 },
                "value": text(4096),
                "valueFrom": {
                    "type": "object",
                    "properties": { "secretKeyRef": key, "configMapKeyRef": key, "fieldRef": field },
                },
            },
        },
    })
}

/// Settings of the database, which knows them better.
pub fn settings(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 64, "x-kubernetes-preserve-unknown-fields": true })
}

fn text(length_max: u32) -> Value {
    json!({ "type": "string", "maxLength": length_max })
}
