//! What each command does.

use super::*;
use crate::faults::{Mistake, planted};
use crate::placement::Change;
use crate::quorum::blocking;
use crate::stop::Reason;
use model::Shard;

impl State {
    pub(super) fn change(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::AddNode { id, disk, incarnation, cluster, profile } => {
                self.add_node(*id, *disk, *incarnation, *cluster, profile)
            }
            Command::RegisterStart { node, disk, profile } => self.register(*node, *disk, profile),
            Command::NoteStart { node, starts, boot } => self.note_start(*node, *starts, *boot),
            Command::SetNodeState { id, state } => {
                self.is_not_leaving(*id, *state)?;
                self.set_node_state(*id, *state)
            }
            Command::ApplyNamespace { name, namespace } => self.apply_namespace(name, *namespace),
            Command::DeleteNamespace { name } => match name.as_str() {
                "default" => Err(Refusal::invalid("the namespace `default` is always there")),
                _ if self.namespaces.remove(name).is_some() => Ok(Outcome::Done),
                _ => Err(Refusal::new(Fault::NotFound, format!("there is no namespace {name:?}"))),
            },
            Command::AdoptPlacement { from_epoch, placement } => self.adopt(*from_epoch, placement),
            Command::MoveShards { from_epoch, changes } => self.move_shards(*from_epoch, changes),
            Command::NoteData => {
                self.has_data = true;
                Ok(Outcome::Done)
            }
            Command::SetReplicationFactor { factor } => match factor {
                0 => Err(Refusal::invalid("a replication factor is at least 1")),
                _ if *factor > REPLICATION_FACTOR_MAX => Err(Refusal::invalid(format!(
                    "a replication factor is at most {REPLICATION_FACTOR_MAX}: more copies make writes slower and nothing safer"
                ))),
                _ => {
                    self.replication_factor = *factor;
                    Ok(Outcome::Done)
                }
            },
            Command::PauseAutopilot { paused } => {
                self.settings.autopilot_paused = *paused;
                Ok(Outcome::Done)
            }
            Command::HoldLease { holder, ttl_ms } => self.hold_lease(holder, *ttl_ms),
            Command::EndLease { renewals } => {
                self.settings.lease.take_if(|lease| lease.renewals == *renewals);
                Ok(Outcome::Done)
            }
            Command::ThrottleMoves { bytes_per_second } => {
                self.settings.move_bytes_per_second = *bytes_per_second;
                Ok(Outcome::Done)
            }
            Command::RaiseFeatures { version } => {
                if *version < self.feature_version || *version > FEATURES {
                    return Err(Refusal::invalid(format!(
                        "features are at version {} and never go back; this program knows them up to {FEATURES}",
                        self.feature_version
                    )));
                }
                self.feature_version = *version;
                Ok(Outcome::Done)
            }
            Command::StartJob { kind, lost, epoch, at_ms, by, copies, bytes } => {
                self.start_job((kind, *lost), *epoch, *at_ms, by, (*copies, *bytes))
            }
            Command::ChangeJob { id, revision, step, at_ms } => self.change_job(*id, *revision, step, *at_ms),
            Command::Put { table, id, revision, bytes } => self.table_mut(*table).put(*id, *revision, bytes),
            Command::Delete { table, id, revision } => {
                let records = self.table_mut(*table);
                records.seen(*id, *revision)?;
                records.all.remove(id);
                Ok(Outcome::Done)
            }
        }
    }

    fn table_mut(&mut self, table: Table) -> &mut Records {
        match table {
            Table::Tombstones => &mut self.tombstones,
        }
    }

    fn add_node(
        &mut self,
        id: NodeId,
        disk: u128,
        incarnation: u64,
        cluster: u128,
        profile: &Profile,
    ) -> Result<Outcome, Refusal> {
        check(profile)?;
        if incarnation == 0 || id.0 == 0 {
            return Err(Refusal::invalid("a node's id and incarnation are not 0"));
        }
        if cluster != 0 && cluster != self.cluster.id {
            return Err(Refusal::new(
                Fault::Directory(Reason::Foreign),
                format!(
                    "the data directory belongs to cluster {cluster:032x} and the node asked is of cluster {:032x}; \
                     take --join away to go on with the former, or start with an empty directory to join the latter",
                    self.cluster.id
                ),
            ));
        }
        self.address_is_free(id, &profile.address, Reason::Wiped, |other, node| {
            format!(
                "{} is the address of node {other}, which is a member ({:?}) with another data directory. If this is that node and its \
                 directory was lost or not mounted, put the directory back, or remove the node from the cluster first and let this one \
                 join as a new one; if it is another node, give it an address of its own (--cluster-listen)",
                profile.address, node.state
            )
        })?;
        let known = self.nodes.get(&id);
        if let Some(node) = known {
            self.same_directory(id, node, disk, profile)?;
        } else if self.nodes.values().filter(|node| node.state != NodeState::Gone).count() >= NODES_MAX {
            return Err(Refusal::new(Fault::Limit, format!("a cluster has at most {NODES_MAX} nodes")));
        }
        let (member, state) = match known {
            Some(node) if node.incarnation == incarnation => (node.member, node.state),
            // It has lost its Raft log, not its data: what is expected of it stays.
            Some(node) => (self.members_given + 1, node.state),
            None => (self.members_given + 1, NodeState::Joining),
        };
        self.members_given = self.members_given.max(member);
        self.nodes.insert(
            id,
            Node { profile: profile.clone(), disk, incarnation, member, state, gone: Gone::default() },
        );
        Ok(Outcome::Member(member))
    }

    fn register(&mut self, id: NodeId, disk: u128, profile: &Profile) -> Result<Outcome, Refusal> {
        check(profile)?;
        let Some(node) = self.nodes.get(&id) else {
            return Err(Refusal::new(
                Fault::Directory(Reason::Foreign),
                format!(
                    "node {id} is no member of this cluster; start it with an empty data directory and --join"
                ),
            ));
        };
        self.same_directory(id, node, disk, profile)?;
        self.address_is_free(id, &profile.address, Reason::Other, |other, _| {
            format!("{} is the address of node {other} already; give this one another", profile.address)
        })?;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.profile = profile.clone();
        }
        Ok(Outcome::Done)
    }

    fn note_start(&mut self, id: NodeId, starts: u64, boot: u128) -> Result<Outcome, Refusal> {
        if starts == 0 || boot == 0 {
            return Err(Refusal::invalid("a node's starts and boot id are not 0"));
        }
        let node = self
            .nodes
            .get_mut(&id)
            .ok_or_else(|| Refusal::new(Fault::NotFound, format!("there is no node {id}")))?;
        if starts > node.profile.starts {
            (node.profile.starts, node.profile.boot) = (starts, boot);
        }
        Ok(Outcome::Done)
    }

    /// Whether a node that is known has its own directory, the newest copy of it, and nobody else has it open.
    fn same_directory(&self, id: NodeId, node: &Node, disk: u128, profile: &Profile) -> Result<(), Refusal> {
        let (known, said) = (&node.profile, profile);
        let (reason, text) = if node.state == NodeState::Gone {
            let text = format!(
                "node {id} was removed for ever; start it with an empty data directory and --join, as a new one"
            );
            (Reason::Removed, text)
        } else if node.disk != disk {
            let text = format!(
                "node {id} has another data directory (disk {:032x}, and this is {disk:032x}); put the right one back",
                node.disk
            );
            (Reason::Foreign, text)
        } else if said.starts == known.starts && said.boot != known.boot {
            let text = format!(
                "start {} of node {id} is registered by another process: two use copies of one data directory; stop one of them, and \
                 start it with an empty directory and --join",
                said.starts
            );
            (Reason::Copied, text)
        } else if said.starts < known.starts {
            let text = format!(
                "this is start {} of node {id}, and start {} is registered: the data directory is an old copy, from a backup or a \
                 snapshot; put the newest one back, or remove the node and let it join with an empty directory",
                said.starts, known.starts
            );
            (Reason::Stale, text)
        } else {
            return Ok(());
        };
        Err(Refusal::new(Fault::Directory(reason), text))
    }

    fn address_is_free(
        &self,
        id: NodeId,
        address: &str,
        reason: Reason,
        text: impl Fn(NodeId, &Node) -> String,
    ) -> Result<(), Refusal> {
        let taken = |(other, node): &(&NodeId, &Node)| {
            **other != id && node.state != NodeState::Gone && node.profile.address == address
        };
        match self.nodes.iter().find(taken) {
            Some((other, node)) => Err(Refusal::new(Fault::Directory(reason), text(*other, node))),
            None => Ok(()),
        }
    }

    /// What somebody wanted before a job began counts no more.
    fn is_not_leaving(&self, id: NodeId, state: NodeState) -> Result<(), Refusal> {
        let empties = |job: &Job| job.is_active() && job.kind.empties() == Some(id);
        let mut jobs = self.jobs.all.iter().filter(|(_, job)| empties(job));
        match jobs.next() {
            Some((job, _)) if matches!(state, NodeState::Up | NodeState::Lost) => Err(Refusal::new(
                Fault::Conflict,
                format!("job {job} empties node {id}; give it up first (`sarsen jobs cancel {job}`)"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn set_node_state(&mut self, id: NodeId, state: NodeState) -> Result<Outcome, Refusal> {
        let lost = self.depends_on(id);
        let node = self
            .nodes
            .get_mut(&id)
            .ok_or_else(|| Refusal::new(Fault::NotFound, format!("there is no node {id}")))?;
        if node.state == NodeState::Gone && state != NodeState::Gone {
            return Err(Refusal::invalid(format!(
                "node {id} was removed for ever; it can only join as a new node, with an empty data directory"
            )));
        }
        if state == NodeState::Gone
            && self.has_data
            && let Some(shard) = lost
            && !planted(Mistake::RemoveAnyway)
        {
            return Err(Refusal::new(
                Fault::Conflict,
                format!(
                    "without node {id} too few copies of shard {} are left to make others from; drain the node first, or bring others back",
                    shard.0
                ),
            ));
        }
        node.state = state;
        Ok(Outcome::Done)
    }

    /// A shard that could not be healed without this node: a new copy must be made from so many of those that hold it that no majority is without one.
    fn depends_on(&self, id: NodeId) -> Option<Shard> {
        let gone = |node: NodeId| {
            let is_away = |node: &Node| matches!(node.state, NodeState::Gone | NodeState::Lost);
            node == id || self.nodes.get(&node).is_none_or(is_away)
        };
        let mut shards = (0..self.placement.shards().len()).map(|shard| Shard(shard as u16));
        shards.find(|shard| {
            let holding = self.placement.holding(*shard);
            let left = holding.iter().filter(|node| !gone(**node)).count();
            holding.contains(&id) && left < blocking(holding.len())
        })
    }

    fn hold_lease(&mut self, holder: &str, ttl_ms: u64) -> Result<Outcome, Refusal> {
        if holder.is_empty() || holder.len() > TEXT_BYTES_MAX || ttl_ms > LEASE_MS_MAX {
            return Err(Refusal::invalid(format!(
                "a lease has a holder of 1 to {TEXT_BYTES_MAX} bytes and is renewed at least every {LEASE_MS_MAX} ms"
            )));
        }
        let renewals = match &self.settings.lease {
            Some(lease) if lease.holder != holder => {
                return Err(Refusal::new(
                    Fault::Conflict,
                    format!(
                        "{:?} holds the lease; it ends {} ms after it is renewed for the last time",
                        lease.holder, lease.ttl_ms
                    ),
                ));
            }
            Some(lease) => lease.renewals + 1,
            None => self.applied,
        };
        let lease = Lease { holder: holder.to_owned(), ttl_ms, renewals };
        self.settings.lease = (ttl_ms > 0).then_some(lease);
        Ok(Outcome::Done)
    }

    fn move_shards(&mut self, from_epoch: u64, changes: &[Change]) -> Result<Outcome, Refusal> {
        let epoch = self.placement.epoch();
        let conflict = |text: String| Err(Refusal::new(Fault::Conflict, text));
        if from_epoch != epoch {
            return conflict(format!(
                "moves computed from epoch {from_epoch} do not follow epoch {epoch}; compute them again"
            ));
        }
        if changes.is_empty() {
            return Err(Refusal::invalid("there is nothing to move"));
        }
        for change in changes {
            let Change::Begin { to: Some(to), .. } = change else { continue };
            if self.nodes.get(to).is_none_or(|node| !node.state.has_share()) {
                return conflict(format!("node {to} takes no copies; make a new plan"));
            }
        }
        match self.placement.change(changes) {
            Ok(placement) => {
                self.placement = placement;
                Ok(Outcome::Epoch(epoch + 1))
            }
            Err(why) => conflict(why.to_string()),
        }
    }

    fn apply_namespace(&mut self, name: &str, namespace: Namespace) -> Result<Outcome, Refusal> {
        let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > 63 || !name.chars().all(fit) {
            return Err(Refusal::invalid(format!(
                "{name:?} is no name for a namespace: 1 to 63 of a-z, 0-9, - and _"
            )));
        }
        if self.namespaces.len() >= NAMESPACES_MAX && !self.namespaces.contains_key(name) {
            return Err(Refusal::new(
                Fault::Limit,
                format!("a cluster has at most {NAMESPACES_MAX} namespaces"),
            ));
        }
        self.namespaces.insert(name.to_owned(), namespace);
        Ok(Outcome::Done)
    }

    fn adopt(&mut self, from_epoch: u64, placement: &Placement) -> Result<Outcome, Refusal> {
        let epoch = self.placement.epoch();
        let conflict = |text: String| Err(Refusal::new(Fault::Conflict, text));
        if from_epoch != epoch || epoch.checked_add(1) != Some(placement.epoch()) {
            return conflict(format!(
                "a placement of epoch {} computed from epoch {from_epoch} does not follow epoch {epoch}; compute it again",
                placement.epoch()
            ));
        }
        if self.has_data && self.nodes.len() > 1 && !planted(Mistake::AdoptOverData) {
            return conflict(
                "there is data: copies have to be moved, the placement cannot be replaced".into(),
            );
        }
        if placement.shards().len() != self.placement.shards().len() {
            return Err(Refusal::invalid(format!(
                "a placement of {} shards; this cluster has {}",
                placement.shards().len(),
                self.placement.shards().len()
            )));
        }
        let member = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.state != NodeState::Gone);
        if placement.shards().iter().any(Vec::is_empty) {
            return Err(Refusal::invalid("every shard needs a copy"));
        }
        if let Some(replica) = placement.shards().iter().flatten().find(|replica| !member(&replica.node)) {
            return conflict(format!("the placement names node {}, which is not there", replica.node));
        }
        self.placement = placement.clone();
        Ok(Outcome::Epoch(self.placement.epoch()))
    }
}

impl Records {
    fn seen(&self, id: u64, revision: u64) -> Result<(), Refusal> {
        match self.all.get(&id) {
            None => Err(Refusal::new(Fault::NotFound, format!("there is no record {id}"))),
            Some(record) if record.revision != revision => Err(Refusal::new(
                Fault::Conflict,
                format!(
                    "record {id} is at revision {}, not {revision}: somebody else changed it",
                    record.revision
                ),
            )),
            Some(_) => Ok(()),
        }
    }

    fn put(&mut self, id: u64, revision: u64, bytes: &[u8]) -> Result<Outcome, Refusal> {
        let used: usize = self
            .all
            .iter()
            .filter(|(other, _)| **other != id)
            .map(|(_, record)| record.bytes.len() + 16)
            .sum();
        if bytes.len() > RECORD_BYTES_MAX || used + bytes.len() + 16 > RECORDS_BYTES_MAX {
            return Err(Refusal::new(
                Fault::Limit,
                format!(
                    "a record has at most {RECORD_BYTES_MAX} bytes, and all together {RECORDS_BYTES_MAX}"
                ),
            ));
        }
        let id = match id {
            0 => {
                self.given += 1;
                self.given
            }
            _ => {
                self.seen(id, revision)?;
                id
            }
        };
        let revision = if self.all.contains_key(&id) { revision + 1 } else { 1 };
        self.all.insert(id, Record { revision, bytes: bytes.to_vec() });
        Ok(Outcome::Record { id, revision })
    }
}

fn check(profile: &Profile) -> Result<(), Refusal> {
    let Profile { address, http_address, capacity, starts, boot, .. } = profile;
    if address.is_empty() || address.len().max(http_address.len()) > TEXT_BYTES_MAX {
        return Err(Refusal::invalid(format!("an address has 1 to {TEXT_BYTES_MAX} bytes")));
    }
    if *capacity == 0 || *starts == 0 || *boot == 0 {
        return Err(Refusal::invalid("a node's capacity, starts and boot id are not 0"));
    }
    Ok(())
}
