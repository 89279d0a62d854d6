//! The schema and the types agree: about defaults, and about what can be read.

use super::{admit, check, cluster, namespace, schema, with};
use crate::api::{ClusterSpec, FailurePolicy, NamespaceSpec, Rollout, crds};
use kube::core::cel::{compile_schema, estimate_rule_cost};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn what_the_schema_fills_in_is_what_the_types_fill_in() {
    let full = admit(&cluster(), None).unwrap();
    let spec: ClusterSpec = serde_json::from_value(full["spec"].clone()).unwrap();
    assert_eq!(spec, serde_json::from_value(cluster()["spec"].clone()).unwrap());
    assert_eq!(spec.failure_policy, FailurePolicy::default());
    assert_eq!(full["spec"]["failurePolicy"]["nodeNotReadyGrace"], "15m");
    assert_eq!(full["spec"]["groups"][0]["topology"]["key"], "topology.kubernetes.io/zone");

    // Part by part, and each part as far as it is written.
    for part in ["failurePolicy", "rollout", "disruptionBudget", "monitoring", "podTemplate"] {
        let empty = with(&cluster(), &format!("/spec/{part}"), json!({}));
        assert_eq!(admit(&empty, None).unwrap()["spec"], full["spec"], "{part}");
        for field in full["spec"][part].as_object().unwrap().keys() {
            assert!(!schema("SarsenCluster")["properties"]["spec"]["properties"][part]["properties"][field]["default"].is_null(), "{field}");
        }
    }
    let rollout = with(&cluster(), "/spec/rollout", json!({ "paused": true }));
    let spec: ClusterSpec = serde_json::from_value(admit(&rollout, None).unwrap()["spec"].clone()).unwrap();
    assert_eq!(spec.rollout, Rollout { paused: true, ..Rollout::default() });

    let full = admit(&namespace(), None).unwrap();
    let spec: NamespaceSpec = serde_json::from_value(full["spec"].clone()).unwrap();
    assert_eq!(spec, serde_json::from_value(namespace()["spec"].clone()).unwrap());
    assert_eq!(full["spec"]["deletionPolicy"], "Retain");
}

#[test]
fn a_null_is_as_good_as_nothing() {
    let text = serde_json::to_string(&crds()).unwrap();
    assert!(!text.contains("nullable") && !text.contains("uint"), "{text}");
}

/// A server estimates what a rule costs from the bounds of what it looks at, and refuses the whole kind if that is too much.
#[test]
fn rules_look_at_bounded_things_only() {
    let mut rules = 0;
    for kind in ["SarsenCluster", "SarsenNamespace"] {
        walk(&schema(kind), &mut |schema| {
            // The estimate looks for a list at the place of the rule: for rules about the whole object, that is in the specification.
            let place = schema["properties"].get("spec").unwrap_or(schema);
            let compiled = compile_schema(place);
            assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                rules += 1;
                let rule = rule["rule"].as_str().expect("a rule");
                assert_eq!(estimate_rule_cost(rule, &compiled), [], "{rule}");
            }
        });
        // Of a list, a map and a text in the specification, the server knows how large it can be.
        walk(&schema(kind)["properties"]["spec"], &mut |schema| {
            let bound = match schema["type"].as_str() {
                Some("array") => "maxItems",
                Some("string") if schema["enum"].is_null() => "maxLength",
                Some("object") if schema["properties"].is_null() => "maxProperties",
                _ => return,
            };
            // Values of annotations are as long as they are; no rule looks at them.
            let is_value_of_a_map = *schema == json!({ "type": "string" });
            assert!(schema[bound].is_u64() || is_value_of_a_map, "{bound} of {schema}");
        });
    }
    assert_eq!(rules, 12);
}

fn walk(schema: &Value, visit: &mut impl FnMut(&Value)) {
    visit(schema);
    let properties = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    for inner in properties.chain(schema.get("items")).chain(schema.get("additionalProperties")) {
        walk(inner, visit);
    }
}

/// Any value that the schema accepts.
fn any_of(schema: &Value) -> BoxedStrategy<Value> {
    let text = |schema: &Value| {
        let pattern = schema["pattern"].as_str().unwrap_or("[a-z]{1,8}").trim_matches(['^', '$']);
        let length_max = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        let fits = move |text: &String| text.len() as u64 <= length_max;
        proptest::string::string_regex(pattern).unwrap().prop_filter("too long", fits)
    };
    if let Some(values) = schema["enum"].as_array() {
        return proptest::sample::select(values.clone()).boxed();
    }
    match schema["type"].as_str() {
        Some("string") => text(schema).prop_map(Value::String).boxed(),
        Some("integer") => {
            let bound = |key: &str, otherwise| schema[key].as_f64().map_or(otherwise, |bound| bound as i64);
            (bound("minimum", i64::MIN)..=bound("maximum", i64::MAX)).prop_map(Value::from).boxed()
        }
        Some("boolean") => any::<bool>().prop_map(Value::Bool).boxed(),
        Some("array") => {
            proptest::collection::vec(any_of(&schema["items"]), 1..3).prop_map(Value::Array).boxed()
        }
        Some("object") => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let fields: Vec<BoxedStrategy<Option<(String, Value)>>> = schema["properties"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, inner)| {
                    let (name, must) = (name.clone(), required.contains(&name.as_str()));
                    (any::<bool>(), any_of(inner))
                        .prop_map(move |(there, value)| (there || must).then(|| (name.clone(), value)))
                        .boxed()
                })
                .collect();
            let more = match schema.get("additionalProperties") {
                Some(values) => proptest::collection::btree_map("[a-z]{1,5}", any_of(values), 0..3).boxed(),
                None => Just(Default::default()).boxed(),
            };
            (fields, more)
                .prop_map(|(fields, more)| Value::Object(fields.into_iter().flatten().chain(more).collect()))
                .boxed()
        }
        None => prop_oneof![any::<i32>().prop_map(Value::from), text(schema).prop_map(Value::String)].boxed(),
        other => panic!("a type that is not known here: {other:?}"),
    }
}

fn specs(kind: &str) -> BoxedStrategy<Value> {
    any_of(&schema(kind)["properties"]["spec"])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_local_rejects: 1 << 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// Else one object would keep the operator from seeing any.
    #[test]
    fn what_the_schema_accepts_can_be_read(cluster in specs("SarsenCluster"), namespace in specs("SarsenNamespace")) {
        let mut problems = vec![];
        check(&schema("SarsenCluster")["properties"]["spec"], &cluster, "", &mut problems);
        // Names that happen to be equal say nothing about what can be read.
        problems.retain(|problem| !problem.contains("duplicate"));
        prop_assert_eq!(problems, [""; 0]);
        let read: Result<ClusterSpec, _> = serde_json::from_value(cluster);
        prop_assert!(read.is_ok(), "{:?}", read);
        let read: Result<NamespaceSpec, _> = serde_json::from_value(namespace);
        prop_assert!(read.is_ok(), "{:?}", read);
    }
}

/// kubectl takes a category before a short name, and then no object of it can be named. `kubectl delete all --all` deletes what is in the category `all`.
#[test]
fn the_kinds_are_in_no_category() {
    let names: Vec<_> = crds().into_iter().map(|crd| crd.spec.names).collect();
    assert_eq!(names[0].short_names, Some(vec!["sarsen".to_owned()]));
    assert!(names.iter().all(|names| names.categories.is_none()));
}

/// The rows of the page about a field that has a description, with its default.
fn rows(schema: &Value, path: &str, rows: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let inner = if field["items"].is_object() { &field["items"] } else { field };
        if field["description"].is_null() {
            continue;
        }
        match &field["default"] {
            Value::String(default) => rows.push(format!("| `{path}` | `{default}` | ")),
            default if default.is_number() || default.is_boolean() => {
                rows.push(format!("| `{path}` | `{default}` | "));
            }
            // What consists of fields with defaults, and has no row of its own.
            Value::Object(_) => {}
            _ if path == "storage" => {}
            _ => rows.push(format!("| `{path}` | ")),
        }
        // The same as `storage`.
        if path != "groups.storage" {
            self::rows(inner, &path, rows);
        }
    }
}

#[test]
fn every_field_and_its_default_is_on_the_page() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/kubernetes.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut rows = vec![];
    for kind in ["SarsenCluster", "SarsenNamespace"] {
        self::rows(&schema(kind)["properties"]["spec"], "", &mut rows);
    }
    let missing: Vec<&String> = rows.iter().filter(|row| !page.contains(*row)).collect();
    assert!(missing.is_empty() && rows.len() > 40, "{missing:#?}");
}
