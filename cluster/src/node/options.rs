//! What a node is told.

use crate::control::{self, NodeReport};
use crate::placement::{Domain, NodeId};
use crate::quorum::Consistency;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a node of a cluster behaves.
#[derive(Clone)]
pub struct Options {
    /// The data directory; the control plane is kept in `cluster/` below it.
    pub data_dir: PathBuf,
    /// `host:port` to listen on for other nodes; port 0 for any.
    pub listen: String,
    /// `host:port` at which others reach this node, if that is not where it listens.
    pub advertise: Option<String>,
    /// `host:port` of the HTTP API, for people and clients of other nodes.
    pub http_address: String,
    /// `host:port` of nodes of the cluster to join. Without any that is not this node, a new cluster is made.
    pub join: Vec<String>,
    /// The secret that nodes of one cluster share.
    pub token: Option<String>,
    /// Where the node stands.
    pub zone: Domain,
    /// Its share of the data relative to others.
    pub capacity: u32,
    /// Joins without taking copies, until somebody says that it shall.
    pub standby: bool,
    /// Copies of each shard, when a cluster is made.
    pub replication_factor: u8,
    /// Shards, when a cluster is made.
    pub shards: u32,
    /// Of this program.
    pub version: &'static str,
    /// After which a write that lacks its majority fails.
    pub write_timeout: Duration,
    /// After which a read that lacks its majority fails, unless its caller says otherwise.
    pub read_timeout: Duration,
    /// Disk space for writes that another node missed, in all and for each.
    pub hints_bytes_max: u64,
    /// How long a hint is kept.
    pub hints_age_max: Duration,
    /// Rows of other nodes that one query may hold, in bytes.
    pub fetch_bytes_max: u64,
    /// How often recent data is compared with other copies.
    pub repair_interval: Duration,
    /// Bytes a second that repair may move.
    pub repair_bytes_per_second: u64,
    /// Bytes a second of blocks that are copied to this node.
    pub bootstrap_bytes_per_second: u64,
    /// How far in the future a sample may be.
    pub future_max: Duration,
    /// Whether a node that has lost its Raft log, and nothing else, may join again as a new member.
    pub rejoin: bool,
    /// How the control plane behaves.
    pub control: control::Options,
    /// What the node knows of itself besides disk and damage, for the leader and for people.
    pub report: Arc<dyn Fn() -> NodeReport + Send + Sync>,
    /// 128 random bits.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
    /// The wall clock.
    pub clock: Arc<dyn Fn() -> model::Timestamp + Send + Sync>,
    /// Told what a start that takes long is waiting for.
    pub progress: Arc<dyn Fn(String) + Send + Sync>,
}

impl Options {
    /// The defaults, for a node that keeps its data in `data_dir`.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        random: impl Fn() -> u128 + Send + Sync + 'static,
        clock: impl Fn() -> model::Timestamp + Send + Sync + 'static,
    ) -> Options {
        Options {
            data_dir: data_dir.into(),
            listen: "127.0.0.1:7421".to_owned(),
            advertise: None,
            http_address: String::new(),
            join: Vec::new(),
            token: None,
            zone: Domain::default(),
            capacity: 1,
            standby: false,
            replication_factor: 3,
            shards: 64,
            version: env!("CARGO_PKG_VERSION"),
            write_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            hints_bytes_max: 1 << 30,
            hints_age_max: Duration::from_secs(3 * 3600),
            fetch_bytes_max: 1 << 30,
            repair_interval: Duration::from_secs(600),
            repair_bytes_per_second: 16 << 20,
            bootstrap_bytes_per_second: 256 << 20,
            future_max: Duration::from_secs(600),
            rejoin: false,
            control: control::Options::default(),
            report: Arc::new(NodeReport::default),
            random: Arc::new(random),
            clock: Arc::new(clock),
            progress: Arc::new(|_| ()),
        }
    }
}

/// Whose a data directory is. The same on disk, in the engine's identity file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: u128,
    /// The disk: a directory that was wiped gets another one.
    pub disk: u128,
    /// Number of shards.
    pub shards: u32,
}

impl From<Directory> for control::Directory {
    fn from(directory: Directory) -> control::Directory {
        let Directory { cluster, node, disk, shards } = directory;
        control::Directory { cluster, node: NodeId(node), disk, shards }
    }
}

/// How one query reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// How many copies must answer; `None`: as the namespace says.
    pub consistency: Option<Consistency>,
    /// Whether an answer may lack what cannot be reached, with a warning.
    pub partial: bool,
    /// After which it fails; `None`: [`Options::read_timeout`].
    pub timeout: Option<Duration>,
}
