//! The claim of an instance: what is durable of it.

use super::{free, names};
use crate::api::{self, Group, SarsenCluster};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use std::collections::BTreeMap;

/// The claim of a new instance, with these annotations and one that says that nothing is on it. It has no owner: it goes only if somebody decides so.
pub fn claim(
    cluster: &SarsenCluster,
    group: &Group,
    instance: &str,
    mut annotations: BTreeMap<String, String>,
) -> PersistentVolumeClaim {
    let storage = cluster.spec.storage_of(&group.name);
    let mut metadata = free(cluster, names::claim(instance), "database");
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(api::names::GROUP.into(), group.name.clone());
    labels.insert(api::names::INSTANCE.into(), instance.into());
    annotations.insert(api::names::CLUSTER_ID.into(), api::names::NO_CLUSTER.into());
    metadata.annotations = Some(annotations);
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            // Not ReadWriteOncePod, which provisioners of local volumes without CSI do not know.
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), storage.size.clone())].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, yaml};

    #[test]
    fn a_claim() {
        let cluster = sample::cluster();
        let annotations = [(api::names::REPLACES.to_owned(), "metrics-a-1".to_owned())].into();
        insta::assert_snapshot!(yaml(&claim(&cluster, &cluster.spec.groups[0], "metrics-a-4", annotations)));
    }

    #[test]
    fn the_storage_of_a_group_goes_before_that_of_the_cluster() {
        let cluster = sample::cluster();
        let of = |group: usize| {
            let claim = claim(&cluster, &cluster.spec.groups[group], "x", BTreeMap::new()).spec.unwrap();
            (claim.resources.unwrap().requests.unwrap()["storage"].0.clone(), claim.storage_class_name)
        };
        assert_eq!(of(0), ("100Gi".into(), Some("local-nvme".into())));
        assert_eq!(of(2), ("200Gi".into(), None));
    }
}
