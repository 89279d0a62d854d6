//! Configuration: one table of settings, three places to set them.
//!
//! Every setting has one key (`limits.query_timeout`). It is set by the flag of that name where there is one, by the
//! environment (`SARSEN_LIMITS_QUERY_TIMEOUT`), by the YAML file, or stays at its default; the first of these that
//! speaks wins. All of them give text to the same parser, so a value means the same wherever it stands.
//! `docs/configuration.md` is printed from the table and a test keeps the two equal.

mod file;
mod values;

pub use file::{Scalar, scalars};
pub use values::{
    Auto, Bytes, Durability, Listen, LogFormat, LogLevel, Origins, Peers, Retention, Secret, Setting, Zone,
};

use std::num::{NonZeroU8, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a configuration was refused. The texts name the place, the key and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key that does not exist.
    #[error("{place}: unknown key `{key}`{}", hint(key))]
    UnknownKey {
        /// File and line, or the environment.
        place: String,
        /// As written.
        key: String,
    },
    /// A value that its key does not take.
    #[error("{place}: `{key}` is set to `{value}`, but takes {expects}")]
    BadValue {
        /// File and line, the flag, or the variable.
        place: String,
        /// The setting.
        key: String,
        /// As written.
        value: String,
        /// What may be written.
        expects: &'static str,
    },
    /// The file is not YAML, or not of the right shape.
    #[error("{place}: {what}")]
    File {
        /// The file, with a line where there is one.
        place: String,
        /// What is wrong.
        what: String,
    },
}

fn hint(key: &str) -> String {
    match nearest(key) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => "; `sarsen server --print-config` lists all keys".to_string(),
    }
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its key, without the group.
    pub name: &'static str,
    /// What it does, for people.
    pub doc: &'static str,
    /// Its default, as one would write it.
    pub default: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
}

macro_rules! settings {
    ($(#[$meta:meta])* $struct:ident {
        $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:literal,)+
        $(group $(#[$gmeta:meta])* $group:ident: $gtype:ty,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct {
            $($(#[doc = $doc])+ pub $name: $type,)+
            $($(#[$gmeta])* pub $group: $gtype,)*
        }

        impl Default for $struct {
            fn default() -> Self {
                $struct {
                    $($name: <$type as Setting>::parse($default).expect("BUG: a default that does not parse"),)+
                    $($group: Default::default(),)*
                }
            }
        }

        impl $struct {
            const ENTRIES: &[Entry] = &[
                $(Entry { name: stringify!($name), doc: concat!($($doc),+), default: $default, secret: <$type as Setting>::SECRET },)+
            ];

            /// Sets one key. `None`: no such key. `Some(Err(expects))`: it does not take that.
            fn set(&mut self, key: &str, text: &str) -> Option<Result<(), &'static str>> {
                $(if key == stringify!($name) {
                    return Some(<$type as Setting>::parse(text)
                        .map(|value| self.$name = value)
                        .ok_or(<$type as Setting>::EXPECTS));
                })+
                $(if let Some(rest) = key.strip_prefix(concat!(stringify!($group), ".")) {
                    return self.$group.set(rest, text);
                })*
                None
            }

            /// The value in force, as one would write it.
            fn get(&self, key: &str) -> Option<String> {
                $(if key == stringify!($name) {
                    return Some(self.$name.print());
                })+
                $(if let Some(rest) = key.strip_prefix(concat!(stringify!($group), ".")) {
                    return self.$group.get(rest);
                })*
                None
            }
        }
    };
}

settings! {
    /// Everything that can be set.
    Config {
        /// Folder of all data. It is made if missing; one process at a time may use it.
        data_dir: PathBuf = "./sarsen-data",
        /// Address of the HTTP API. Reachable only from this machine by default, since there is no authentication.
        http_listen: Listen = "127.0.0.1:7420",
        /// Web pages whose scripts may use the API from a browser: `none`, origins separated by commas such as
        /// `https://grafana.example`, or `*` for all. Grafana's server needs no entry.
        http_cors_origins: Origins = "none",
        /// How long samples are kept: `forever`, or a duration such as `30d`. `auto`: as the namespace `default` says, which is
        /// `forever` until somebody changes it. A node that is alone in its cluster tells the namespace; with more nodes the
        /// namespace counts (`sarsen ns apply`), and a node that says otherwise warns.
        retention: Auto<Retention> = "auto",
        /// When a write is acknowledged: `fsync` (once it survives a power cut) or `interval` (at once; the log is
        /// fsynced every 200 ms and a power cut can lose that much). `auto`: as the namespace `default` says, which is `fsync` until
        /// somebody changes it; as with `retention`.
        durability: Auto<Durability> = "auto",
        /// Address on which other nodes of the cluster reach this one. Nodes on one machine need different ones.
        cluster_listen: Listen = "127.0.0.1:7421",
        /// The same address as other nodes see it, where that is another (containers, NAT, `0.0.0.0`). `auto`: what
        /// `cluster_listen` says.
        cluster_advertise: Auto<Listen> = "auto",
        /// Nodes of the cluster to join, by their `cluster_listen`, separated by commas; one that answers is enough. `none`: an empty
        /// data directory becomes a cluster of its own. A node that is a member already does not join again.
        join: Peers = "none",
        /// Whether a node that lost its part of the control plane (`cluster/raft` in the data directory), and nothing else, may join
        /// again as a new member. `no` keeps a half restored directory out.
        rejoin: bool = "no",
        /// What a node must know to talk to this cluster: the same for all its nodes. `auto`: the one in the data directory; a new
        /// cluster draws one and prints it. Better given by the environment than by a flag, which every user of the machine can see.
        join_token: Auto<Secret> = "auto",
        /// Where this node stands, from the widest to the narrowest, such as `eu/zone-a/rack-3`. Copies of a shard go to different
        /// places as far as there are such. `none`: nothing is known.
        zone: Zone = "none",
        /// This node's share of the data in proportion to the others', in any unit common to all.
        capacity: NonZeroU32 = "100",
        /// Whether this node joins without taking copies, until `sarsen cluster add` or `sarsen cluster replace` names it.
        standby: bool = "no",
        /// When a node has not been heard of for so long, its copies are made on others, and moved back when it returns. A restart
        /// within this time moves nothing. What the leader of the control plane is configured with counts.
        node_loss_grace: Duration = "15m",
        /// As long as more than this share of the nodes seems dead, in percent, none is taken for lost: it is more likely that the
        /// network between them is.
        node_loss_percent_max: NonZeroU8 = "40",
        /// Copies of each shard that a new cluster keeps, each on another node. With fewer nodes there are fewer copies, and the
        /// status says so.
        replication_factor: NonZeroU8 = "3",
        /// How often the copies of a shard are compared with each other. What is older than two days is compared once a day.
        repair_interval: Duration = "10m",
        /// Within this time every byte on the disk is read and its checksum compared.
        scrub_period: Duration = "7d",
        /// How long writes that a node missed are kept for it. What it misses after that, repair brings.
        hints_expire: Duration = "3h",
        /// Form of the log lines on standard error: `logfmt` or `json`.
        log_format: LogFormat = "logfmt",
        /// Least severe log lines: `error`, `warn`, `info`, `debug` or `trace`.
        log_level: LogLevel = "info",
        /// How often the server stores its own metrics under `job="sarsen"`. `0` turns it off.
        self_scrape_interval: Duration = "15s",
        /// How long requests under way may take to finish after SIGTERM.
        shutdown_timeout: Duration = "30s",
        group
        /// What one client may cost.
        limits: Limits,
    }
}

settings! {
    /// What one client may cost. Over a limit the answer names the limit, its value and the key that sets it.
    Limits {
        /// Open connections. More wait in the kernel's queue until one closes.
        connections_max: u64 = "10000",
        /// How long a new connection may take to send its first bytes.
        header_timeout: Duration = "10s",
        /// How long a connection may be silent between requests, or take to complete the head of one.
        idle_timeout: Duration = "60s",
        /// Slowest sending of a body, averaged over the request after 10 s of grace, in bytes a second.
        body_rate_min: Bytes = "1KiB",

        /// Compressed size of one write.
        write_body_bytes_max: Bytes = "16MiB",
        /// Decompressed size of one write. Checked against the declared size before any memory is taken.
        write_decoded_bytes_max: Bytes = "32MiB",
        /// How many times larger than its compressed form a write may be.
        write_decoded_ratio_max: u64 = "100",
        /// Memory for the decoded columns of one write.
        write_batch_bytes_max: Bytes = "128MiB",
        /// Bodies of all writes being received together. `auto`: 16 MiB for each of 4 times the CPUs.
        write_bytes_in_flight_max: Auto<Bytes> = "auto",
        /// Writes being decoded and appended at one time. `auto`: 4 times the CPUs.
        write_concurrency_max: Auto<u64> = "auto",
        /// How long a write waits for its turn before the answer is 503 with `Retry-After`.
        write_queue_timeout: Duration = "10s",
        /// How long a write waits for its fsync before the answer is 503.
        write_timeout: Duration = "30s",
        /// Length of one line of a text import. Its body has the limits of a write.
        import_line_bytes_max: Bytes = "10MiB",
        /// Labels of one series.
        labels_per_series_max: u64 = "64",
        /// Length of a label's name.
        label_name_bytes_max: Bytes = "1KiB",
        /// Length of a label's value.
        label_value_bytes_max: Bytes = "4KiB",
        /// Length of help, unit or family name in metadata; longer ones are cut.
        metadata_bytes_max: Bytes = "1KiB",
        /// How far in the future a sample may lie.
        future_max: Duration = "10m",
        /// Active series of this node. `auto`: what fits into half of the memory, at 2 KiB each.
        series_max: Auto<u64> = "auto",
        /// New series a second, averaged over the burst below. Over it writes are put off with 503 and `Retry-After`.
        series_created_rate_max: u64 = "50000",
        /// New series that may come at once.
        series_created_burst_max: u64 = "2000000",
        /// Size of the write-ahead log from which memory is flushed to blocks. A restart reads all of it.
        wal_bytes_max: Bytes = "4GiB",
        /// Free space on the disk below which the node takes no more writes. `auto`: 2 % of the disk, at least 2 GiB,
        /// at most 20 GiB.
        disk_free_min: Auto<Bytes> = "auto",
        /// Writes on this node's disk for nodes that missed them. Over it the oldest go, and repair brings what was in them.
        hint_bytes_max: Bytes = "1GiB",

        /// Longest evaluation of a query; a request may ask for less with `timeout`.
        query_timeout: Duration = "60s",
        /// Queries evaluated at one time. `auto`: 2 times the CPUs, at least 4.
        query_concurrency_max: Auto<u64> = "auto",
        /// How long a query waits for its turn before the answer is 503.
        query_queue_timeout: Duration = "10s",
        /// Samples one query may hold in memory.
        query_samples_max: u64 = "50000000",
        /// Series one selector may fetch.
        query_series_max: u64 = "500000",
        /// Memory of what one query fetches from other nodes.
        query_fetch_bytes_max: Bytes = "256MiB",
        /// Points of each series of a range query.
        query_steps_max: u64 = "11000",
        /// Inner steps of a subquery.
        query_subquery_steps_max: u64 = "100000",
        /// Length of a query's text.
        query_text_bytes_max: Bytes = "64KiB",
        /// Size of one answer, before compression.
        query_response_bytes_max: Bytes = "512MiB",
        /// Names or values that `labels` and `label/…/values` give.
        lookup_names_max: u64 = "100000",
        /// Series that `series` gives.
        lookup_series_max: u64 = "30000",
    }
}

/// All keys in the order of the table, with their group.
pub fn entries() -> impl Iterator<Item = (String, Entry)> {
    let group = |prefix: &'static str| move |e: &Entry| (format!("{prefix}{}", e.name), *e);
    Config::ENTRIES.iter().map(group("")).chain(Limits::ENTRIES.iter().map(group("limits.")))
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    format!("SARSEN_{}", key.to_uppercase().replace('.', "_"))
}

/// Where values come from, besides the defaults.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--config FILE` (or `SARSEN_CONFIG`).
    pub file: Option<PathBuf>,
    /// Name and value of every environment variable.
    pub environment: Vec<(String, String)>,
    /// Key and value of every flag that was given.
    pub flags: Vec<(&'static str, String)>,
}

impl Config {
    /// Applies file, environment and flags, in this order, over the defaults.
    pub fn load(sources: &Sources) -> Result<Config, Error> {
        let mut config = Config::default();
        let variable_of = |name: &str| sources.environment.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        let file = sources.file.clone().or_else(|| variable_of("SARSEN_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            config.apply_file(&path)?;
        }
        for (key, _) in entries() {
            let name = variable(&key);
            if let Some(value) = variable_of(&name) {
                config.apply(&format!("environment variable {name}"), &key, value)?;
            }
        }
        for (key, value) in &sources.flags {
            config.apply(&format!("flag --{}", key.replace('_', "-")), key, value)?;
        }
        Ok(config)
    }

    /// Applies one YAML file.
    pub fn apply_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::File { place: path.display().to_string(), what: e.to_string() })?;
        self.apply_yaml(&path.display().to_string(), &text)
    }

    fn apply_yaml(&mut self, name: &str, text: &str) -> Result<(), Error> {
        for scalar in file::scalars(name, text)? {
            self.apply(&format!("{name}:{}", scalar.line), &scalar.key, &scalar.value)?;
        }
        Ok(())
    }

    fn apply(&mut self, place: &str, key: &str, value: &str) -> Result<(), Error> {
        let (place, key) = (place.to_string(), key.to_string());
        match self.set(&key, value) {
            None => Err(Error::UnknownKey { place, key }),
            Some(Err(expects)) => {
                let secret = entries().any(|(known, entry)| known == key && entry.secret);
                let value = if secret { values::REDACTED } else { value }.to_string();
                Err(Error::BadValue { place, key, value, expects })
            }
            Some(Ok(())) => Ok(()),
        }
    }

    /// Every key and the value in force.
    pub fn values(&self) -> impl Iterator<Item = (String, String)> {
        entries().map(|(key, _)| {
            let value = self.get(&key).expect("BUG: a key of the table without a value");
            (key, value)
        })
    }

    /// The whole configuration as a YAML file that says the same.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut group = String::new();
        for (key, entry) in entries() {
            let prefix = key.strip_suffix(entry.name).unwrap_or("");
            if prefix != group {
                text.push_str(&format!("{}:\n", prefix.trim_end_matches('.')));
                group = prefix.to_string();
            }
            let indent = if group.is_empty() { "" } else { "  " };
            let value = self.get(&key).expect("BUG: a key of the table without a value");
            // JSON strings are YAML strings, whatever is in them.
            let value = serde_json::Value::String(value);
            text.push_str(&format!("{indent}{}: {value}\n", entry.name));
        }
        text
    }
}

/// Environment variables that look as if a key had been misspelt, with the variable that was probably meant.
pub fn suspicious_variables(environment: &[(String, String)]) -> Vec<(String, String)> {
    let known: Vec<String> = entries().map(|(key, _)| variable(&key)).collect();
    environment
        .iter()
        .filter(|(name, _)| name.starts_with("SARSEN_") && !known.contains(name))
        .filter_map(|(name, _)| Some((name.clone(), closest(name, known.iter().map(String::as_str), 3)?)))
        .collect()
}

/// The key that was probably meant: the same last part in another group, or few typing mistakes away.
fn nearest(key: &str) -> Option<String> {
    let keys: Vec<String> = entries().map(|(key, _)| key).collect();
    // Flags are written with dashes; so will keys be, now and then.
    let wanted = key.replace('-', "_").to_lowercase();
    let last = wanted.rsplit('.').next().unwrap_or(&wanted);
    keys.iter()
        .find(|known| **known == wanted || known.rsplit('.').next() == Some(last))
        .cloned()
        .or_else(|| closest(&wanted, keys.iter().map(String::as_str), wanted.len().div_ceil(3)))
}

fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>, distance_max: usize) -> Option<String> {
    known
        .map(|k| (edit_distance(wanted, k), k))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, k)| k.to_string())
}

/// Insertions, deletions and substitutions of bytes that turn `a` into `b` (Wagner and Fischer, one row).
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// `docs/configuration.md`.
pub fn to_markdown() -> String {
    let mut text = String::from(include_str!("preamble.md"));
    let mut group = None;
    for (key, entry) in entries() {
        let prefix = key.strip_suffix(entry.name).unwrap_or("").to_string();
        if group.as_ref() != Some(&prefix) {
            let title = if prefix.is_empty() { "Node" } else { "Limits" };
            text.push_str(&format!("\n## {title}\n\n| key | default | |\n|---|---|---|\n"));
            group = Some(prefix);
        }
        text.push_str(&format!("| `{key}` | `{}` | {} |\n", entry.default, entry.doc.trim()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.apply_yaml("sarsen.yaml", text).map(|()| config).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest() {
        let config =
            yaml("data_dir: /srv/data\nlimits:\n  query_timeout: 2m\n  query_series_max: 7\n").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/srv/data"));
        assert_eq!(config.limits.query_timeout, Duration::from_secs(120));
        assert_eq!(config.limits.query_series_max, 7);
        assert_eq!(config.limits.query_steps_max, 11_000);
        assert_eq!(yaml("").unwrap(), Config::default());
        assert_eq!(yaml("# only a comment\n").unwrap(), Config::default());
        assert_eq!(yaml("limits:\n").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            yaml("retention: 30d\nlimits:\n  qery_timeout: 2m\n").unwrap_err(),
            "sarsen.yaml:3: unknown key `limits.qery_timeout`; did you mean `limits.query_timeout`?"
        );
        assert_eq!(
            yaml("query_timeout: 2m\n").unwrap_err(),
            "sarsen.yaml:1: unknown key `query_timeout`; did you mean `limits.query_timeout`?"
        );
        assert_eq!(
            yaml("http-listen: 0.0.0.0:80\n").unwrap_err(),
            "sarsen.yaml:1: unknown key `http-listen`; did you mean `http_listen`?"
        );
        assert_eq!(
            yaml("zzzzzz: 1\n").unwrap_err(),
            "sarsen.yaml:1: unknown key `zzzzzz`; `sarsen server --print-config` lists all keys"
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_what_the_key_takes() {
        assert_eq!(
            yaml("limits:\n  write_body_bytes_max: lots\n").unwrap_err(),
            "sarsen.yaml:2: `limits.write_body_bytes_max` is set to `lots`, but takes a number of bytes such as 64KiB, 16MiB or 2GiB"
        );
        assert!(yaml("limits: 5\n").unwrap_err().contains("unknown key `limits`"));
        assert!(yaml("data_dir: [a, b]\n").unwrap_err().contains("sarsen.yaml:1"));
        assert!(yaml("data_dir: a\ndata_dir: b\n").is_err(), "a key twice is a mistake");
        assert!(yaml("- a\n").is_err());
        assert!(yaml("a: b: c\n").unwrap_err().starts_with("sarsen.yaml"));
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, "data_dir: from-file\nretention: 1d\nlog_level: warn\n").unwrap();
        let sources = Sources {
            file: Some(path),
            environment: vec![
                ("SARSEN_DATA_DIR".into(), "from-env".into()),
                ("SARSEN_RETENTION".into(), "2d".into()),
                ("SARSEN_LIMITS_LABELS_PER_SERIES_MAX".into(), "9".into()),
            ],
            flags: vec![("data_dir", "from-flag".into())],
        };
        let config = Config::load(&sources).unwrap();
        assert_eq!(config.data_dir, PathBuf::from("from-flag"));
        assert_eq!(config.retention, Auto::Set(Retention::Millis(2 * 86_400_000)));
        assert_eq!(config.log_level, LogLevel::Warn);
        assert_eq!(config.limits.labels_per_series_max, 9);
        assert_eq!(config.http_listen.0, "127.0.0.1:7420");
    }

    #[test]
    fn a_bad_flag_or_variable_is_named() {
        let flags = vec![("retention", "15m".to_string())];
        let error = Config::load(&Sources { flags, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.starts_with("flag --retention: `retention` is set to `15m`, but takes"), "{error}");
        let environment = vec![("SARSEN_LOG_FORMAT".to_string(), "xml".to_string())];
        let error = Config::load(&Sources { environment, ..Sources::default() }).unwrap_err().to_string();
        assert!(error.starts_with("environment variable SARSEN_LOG_FORMAT:"), "{error}");
    }

    #[test]
    fn a_misspelt_variable_is_noticed_and_those_of_kubernetes_are_not() {
        let env = |name: &str| (name.to_string(), "x".to_string());
        let found = suspicious_variables(&[
            env("SARSEN_DATADIR"),
            env("SARSEN_SERVICE_HOST"),
            env("SARSEN_PORT_7420_TCP"),
            env("PATH"),
        ]);
        assert_eq!(found, [("SARSEN_DATADIR".to_string(), "SARSEN_DATA_DIR".to_string())]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let config = yaml("join_token: squeamish-ossifrage\n").unwrap();
        assert!(matches!(&config.join_token, Auto::Set(token) if token.reveal() == "squeamish-ossifrage"));
        let told = [format!("{config:?}"), config.to_yaml(), yaml("join_token: ossi frage\n").unwrap_err()];
        for text in told {
            assert!(!text.contains("ossi") && text.contains(values::REDACTED), "{text}");
        }
        assert!(yaml(&config.to_yaml()).is_err(), "what is printed instead of a token is none");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_told_once_where() {
        assert_eq!(
            yaml("a: b: c\n").unwrap_err(),
            "sarsen.yaml:1: mapping values are not allowed in this context"
        );
    }

    #[test]
    fn the_printed_configuration_reads_back() {
        let config = yaml("retention: 90d\nlimits:\n  disk_free_min: 3GiB\n").unwrap();
        assert_eq!(yaml(&config.to_yaml()).unwrap(), config);
    }

    /// Messages all over the house name keys; each must exist, or following the advice ends in an error.
    #[test]
    fn every_key_that_a_message_names_exists() {
        fn visit(dir: &Path, found: &mut Vec<(String, String)>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    visit(&path, found);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for (at, _) in text.match_indices("limits.") {
                        let quoted = text[..at].ends_with(['"', '`']);
                        let name = |c: char| c.is_ascii_lowercase() || c == '_';
                        let key: String = text[at + 7..].chars().take_while(|c| name(*c)).collect();
                        let closed = text[at + 7 + key.len()..].starts_with(['"', '`']);
                        if quoted && closed {
                            found.push((format!("limits.{key}"), path.display().to_string()));
                        }
                    }
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for dir in ["src/http", "../model/src", "../storage/src", "../query/src", "../ingest/src"] {
            visit(&root.join(dir), &mut found);
        }
        assert!(found.len() > 20, "{found:?}");
        let known: Vec<String> = entries().map(|(key, _)| key).collect();
        // `limits.x` stands for any key in tests.
        found.retain(|(key, _)| !known.contains(key) && key != "limits.x");
        assert_eq!(found, []);
    }

    #[test]
    fn the_page_in_the_docs_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(&path).unwrap_or_default();
        if page != to_markdown() {
            let wanted = std::env::temp_dir().join("sarsen-configuration.md");
            std::fs::write(&wanted, to_markdown()).unwrap();
            panic!("docs/configuration.md is not what the settings say; copy {} over it", wanted.display());
        }
    }
}
