//! Does what a plan says, one action at a time. Nothing is decided here.
//!
//! Each action names what it was decided on: the uid of the object, or the epoch of the placement. If that is not so any more, the API server or the database
//! refuses, and the next look finds out what is so.

use crate::api::{SarsenCluster, names};
use crate::database::{self, Client as Database};
use crate::observe::ready_ips;
use crate::plan::{Action, Facts, Note, Observed, Request, Shared};
use crate::render;
use hyper::Method;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// What it is about is not there any more.
    #[error("{0} is not there any more")]
    Gone(String),
    /// Its name is something else's.
    #[error("{}", taken(what, whose))]
    Taken {
        /// What.
        what: Shared,
        /// Who it belongs to, in words, if it is of another cluster.
        whose: String,
    },
}

impl Error {
    /// What it was decided on has changed: nothing is wrong, and the next look will show.
    pub fn is_outdated(&self) -> bool {
        match self {
            Error::Kube(kube::Error::Api(status)) => {
                status.is_conflict()
                    || status.is_not_found()
                    || status.is_already_exists()
                    || is_of_another(status)
            }
            Error::Database(database::Error::Refused { status, .. }) => {
                *status == hyper::StatusCode::CONFLICT
            }
            Error::Gone(_) | Error::Database(database::Error::Nobody) => true,
            _ => false,
        }
    }
}

/// A patch names the uid of the object that it is for. Of an object that has another by now, it asks for that to be changed, which cannot be.
fn is_of_another(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

/// What to say of a name that is something else's.
pub fn taken(what: &Shared, whose: &str) -> String {
    let Shared { kind, name } = what;
    format!(
        "{kind} {name} exists and is not of this cluster{whose}: delete it if it is of no use, or choose another name for the cluster or the group"
    )
}

/// What doing needs.
pub struct Hands<'a> {
    /// For Kubernetes.
    pub client: &'a Client,
    /// For the database.
    pub database: &'a Database,
    /// The cluster.
    pub cluster: &'a SarsenCluster,
    /// What was seen.
    pub observed: &'a Observed,
}

impl Hands<'_> {
    /// Does one thing.
    pub async fn act(&self, action: &Action) -> Result<(), Error> {
        match action {
            Action::AddFinalizer => {
                Ok(set_finalizer(self.client, self.cluster, names::FINALIZER, true).await?)
            }
            Action::RemoveFinalizer => {
                Ok(set_finalizer(self.client, self.cluster, names::FINALIZER, false).await?)
            }
            Action::CreateToken => self.create_token().await,
            Action::Apply(shared) => self.apply(shared).await,
            Action::DeleteShared(shared) => self.delete_shared(shared).await,
            Action::CreateClaim { instance, group, replaces } => {
                self.create_claim(instance, group, replaces.as_ref()).await
            }
            Action::Note { instance, uid, note } => self.annotate(instance, uid, annotations(note)).await,
            Action::ExpandClaim { instance, uid } => self.expand(instance, uid).await,
            Action::DeleteClaim { instance, uid, version, .. } => {
                let only = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
                let params = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
                self.claims().delete(&render::names::claim(instance), &params).await?;
                Ok(())
            }
            Action::CreatePod { instance, group } => {
                let group = self.group(group)?;
                let pod = render::pod(self.cluster, group, instance);
                let made = self.pods().create(&PostParams::default(), &pod).await;
                self.made(made, "Pod", instance).await
            }
            Action::DeletePod { instance, uid, force, .. } => {
                let mut params = DeleteParams { preconditions: only(uid), ..DeleteParams::background() };
                if *force {
                    params.grace_period_seconds = Some(0);
                }
                self.pods().delete(instance, &params).await?;
                Ok(())
            }
            Action::SetGate { instance, uid, open } => self.set_gate(instance, uid, *open).await,
            Action::Ask(request) => self.ask(request).await,
        }
    }

    fn namespace(&self) -> String {
        self.cluster.namespace().unwrap_or_default()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    fn group(&self, name: &str) -> Result<&crate::api::Group, Error> {
        let found = self.cluster.spec.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| Error::Gone(format!("group {name}")))
    }

    async fn create_token(&self) -> Result<(), Error> {
        let mut bytes = [0; 24];
        getrandom::fill(&mut bytes).expect("the operating system has no randomness");
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let api = Api::<Secret>::namespaced(self.client.clone(), &self.namespace());
        match api.create(&PostParams::default(), &render::token_secret(self.cluster, &token)).await {
            // It outlives the cluster object: the claims of an earlier one are of no use without it.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    async fn apply(&self, shared: &Shared) -> Result<(), Error> {
        let Shared { kind, name } = shared;
        let staying = |claim: &&crate::plan::Claim| claim.leaving.is_none() && claim.retired.is_none();
        let instances =
            u32::try_from(self.observed.claims.values().filter(staying).count()).unwrap_or(u32::MAX);
        let wanted = render::shared(self.cluster, instances).into_iter().find(|object| {
            object.name_any() == *name && object.types.as_ref().is_some_and(|types| types.kind == *kind)
        });
        let Some(object) = wanted else { return Err(Error::Gone(format!("{kind} {name}"))) };
        let api = self.any(kind);
        // The caches know only what has our label.
        if let Some(found) = api.get_metadata_opt(name).await? {
            self.check_ours(shared, &found.metadata)?;
        }
        api.patch(name, &PatchParams::apply(render::MANAGER).force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    async fn delete_shared(&self, shared: &Shared) -> Result<(), Error> {
        let Shared { kind, name } = shared;
        let api = self.any(kind);
        let Some(found) = api.get_metadata_opt(name).await? else { return Ok(()) };
        self.check_ours(shared, &found.metadata)?;
        let owners = found.owner_references();
        if !owners.iter().any(|owner| Some(&owner.uid) == self.cluster.metadata.uid.as_ref()) {
            return Err(Error::Gone(format!("{kind} {name} of this cluster")));
        }
        let preconditions = Preconditions { uid: found.uid(), resource_version: found.resource_version() };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        api.delete(name, &params).await?;
        Ok(())
    }

    fn any(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace(), &render::resource(kind))
    }

    /// Whatever somebody else has made is not taken over.
    fn check_ours(&self, what: &Shared, found: &ObjectMeta) -> Result<(), Error> {
        let label = found.labels.as_ref().and_then(|labels| labels.get(names::CLUSTER));
        let whose = match label {
            Some(name) if *name == self.cluster.name_any() => return Ok(()),
            Some(other) => format!(", but of SarsenCluster {other}"),
            None => String::new(),
        };
        Err(Error::Taken { what: what.clone(), whose })
    }

    /// That there is one already may mean that the caches are old, or that the name is another's.
    async fn made<K>(&self, made: Result<K, kube::Error>, kind: &str, name: &str) -> Result<(), Error> {
        let Err(error) = made else { return Ok(()) };
        if matches!(&error, kube::Error::Api(status) if status.is_already_exists())
            && let Some(found) = self.any(kind).get_metadata_opt(name).await?
        {
            self.check_ours(&Shared { kind: kind.into(), name: name.into() }, &found.metadata)?;
        }
        Err(error.into())
    }

    async fn create_claim(
        &self,
        instance: &str,
        group: &str,
        replaces: Option<&(String, String)>,
    ) -> Result<(), Error> {
        let group = self.group(group)?;
        let mut notes = BTreeMap::new();
        if let Some((old, why)) = replaces {
            notes.insert(names::REPLACES.to_owned(), old.clone());
            notes.insert(names::REPLACES_WHY.to_owned(), why.clone());
            notes.insert(names::REPLACES_SINCE.to_owned(), now());
        }
        let claim = render::claim(self.cluster, group, instance, notes);
        let made = self.claims().create(&PostParams::default(), &claim).await;
        self.made(made, "PersistentVolumeClaim", &claim.name_any()).await
    }

    async fn annotate(
        &self,
        instance: &str,
        uid: &str,
        notes: Vec<(&'static str, Option<String>)>,
    ) -> Result<(), Error> {
        let notes: BTreeMap<&str, Option<String>> = notes.into_iter().collect();
        // Another object by this name does not take it: its uid cannot be changed.
        let patch = json!({ "metadata": { "uid": uid, "annotations": notes } });
        self.claims()
            .patch_metadata(&render::names::claim(instance), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn expand(&self, instance: &str, uid: &str) -> Result<(), Error> {
        let claim = self.observed.claims.get(instance).ok_or_else(|| Error::Gone(instance.into()))?;
        let size = &self.cluster.spec.storage_of(&claim.group).size;
        let patch = json!({ "metadata": { "uid": uid }, "spec": { "resources": { "requests": { "storage": size } } } });
        self.claims()
            .patch(&render::names::claim(instance), &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn set_gate(&self, instance: &str, uid: &str, open: bool) -> Result<(), Error> {
        let (status, reason, message) = match open {
            true => ("True", "CopiesThere", "every copy that the instance is to have is there"),
            false => ("False", "CopiesMissing", "copies are being made, or the instance has none yet"),
        };
        let condition = json!({
            "type": names::GATE, "status": status, "reason": reason, "message": message, "lastTransitionTime": now(),
        });
        // Strategic: the list is merged by type, so that the kubelet's conditions stay.
        let patch = json!({ "metadata": { "uid": uid }, "status": { "conditions": [condition] } });
        self.pods().patch_status(instance, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    async fn ask(&self, request: &Request) -> Result<(), Error> {
        if let Request::Create { instance } = request {
            let ip = self.observed.pods.get(instance).and_then(|pod| pod.ip.as_deref());
            let ip = ip.ok_or_else(|| Error::Gone(instance.clone()))?;
            self.database.post(ip, "/api/v1/admin/cluster/create", &json!({})).await?;
            return Ok(());
        }
        if let Request::Cancel { job } = request {
            let path = format!("/api/v1/admin/jobs/{job}/cancel");
            self.database
                .any(ready_ips(self.observed.pods.values()), Method::POST, &path, Some(&json!({})))
                .await?;
            return Ok(());
        }
        let by = render::MANAGER;
        let (operation, body) = match request {
            Request::Create { .. } | Request::Cancel { .. } => unreachable!("BUG: asked above"),
            Request::Add { node } => ("add", json!({ "node": node, "by": by })),
            Request::Replace { old, new, lost, epoch } => {
                ("replace", json!({ "old": old, "new": new, "lost": lost, "epoch": epoch, "by": by }))
            }
            Request::Remove { node, lost, epoch } => {
                ("remove", json!({ "node": node, "lost": lost, "epoch": epoch, "by": by }))
            }
            Request::Heal { node, epoch } => ("heal", json!({ "node": node, "epoch": epoch, "by": by })),
        };
        let path = format!("/api/v1/admin/cluster/{operation}");
        self.database.any(ready_ips(self.observed.pods.values()), Method::POST, &path, Some(&body)).await?;
        Ok(())
    }
}

/// Puts a finalizer on an object, as it was seen, or takes it off.
pub async fn set_finalizer<K>(client: &Client, object: &K, name: &str, on: bool) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let mut list = object.finalizers().to_vec();
    list.retain(|other| other != name);
    if on {
        list.push(name.to_owned());
    }
    // The resource version makes it a conflict if somebody else has changed the list meanwhile.
    let patch = json!({ "metadata": { "finalizers": list, "resourceVersion": object.resource_version() } });
    let api = Api::<K>::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    api.patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

fn only(uid: &str) -> Option<Preconditions> {
    Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}

/// What a note is on the claim: keys with what they are set to, or taken off.
fn annotations(note: &Note) -> Vec<(&'static str, Option<String>)> {
    match note {
        Note::Suspect(why) => {
            vec![(names::SUSPECT_WHY, Some(why.clone())), (names::SUSPECT_SINCE, Some(now()))]
        }
        Note::Clear => vec![(names::SUSPECT_WHY, None), (names::SUSPECT_SINCE, None)],
        Note::Leave(why) => vec![(names::LEAVING, Some(why.word().into()))],
        Note::Retire => vec![(names::RETIRED, Some(now()))],
        Note::Settle => {
            vec![(names::REPLACES, None), (names::REPLACES_WHY, None), (names::REPLACES_SINCE, None)]
        }
        Note::Create => vec![(names::CREATES, Some("true".into()))],
        Note::Facts(facts) => known(facts),
    }
}

fn known(facts: &Facts) -> Vec<(&'static str, Option<String>)> {
    let host = facts.host.as_ref();
    let all = [
        (names::NODE_ID, facts.node_id.clone()),
        (names::CLUSTER_ID, facts.cluster_id.clone()),
        (names::HOST, host.map(|host| host.name.clone())),
        (names::HOST_UID, host.map(|host| host.uid.clone())),
        (names::HOST_MACHINE, host.map(|host| host.machine.clone())),
    ];
    // What is not known now may be known from before.
    all.into_iter().filter(|(_, value)| value.is_some()).collect()
}

/// Whole seconds would start the clocks of evidence too early.
fn now() -> String {
    Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::StatusCode;
    use kube::core::Status;

    #[test]
    fn what_was_decided_on_something_that_has_changed_is_no_failure() {
        let kube = |code: u16, reason: &str| {
            Error::Kube(kube::Error::Api(Status::failure("no", reason).with_code(code).boxed()))
        };
        let invalid = |field: &str| {
            let details =
                json!({ "causes": [{ "reason": "FieldValueInvalid", "message": "no", "field": field }] });
            let mut status = Status::failure("no", "Invalid").with_code(422);
            status.details = Some(serde_json::from_value(details).unwrap());
            Error::Kube(kube::Error::Api(status.boxed()))
        };
        let refused = |status| {
            let url = "http://10.0.0.1:7420/x".to_owned();
            Error::Database(database::Error::Refused { url, status, message: "no".into() })
        };
        for outdated in [
            kube(409, "Conflict"),
            kube(409, "AlreadyExists"),
            kube(404, "NotFound"),
            invalid("metadata.uid"),
            refused(StatusCode::CONFLICT),
            Error::Database(database::Error::Nobody),
            Error::Gone("x".into()),
        ] {
            assert!(outdated.is_outdated(), "{outdated}");
        }
        let what = Shared { kind: "Service".into(), name: "metrics".into() };
        for failure in [
            kube(403, "Forbidden"),
            kube(500, "InternalError"),
            invalid("spec.resources"),
            refused(StatusCode::BAD_REQUEST),
            refused(StatusCode::SERVICE_UNAVAILABLE),
            Error::Taken { what, whose: String::new() },
        ] {
            assert!(!failure.is_outdated(), "{failure}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_told_with_who_has_it_and_the_way_out() {
        let what = Shared { kind: "Pod".into(), name: "a-b-c-1".into() };
        let said = Error::Taken { what, whose: ", but of SarsenCluster a-b".into() }.to_string();
        assert!(
            said.starts_with("Pod a-b-c-1 exists and is not of this cluster, but of SarsenCluster a-b: "),
            "{said}"
        );
        assert!(said.contains("choose another name"), "{said}");
    }

    #[test]
    fn what_is_not_known_now_is_not_written_over_what_was_known() {
        let note = Note::Facts(Box::new(Facts { node_id: Some("ab".into()), ..Facts::default() }));
        assert_eq!(annotations(&note), [(names::NODE_ID, Some("ab".to_owned()))]);
        assert_eq!(annotations(&Note::Clear), [(names::SUSPECT_WHY, None), (names::SUSPECT_SINCE, None)]);
    }
}
