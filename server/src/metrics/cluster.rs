//! The node's part in its cluster, read when somebody asks.

use crate::app::Database;
use crate::safety;
use cluster::node::Status;
use cluster::transport::{Flow, Kind, Refusal};
use cluster::view::View;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::BTreeMap;
use std::fmt;

/// One family: its name, its help, and its values by label.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Vec<(&'static str, String)>, f64)>,
}

/// All of them at one moment.
#[derive(Debug)]
pub struct Cluster(Vec<Family>);

/// The states of nodes, from well to worst.
const STATES: [&str; 7] = ["up", "joining", "draining", "suspect", "down", "lost", "gone"];

impl Cluster {
    /// Reads them.
    pub fn read(db: &Database) -> Cluster {
        let status = db.cluster.status();
        let mut all = Cluster(Vec::new());
        all.agreement(&status);
        all.copies(&status.view);
        all.work(&status);
        all.traffic(&status);
        all.hints(&status);
        all.repair(&status, db);
        all
    }

    fn family(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        values: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) {
        self.0.push(Family { name, help, kind, values: values.into_iter().collect() });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.family(name, help, MetricType::Gauge, [(Vec::new(), value)]);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.family(name, help, MetricType::Counter, [(Vec::new(), value as f64)]);
    }

    fn agreement(&mut self, status: &Status) {
        let view = &status.view;
        self.gauge("sarsen_cluster_epoch", "Changes of the placement so far", view.epoch() as f64);
        self.gauge(
            "sarsen_cluster_has_leader",
            "Whether a leader of the control plane is known",
            f64::from(view.leader.is_some()),
        );
        self.gauge(
            "sarsen_cluster_is_leader",
            "Whether this node leads the control plane",
            f64::from(view.leader == Some(view.me)),
        );
        self.gauge(
            "sarsen_cluster_voters",
            "Nodes that vote in the control plane",
            status.voters.len() as f64,
        );
        let mut states: BTreeMap<&str, usize> = STATES.iter().map(|state| (*state, 0)).collect();
        for peer in view.nodes.values() {
            *states.entry(safety::state(peer)).or_default() += 1;
        }
        let values =
            states.into_iter().map(|(state, count)| (vec![("state", state.to_string())], count as f64));
        self.family(
            "sarsen_cluster_nodes",
            "Nodes by state, as this one sees them",
            MetricType::Gauge,
            values,
        );
        self.counter(
            "sarsen_cluster_control_refused",
            "Messages of the control plane that made no sense",
            status.control_refused,
        );
    }

    fn copies(&mut self, view: &View) {
        let copies = safety::copies(view);
        let wanted = usize::from(view.replication_factor);
        let count = |condition: &dyn Fn(&safety::Copies) -> bool| {
            copies.iter().filter(|c| condition(c)).count() as f64
        };
        self.gauge(
            "sarsen_cluster_replication_factor",
            "Copies of each shard that are wanted",
            wanted as f64,
        );
        self.gauge("sarsen_cluster_shards", "Shards", copies.len() as f64);
        self.gauge(
            "sarsen_cluster_shards_under_replicated",
            "Shards with fewer live copies than wanted",
            count(&|c| c.live < wanted),
        );
        self.gauge(
            "sarsen_cluster_shards_unavailable",
            "Shards without a live majority of their copies",
            view.under_replicated().1 as f64,
        );
        self.gauge(
            "sarsen_cluster_shards_moving",
            "Shards that move",
            view.placement.moving().count() as f64,
        );
        let fewest = copies.iter().map(|c| c.live).min().unwrap_or(0);
        self.gauge("sarsen_shard_min_copies", "Live copies of the shard that has the fewest", fewest as f64);
        let held = view.held_by(view.me).len();
        self.gauge("sarsen_cluster_shards_held", "Shards of which this node has a copy", held as f64);
    }

    fn work(&mut self, status: &Status) {
        self.family(
            "sarsen_shards_below_replication_factor_seconds",
            "Time during which this node saw shards with fewer live copies than wanted",
            MetricType::Counter,
            [(Vec::new(), status.short_ms as f64 / 1e3)],
        );
        self.gauge(
            "sarsen_moves_bytes_remaining",
            "Bytes of the copies that are still to be made, roughly, as the leader last told",
            status.outlook.bytes as f64,
        );
        self.gauge(
            "sarsen_moves_copies_remaining",
            "Copies of shards that are still to be made, as the leader last told",
            status.outlook.copies as f64,
        );
        self.gauge(
            "sarsen_autopilot_paused",
            "Whether the autopilot is paused, so that no node is taken for lost",
            f64::from(status.view.autopilot_paused),
        );
        self.gauge(
            "sarsen_autopilot_held",
            "Whether a node has been away for longer than node_loss_grace and is not taken for lost, as the leader last told; the status says why",
            f64::from(!status.outlook.held.is_empty()),
        );
        let mut jobs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for job in status.view.jobs.values() {
            *jobs.entry((job.kind.word(), job.stage.word())).or_default() += 1;
        }
        let jobs = jobs.into_iter().map(|((kind, state), count)| {
            (vec![("kind", kind.to_string()), ("state", state.to_string())], count as f64)
        });
        self.family(
            "sarsen_jobs",
            "Jobs at work, and the last ones that are over",
            MetricType::Gauge,
            jobs.collect::<Vec<_>>(),
        );
    }

    fn traffic(&mut self, status: &Status) {
        let network = &status.transport;
        let flows = |of: &dyn Fn(&Flow) -> u64| {
            let mut values = Vec::new();
            for (direction, flows) in [("sent", &network.sent), ("received", &network.received)] {
                for (kind, flow) in Kind::ALL.iter().zip(flows) {
                    let labels =
                        vec![("kind", kind.as_str().to_string()), ("direction", direction.to_string())];
                    values.push((labels, of(flow) as f64));
                }
            }
            values
        };
        self.family(
            "sarsen_cluster_frames",
            "Requests and answers between nodes",
            MetricType::Counter,
            flows(&|flow| flow.frames),
        );
        self.family("sarsen_cluster_bytes", "Bytes of these", MetricType::Counter, flows(&|flow| flow.bytes));
        let sockets = [("sent", network.socket_sent), ("received", network.socket_received)];
        let sockets =
            sockets.map(|(direction, bytes)| (vec![("direction", direction.to_string())], bytes as f64));
        self.family(
            "sarsen_cluster_socket_bytes",
            "Bytes on the wire between nodes, all that the protocol adds among them",
            MetricType::Counter,
            sockets,
        );
        let refused = Refusal::ALL.iter().zip(network.refused);
        let refused =
            refused.map(|(reason, count)| (vec![("reason", reason.as_str().to_string())], count as f64));
        self.family(
            "sarsen_cluster_connections_refused",
            "Connections and frames of other nodes that were refused",
            MetricType::Counter,
            refused,
        );
        self.counter("sarsen_cluster_connects", "Attempts to connect to other nodes", network.connects);
        self.gauge(
            "sarsen_cluster_connections",
            "Open connections of other nodes",
            network.connections as f64,
        );
        let queued: usize = status.queues.values().map(|queue| queue.bytes).sum();
        self.gauge("sarsen_cluster_queue_bytes", "Bytes that wait to be sent to other nodes", queued as f64);
        let waiting: usize = status.queues.values().map(|queue| queue.waiting).sum();
        self.gauge(
            "sarsen_cluster_calls_waiting",
            "Requests to other nodes that are not answered yet",
            waiting as f64,
        );
    }

    fn hints(&mut self, status: &Status) {
        let (view, hints) = (&status.view, &status.hints);
        let waiting: BTreeMap<_, _> = hints.waiting.iter().copied().collect();
        let others = view.nodes.keys().filter(|node| **node != view.me);
        let bytes = others.map(|node| {
            let bytes = waiting.get(node).copied().unwrap_or(0);
            (vec![("node", node.to_string())], bytes as f64)
        });
        self.family(
            "sarsen_cluster_hints_bytes",
            "Bytes of writes that a node missed, kept for it",
            MetricType::Gauge,
            bytes.collect::<Vec<_>>(),
        );
        self.gauge(
            "sarsen_cluster_hints_queued_bytes",
            "Bytes of these that wait for the disk",
            hints.queued_bytes as f64,
        );
        self.counter(
            "sarsen_cluster_hints_kept",
            "Writes that a node missed and that were kept",
            hints.counts.added,
        );
        self.counter(
            "sarsen_cluster_hints_replayed",
            "Writes that a node missed and has taken later",
            hints.replayed.delivered,
        );
        let dropped = [("disk_behind", hints.lost), ("never_taken", hints.replayed.dropped)];
        let dropped = dropped.map(|(reason, count)| (vec![("reason", reason.to_string())], count as f64));
        self.family(
            "sarsen_cluster_hints_dropped",
            "Writes that a node missed and that are left to repair: the disk was behind, or the node will never take them",
            MetricType::Counter,
            dropped,
        );
        self.counter(
            "sarsen_cluster_hints_dropped_bytes",
            "Bytes of writes that a node missed which made room for newer ones",
            hints.counts.dropped_bytes,
        );
        self.counter(
            "sarsen_cluster_hints_expired_bytes",
            "Bytes of writes that a node missed which it did not take in time",
            hints.counts.expired_bytes + hints.replayed.expired_bytes,
        );
    }

    fn repair(&mut self, status: &Status, db: &Database) {
        let repair = &status.repair;
        for (name, help, value) in [
            (
                "sarsen_cluster_repair_windows_compared",
                "Ranges of time compared with another copy",
                repair.compared,
            ),
            ("sarsen_cluster_repair_windows_divergent", "Ranges of time that differed", repair.divergent),
            (
                "sarsen_cluster_repair_rows_fetched",
                "Samples fetched, of every series and range of time that differed",
                repair.rows,
            ),
            ("sarsen_cluster_repair_bytes_fetched", "Bytes of these", repair.bytes),
            (
                "sarsen_cluster_repair_rows_appended",
                "Samples of these that were missing here and were written",
                repair.appended,
            ),
            ("sarsen_cluster_repair_failures", "Comparisons that could not be finished", repair.failed),
            (
                "sarsen_cluster_repair_refused",
                "Answers of other nodes to repair that made no sense",
                repair.refused,
            ),
            (
                "sarsen_cluster_damage_mended",
                "Damaged places whose samples were brought from other copies",
                repair.mended,
            ),
        ] {
            self.counter(name, help, value);
        }
        let waiting = repair.waiting + repair.running;
        self.gauge("sarsen_cluster_repair_pending", "Comparisons that are due", waiting as f64);
        let divergent = repair.divergent_now as f64;
        self.gauge(
            "sarsen_cluster_repair_divergent",
            "Ranges of time that differed when last compared",
            divergent,
        );
        let damage = status.damage.len() as f64;
        self.gauge("sarsen_storage_damage", "Damaged places that are not mended", damage);
        let scrub = db.engine.scrub_progress();
        self.gauge("sarsen_scrub_bytes", "Bytes of blocks to read in this round", scrub.total_bytes as f64);
        self.gauge("sarsen_scrub_done_bytes", "Bytes of blocks read in this round", scrub.done_bytes as f64);
        self.counter(
            "sarsen_scrub_rounds",
            "Rounds in which every byte of every block was read",
            scrub.rounds,
        );
        self.gauge("sarsen_scrub_damaged", "Damaged blocks found in this round", scrub.damaged as f64);
    }
}

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for Family { name, help, kind, values } in &self.0 {
            let put = |value: f64, encoder: MetricEncoder| match kind {
                MetricType::Counter => ConstCounter::new(value).encode(encoder),
                _ => ConstGauge::new(value).encode(encoder),
            };
            let mut family = encoder.encode_descriptor(name, help, None, *kind)?;
            if let [(labels, value)] = &values[..]
                && labels.is_empty()
            {
                put(*value, family)?;
                continue;
            }
            for (labels, value) in values {
                let labels: Vec<(&str, &str)> =
                    labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                put(*value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
