//! The bytes of the state and of commands. `docs/format/control-state.md` draws them.
//!
//! Canonical: equal states have equal bytes.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::jobs;
use crate::jobs::job;
use crate::placement::Change;
use crate::quorum::Consistency;
use crate::stop::Reason;
use crate::wire::{Malformed, Reader, Writer};
use model::Shard;

const VERSION: u8 = 1;
/// A refusal for what the directory is has this number and, added to it, that of the reason.
const DIRECTORY: u8 = 32;

impl State {
    /// The state's bytes, for a snapshot or for a node that joins.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u128(self.cluster.id);
        out.varint(u64::from(self.cluster.shards));
        out.u8(self.replication_factor);
        out.varint(u64::from(self.feature_version));
        out.u8(u8::from(self.has_data));
        put_settings(&mut out, &self.settings);
        out.varint(self.applied);
        out.varint(self.members_given);
        out.count(self.nodes.len());
        for (id, node) in &self.nodes {
            out.u128(id.0);
            put_profile(&mut out, &node.profile);
            out.u128(node.disk);
            out.u64(node.incarnation);
            out.varint(node.member);
            out.u8(node_state(node.state));
            if node.state == NodeState::Gone {
                out.varint(node.gone.at_ms);
                out.u8(u8::from(node.gone.heir.is_some()));
                node.gone.heir.iter().for_each(|heir| out.u128(heir.0));
            }
        }
        out.count(self.namespaces.len());
        for (name, namespace) in &self.namespaces {
            out.bytes(name.as_bytes());
            put_namespace(&mut out, namespace);
        }
        out.bytes(&self.placement.encode());
        out.varint(self.jobs.given);
        out.count(self.jobs.all.len());
        for (id, job) in &self.jobs.all {
            out.varint(*id);
            out.varint(job.revision);
            out.bytes(&job.encode());
        }
        out.varint(self.tombstones.given);
        out.count(self.tombstones.all.len());
        for (id, record) in &self.tombstones.all {
            out.varint(*id);
            out.varint(record.revision);
            out.bytes(&record.bytes);
        }
        out.count(self.answers.len());
        for (token, answer) in &self.answers {
            out.u128(*token);
            put_answer(&mut out, answer);
        }
        out.0
    }

    /// Reads what [`State::encode`] wrote.
    ///
    /// # Errors
    /// When it is anything else, or of a version that this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<State, Malformed> {
        let mut reader = Reader::new(bytes, "control state");
        if reader.u8()? != VERSION {
            return Err(Malformed { what: "control state (of a version that this program does not know)" });
        }
        let cluster = Cluster { id: reader.u128()?, shards: narrow(&mut reader)? };
        let replication_factor = reader.u8()?;
        let feature_version = narrow(&mut reader)?;
        let has_data = flag(&mut reader)?;
        let settings = take_settings(&mut reader)?;
        let applied = reader.varint()?;
        let members_given = reader.varint()?;
        let nodes = reader.list(|reader| {
            let id = NodeId(reader.u128()?);
            let profile = take_profile(reader)?;
            let (disk, incarnation, member) = (reader.u128()?, reader.u64()?, reader.varint()?);
            let state = take_node_state(reader)?;
            let mut gone = Gone::default();
            if state == NodeState::Gone {
                gone.at_ms = reader.varint()?;
                gone.heir = if flag(reader)? { Some(NodeId(reader.u128()?)) } else { None };
            }
            Ok((id, Node { profile, disk, incarnation, member, state, gone }))
        })?;
        let namespaces = reader.list(|reader| Ok((text(reader)?, take_namespace(reader)?)))?;
        let placement = Placement::decode(reader.bytes()?).map_err(|_| reader.malformed())?;
        let given = reader.varint()?;
        let all = reader.list(|reader| {
            let (id, revision) = (reader.varint()?, reader.varint()?);
            Ok((id, Job::decode(revision, reader.bytes()?)?))
        })?;
        let jobs = Jobs { given, all: ordered(all)? };
        let given = reader.varint()?;
        let all = reader.list(|reader| {
            let (id, revision) = (reader.varint()?, reader.varint()?);
            Ok((id, Record { revision, bytes: reader.bytes()?.to_vec() }))
        })?;
        let tombstones = Records { given, all: ordered(all)? };
        let answers = reader.list(|reader| Ok((reader.u128()?, take_answer(reader)?)))?;
        reader.end()?;
        let fits = placement.shards().len() == cluster.shards as usize
            && replication_factor > 0
            && feature_version > 0
            && feature_version <= FEATURES
            && answers.len() <= TOKENS_MAX
            && jobs.all.len() <= jobs::ACTIVE_MAX + jobs::OVER_MAX
            && namespaces.iter().any(|(name, _)| name == "default");
        if !fits {
            return Err(reader.malformed());
        }
        let (nodes, namespaces) = (ordered(nodes)?, ordered(namespaces)?);
        Ok(State {
            cluster,
            replication_factor,
            feature_version,
            has_data,
            settings,
            nodes,
            members_given,
            namespaces,
            placement,
            jobs,
            tombstones,
            applied,
            answers: answers.into(),
        })
    }
}

impl Request {
    /// The request's bytes, for the Raft log and for the leader.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u128(self.token);
        match &self.command {
            Command::AddNode { id, disk, incarnation, cluster, profile } => {
                out.u8(1);
                out.u128(id.0);
                out.u128(*disk);
                out.u64(*incarnation);
                out.u128(*cluster);
                put_profile(&mut out, profile);
            }
            Command::RegisterStart { node, disk, profile } => {
                out.u8(2);
                out.u128(node.0);
                out.u128(*disk);
                put_profile(&mut out, profile);
            }
            Command::NoteStart { node, starts, boot } => {
                out.u8(12);
                out.u128(node.0);
                out.varint(*starts);
                out.u128(*boot);
            }
            Command::SetNodeState { id, state } => {
                out.u8(3);
                out.u128(id.0);
                out.u8(node_state(*state));
            }
            Command::ApplyNamespace { name, namespace } => {
                out.u8(4);
                out.bytes(name.as_bytes());
                put_namespace(&mut out, namespace);
            }
            Command::DeleteNamespace { name } => {
                out.u8(5);
                out.bytes(name.as_bytes());
            }
            Command::AdoptPlacement { from_epoch, placement } => {
                out.u8(6);
                out.varint(*from_epoch);
                out.bytes(&placement.encode());
            }
            Command::MoveShards { from_epoch, changes } => {
                out.u8(13);
                out.varint(*from_epoch);
                out.count(changes.len());
                changes.iter().for_each(|change| put_change(&mut out, change));
            }
            Command::NoteData => out.u8(7),
            Command::SetReplicationFactor { factor } => {
                out.u8(8);
                out.u8(*factor);
            }
            Command::RaiseFeatures { version } => {
                out.u8(9);
                out.varint(u64::from(*version));
            }
            Command::PauseAutopilot { paused } => {
                out.u8(14);
                out.u8(u8::from(*paused));
            }
            Command::HoldLease { holder, ttl_ms } => {
                out.u8(15);
                out.bytes(holder.as_bytes());
                out.varint(*ttl_ms);
            }
            Command::EndLease { renewals } => {
                out.u8(16);
                out.varint(*renewals);
            }
            Command::ThrottleMoves { bytes_per_second } => {
                out.u8(17);
                out.varint(*bytes_per_second);
            }
            Command::StartJob { kind, lost, epoch, at_ms, by, copies, bytes } => {
                out.u8(20);
                job::put_kind(&mut out, kind);
                out.u8(u8::from(*lost));
                out.u8(u8::from(epoch.is_some()));
                epoch.iter().for_each(|epoch| out.varint(*epoch));
                out.varint(*at_ms);
                out.bytes(by.as_bytes());
                out.varint(*copies);
                out.varint(*bytes);
            }
            Command::ChangeJob { id, revision, step, at_ms } => {
                out.u8(21);
                out.varint(*id);
                out.varint(*revision);
                job::put_step(&mut out, step);
                out.varint(*at_ms);
            }
            Command::Put { table, id, revision, bytes } => {
                out.u8(10);
                out.u8(table_number(*table));
                out.varint(*id);
                out.varint(*revision);
                out.bytes(bytes);
            }
            Command::Delete { table, id, revision } => {
                out.u8(11);
                out.u8(table_number(*table));
                out.varint(*id);
                out.varint(*revision);
            }
        }
        out.0
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// When it is anything else, or of a version that this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Request, Malformed> {
        let mut reader = Reader::new(bytes, "command of the control plane");
        let r = &mut reader;
        if r.u8()? != VERSION {
            return Err(Malformed { what: "command of the control plane (of an unknown version)" });
        }
        let token = r.u128()?;
        let command = match r.u8()? {
            1 => Command::AddNode {
                id: NodeId(r.u128()?),
                disk: r.u128()?,
                incarnation: r.u64()?,
                cluster: r.u128()?,
                profile: take_profile(r)?,
            },
            2 => {
                Command::RegisterStart { node: NodeId(r.u128()?), disk: r.u128()?, profile: take_profile(r)? }
            }
            3 => Command::SetNodeState { id: NodeId(r.u128()?), state: take_node_state(r)? },
            4 => Command::ApplyNamespace { name: text(r)?, namespace: take_namespace(r)? },
            5 => Command::DeleteNamespace { name: text(r)? },
            6 => Command::AdoptPlacement {
                from_epoch: r.varint()?,
                placement: Placement::decode(r.bytes()?).map_err(|_| r.malformed())?,
            },
            7 => Command::NoteData,
            8 => Command::SetReplicationFactor { factor: r.u8()? },
            9 => Command::RaiseFeatures { version: narrow(r)? },
            10 => Command::Put {
                table: take_table(r)?,
                id: r.varint()?,
                revision: r.varint()?,
                bytes: r.bytes()?.to_vec(),
            },
            11 => Command::Delete { table: take_table(r)?, id: r.varint()?, revision: r.varint()? },
            13 => Command::MoveShards { from_epoch: r.varint()?, changes: r.list(take_change)? },
            20 => Command::StartJob {
                kind: job::take_kind(r)?,
                lost: flag(r)?,
                epoch: if flag(r)? { Some(r.varint()?) } else { None },
                at_ms: r.varint()?,
                by: text(r)?,
                copies: r.varint()?,
                bytes: r.varint()?,
            },
            21 => Command::ChangeJob {
                id: r.varint()?,
                revision: r.varint()?,
                step: job::take_step(r)?,
                at_ms: r.varint()?,
            },
            12 => Command::NoteStart { node: NodeId(r.u128()?), starts: r.varint()?, boot: r.u128()? },
            14 => Command::PauseAutopilot { paused: flag(r)? },
            15 => Command::HoldLease { holder: text(r)?, ttl_ms: r.varint()? },
            16 => Command::EndLease { renewals: r.varint()? },
            17 => Command::ThrottleMoves { bytes_per_second: r.varint()? },
            _ => return Err(r.malformed()),
        };
        reader.end()?;
        Ok(Request { token, command })
    }
}

/// A map from a list in ascending order, as the encoder writes it.
fn ordered<K: Ord, V>(list: Vec<(K, V)>) -> Result<BTreeMap<K, V>, Malformed> {
    match list.is_sorted_by(|(a, _), (b, _)| a < b) {
        true => Ok(list.into_iter().collect()),
        false => Err(Malformed { what: "control state (out of order)" }),
    }
}

fn put_settings(out: &mut Writer, settings: &Settings) {
    let Settings { autopilot_paused, lease, move_bytes_per_second } = settings;
    out.u8(u8::from(*autopilot_paused));
    out.varint(*move_bytes_per_second);
    out.u8(u8::from(lease.is_some()));
    if let Some(Lease { holder, ttl_ms, renewals }) = lease {
        out.bytes(holder.as_bytes());
        out.varint(*ttl_ms);
        out.varint(*renewals);
    }
}

fn take_settings(reader: &mut Reader<'_>) -> Result<Settings, Malformed> {
    let (autopilot_paused, move_bytes_per_second) = (flag(reader)?, reader.varint()?);
    let lease = match flag(reader)? {
        true => Some(Lease { holder: text(reader)?, ttl_ms: reader.varint()?, renewals: reader.varint()? }),
        false => None,
    };
    Ok(Settings { autopilot_paused, lease, move_bytes_per_second })
}

fn put_change(out: &mut Writer, change: &Change) {
    let (kind, shard) = match change {
        Change::Begin { shard, .. } => (1, shard),
        Change::CutOver { shard, .. } => (2, shard),
        Change::Finish { shard, .. } => (3, shard),
        Change::Cancel { shard, .. } => (4, shard),
    };
    out.u8(kind);
    out.varint(u64::from(shard.0));
    match change {
        Change::Begin { from, to, .. } => {
            // No node has the id 0.
            out.u128(from.map_or(0, |node| node.0));
            out.u128(to.map_or(0, |node| node.0));
        }
        Change::CutOver { since, .. } | Change::Finish { since, .. } | Change::Cancel { since, .. } => {
            out.varint(*since);
        }
    }
}

fn take_change(reader: &mut Reader<'_>) -> Result<Change, Malformed> {
    let kind = reader.u8()?;
    let shard = take_shard(reader)?;
    let node = |id: u128| (id != 0).then_some(NodeId(id));
    Ok(match kind {
        1 => Change::Begin { shard, from: node(reader.u128()?), to: node(reader.u128()?) },
        2 => Change::CutOver { shard, since: reader.varint()? },
        3 => Change::Finish { shard, since: reader.varint()? },
        4 => Change::Cancel { shard, since: reader.varint()? },
        _ => return Err(reader.malformed()),
    })
}

pub(crate) fn take_shard(reader: &mut Reader<'_>) -> Result<Shard, Malformed> {
    u16::try_from(reader.varint()?).map(Shard).map_err(|_| reader.malformed())
}

pub(crate) fn narrow(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    u32::try_from(reader.varint()?).map_err(|_| reader.malformed())
}

pub(crate) fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.malformed()),
    }
}

pub(crate) fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    std::str::from_utf8(reader.bytes()?).map(str::to_owned).map_err(|_| reader.malformed())
}

pub(crate) fn put_profile(out: &mut Writer, profile: &Profile) {
    let Profile { address, http_address, zone, capacity, standby, starts, boot } = profile;
    out.bytes(address.as_bytes());
    out.bytes(http_address.as_bytes());
    out.bytes(zone.to_string().as_bytes());
    out.varint(u64::from(*capacity));
    out.u8(u8::from(*standby));
    out.varint(*starts);
    out.u128(*boot);
}

pub(crate) fn take_profile(reader: &mut Reader<'_>) -> Result<Profile, Malformed> {
    Ok(Profile {
        address: text(reader)?,
        http_address: text(reader)?,
        zone: text(reader)?.parse().map_err(|_| reader.malformed())?,
        capacity: narrow(reader)?,
        standby: flag(reader)?,
        starts: reader.varint()?,
        boot: reader.u128()?,
    })
}

fn node_state(state: NodeState) -> u8 {
    match state {
        NodeState::Joining => 0,
        NodeState::Up => 1,
        NodeState::Down => 2,
        NodeState::Draining => 3,
        NodeState::Gone => 4,
        NodeState::Lost => 5,
    }
}

fn take_node_state(reader: &mut Reader<'_>) -> Result<NodeState, Malformed> {
    Ok(match reader.u8()? {
        0 => NodeState::Joining,
        1 => NodeState::Up,
        2 => NodeState::Down,
        3 => NodeState::Draining,
        4 => NodeState::Gone,
        5 => NodeState::Lost,
        _ => return Err(reader.malformed()),
    })
}

fn consistency(consistency: Consistency) -> u8 {
    match consistency {
        Consistency::One => 0,
        Consistency::Majority => 1,
        Consistency::All => 2,
    }
}

fn take_consistency(reader: &mut Reader<'_>) -> Result<Consistency, Malformed> {
    Ok(match reader.u8()? {
        0 => Consistency::One,
        1 => Consistency::Majority,
        2 => Consistency::All,
        _ => return Err(reader.malformed()),
    })
}

fn put_namespace(out: &mut Writer, namespace: &Namespace) {
    out.varint(namespace.retention_ms);
    out.u8(u8::from(namespace.fsync));
    out.u8(consistency(namespace.write));
    out.u8(consistency(namespace.read));
}

fn take_namespace(reader: &mut Reader<'_>) -> Result<Namespace, Malformed> {
    Ok(Namespace {
        retention_ms: reader.varint()?,
        fsync: flag(reader)?,
        write: take_consistency(reader)?,
        read: take_consistency(reader)?,
    })
}

fn table_number(table: Table) -> u8 {
    match table {
        Table::Tombstones => 1,
    }
}

fn take_table(reader: &mut Reader<'_>) -> Result<Table, Malformed> {
    Ok(match reader.u8()? {
        1 => Table::Tombstones,
        _ => return Err(reader.malformed()),
    })
}

pub(crate) fn put_answer(out: &mut Writer, answer: &Result<Outcome, Refusal>) {
    match answer {
        Ok(Outcome::Done) => out.u8(0),
        Ok(Outcome::Member(member)) => {
            out.u8(1);
            out.varint(*member);
        }
        Ok(Outcome::Epoch(epoch)) => {
            out.u8(2);
            out.varint(*epoch);
        }
        Ok(Outcome::Record { id, revision }) => {
            out.u8(3);
            out.varint(*id);
            out.varint(*revision);
        }
        Err(Refusal { fault, text }) => {
            out.u8(match fault {
                Fault::Invalid => 16,
                Fault::NotFound => 17,
                Fault::Conflict => 18,
                Fault::Limit => 19,
                Fault::Directory(reason) => DIRECTORY + *reason as u8,
            });
            out.bytes(text.as_bytes());
        }
    }
}

pub(crate) fn take_answer(reader: &mut Reader<'_>) -> Result<Result<Outcome, Refusal>, Malformed> {
    let fault = match reader.u8()? {
        0 => return Ok(Ok(Outcome::Done)),
        1 => return Ok(Ok(Outcome::Member(reader.varint()?))),
        2 => return Ok(Ok(Outcome::Epoch(reader.varint()?))),
        3 => return Ok(Ok(Outcome::Record { id: reader.varint()?, revision: reader.varint()? })),
        16 => Fault::Invalid,
        17 => Fault::NotFound,
        18 => Fault::Conflict,
        19 => Fault::Limit,
        number => {
            let reason = number.checked_sub(DIRECTORY).and_then(|n| Reason::ALL.get(usize::from(n)));
            Fault::Directory(*reason.ok_or_else(|| reader.malformed())?)
        }
    };
    Ok(Err(Refusal { fault, text: text(reader)? }))
}
