//! The command line.

use crate::client::Output;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// A durable database for Prometheus metrics.
#[derive(Debug, Parser)]
#[command(name = "sarsen", version, about, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node. Without any flag: data in ./sarsen-data, API on 127.0.0.1:7420, a cluster of its own.
    Server(Box<ServerArgs>),
    /// Ask a node: PromQL, series, labels.
    #[command(subcommand)]
    Query(QueryCommand),
    /// Show whether the data is safe, and how the cluster and a node are doing.
    Status(Remote),
    /// Look at the nodes of a cluster and at who holds what; add, drain, remove and replace nodes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look at the work on a cluster; pause it, give it up.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Look at namespaces and change how they keep samples.
    #[command(subcommand)]
    Ns(NsCommand),
    /// Look into stored data.
    #[command(subcommand)]
    Tsdb(TsdbCommand),
    /// Check files without using them.
    #[command(subcommand)]
    Check(CheckCommand),
}

/// Flags of `sarsen server`.
#[derive(Debug, Args)]
#[command(
    after_help = "Every flag is also a key of the YAML file (http_listen) and an environment variable \
(SARSEN_HTTP_LISTEN).\nFlags win over the environment, the environment over the file. \
`--print-config` shows all keys, limits included, with what is in force.\n\n\
Exit codes, for whoever supervises it: 0 told to stop, 2 usage, 10 wiped (an empty directory at a known address), 11 foreign (another's directory), \
12 stale (an old copy), 13 copied (in use twice), 14 removed (from the cluster, for ever), 15 token (not the cluster's), 16 disk (failed or read-only), \
1 other. The last line on standard error is the reason and the way out."
)]
pub struct ServerArgs {
    /// Folder of all data; made if missing [default: ./sarsen-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Address of the HTTP API [default: 127.0.0.1:7420]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_listen: Option<String>,
    /// YAML file with settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long samples are kept: `forever`, or a duration such as 30d [default: forever]
    #[arg(long, value_name = "DURATION")]
    pub retention: Option<String>,
    /// When a write is acknowledged: `fsync` (durable) or `interval` (within 200 ms) [default: fsync]
    #[arg(long, value_name = "MODE")]
    pub durability: Option<String>,
    /// Address for the other nodes of the cluster [default: 127.0.0.1:7421]
    #[arg(long, value_name = "HOST:PORT")]
    pub cluster_listen: Option<String>,
    /// The same as other nodes see it [default: what --cluster-listen says]
    #[arg(long, value_name = "HOST:PORT")]
    pub cluster_advertise: Option<String>,
    /// Nodes of the cluster to join, by their --cluster-listen; one that answers is enough
    #[arg(long, value_name = "HOST:PORT,…")]
    pub join: Option<String>,
    /// The cluster's token, which its first node prints; better as SARSEN_JOIN_TOKEN
    #[arg(long, value_name = "TOKEN")]
    pub join_token: Option<String>,
    /// Where this node stands, such as eu/zone-a/rack-3; copies go to different places
    #[arg(long, value_name = "PATH")]
    pub zone: Option<String>,
    /// Share of the data in proportion to the other nodes' [default: 100]
    #[arg(long, value_name = "N")]
    pub capacity: Option<String>,
    /// Copies that a new cluster keeps of everything [default: 3]
    #[arg(long, value_name = "N")]
    pub replication_factor: Option<String>,
    /// Form of log lines: `logfmt` or `json` [default: logfmt]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Least severe log lines: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Print the configuration in force as YAML and exit
    #[arg(long)]
    pub print_config: bool,
}

impl ServerArgs {
    /// The flags that were given, by key.
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        [
            ("data_dir", &self.data_dir),
            ("http_listen", &self.http_listen),
            ("retention", &self.retention),
            ("durability", &self.durability),
            ("cluster_listen", &self.cluster_listen),
            ("cluster_advertise", &self.cluster_advertise),
            ("join", &self.join),
            ("join_token", &self.join_token),
            ("zone", &self.zone),
            ("capacity", &self.capacity),
            ("replication_factor", &self.replication_factor),
            ("log_format", &self.log_format),
            ("log_level", &self.log_level),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
        .collect()
    }
}

/// A node, and how to print its answer.
#[derive(Debug, Args)]
pub struct Remote {
    /// Address of the node
    #[arg(long, default_value = "http://127.0.0.1:7420", env = "SARSEN_URL", value_name = "URL")]
    pub url: String,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `sarsen cluster …`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Let a node that waits for a cluster to join (--join) make one, as its first node.
    Create(Remote),
    /// List the nodes.
    Nodes(Remote),
    /// List the nodes that hold each shard.
    Placement(Remote),
    /// List the shards that lack copies.
    Shards {
        /// The others too
        #[arg(long)]
        all: bool,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
    /// Give a node its share of the copies.
    Add {
        /// The node, by its id or the beginning of it
        #[arg(value_name = "ID")]
        node: String,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// Empty a node: its copies go to others. It stays a member; `add` fills it again.
    Drain {
        /// The node, by its id or the beginning of it
        #[arg(value_name = "ID")]
        node: String,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// Take a node that does not answer for lost, and make its copies on others at once; it is welcome when it comes back.
    Heal {
        /// The node, by its id or the beginning of it
        #[arg(value_name = "ID")]
        node: String,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// Empty a node and then remove it for ever.
    Remove {
        /// The node, by its id or the beginning of it
        #[arg(value_name = "ID")]
        node: String,
        /// It never comes back: remove it at once and make its copies anew from the others
        #[arg(long)]
        lost: bool,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// Let a new node take over what another has, which is removed for ever.
    Replace {
        /// The node that goes
        #[arg(value_name = "OLD-ID")]
        old: String,
        /// The node that comes: one that has joined
        #[arg(value_name = "NEW-ID")]
        new: String,
        /// The old node never comes back: remove it at once and make its copies anew from the others
        #[arg(long)]
        lost: bool,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// Move copies to where the failure domains and the capacities of the nodes want them.
    Rebalance {
        /// How.
        #[command(flatten)]
        how: Operation,
    },
    /// See whether lost nodes are healed without anybody being asked; stop that for a while.
    #[command(subcommand)]
    Autopilot(AutopilotCommand),
    /// Keep another number of copies of everything.
    ReplicationFactor {
        /// Copies of each shard
        #[arg(value_name = "N")]
        factor: u8,
        /// How.
        #[command(flatten)]
        how: Operation,
    },
}

/// `sarsen cluster autopilot …`
#[derive(Debug, Subcommand)]
pub enum AutopilotCommand {
    /// Say whether nodes are taken for lost, and why not.
    Status(Remote),
    /// Take no more nodes for lost, such as before work on the network; nodes that are lost already go on being healed.
    Pause(Remote),
    /// Go on.
    Resume(Remote),
}

/// How an operation on the cluster is done.
#[derive(Debug, Args)]
pub struct Operation {
    /// Only show what would be done: every move, why, how much, how safe
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it is done. (On a terminal it is waited for; Ctrl-C leaves it running.)
    #[arg(long)]
    pub detach: bool,
    /// The node.
    #[command(flatten)]
    pub remote: Remote,
}

/// `sarsen jobs …`
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List the jobs: those at work and the last ones that are over.
    List(Remote),
    /// Follow a job until it is over. Exit code 1 if it failed or was given up.
    Watch(OneJob),
    /// Begin no more moves of a job; those under way end.
    Pause(OneJob),
    /// Go on with a job that was paused.
    Resume(OneJob),
    /// Give a job up, and undo what can be undone: a node that was to be emptied takes copies again.
    Cancel(OneJob),
    /// Bound how much each node copies from others, for all jobs together.
    Throttle {
        /// Bytes a second of blocks, such as 32MiB; `default` for what each node is configured with
        #[arg(value_name = "RATE")]
        rate: String,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
}

/// A job.
#[derive(Debug, Args)]
pub struct OneJob {
    /// Its number, as `sarsen jobs list` shows it
    #[arg(value_name = "ID")]
    pub id: u64,
    /// The node.
    #[command(flatten)]
    pub remote: Remote,
}

/// `sarsen ns …`
#[derive(Debug, Subcommand)]
pub enum NsCommand {
    /// List the namespaces and their settings.
    List(Remote),
    /// Change settings; what is not named stays. Shows the difference.
    Apply {
        /// The namespace
        #[arg(required_unless_present = "file")]
        name: Option<String>,
        /// What shall be different, such as retention=30d or write_consistency=all
        #[arg(value_name = "SETTING=VALUE", requires = "name")]
        settings: Vec<String>,
        /// YAML file with settings by namespace
        #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
        file: Option<PathBuf>,
        /// Only show the difference
        #[arg(long)]
        dry_run: bool,
        /// Do not ask back before samples are removed
        #[arg(long)]
        yes: bool,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete a namespace with its samples.
    Delete {
        /// The namespace
        name: String,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
}

/// Times of a lookup or query: `now`, `now-1h30m`, RFC 3339, or Unix seconds.
#[derive(Debug, Args)]
pub struct Between {
    /// Beginning: `now-1h`, RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub start: Option<String>,
    /// End
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub end: Option<String>,
}

/// `sarsen query …`
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// Evaluate an expression at one moment.
    Instant {
        /// PromQL
        expr: String,
        /// The moment: `now-1h`, RFC 3339, or Unix seconds [default: now]
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        time: Option<String>,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
    /// Evaluate an expression over a range [default: the last hour].
    Range {
        /// PromQL
        expr: String,
        /// From when to when.
        #[command(flatten)]
        between: Between,
        /// Distance of the points, such as 30s [default: the range in 250 points]
        #[arg(long, value_name = "DURATION")]
        step: Option<String>,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
    /// List the series that match selectors.
    Series {
        /// Selectors, such as 'up{job="node"}'
        #[arg(required = true)]
        selectors: Vec<String>,
        /// From when to when.
        #[command(flatten)]
        between: Between,
        /// Most series to print
        #[arg(long)]
        limit: Option<u64>,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
    /// List label names, or the values of one label.
    Labels {
        /// The label whose values are wanted
        name: Option<String>,
        /// Only of series that match
        #[arg(long = "match", value_name = "SELECTOR")]
        selectors: Vec<String>,
        /// From when to when.
        #[command(flatten)]
        between: Between,
        /// Most items to print
        #[arg(long)]
        limit: Option<u64>,
        /// The node.
        #[command(flatten)]
        remote: Remote,
    },
}

/// `sarsen tsdb …`
#[derive(Debug, Subcommand)]
pub enum TsdbCommand {
    /// Print samples, one a line: series, value, timestamp in milliseconds.
    Dump {
        /// The data
        #[command(flatten)]
        data: Offline,
        /// Only series that match
        #[arg(long = "match", value_name = "SELECTOR")]
        selector: Option<String>,
        /// From when to when.
        #[command(flatten)]
        between: Between,
    },
    /// Show what the series are made of: largest metrics, labels, pairs. With --url of a running node.
    Analyze {
        /// Folder of a node that does not run
        #[arg(long, value_name = "DIR", conflicts_with = "url")]
        data_dir: Option<PathBuf>,
        /// Address of a running node
        #[arg(long, env = "SARSEN_URL", value_name = "URL")]
        url: Option<String>,
        /// Lines of each list
        #[arg(long, default_value_t = 10)]
        limit: usize,
        /// How to print the answer
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Read everything and compare all checksums. Exit code 1 if something is damaged.
    Verify {
        /// The data
        #[command(flatten)]
        data: Offline,
    },
}

/// A data directory that no node has open.
#[derive(Debug, Args)]
pub struct Offline {
    /// Folder of a node that does not run
    #[arg(long, value_name = "DIR", default_value = "./sarsen-data", env = "SARSEN_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// `sarsen check …`
#[derive(Debug, Subcommand)]
pub enum CheckCommand {
    /// Check a configuration file.
    Config {
        /// The file
        file: PathBuf,
    },
}
