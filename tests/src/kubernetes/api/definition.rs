//! Custom resources: their definitions make resources, and say what objects must look like.

use super::failure::{Cause, Failure};
use super::kinds::{Kind, Kinds};
use super::object::{self, items, text};
use super::state::Call;
use super::{events, schema};
use k8s_openapi::jiff::Timestamp;
use kube::core::cel::{CompiledSchema, RootContext, Validator, compile_schema};
use serde_json::{Value, json};
use std::sync::Arc;

/// Holds a definition until there is no object of it.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What a version of a custom resource must look like.
#[derive(Debug)]
pub struct Definition {
    /// The OpenAPI schema.
    pub schema: Value,
    /// Fields by which it can be selected.
    pub selectable: Vec<String>,
    /// The columns that are printed behind the name.
    pub columns: Vec<Value>,
    rules: CompiledSchema,
}

/// Serves the resource that this `CustomResourceDefinition` defines.
pub fn serve(kinds: &mut Kinds, definition: &Value) {
    let spec = &definition["spec"];
    let names = |field: &str| -> Vec<String> {
        items(spec, &format!("/names/{field}")).filter_map(Value::as_str).map(String::from).collect()
    };
    let (group, plural) = (text(spec, "/group"), text(spec, "/names/plural"));
    kinds.remove(group, plural);
    for version in items(spec, "/versions").filter(|version| version["served"] == true) {
        let subresources = version.get("subresources").and_then(Value::as_object);
        let selectable = items(version, "/selectableFields").map(|field| text(field, "/jsonPath"));
        let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(|| json!({}));
        let definition = Definition {
            selectable: selectable.map(|path| path.trim_start_matches('.').to_owned()).collect(),
            columns: items(version, "/additionalPrinterColumns").cloned().collect(),
            rules: compile_schema(&schema),
            schema,
        };
        kinds.add(Kind {
            group: group.into(),
            version: text(version, "/name").into(),
            plural: plural.into(),
            singular: text(spec, "/names/singular").into(),
            kind: text(spec, "/names/kind").into(),
            namespaced: text(spec, "/scope") == "Namespaced",
            short_names: names("shortNames"),
            categories: names("categories"),
            subresources: subresources.into_iter().flatten().map(|(name, _)| name.clone()).collect(),
            counts_generations: true,
            definition: Some(Arc::new(definition)),
        });
    }
}

/// Serves it no longer.
pub fn serve_no_longer(kinds: &mut Kinds, definition: &Value) {
    kinds.remove(text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
}

/// What is wrong with a definition; what it leaves out is added.
pub fn defined(kinds: &Kinds, definition: &mut Value) -> Vec<Cause> {
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    let mut causes = vec![];
    let wanted = format!("{plural}.{group}");
    if object::name(definition) != wanted {
        causes.push(Cause::invalid(
            "metadata.name",
            &object::name(definition).into(),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if kinds.iter().any(|kind| kind.is(group, plural) && kind.definition.is_none()) {
        causes.push(Cause::invalid("spec.names.plural", &plural.into(), "is a resource of every cluster"));
    }
    if items(definition, "/spec/versions").filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &Value::Null, why));
    }
    for (at, version) in items(definition, "/spec/versions").enumerate() {
        let path = format!("spec.versions[{at}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            Some(schema) => structural(schema, &path, &mut causes),
            None => causes.push(Cause::required(path, "schemas are required")),
        }
    }
    if !causes.is_empty() {
        return causes;
    }
    accept(definition);
    causes
}

/// Names that are left out, and the status: its names are accepted at once.
fn accept(definition: &mut Value) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    let names = object::map(&mut definition["spec"]["names"]);
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    object::map(&mut definition["spec"]).entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let since = items(definition, "/status/conditions")
        .map(|condition| text(condition, "/lastTransitionTime").to_owned())
        .next();
    let since = since.unwrap_or_else(|| object::time(Timestamp::now()));
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": since, "reason": reason, "message": message});
    let stored: Vec<Value> = items(definition, "/spec/versions")
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}

/// Every place of a schema must say what it is, and the rules must be readable.
fn structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let is_free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"]
        .iter()
        .any(|field| schema[field] == true);
    if !is_free && text(schema, "/type").is_empty() {
        causes.push(Cause::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    if schema["x-kubernetes-list-type"] == "map"
        && items(schema, "/x-kubernetes-list-map-keys").next().is_none()
    {
        causes.push(Cause::required(
            format!("{path}.x-kubernetes-list-map-keys"),
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    // Only the rules of this place: those below are found there.
    let own = json!({"type": schema["type"], "x-kubernetes-validations": schema["x-kubernetes-validations"]});
    for (at, rule) in compile_schema(&own).validations.iter().enumerate() {
        if let Err(error) = rule {
            let shown = &schema["x-kubernetes-validations"][at]["rule"];
            let field = format!("{path}.x-kubernetes-validations[{at}].rule");
            causes.push(Cause::invalid(field, shown, &format!("compilation failed: {error}")));
        }
    }
    for (field, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        structural(schema, &format!("{path}.properties[{field}]"), causes);
    }
    if let Some(items) = schema.get("items") {
        structural(items, &format!("{path}.items"), causes);
    }
    if let Some(all) = schema.get("additionalProperties").filter(|all| all.is_object()) {
        structural(all, &format!("{path}.additionalProperties"), causes);
    }
}

/// Brings an object into the form of its schema, and checks it.
pub fn check(call: &Call, old: Option<&Value>, object: &mut Value) -> Result<(), Failure> {
    let kind = &*call.kind;
    let Some(definition) = &kind.definition else { return Ok(()) };
    let unknown = schema::prune(object, &definition.schema);
    if call.strict && !unknown.is_empty() {
        let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
        let why = format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            unknown.join(", ")
        );
        return Err(Failure::bad_request(why));
    }
    schema::default(object, &definition.schema);
    let mut causes = schema::validate(object, &definition.schema);
    if causes.is_empty() {
        let root = RootContext {
            api_version: kind.api_version(),
            api_group: kind.group.clone(),
            kind: kind.kind.clone(),
        };
        let old = old.map(|old| events::present(kind, old));
        let checked = Validator::new().validate_compiled_with_context(
            &definition.rules,
            object,
            old.as_ref(),
            Some(&root),
        );
        for error in checked.err().into_iter().flat_map(|errors| errors.into_vec()) {
            let reason = match error.reason.as_deref() {
                Some("FieldValueForbidden") => "FieldValueForbidden",
                Some("FieldValueRequired") => "FieldValueRequired",
                Some("FieldValueDuplicate") => "FieldValueDuplicate",
                _ => "FieldValueInvalid",
            };
            causes.push(Cause::new(reason, error.field_path, format!("Invalid value: {}", error.message)));
        }
    }
    if causes.is_empty() { Ok(()) } else { Err(Failure::invalid(kind, object::name(object), &causes)) }
}
