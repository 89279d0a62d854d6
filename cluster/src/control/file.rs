//! `<data directory>/cluster/node`: what a node remembers of its part in a cluster, outside the Raft log.
//!
//! ```text
//!     sarsen cluster node
//!     format = 2
//!     phase = member                  creating | adopting | joining | member
//!     cluster = 0123456789abcdef0123456789abcdef      0 until it has found one to join
//!     node = …            disk = …            as in the directory's identity file
//!     member = 3                      number as a Raft member, 0 unless it is one
//!     incarnation = 0123456789abcdef  of its Raft log
//!     starts = 17                     raised before anything is said to others
//!     epoch = 42                      of the newest placement that the node has worked under
//!     crc32 = 89abcdef
//! ```
//!
//! It is written before a cluster is made or joined, so that whoever is interrupted goes on as the same node; and it says `member`
//! only after the Raft log holds a state, so that a log that is missing then was lost. The epoch is raised before the node does anything under
//! a placement: after a crash it works under none that is older.

use crate::placement::NodeId;
use crate::raft;
use crate::stop::{Reason, Stop};
use disk::{OpenMode, Vfs};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 2;
const TITLE: &str = "sarsen cluster node";
/// No file is longer; a longer one is damaged.
const BYTES_MAX: u64 = 4096;

/// The folder of the Raft log, for [`raft::Store::open`].
pub fn raft_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster").join("raft")
}

/// Whose a data directory is, as its identity file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The cluster.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// The disk: a directory that was wiped gets another one.
    pub disk: u128,
    /// Number of shards.
    pub shards: u32,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It makes a new cluster.
    Creating,
    /// It makes a cluster of a directory that was a single node's and may have data.
    Adopting,
    /// It joins.
    Joining,
    /// Its Raft log holds a state.
    Member,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Creating, "creating"),
    (Phase::Adopting, "adopting"),
    (Phase::Joining, "joining"),
    (Phase::Member, "member"),
];

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeFile {
    /// How far it has come.
    pub phase: Phase,
    /// The cluster; 0 while it looks for one to join. It names itself to none before it remembers this.
    pub cluster: u128,
    /// The node.
    pub node: NodeId,
    /// The directory.
    pub disk: u128,
    /// Its number as a Raft member; 0 unless it is one.
    pub member: u64,
    /// Of its Raft log, never zero.
    pub incarnation: u64,
    /// How often it was started.
    pub starts: u64,
    /// Of the newest placement that it has worked under.
    pub epoch: u64,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// It does not say what it should.
    #[error(
        "{} is damaged or was written by a newer version ({what}); put it back from a backup of this very start, or remove this node from \
         the cluster and let it join again with an empty data directory",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        match error {
            Error::Disk(error) => error.into(),
            damaged @ Error::Damaged { .. } => Stop::new(Reason::Disk, damaged.to_string()),
        }
    }
}

impl NodeFile {
    /// The member that it speaks of.
    pub fn identity(&self) -> raft::Identity {
        raft::Identity { cluster: self.cluster, member: self.member, incarnation: self.incarnation }
    }

    /// Whether the node joins and has not found a cluster yet. No cluster knows it, so it may make one.
    pub fn waits(&self) -> bool {
        self.phase == Phase::Joining && self.cluster == 0
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let NodeFile { phase, cluster, node, disk, member, incarnation, starts, epoch } = self;
        let phase = PHASES.iter().find(|(p, _)| p == phase).map_or("", |(_, name)| name);
        let body = format!(
            "{TITLE}\nformat = {FORMAT}\nphase = {phase}\ncluster = {cluster:032x}\nnode = {:032x}\ndisk = {disk:032x}\n\
             member = {member}\nincarnation = {incarnation:016x}\nstarts = {starts}\nepoch = {epoch}\n",
            node.0
        );
        format!("{body}crc32 = {:08x}\n", crc32fast::hash(body.as_bytes()))
    }

    /// Reads what [`NodeFile::render`] wrote, and nothing else.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<NodeFile, String> {
        let damaged = || "its checksum or its form is wrong".to_owned();
        let at = text.rfind("crc32 = ").ok_or_else(damaged)?;
        let (body, sum) = text.split_at(at);
        if sum != format!("crc32 = {:08x}\n", crc32fast::hash(body.as_bytes())) {
            return Err(damaged());
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(damaged());
        }
        let mut fields = lines.filter_map(|line| line.split_once(" = "));
        let mut field =
            |key: &str| fields.next().filter(|(k, _)| *k == key).map(|(_, value)| value).ok_or_else(damaged);
        let format = field("format")?;
        if format != FORMAT.to_string() {
            return Err(format!("its format is {format} and this program knows format {FORMAT}"));
        }
        let phase = field("phase")?;
        let phase = PHASES.iter().find(|(_, name)| *name == phase).ok_or_else(damaged)?.0;
        let mut hex = |key: &str| u128::from_str_radix(field(key)?, 16).map_err(|_| damaged());
        let (cluster, node, disk) = (hex("cluster")?, NodeId(hex("node")?), hex("disk")?);
        let member = field("member")?.parse().map_err(|_| damaged())?;
        let incarnation = u64::from_str_radix(field("incarnation")?, 16).map_err(|_| damaged())?;
        let starts = field("starts")?.parse().map_err(|_| damaged())?;
        let epoch = field("epoch")?.parse().map_err(|_| damaged())?;
        let file = NodeFile { phase, cluster, node, disk, member, incarnation, starts, epoch };
        let whole = (phase == Phase::Member) == (member != 0) && (phase == Phase::Joining || cluster != 0);
        if !whole || incarnation == 0 || node.0 == 0 || file.render() != text {
            return Err(damaged());
        }
        Ok(file)
    }

    /// Reads the file of a data directory, if it has one.
    ///
    /// # Errors
    /// When it cannot be read, or says something else.
    pub fn read(vfs: &dyn Vfs, data_dir: &Path) -> Result<Option<NodeFile>, Error> {
        let path = data_dir.join("cluster").join("node");
        let file = match vfs.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let text = String::from_utf8_lossy(&bytes);
        NodeFile::parse(&text).map(Some).map_err(|what| Error::Damaged { path, what })
    }

    /// Replaces the file of a data directory. Durable when this returns; a crash leaves the old one or the new one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, vfs: &dyn Vfs, data_dir: &Path) -> Result<(), Error> {
        let dir = data_dir.join("cluster");
        vfs.create_dir_all(&dir)?;
        let temporary = dir.join("node.tmp");
        // What a crash left of an earlier attempt.
        match vfs.remove(&temporary) {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            _ => {}
        }
        let file = vfs.open(&temporary, OpenMode::Create)?;
        file.write_all_at(self.render().as_bytes(), 0)?;
        // The content before the name.
        file.sync_data()?;
        vfs.rename(&temporary, &dir.join("node"))?;
        vfs.sync_dir(&dir)?;
        Ok(())
    }
}
