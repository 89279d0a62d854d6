//! Objects as clients want to see them: whole, as metadata only, or as the rows of a table.

use super::kinds::Kind;
use super::{events, table};
use serde_json::{Value, json};

/// What a client asks for in its header `Accept`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View {
    /// Whole objects.
    Object,
    /// `PartialObjectMetadata`.
    Metadata,
    /// A `Table`, which is what `kubectl get` prints. With whole objects in its rows, or with their metadata, or with nothing of them.
    Table(Include),
}

/// What is in the rows of a table besides the cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Include {
    /// Whole objects.
    Object,
    /// `PartialObjectMetadata`.
    Metadata,
    /// Nothing.
    None,
}

impl View {
    /// From the header, and the parameter `includeObject` of tables. The first that we know wins.
    pub fn parse(accept: &str, include: &str) -> View {
        for part in accept.split(',') {
            let mut words = part.split(';').map(str::trim);
            if words.next() != Some("application/json") {
                continue;
            }
            return match words.find_map(|word| word.strip_prefix("as=")) {
                Some("Table") => View::Table(match include {
                    "Object" => Include::Object,
                    "None" => Include::None,
                    _ => Include::Metadata,
                }),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => View::Metadata,
                _ => View::Object,
            };
        }
        View::Object
    }

    /// One object.
    pub fn object(self, kind: &Kind, object: &Value) -> Value {
        let object = events::present(kind, object);
        match self {
            View::Object => object,
            View::Metadata => metadata(&object),
            View::Table(include) => {
                let version = object["metadata"]["resourceVersion"].clone();
                table::table(kind, &[object], json!({"resourceVersion": version}), include)
            }
        }
    }

    /// Several objects.
    pub fn list(self, kind: &Kind, objects: Vec<Value>, list: Value) -> Value {
        match self {
            View::Object => {
                let mut objects = objects;
                // Items of lists say what they are only where nobody could know it.
                if kind.definition.is_none() {
                    for object in &mut objects {
                        let map = super::object::map(object);
                        map.remove("apiVersion");
                        map.remove("kind");
                    }
                }
                json!({"apiVersion": kind.api_version(), "kind": format!("{}List", kind.kind), "metadata": list, "items": objects})
            }
            View::Metadata => {
                let items: Vec<Value> = objects.iter().map(metadata).collect();
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": list, "items": items})
            }
            View::Table(include) => table::table(kind, &objects, list, include),
        }
    }

    /// What a watch says now and then, so that the client knows how far it has seen.
    pub fn bookmark(self, kind: &Kind, version: u64, is_initial_end: bool) -> Value {
        let mut object = json!({
            "apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
        });
        if is_initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match self {
            View::Object => object,
            View::Metadata => metadata(&object),
            View::Table(include) => {
                table::table(kind, &[], json!({"resourceVersion": version.to_string()}), include)
            }
        }
    }
}

/// The object's metadata, as an object.
pub fn metadata(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}
