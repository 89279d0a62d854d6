//! The command line.

use crate::manifests::Part;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs Sarsen databases on Kubernetes: a lost node or volume heals with nobody called.
#[derive(Debug, Parser)]
#[command(name = "sarsen-operator", version, about, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look after the databases of a namespace.
    Run(RunArgs),
    /// Print what has to be applied to install the operator, as YAML.
    Manifests(ManifestsArgs),
    /// Print the version.
    Version,
}

/// Flags of `sarsen-operator run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The namespace of the databases, and of the lease
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: String,
    /// Who this process is among others that look after the same namespace
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "sarsen-operator")]
    pub identity: String,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8080")]
    pub listen: String,
    /// Least severe log lines: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Flags of `sarsen-operator manifests`.
#[derive(Debug, Args)]
pub struct ManifestsArgs {
    /// The namespace of the operator and of the databases
    #[arg(long, value_name = "NAMESPACE", default_value = "sarsen")]
    pub namespace: String,
    /// The image of the operator [default: sarsen-operator:VERSION]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Print this part only
    #[arg(long, value_enum)]
    pub only: Option<Part>,
    /// Let the operator see machines and volumes, by a ClusterRole that only reads; without it no node is replaced by itself
    #[arg(long)]
    pub cluster_scoped: bool,
    /// Write the files of the repository's folder `operator/deploy` instead
    #[arg(long, value_name = "DIR", hide = true, conflicts_with_all = ["only", "cluster_scoped", "image"])]
    pub write: Option<PathBuf>,
}
