//! The end of a cluster object. Its pods go with it, by their owner; its claims stay unless the specification says otherwise.

use super::action::Action;
use super::collect::policy;
use super::draft::Draft;
use super::instances::Instance;
use crate::api::DeletePolicy;

/// Goes on with it.
pub fn advance(draft: &mut Draft) {
    if !draft.observed.has_finalizer {
        return;
    }
    let to_delete: Vec<Instance> = draft
        .instances
        .all
        .values()
        .filter(|instance| instance.claim.is_some() && policy(draft, instance) == DeletePolicy::Delete)
        .cloned()
        .collect();
    if to_delete.is_empty() {
        draft.act(Action::RemoveFinalizer);
        return;
    }
    for instance in to_delete {
        let (Some(claim), name) = (instance.claim, instance.name.to_owned()) else { continue };
        let why = "the cluster is deleted, and storage.deletePolicy is Delete";
        match instance.pod {
            Some(pod) if !pod.deleting => {
                draft.act(Action::DeletePod {
                    instance: name,
                    uid: pod.uid.clone(),
                    force: false,
                    why: why.into(),
                });
            }
            None if !claim.deleting => {
                draft.act(Action::DeleteClaim {
                    instance: name,
                    uid: claim.uid.clone(),
                    version: claim.version.clone(),
                    why: why.into(),
                });
            }
            _ => {}
        }
    }
}
