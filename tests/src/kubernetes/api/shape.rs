//! What lists and maps mean: whether they are merged, and by which keys.
//!
//! For custom resources their schema says it. For the others there is a table of those fields that matter to somebody who owns pods, claims,
//! services and budgets; all other lists are replaced as a whole, and all other maps are merged.

use super::kinds::Kind;
use serde_json::Value;

/// What a place in an object is.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'a> {
    /// A custom object as a whole: its metadata is not in its schema.
    Custom(&'a Value),
    /// Inside of a custom object.
    Schema(&'a Value),
    /// A field of any other object.
    Known {
        /// The kind.
        kind: &'a str,
        /// The field, empty for the whole.
        field: &'a str,
    },
    /// Nobody knows.
    Unknown,
}

/// What a list is.
#[derive(Clone, Debug, PartialEq)]
pub enum List<'a> {
    /// One value.
    Atomic,
    /// Values that are there or not.
    Set,
    /// Items that are known by the values of these fields.
    Map(Vec<&'a str>),
}

impl<'a> Shape<'a> {
    /// Of whole objects.
    pub fn of(kind: &'a Kind) -> Shape<'a> {
        match &kind.definition {
            Some(definition) => Shape::Custom(&definition.schema),
            None => Shape::Known { kind: &kind.kind, field: "" },
        }
    }

    /// Of a field of a map.
    pub fn field(self, name: &'a str) -> Shape<'a> {
        match self {
            Shape::Custom(_) if name == "metadata" => Shape::Known { kind: "", field: name },
            Shape::Custom(schema) | Shape::Schema(schema) => {
                let described = schema.get("properties").and_then(|fields| fields.get(name));
                described.or_else(|| schema.get("additionalProperties")).map_or(Shape::Unknown, Shape::Schema)
            }
            // Labels and settings may have any name, that of a list too.
            Shape::Known { field: "labels" | "annotations" | "data", .. } | Shape::Unknown => Shape::Unknown,
            Shape::Known { kind, .. } => Shape::Known { kind, field: name },
        }
    }

    /// Of an item of a list.
    pub fn item(self) -> Shape<'a> {
        match self {
            Shape::Custom(schema) | Shape::Schema(schema) => {
                schema.get("items").map_or(Shape::Unknown, Shape::Schema)
            }
            known => known,
        }
    }

    /// What the list here is.
    pub fn list(self) -> List<'a> {
        match self {
            Shape::Custom(schema) | Shape::Schema(schema) => {
                match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                    Some("set") => List::Set,
                    Some("map") => {
                        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                        List::Map(keys.into_iter().flatten().filter_map(Value::as_str).collect())
                    }
                    _ => List::Atomic,
                }
            }
            Shape::Known { kind, field } => match field {
                "finalizers" => List::Set,
                "ownerReferences" => List::Map(vec!["uid"]),
                "containers"
                | "initContainers"
                | "ephemeralContainers"
                | "volumes"
                | "env"
                | "imagePullSecrets"
                | "resourceClaims" => List::Map(vec!["name"]),
                "conditions" => List::Map(vec!["type"]),
                "addresses" if kind == "Node" => List::Map(vec!["type"]),
                "ports" if kind == "Service" => List::Map(vec!["port", "protocol"]),
                "ports" => List::Map(vec!["containerPort", "protocol"]),
                "volumeMounts" => List::Map(vec!["mountPath"]),
                "volumeDevices" => List::Map(vec!["devicePath"]),
                "hostAliases" | "podIPs" | "hostIPs" => List::Map(vec!["ip"]),
                "topologySpreadConstraints" => List::Map(vec!["topologyKey", "whenUnsatisfiable"]),
                _ => List::Atomic,
            },
            Shape::Unknown => List::Atomic,
        }
    }

    /// The key by which a strategic merge patch merges the list here. It is older than the keys of server-side apply, and knows one for each list.
    pub fn merge_key(self) -> Option<&'a str> {
        match (self.list(), self) {
            (List::Map(keys), _) => keys.first().copied(),
            (_, Shape::Known { kind: "Node", field: "taints" }) => Some("key"),
            _ => None,
        }
    }

    /// Whether the map here is one value.
    pub fn is_atomic(self) -> bool {
        match self {
            Shape::Custom(schema) | Shape::Schema(schema) => {
                schema.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic")
            }
            Shape::Known { field, .. } => matches!(
                field,
                "selector"
                    | "labelSelector"
                    | "nodeSelector"
                    | "roleRef"
                    | "fieldRef"
                    | "resourceFieldRef"
                    | "secretKeyRef"
                    | "configMapKeyRef"
                    | "volumeClaimTemplate"
            ),
            Shape::Unknown => false,
        }
    }
}

/// How an item of a list that is a map is named in paths: its keys as JSON.
pub fn item_name(item: &Value, keys: &[&str]) -> String {
    let value = |key: &&str| match item.get(*key) {
        Some(value) => value.clone(),
        // The one key that has a default.
        None if *key == "protocol" => "TCP".into(),
        None => Value::Null,
    };
    let keys: serde_json::Map<String, Value> =
        keys.iter().map(|key| ((*key).to_owned(), value(key))).collect();
    Value::Object(keys).to_string()
}
