//! Which pods are away, told by the API server one change after the other, so that nothing is missed between two looks.

use super::*;
use futures_util::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{WatchEvent, WatchParams};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex};

/// A change of a pod, and who is away since.
struct Change {
    pod: String,
    uid: String,
    /// It has been deleted, and may yet be there.
    is_going: bool,
    away: BTreeSet<String>,
    /// For people.
    what: String,
}

/// Pods that were away: those that are not ready, or are about to go, or are not there.
pub struct Away(Arc<Mutex<Vec<Change>>>);

impl Away {
    /// From now on, when all pods are ready.
    pub fn watch(case: &Case) -> Away {
        let api: Api<Pod> = Api::namespaced(case.kubernetes.client(), NAMESPACE);
        let ours = format!("sarsen.dev/cluster={NAME}");
        let (list, of) = (api.clone(), ListParams::default().labels(&ours));
        let version = case.kubernetes.must(async move { list.list(&of).await }).metadata.resource_version;
        let seen = Arc::new(Mutex::new(vec![]));
        let written = seen.clone();
        case.kubernetes.spawn(async move {
            let (mut away, mut version) = (BTreeSet::new(), version.unwrap_or_default());
            loop {
                let Ok(events) = api.watch(&WatchParams::default().labels(&ours), &version).await else {
                    return;
                };
                let mut events = pin!(events);
                while let Some(Ok(event)) = events.next().await {
                    let (pod, is_there) = match event {
                        WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, true),
                        WatchEvent::Deleted(pod) => (pod, false),
                        _ => continue,
                    };
                    version = pod.resource_version().unwrap_or_default();
                    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    let is_ready =
                        conditions.into_iter().any(|known| known.type_ == "Ready" && known.status == "True");
                    match is_there && is_ready && pod.metadata.deletion_timestamp.is_none() {
                        true => away.remove(&pod.name_any()),
                        false => away.insert(pod.name_any()),
                    };
                    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                    let conditions: Vec<String> =
                        conditions.map(|known| format!("{}={}", known.type_, known.status)).collect();
                    let is_going = !is_there || pod.metadata.deletion_timestamp.is_some();
                    let (pod, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
                    let what = format!(
                        "{} {pod} is_there={is_there} is_going={is_going} {conditions:?}",
                        Timestamp::now()
                    );
                    written.lock().expect("nobody panicked with it").push(Change {
                        pod,
                        uid,
                        is_going,
                        away: away.clone(),
                        what,
                    });
                }
            }
        });
        Away(seen)
    }

    /// Each time that a pod began to go: it, and who else was away then.
    pub fn gone(&self) -> Vec<(String, BTreeSet<String>)> {
        let (mut gone, mut last) = (Vec::new(), BTreeMap::new());
        for change in self.0.lock().expect("nobody panicked with it").iter() {
            if change.is_going
                && last.insert(change.pod.clone(), change.uid.clone()) != Some(change.uid.clone())
            {
                let mut others = change.away.clone();
                others.remove(&change.pod);
                gone.push((change.pod.clone(), others));
            }
        }
        gone
    }

    /// All of it, for whoever wonders.
    pub fn story(&self) -> String {
        let seen = self.0.lock().expect("nobody panicked with it");
        seen.iter().map(|change| format!("{:?} after {}\n", change.away, change.what)).collect()
    }
}
