//! What the operator has seen of one cluster: the only thing that a plan is made from.
//!
//! Everything is a plain value, so that a test can make it up. Whether it came from caches or was read anew a moment ago
//! makes no difference here; before anything destructive it is read anew, and the plan made again.

use crate::api::{ClusterSpec, ClusterStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds since 1970.
pub type Ms = i64;

/// One cluster at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The time.
    pub now: Ms,
    /// `metadata.name` of the cluster object.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The object has a deletion timestamp.
    pub deleting: bool,
    /// Our finalizer is on it.
    pub has_finalizer: bool,
    /// A person has put the annotation on it that stops everything.
    pub paused: bool,
    /// What is wanted. `None`: it cannot be read.
    pub spec: Option<ClusterSpec>,
    /// What was said last.
    pub status: ClusterStatus,
    /// What follows from the specification.
    pub wanted: Wanted,
    /// Claims by instance.
    pub claims: BTreeMap<String, Claim>,
    /// Pods by instance.
    pub pods: BTreeMap<String, Pod>,
    /// Machines by name. `None`: the operator may not look.
    pub machines: Option<BTreeMap<String, Machine>>,
    /// Volumes by name. `None`: the operator may not look.
    pub volumes: Option<BTreeMap<String, Volume>>,
    /// Storage classes by name. `None`: the operator may not look.
    pub classes: Option<BTreeMap<String, Class>>,
    /// The secret that nodes share exists.
    pub has_token: bool,
    /// What the database says. `None`: nobody answers, or there is none yet.
    pub database: Option<Database>,
}

/// What follows from the specification.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By group: the hash of the pods as they should be.
    pub hashes: BTreeMap<String, String>,
    /// Objects that all instances share and that are not as they should be: missing, or made from something older.
    pub stale: Vec<Shared>,
    /// Objects that were made for all instances and are of no use any more.
    pub surplus: Vec<Shared>,
    /// Why the specification cannot work, as far as it shows by itself, or by names that something else has.
    pub problems: Vec<String>,
}

/// An object that all instances share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shared {
    /// `Service`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A claim: what makes an instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    /// `metadata.uid`
    pub uid: String,
    /// The group that it belongs to.
    pub group: String,
    /// Bound, lost, or neither yet.
    pub phase: ClaimPhase,
    /// The volume that it is bound to.
    pub volume: Option<String>,
    /// Its storage class.
    pub class: Option<String>,
    /// Its resource version: another one means that something about it has changed.
    pub version: String,
    /// Bytes that it asks for.
    pub requested: u64,
    /// Bytes that it has.
    pub capacity: u64,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Who it is to take the place of, why, and since when.
    pub replaces: Option<Replaces>,
    /// Evidence that the instance is lost, and since when there is.
    pub suspect: Option<Suspect>,
    /// It is to go.
    pub leaving: Option<Leaving>,
    /// Since when it is gone from the placement for ever.
    pub retired: Option<Ms>,
    /// The database's id of the node.
    pub node_id: Option<String>,
    /// What is on its volume.
    pub contents: Contents,
    /// It was chosen to create the cluster.
    pub creates: bool,
    /// A person wants it replaced.
    pub replace: bool,
    /// The machine that its pod was on last.
    pub host: Option<Host>,
}

/// What is on the volume of a claim, as far as anybody has noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Anything: another hand has made the claim.
    #[default]
    Unknown,
    /// We have made it, and nobody was let write to what is on it.
    Nothing,
    /// Data of the database with this id.
    Of(String),
}

/// The state of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimPhase {
    /// No volume yet.
    #[default]
    Pending,
    /// With a volume.
    Bound,
    /// Its volume is gone.
    Lost,
}

/// A machine as it was when a pod ran there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The uid of its Node object; empty if the operator may not look.
    pub uid: String,
    /// The id of the machine itself; may be empty.
    pub machine: String,
}

/// What is written on the claim of an instance that takes the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// The other instance.
    pub old: String,
    /// Why.
    pub why: String,
    /// Since when.
    pub since: Ms,
}

/// What is written on the claim of an instance that may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Since when.
    pub since: Ms,
    /// The kind of evidence.
    pub why: String,
}

/// Why an instance is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Its group is to have fewer nodes: its claim is kept or not, as the specification says.
    ScaleIn,
    /// It was made and is not needed, and never held anything that somebody wrote: its claim goes.
    Abandoned,
}

impl Leaving {
    /// As it is written on the claim.
    pub fn word(self) -> &'static str {
        match self {
            Leaving::ScaleIn => "scale-in",
            Leaving::Abandoned => "abandoned",
        }
    }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// `metadata.uid`
    pub uid: String,
    /// The group that it belongs to.
    pub group: String,
    /// What it was made from.
    pub hash: String,
    /// When it was made.
    pub created: Ms,
    /// The machine that it is on.
    pub machine: Option<String>,
    /// Why it is on none, as the scheduler says.
    pub unschedulable: Option<String>,
    /// Where it is reached.
    pub ip: Option<String>,
    /// Its containers run and are ready.
    pub containers_ready: bool,
    /// All of it is ready, and since when.
    pub ready: Option<Ms>,
    /// What the readiness gate says.
    pub gate: Option<bool>,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Its container cannot start, or ends again and again.
    pub trouble: Option<Trouble>,
    /// What its node answers that is not (or not yet) part of a database.
    pub answer: Option<Answer>,
}

/// Why a container does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// In its own words.
    pub message: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The volume is empty, though the cluster knows this node.
    Wiped,
    /// The volume has another cluster's or another node's data.
    Foreign,
    /// The disk fails.
    DiskFailed,
    /// The cluster has removed this node for ever.
    Removed,
    /// The image cannot be had.
    Image,
    /// Anything else.
    Crash,
}

/// What a node says that is not part of a database that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It waits for a cluster to join.
    Waiting,
    /// It belongs to this cluster and starts.
    Belongs(String),
}

/// A machine: a Node object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Machine {
    /// `metadata.uid`
    pub uid: String,
    /// `status.nodeInfo.machineID`
    pub machine: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its kubelet is heard.
    pub ready: bool,
    /// Somebody who knows has said that it is off for good.
    pub out_of_service: bool,
    /// Nothing new is to run there.
    pub cordoned: bool,
    /// What pods may ask for in all, by resource. Nothing: that is not known.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volume {
    /// Its phase is `Failed`.
    pub failed: bool,
    /// The machines that it can be used on, if it is bound to any, as a label and its values.
    pub pinned: Option<(String, BTreeSet<String>)>,
    /// It is attached to one machine at a time, and taken from one before another gets it.
    pub exclusive: bool,
}

/// A storage class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Volumes may grow.
    pub expands: bool,
    /// It is taken where none is named.
    pub is_default: bool,
}

/// What the database says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Database {
    /// The cluster's id.
    pub cluster_id: String,
    /// The epoch of the placement.
    pub epoch: u64,
    /// The control plane has a leader, so that something can be agreed on.
    pub has_leader: bool,
    /// Something may have been acknowledged: its members agree on that before the first time.
    pub has_data: bool,
    /// Copies of every shard.
    pub factor: usize,
    /// Members by id.
    pub nodes: BTreeMap<String, Node>,
    /// Instances whose nodes are gone for ever.
    pub gone: BTreeSet<String>,
    /// Who holds which shard.
    pub shards: Vec<Vec<Copy>>,
    /// Jobs at work.
    pub jobs: Vec<Job>,
    /// Who heals the database from outside is us.
    pub lease_is_ours: bool,
}

/// A member of the database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The instance, by its address.
    pub instance: String,
    /// What is agreed on.
    pub state: NodeState,
    /// Whether it is heard.
    pub health: Health,
    /// Other live members that hear it lately, and how many could.
    pub heard_by: Option<(u32, u32)>,
    /// Bytes that it still has to copy.
    pub bytes_left: u64,
    /// How long that will take.
    pub eta_s: Option<u64>,
    /// The version of its program.
    pub version: String,
}

/// What is agreed on about a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// It has joined, and holds nothing until it is told to.
    #[default]
    Standby,
    /// It takes its share.
    Up,
    /// It is emptied.
    Draining,
    /// It is away, and its copies are made elsewhere.
    Lost,
}

/// Whether a member is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It is.
    Up,
    /// Not for a moment.
    Suspect,
    /// It is not.
    #[default]
    Down,
}

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The node's id.
    pub node: String,
    /// Whether it has everything.
    pub state: CopyState,
}

/// The state of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// It does not have everything yet.
    Initializing,
    /// It has.
    Available,
    /// It has, and is to go.
    Leaving,
    /// It has, since a moment ago.
    Arrived,
}

/// A job of the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// `replace`, `remove`, `add`, …
    pub kind: String,
    /// The node that is emptied.
    pub leaving: Option<String>,
    /// The node that is filled.
    pub coming: Option<String>,
    /// All that is to be copied.
    pub bytes: u64,
    /// What of it is left.
    pub bytes_left: Option<u64>,
    /// How long that will take.
    pub eta_s: Option<u64>,
}
