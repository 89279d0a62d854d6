//! What there is to ask for: versions, groups and resources.

use super::kinds::{Kind, Kinds};
use super::openapi;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The page at a path that is none of a resource.
pub fn page(kinds: &Kinds, path: &str) -> Option<Value> {
    match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["version"] => Some(version()),
        ["healthz" | "livez" | "readyz"] => Some("ok".into()),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        })),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(kinds).iter().map(|(name, versions)| group(name, versions)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let mut group = group(name, groups(kinds).get(name)?);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            Some(group)
        }
        ["api", version] => resources(kinds, "", version),
        ["apis", group, version] => resources(kinds, group, version),
        ["openapi", "v3", below @ ..] => openapi::page(kinds, &below.join("/")),
        _ => None,
    }
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.2", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "2026-06-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

fn groups(kinds: &Kinds) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for kind in kinds.iter().filter(|kind| !kind.group.is_empty()) {
        let versions = groups.entry(&kind.group).or_default();
        if !versions.contains(&kind.version.as_str()) {
            versions.push(&kind.version);
        }
    }
    groups
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let preferred = versions.first().map(version);
    json!({"name": name, "versions": versions.iter().map(version).collect::<Vec<_>>(), "preferredVersion": preferred})
}

fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let own: Vec<_> = kinds.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let api_version = own.first()?.api_version();
    let resources: Vec<Value> = own.iter().flat_map(|kind| entries(kind)).collect();
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources}),
    )
}

fn entries(kind: &Kind) -> Vec<Value> {
    let mut entries = vec![json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
        "shortNames": kind.short_names, "categories": kind.categories,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    })];
    for subresource in &kind.subresources {
        let name = format!("{}/{subresource}", kind.plural);
        let mut entry =
            json!({"name": name, "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind});
        match subresource.as_str() {
            "binding" => {
                entry["kind"] = "Binding".into();
                entry["verbs"] = json!(["create"]);
            }
            "eviction" => {
                entry["kind"] = "Eviction".into();
                entry["group"] = "policy".into();
                entry["version"] = "v1".into();
                entry["verbs"] = json!(["create"]);
            }
            _ => entry["verbs"] = json!(["get", "patch", "update"]),
        }
        entries.push(entry);
    }
    entries
}
