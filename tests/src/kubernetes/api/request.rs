//! What a request is about: its path, its parameters, and the headers that matter.

use super::failure::Failure;
use super::kinds::{Kind, Kinds};
use super::selector::Selector;
use hyper::Method;
use std::sync::Arc;

/// An object, a part of it, or a collection.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub kind: Arc<Kind>,
    /// Empty for all, and for what lies in none.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// Such as `status`.
    pub subresource: String,
}

impl Target {
    /// From a path; nothing when it is none of a resource.
    pub fn parse(kinds: &Kinds, path: &str) -> Option<Target> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // Parts of a namespace itself look like resources in it.
            ["namespaces", _, "status" | "finalize"] => ("", rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let kind = kinds.find(group, version, plural)?.clone();
        let is_placed = kind.namespaced != namespace.is_empty() || name.is_empty() && namespace.is_empty();
        let has_part = subresource.is_empty() || kind.subresources.iter().any(|own| own == subresource);
        (is_placed && has_part).then(|| Target {
            kind,
            namespace: namespace.into(),
            name: name.into(),
            subresource: subresource.into(),
        })
    }
}

/// The parameters behind the question mark.
#[derive(Clone, Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// From a query.
    pub fn parse(query: &str) -> Parameters {
        Parameters(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// A parameter, or nothing.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether a parameter is on.
    pub fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// Which objects are asked for.
    pub fn selector(&self, kind: &Kind) -> Result<Selector, Failure> {
        let selector = Selector::parse(self.get("labelSelector"), self.get("fieldSelector"))?;
        if let Some(field) = selector.fields().find(|field| !can_select(kind, field)) {
            return Err(Failure::bad_request(format!("field label not supported: {field}")));
        }
        Ok(selector)
    }

    /// A resource version: one of 0 is any, none is the newest.
    pub fn version(&self) -> Result<Option<u64>, Failure> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => match text.parse() {
                Ok(version) => Ok(Some(version)),
                Err(_) => Err(Failure::bad_request(format!("invalid resource version {text:?}"))),
            },
        }
    }
}

fn can_select(kind: &Kind, field: &str) -> bool {
    let own: &[&str] = match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        _ => &[],
    };
    let is_selectable = |definition: &Arc<super::definition::Definition>| {
        definition.selectable.iter().any(|own| own == field)
    };
    matches!(field, "metadata.name" | "metadata.namespace")
        || own.contains(&field)
        || kind.definition.as_ref().is_some_and(is_selectable)
}

/// What is done, as in roles.
pub fn verb(method: &Method, target: &Target, parameters: &Parameters) -> Option<&'static str> {
    let is_one = !target.name.is_empty();
    Some(match *method {
        Method::GET if is_one => "get",
        Method::GET if parameters.is("watch") => "watch",
        Method::GET => "list",
        Method::POST if !is_one || matches!(target.subresource.as_str(), "binding" | "eviction") => "create",
        Method::PUT if is_one => "update",
        Method::PATCH if is_one => "patch",
        Method::DELETE if is_one => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}
