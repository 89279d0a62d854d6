//! What has to be applied to install the operator.
//!
//! ```text
//! sarsen-operator manifests ─► Namespace, CustomResourceDefinitions,                        everything, in the order in which it is applied
//!                              ServiceAccount, Roles and their bindings, (ClusterRole,)
//!                              Deployment
//! files ─────────────────────► operator/deploy: the same as a kustomize base and as a Helm chart
//! ```
//!
//! The chart's templates are the same objects with `{{ .Values… }}` for what can be chosen, so there is one place where anything can be forgotten.

mod deployment;
mod files;
mod rbac;

pub use files::files;

use crate::api;
use serde::Serialize;
use serde_json::{Value, json};

/// Name of the operator and of everything that is its own.
pub const NAME: &str = "sarsen-operator";
/// The lease of which one holder works.
pub const LEASE: &str = "sarsen-operator";
/// Port of /metrics, /healthz and /readyz.
pub const PORT: u16 = 8080;

/// A part of what has to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The kinds.
    Crds,
    /// Who the operator is, and what it may do.
    Rbac,
    /// The operator.
    Deployment,
}

/// What can be chosen. Text, so that it can be a template's placeholder.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Where the operator and the databases live.
    pub namespace: String,
    /// The operator's image.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// Least severe log lines.
    pub log_level: String,
    /// What the operator asks for, of CPU and of memory, and the memory that it never needs.
    pub resources: [String; 3],
}

impl Choices {
    /// The usual ones.
    pub fn new(namespace: &str, image: Option<&str>) -> Choices {
        let own = || format!("{NAME}:{}", env!("CARGO_PKG_VERSION"));
        Choices {
            namespace: namespace.into(),
            image: image.map_or_else(own, Into::into),
            pull_policy: "IfNotPresent".into(),
            log_level: "info".into(),
            resources: ["50m".into(), "64Mi".into(), "256Mi".into()],
        }
    }
}

/// The objects of a part, or of all and the namespace that they are in.
pub fn objects(choices: &Choices, only: Option<Part>, cluster_scoped: bool) -> Vec<Value> {
    let is_wanted = |part| only.is_none_or(|only| only == part);
    let mut objects = vec![];
    if only.is_none() {
        objects.push(namespace(&choices.namespace));
    }
    if is_wanted(Part::Crds) {
        objects.extend(api::crds().iter().map(value));
    }
    if is_wanted(Part::Rbac) {
        objects.extend(rbac::namespaced(&choices.namespace));
        if cluster_scoped {
            objects.extend(rbac::cluster_scoped(&choices.namespace));
        }
    }
    if is_wanted(Part::Deployment) {
        objects.push(deployment::deployment(choices));
    }
    objects
}

/// As YAML documents.
pub fn yaml(objects: &[Value]) -> String {
    let texts: Vec<String> = objects
        .iter()
        .map(|object| serde_saphyr::to_string(object).expect("BUG: an object that is no YAML"))
        .collect();
    texts.join("---\n")
}

/// Pods of the operator and of databases keep the strictest of Kubernetes' standards, so it can be enforced.
fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "restricted" } },
    })
}

fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let labels = json!({ "app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "operator" });
    let mut metadata = json!({ "name": name, "labels": labels });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    metadata
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("BUG: an object that is no JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use serde::de::DeserializeOwned;

    /// What Kubernetes makes of it: fields that it does not know are gone.
    fn known<K: DeserializeOwned + Serialize>(object: &Value) -> Value {
        value(&serde_json::from_value::<K>(object.clone()).expect("of that kind"))
    }

    #[test]
    fn every_field_is_one_that_kubernetes_knows() {
        for object in objects(&Choices::new("sarsen", None), None, true) {
            let known = match object["kind"].as_str().unwrap() {
                "Namespace" => known::<Namespace>(&object),
                "CustomResourceDefinition" => known::<CustomResourceDefinition>(&object),
                "ServiceAccount" => known::<ServiceAccount>(&object),
                "Role" => known::<Role>(&object),
                "RoleBinding" => known::<RoleBinding>(&object),
                "ClusterRole" => known::<ClusterRole>(&object),
                "ClusterRoleBinding" => known::<ClusterRoleBinding>(&object),
                "Deployment" => known::<Deployment>(&object),
                other => panic!("{other}"),
            };
            assert_eq!(known, object);
        }
    }

    #[test]
    fn parts_make_up_the_whole() {
        let choices = Choices::new("db", Some("registry.example/operator:2"));
        let kinds = |only, cluster_scoped| -> Vec<String> {
            let objects = objects(&choices, only, cluster_scoped);
            objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
        };
        let parts = [Part::Crds, Part::Rbac, Part::Deployment];
        for cluster_scoped in [false, true] {
            let joined: Vec<String> =
                parts.iter().flat_map(|&part| kinds(Some(part), cluster_scoped)).collect();
            assert_eq!(kinds(None, cluster_scoped)[1..], joined);
            assert_eq!(joined.contains(&"ClusterRole".to_owned()), cluster_scoped);
        }
        let text = yaml(&objects(&choices, None, true));
        assert!(text.contains("image: registry.example/operator:2") && !text.contains("namespace: sarsen\n"));
    }

    #[test]
    fn what_belongs_to_a_namespace_is_in_it() {
        for object in objects(&Choices::new("db", None), None, true) {
            let is_global = ["Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"]
                .contains(&object["kind"].as_str().unwrap());
            assert_eq!(object["metadata"]["namespace"].as_str(), (!is_global).then_some("db"), "{object}");
        }
    }

    /// Else the namespace, which enforces it, takes none of them.
    #[test]
    fn pods_keep_the_restricted_standard() {
        let (cluster, group) = crate::render::sample::decorated();
        let database = value(&crate::render::pod(&cluster, &group, "metrics-c-1"));
        let operator = deployment::deployment(&Choices::new("sarsen", None));
        assert_eq!(namespace("x")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
        for spec in [&database["spec"], &operator["spec"]["template"]["spec"]] {
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for host in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
                assert!(spec[host].is_null(), "{host}");
            }
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
                assert!(context["privileged"].is_null());
            }
            for volume in spec["volumes"].as_array().into_iter().flatten() {
                let kinds = ["persistentVolumeClaim", "configMap", "emptyDir"];
                assert!(kinds.iter().any(|kind| volume[kind].is_object()), "{volume}");
            }
        }
    }
}
