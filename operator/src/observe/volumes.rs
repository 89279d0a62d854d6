//! From volumes, their classes and their drivers to what a plan knows of them.

use crate::plan::{Class, Volume};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// On the storage class that is taken where none is named.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A volume, where these drivers attach nothing. `None`: which ones is not known, and none is trusted.
pub fn volume(object: &core::PersistentVolume, attachless: Option<&BTreeSet<String>>) -> (String, Volume) {
    let affinity = object.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let terms = affinity
        .and_then(|affinity| affinity.required.as_ref())
        .map(|required| &required.node_selector_terms);
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    let volume = Volume {
        failed: phase == Some("Failed"),
        pinned: terms.and_then(|terms| pinned(terms)),
        exclusive: object.spec.as_ref().is_some_and(|spec| exclusive(spec, attachless)),
    };
    (object.name_any(), volume)
}

/// What Kubernetes goes by is the volume, not the claim: it keeps one from being attached twice if none of the volume's modes is for several machines. And there must be
/// something that attaches it: a share of a file server that says *ReadWriteOnce* can be mounted anywhere.
fn exclusive(spec: &core::PersistentVolumeSpec, attachless: Option<&BTreeSet<String>>) -> bool {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let one = !modes.is_empty()
        && modes.iter().all(|mode| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
    // Disks of clouds from before there was CSI, which drivers that attach have taken over.
    let of_old = spec.aws_elastic_block_store.is_some()
        || spec.azure_disk.is_some()
        || spec.cinder.is_some()
        || spec.gce_persistent_disk.is_some()
        || spec.vsphere_volume.is_some();
    let attaches = spec
        .csi
        .as_ref()
        .map_or(of_old, |csi| attachless.is_some_and(|attachless| !attachless.contains(&csi.driver)));
    one && attaches
}

/// A driver whose volumes are used without being attached.
pub fn attachless(object: &CSIDriver) -> Option<String> {
    (object.spec.attach_required == Some(false)).then(|| object.name_any())
}

/// A volume of a machine names it by a label that only it has. One that merely says its zone follows the pod within it; whether other labels are shared, the plan can see.
fn pinned(terms: &[core::NodeSelectorTerm]) -> Option<(String, BTreeSet<String>)> {
    let requirements = terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let of_a_machine = |label: &str| {
        let name = label.rsplit('/').next().unwrap_or(label);
        !label.starts_with("topology.kubernetes.io/")
            && !label.starts_with("failure-domain.")
            && !["zone", "region", "location"].iter().any(|place| name.contains(place))
    };
    let mut found: Option<(String, BTreeSet<String>)> = None;
    for requirement in
        requirements.filter(|requirement| requirement.operator == "In" && of_a_machine(&requirement.key))
    {
        let values = requirement.values.iter().flatten().cloned();
        match &mut found {
            Some((key, known)) if *key == requirement.key => known.extend(values),
            Some(_) => {}
            None => found = Some((requirement.key.clone(), values.collect())),
        }
    }
    found
}

/// A storage class.
pub fn class(object: &StorageClass) -> (String, Class) {
    let class = Class {
        expands: object.allow_volume_expansion.unwrap_or(false),
        is_default: object.annotations().get(DEFAULT_CLASS).is_some_and(|text| text == "true"),
    };
    (object.name_any(), class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn of<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_volume_is_pinned_by_a_label_of_one_machine_and_not_by_its_zone() {
        let read = |terms: Value| {
            let object = json!({
                "metadata": { "name": "pv-1" },
                "spec": { "nodeAffinity": { "required": { "nodeSelectorTerms": terms } } },
                "status": { "phase": "Failed" },
            });
            let (name, volume) = volume(&of(object), None);
            assert_eq!((name.as_str(), volume.failed), ("pv-1", true));
            volume.pinned
        };
        let is = |key: &str, values: &[&str]| json!({ "key": key, "operator": "In", "values": values });
        let pinned = |key: &str, values: &[&str]| {
            Some((key.to_owned(), values.iter().map(|value| (*value).to_owned()).collect()))
        };
        let host = is("kubernetes.io/hostname", &["machine-1"]);
        let zone = is("topology.kubernetes.io/zone", &["eu-1a"]);
        let by_host = pinned("kubernetes.io/hostname", &["machine-1"]);
        assert_eq!(read(json!([{ "matchExpressions": [host] }])), by_host);
        assert_eq!(read(json!([{ "matchExpressions": [zone, host] }])), by_host);
        let own = is("topology.topolvm.io/node", &["machine-1"]);
        assert_eq!(
            read(json!([{ "matchExpressions": [own] }])),
            pinned("topology.topolvm.io/node", &["machine-1"])
        );
        for key in [
            "topology.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/zone",
            "topology.ebs.csi.aws.com/zone",
            "topology.csi.vmware.com/k8s-zone",
            "csi.hetzner.cloud/location",
            "region",
        ] {
            assert_eq!(read(json!([{ "matchExpressions": [is(key, &["eu-1a"])] }])), None, "{key}");
        }
        let two = json!([
            { "matchExpressions": [host] },
            { "matchExpressions": [is("kubernetes.io/hostname", &["machine-2"])] },
        ]);
        assert_eq!(read(two), pinned("kubernetes.io/hostname", &["machine-1", "machine-2"]));
        assert_eq!(read(json!([{ "matchExpressions": [{ "key": "gpu", "operator": "Exists" }] }])), None);
        let network =
            of(json!({ "metadata": { "name": "pv-2" }, "spec": {}, "status": { "phase": "Bound" } }));
        assert_eq!(volume(&network, None).1, Volume::default());
    }

    #[test]
    fn a_volume_is_exclusive_if_it_is_attached_and_to_one_machine_at_a_time() {
        let driver = |attaches: Value| {
            let object = json!({ "metadata": { "name": "shares.example.org" }, "spec": { "attachRequired": attaches } });
            attachless(&of(object))
        };
        let attachless = BTreeSet::from_iter(driver(json!(false)));
        assert_eq!((attachless.len(), driver(json!(true)), driver(Value::Null)), (1, None, None));
        let csi = |driver: &str| json!({ "csi": { "driver": driver, "volumeHandle": "1" } });
        let (disk, share) = (csi("disks.example.org"), csi("shares.example.org"));
        let nfs = json!({ "nfs": { "server": "files", "path": "/1" } });
        let cinder = json!({ "cinder": { "volumeID": "1" } });
        for (source, modes, exclusive) in [
            (&disk, json!(["ReadWriteOnce"]), true),
            (&disk, json!(["ReadWriteOncePod"]), true),
            (&cinder, json!(["ReadWriteOnce"]), true),
            // As Kubernetes does: the most that the volume can counts, not what the claim asks for.
            (&disk, json!(["ReadWriteOnce", "ReadWriteMany"]), false),
            (&disk, json!(["ReadOnlyMany", "ReadWriteOnce"]), false),
            (&disk, json!([]), false),
            (&share, json!(["ReadWriteOnce"]), false),
            (&nfs, json!(["ReadWriteOnce"]), false),
        ] {
            let mut object = json!({ "metadata": { "name": "pv-1" }, "spec": source });
            object["spec"]["accessModes"] = modes.clone();
            let object = of(object);
            assert_eq!(volume(&object, Some(&attachless)).1.exclusive, exclusive, "{source} {modes}");
            // Where drivers cannot be read, only those from before them are trusted.
            let is_trusted = exclusive && source.get("cinder").is_some();
            assert_eq!(volume(&object, None).1.exclusive, is_trusted, "{source} {modes}");
        }
    }

    #[test]
    fn a_class_that_says_nothing_does_not_expand_and_is_not_the_default() {
        let read = |more: Value| {
            let mut object = json!({ "metadata": { "name": "local" }, "provisioner": "local" });
            object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            class(&of(object)).1
        };
        assert_eq!(read(json!({})), Class::default());
        let annotation = json!({ "storageclass.kubernetes.io/is-default-class": "true" });
        let more = json!({ "allowVolumeExpansion": true, "metadata": { "name": "local", "annotations": annotation } });
        assert_eq!(read(more), Class { expands: true, is_default: true });
    }
}
