//! Several nodes on loopback that are one database.

use crate::client::Client;
use crate::process::{BOUND, Process, binary, free_port};
use crate::until::until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Nodes of one cluster, by number from 0. Number 0 made it, the others joined.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Member>,
    /// What they share.
    pub token: String,
}

/// One node, whether it runs or not. Its folder and ports stay the same.
pub struct Member {
    /// Has `data`, and the log of the process in `log`.
    pub dir: PathBuf,
    /// Talks to it.
    pub client: Client,
    /// `host:port` for other nodes.
    pub address: String,
    /// Its process, if it runs.
    pub process: Option<Process>,
    launch: Launch,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
struct Launch {
    /// What stands in front of the binary: `ip netns exec a`.
    prefix: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What is common to the nodes of a cluster under test.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Environment variables for every node, over those that tests always set.
    pub environment: Vec<(&'static str, String)>,
}

impl Member {
    /// A node in `dir` that joins `join`, or makes a cluster of its own where that is empty.
    pub fn new(dir: &Path, settings: &Settings, join: &[String], token: Option<&str>) -> Member {
        let (http, port) = (free_port(), free_port());
        let (listen, address) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{port}"));
        let mut launch = Launch {
            arguments: vec![
                "--http-listen".into(),
                listen.clone(),
                "--cluster-listen".into(),
                address.clone(),
            ],
            ..Launch::default()
        };
        if !join.is_empty() {
            launch.arguments.extend(["--join".into(), join.join(",")]);
        }
        launch.common(settings, token);
        Member { dir: dir.into(), client: Client::at(&listen), address, process: None, launch }
    }

    /// A node that is started through `prefix`, listens at `listen` for clients and at `address` for other nodes.
    pub fn within(
        prefix: &[&str],
        dir: &Path,
        settings: &Settings,
        [listen, address]: [&str; 2],
        join: &[String],
        token: &str,
    ) -> Member {
        let mut member = Member::new(dir, settings, join, Some(token));
        member.launch.prefix = prefix.iter().map(ToString::to_string).collect();
        member.launch.arguments[1] = listen.into();
        member.launch.arguments[3] = address.into();
        Member { client: Client::at(listen), address: address.into(), ..member }
    }

    /// More arguments for the next start.
    pub fn with_arguments(mut self, arguments: &[&str]) -> Member {
        self.launch.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Starts it without waiting for anything.
    pub fn spawn(&mut self) {
        fs::create_dir_all(&self.dir).expect("a node's folder can be made");
        let words = self.launch.prefix.iter().map(String::as_str);
        let binary = binary();
        let mut words = words.chain([binary.to_str().expect("a path of text")]);
        let mut command = Command::new(words.next().expect("at least the binary"));
        command.args(words).arg("server").arg("--data-dir").arg(self.dir.join("data"));
        command.args(&self.launch.arguments).envs(self.launch.environment.iter().cloned());
        command.env_remove("SARSEN_BIN");
        self.process = Some(Process::start("sarsen", &mut command, &self.dir.join("log")));
    }

    /// Waits until it is ready.
    pub fn await_ready(&mut self) {
        let client = self.client.clone();
        self.process.as_mut().expect("the node runs").await_ready(|| client.is_ok("/-/ready"));
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) {
        self.spawn();
        self.await_ready();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGKILL, and everything on its disk is gone.
    pub fn lose(&mut self) {
        self.kill();
        fs::remove_dir_all(self.dir.join("data")).expect("a data directory can be removed");
    }

    /// SIGTERM; panics unless it ends well.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        assert!(process.terminate().success(), "{}", process.output());
    }

    /// Starts a node that must refuse to run with this exit code, and gives what it says.
    pub fn refused(&mut self, code: i32) -> String {
        self.spawn();
        let mut process = self.process.take().expect("just started");
        let status = process.await_end();
        let output = process.output();
        assert_eq!(status.code(), Some(code), "it should have been refused:\n{output}");
        // The last line is for whoever sees nothing else.
        assert!(output.lines().last().is_some_and(|line| line.starts_with("error: ")), "{output}");
        output
    }

    /// `/api/v1/status/cluster`, as this node sees it.
    pub fn status(&self) -> Result<Value, String> {
        let answer = self.client.get("/api/v1/status/cluster")?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.body));
        }
        Ok(answer.json()["data"].clone())
    }

    /// Waits until this node says that the data is `safety`: `safe`, `degraded` or `unavailable`.
    pub fn await_safety(&self, safety: &str) -> Value {
        until(&format!("{} to be {safety}", self.address), BOUND, || {
            let status = self.status()?;
            if status["safety"] == safety { Ok(status) } else { Err(status.to_string()) }
        })
    }

    /// The digest of each shard of which this node has a copy, over a range of milliseconds.
    pub fn digests(&self, min: i64, max: i64) -> Result<Value, String> {
        let path = format!("/api/v1/status/digests?start={}&end={}", min as f64 / 1e3, max as f64 / 1e3);
        let answer = self.client.get(&path)?;
        if answer.status != 200 {
            return Err(format!("{}: {}", answer.status, answer.body));
        }
        Ok(answer.json()["data"].clone())
    }
}

impl Launch {
    fn common(&mut self, settings: &Settings, token: Option<&str>) {
        let mut set = |name: &str, value: &str| self.environment.push((name.into(), value.into()));
        // Own metrics would make nodes differ at the newest end all the time; the disk of the test may be nearly full.
        set("SARSEN_SELF_SCRAPE_INTERVAL", "0");
        set("SARSEN_LIMITS_DISK_FREE_MIN", "1MiB");
        if let Some(token) = token {
            set("SARSEN_JOIN_TOKEN", token);
        }
        for (name, value) in &settings.environment {
            set(name, value);
        }
    }
}

impl Cluster {
    /// Starts `count` nodes in folders below `dir` and waits until every shard has its copies.
    pub fn start(dir: &Path, count: usize) -> Cluster {
        Cluster::start_with(dir, count, &Settings::default())
    }

    /// The same with settings.
    pub fn start_with(dir: &Path, count: usize, settings: &Settings) -> Cluster {
        let mut settings = settings.clone();
        settings.environment.push(("SARSEN_REPLICATION_FACTOR", count.min(3).to_string()));
        let settings = &settings;
        let mut first = Member::new(&dir.join("node0"), settings, &[], None);
        first.start();
        let token = fs::read_to_string(dir.join("node0/data/join-token")).expect("a new cluster has a token");
        let token = token.trim_end().to_owned();
        let mut nodes = vec![first];
        for number in 1..count {
            let join = [nodes[0].address.clone()];
            let mut node = Member::new(&dir.join(format!("node{number}")), settings, &join, Some(&token));
            node.spawn();
            nodes.push(node);
        }
        nodes.iter_mut().for_each(Member::await_ready);
        let cluster = Cluster { nodes, token };
        cluster.await_safe();
        cluster
    }

    /// Starts a node in each of these zones, with three copies of every shard, and waits until they are there.
    pub fn start_in(dir: &Path, zones: &[&str], settings: &Settings) -> Cluster {
        let mut cluster = Cluster { nodes: Vec::new(), token: String::new() };
        for zone in zones {
            cluster.add(dir, zone, settings);
        }
        cluster.nodes.iter_mut().for_each(Member::await_ready);
        cluster.await_safe();
        cluster
    }

    /// Starts one more node, the first one too, in a zone; only the first is waited for.
    pub fn add(&mut self, dir: &Path, zone: &str, settings: &Settings) -> &mut Member {
        let number = self.nodes.len();
        let home = dir.join(format!("node{number}"));
        let join: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| node.process.is_some())
            .map(|node| node.address.clone())
            .collect();
        let token = (number > 0).then_some(self.token.as_str());
        let mut node = Member::new(&home, settings, &join, token).with_arguments(&["--zone", zone]);
        if number == 0 {
            node.start();
            let token = fs::read_to_string(home.join("data/join-token")).expect("a new cluster has a token");
            self.token = token.trim_end().to_owned();
        } else {
            node.spawn();
        }
        self.nodes.push(node);
        self.nodes.last_mut().expect("just pushed")
    }

    /// The nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// Waits until every shard has three copies on nodes that run, nothing moves, and all copies have the same digests over a range; says how long
    /// that took.
    pub fn await_healed(&self, min: i64, max: i64, bound: Duration) -> Duration {
        let start = std::time::Instant::now();
        until("three equal copies of every shard", bound, || {
            for node in self.running() {
                let status = node.status()?;
                let shards = &status["shards"];
                if status["safety"] != "safe" || shards["moving"] != 0 || shards["min_copies"] != 3 {
                    return Err(format!("{}: {}, {shards}", node.address, status["summary"]));
                }
            }
            let mut copies: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for node in self.running() {
                for (shard, digest) in node.digests(min, max)?.as_object().into_iter().flatten() {
                    copies.entry(shard.clone()).or_default().push(digest.clone());
                }
            }
            let sound = |digests: &Vec<Value>| {
                digests.len() == 3 && digests.iter().all(|digest| *digest == digests[0])
            };
            let unsound: Vec<_> = copies.iter().filter(|(_, digests)| !sound(digests)).collect();
            match unsound.first() {
                None => Ok(()),
                Some(first) => {
                    Err(format!("{} of {} shards differ, first {first:?}", unsound.len(), copies.len()))
                }
            }
        });
        start.elapsed()
    }

    /// The clients of all nodes.
    pub fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(|node| node.client.clone()).collect()
    }

    /// Waits until every node says that every shard has its copies, and that there are as many nodes as here.
    pub fn await_safe(&self) {
        for node in &self.nodes {
            let status = node.await_safety("safe");
            let seen = status["nodes"].as_array().map_or(0, Vec::len);
            assert_eq!(seen, self.nodes.len(), "{status}");
        }
    }

    /// Waits until all nodes have the same digests over a range, and says how long that took.
    pub fn await_equal_digests(&self, min: i64, max: i64, bound: Duration) -> Duration {
        let start = std::time::Instant::now();
        until("equal digests", bound, || {
            let digests =
                self.nodes.iter().map(|node| node.digests(min, max)).collect::<Result<Vec<_>, _>>()?;
            match digests.windows(2).all(|pair| pair[0] == pair[1]) {
                true => Ok(()),
                false => Err(differences(&digests)),
            }
        });
        start.elapsed()
    }
}

/// The shards whose digests differ, shortly.
fn differences(digests: &[Value]) -> String {
    let shards = digests[0].as_object().map_or(0, serde_json::Map::len);
    let differing: Vec<&String> = digests[0]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(shard, digest)| digests.iter().any(|other| other[shard.as_str()] != **digest))
        .map(|(shard, _)| shard)
        .collect();
    format!("{} of {shards} shards differ: {differing:?}", differing.len())
}
