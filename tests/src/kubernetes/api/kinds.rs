//! Which resources there are: a table for those that every cluster has, and one more entry for each version of a custom resource.

use super::definition::Definition;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A resource in one version of its group.
#[derive(Debug)]
pub struct Kind {
    /// Empty for the core group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// As in paths.
    pub plural: String,
    /// For people.
    pub singular: String,
    /// As in objects.
    pub kind: String,
    /// Whether objects lie in namespaces.
    pub namespaced: bool,
    /// For people.
    pub short_names: Vec<String>,
    /// For people: names of several resources together.
    pub categories: Vec<String>,
    /// What there is below an object, such as `status`.
    pub subresources: Vec<String>,
    /// Whether changes of the specification are counted in `metadata.generation`.
    pub counts_generations: bool,
    /// What a custom resource must look like. There is none for the others, whose objects are taken as they are.
    pub definition: Option<Arc<Definition>>,
}

impl Kind {
    /// As in `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// As in messages: `pods`, `sarsenclusters.sarsen.dev`. It is also the name under which objects of all versions are stored.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Where its objects are. Events of both groups are the same.
    pub fn stored_as(&self) -> String {
        if self.is_event() { "events".into() } else { self.resource() }
    }

    /// Whether there is a status, which is written on its own.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|name| name == "status")
    }

    /// One of the resources that every cluster has.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// A pod.
    pub fn is_pod(&self) -> bool {
        self.is("", "pods")
    }

    /// An event, of whichever group.
    pub fn is_event(&self) -> bool {
        self.plural == "events" && (self.group.is_empty() || self.group == "events.k8s.io")
    }
}

/// All resources.
#[derive(Debug)]
pub struct Kinds {
    /// By group, version and plural.
    all: BTreeMap<(String, String, String), Arc<Kind>>,
}

/// Group, version, plural, kind, whether namespaced, short names, subresources, whether generations are counted.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static [&'static str],
    &'static [&'static str],
    bool,
);

const RBAC: &str = "rbac.authorization.k8s.io";

#[rustfmt::skip]
const TABLE: [Row; 26] = [
    ("", "v1", "pods", "Pod", true, &["po"], &["status", "binding", "eviction"], true),
    ("", "v1", "nodes", "Node", false, &["no"], &["status"], false),
    ("", "v1", "persistentvolumes", "PersistentVolume", false, &["pv"], &["status"], false),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true, &["pvc"], &["status"], false),
    ("", "v1", "services", "Service", true, &["svc"], &["status"], false),
    ("", "v1", "endpoints", "Endpoints", true, &["ep"], &[], false),
    ("", "v1", "configmaps", "ConfigMap", true, &["cm"], &[], false),
    ("", "v1", "secrets", "Secret", true, &[], &[], false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, &["sa"], &[], false),
    ("", "v1", "namespaces", "Namespace", false, &["ns"], &["status"], false),
    ("", "v1", "events", "Event", true, &["ev"], &[], false),
    ("events.k8s.io", "v1", "events", "Event", true, &["ev"], &[], false),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true, &[], &[], true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, &[], &[], false),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true, &["pdb"], &["status"], true),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false, &["sc"], &[], false),
    ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false, &[], &[], false),
    ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false, &[], &["status"], false),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false, &["pc"], &[], true),
    (RBAC, "v1", "roles", "Role", true, &[], &[], false),
    (RBAC, "v1", "rolebindings", "RoleBinding", true, &[], &[], false),
    (RBAC, "v1", "clusterroles", "ClusterRole", false, &[], &[], false),
    (RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", false, &[], &[], false),
    ("apps", "v1", "deployments", "Deployment", true, &["deploy"], &["status"], true),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false, &["crd", "crds"], &["status"], true),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true, &["netpol"], &[], true),
];

impl Default for Kinds {
    fn default() -> Kinds {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut kinds = Kinds { all: BTreeMap::new() };
        for (group, version, plural, kind, namespaced, short, subresources, counts) in TABLE {
            kinds.add(Kind {
                group: group.into(),
                version: version.into(),
                plural: plural.into(),
                singular: kind.to_lowercase(),
                kind: kind.into(),
                namespaced,
                short_names: owned(short),
                categories: vec![],
                subresources: owned(subresources),
                counts_generations: counts,
                definition: None,
            });
        }
        kinds
    }
}

impl Kinds {
    /// Adds a resource, or changes it.
    pub fn add(&mut self, kind: Kind) {
        let key = (kind.group.clone(), kind.version.clone(), kind.plural.clone());
        self.all.insert(key, Arc::new(kind));
    }

    /// Takes a custom resource away, in all versions.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.all.retain(|_, kind| !kind.is(group, plural));
    }

    /// By what stands in a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.all.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The first version of a resource that every cluster has.
    pub fn known(&self, group: &str, plural: &str) -> &Arc<Kind> {
        let found = self.all.values().find(|kind| kind.is(group, plural));
        found.unwrap_or_else(|| panic!("BUG: {plural} of the group {group:?} are not in the table"))
    }

    /// The first version of what is stored under that name.
    pub fn stored(&self, stored_as: &str) -> Option<&Arc<Kind>> {
        self.all.values().find(|kind| kind.stored_as() == stored_as)
    }

    /// All, by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.all.values()
    }
}
