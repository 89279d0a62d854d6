//! Nodes over loopback, with replicas in memory.

use super::*;
use crate::control::CopyStatus;
use crate::placement::ReplicaState;
use crate::state::Command;
use crate::testing::{Memory, batch_with_key, labels};
use crate::transport::Kind;
use crate::view::{Health, Namespace};
use disk::CrashVfs;
use model::{
    Error as DataError, Labels, Matcher, Replica as _, Samples, Selection, SeriesKey, TimeRange, Timestamp,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{interval, timeout};

/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(30);
const NOW: i64 = 1_700_000_000_000;
const SHARDS: u32 = 8;

/// The disk and the data of one node, across restarts.
#[derive(Clone)]
struct Machine {
    vfs: CrashVfs,
    memory: Option<Memory>,
    directory: Option<Directory>,
    seed: Arc<AtomicU64>,
}

/// A node at work.
struct Running {
    node: Arc<Node>,
    memory: Memory,
    commit: Task,
}

impl Running {
    /// As a crash: nothing is closed but what the operating system closes.
    async fn kill(self) {
        drop(self.commit);
        drop(self.node.running.lock().take());
        let hints = self.node.data().hints.clone();
        spawn_blocking(move || hints.stop()).await.unwrap();
        if let Some(transport) = self.node.shared.transport() {
            transport.stop().await;
        }
    }
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let seed = Arc::new(AtomicU64::new(seed << 32));
        Machine { vfs: CrashVfs::new(), memory: None, directory: None, seed }
    }

    fn options(&self) -> Options {
        let seed = self.seed.clone();
        let random = move || {
            let drawn = seed.fetch_add(1, Ordering::Relaxed);
            u128::from(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(drawn)
        };
        Options {
            listen: "127.0.0.1:0".into(),
            shards: SHARDS,
            token: Some("secret".into()),
            write_timeout: Duration::from_secs(5),
            ..Options::new("/data", random, || Timestamp(NOW))
        }
    }

    async fn boot(&self, options: Options) -> Result<Boot, Error> {
        timeout(LONG, boot(options, Arc::new(self.vfs.clone()), self.directory)).await.expect("no start")
    }

    async fn start(&mut self, change: impl FnOnce(&mut Options)) -> Running {
        let mut options = self.options();
        change(&mut options);
        let boot = self.boot(options).await.unwrap();
        let directory = boot.directory();
        self.directory = Some(directory);
        let key = SeriesKey::of_cluster(directory.cluster);
        let memory = self.memory.get_or_insert_with(|| Memory::with_key(directory.shards, key)).clone();
        let node = boot.serve(Arc::new(memory.clone())).await.unwrap();
        let committing = memory.clone();
        let commit = Task(tokio::spawn(async move {
            let mut often = interval(Duration::from_millis(1));
            loop {
                often.tick().await;
                // It fails when a test says so.
                let _ = committing.commit();
            }
        }));
        Running { node, memory, commit }
    }
}

async fn until(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    let mut often = interval(Duration::from_millis(5));
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen");
        often.tick().await;
    }
}

/// Three nodes with a copy of everything each.
async fn three() -> (Vec<Machine>, Vec<Running>) {
    three_with(SHARDS).await
}

async fn three_with(shards: u32) -> (Vec<Machine>, Vec<Running>) {
    let mut machines: Vec<Machine> = (1..=3).map(Machine::new).collect();
    let mut running: Vec<Running> = Vec::new();
    for machine in &mut machines {
        let join = running.first().map(|one| one.node.view().nodes[&one.node.me()].address.clone());
        let change = |options: &mut Options| {
            options.join = join.into_iter().collect();
            options.shards = shards;
        };
        running.push(machine.start(change).await);
    }
    until(|| running.iter().all(|running| is_whole(&running.node, 3))).await;
    (machines, running)
}

fn is_whole(node: &Node, copies: usize) -> bool {
    let view = node.view();
    let available = |replicas: &Vec<crate::placement::Replica>| {
        replicas.len() == copies && replicas.iter().all(|replica| replica.state == ReplicaState::Available)
    };
    view.placement.shards().iter().all(available)
}

fn series(count: usize, at: i64) -> Vec<(Labels, Vec<(i64, f64)>)> {
    let name = |i: usize| labels("metric", &[("i", &i.to_string())]);
    (0..count).map(|i| (name(i), vec![(at, i as f64 + at as f64)])).collect()
}

async fn write(
    node: &Node,
    consistency: Option<Consistency>,
    count: usize,
    at: i64,
) -> Result<(), DataError> {
    let batch = batch_with_key(node.view().key, &series(count, at));
    let appended = node.sink(consistency).append(&batch, None)?;
    assert!(appended.unknown.is_empty() && appended.rejected.is_empty());
    assert_eq!(appended.written.floats, count as u64);
    timeout(LONG, appended.durable).await.expect("neither yes nor no")
}

/// The rows that a node reads, or why not, and the warnings.
async fn read(node: &Arc<Node>, options: ReadOptions) -> Result<(usize, Vec<String>), DataError> {
    let source = node.source(options);
    spawn_blocking(move || {
        let selection = Selection {
            matchers: vec![Matcher::equal("__name__", "metric")],
            range: TimeRange { min: Timestamp(0), max: Timestamp(NOW + 1_000_000) },
            series_max: 10_000,
            shards: None,
        };
        let set = source.select(&selection)?;
        let mut samples = Samples::default();
        let mut rows = 0;
        for index in 0..set.len() {
            set.read(index, selection.range, &mut samples)?;
            rows += samples.timestamps.len();
        }
        Ok((rows, set.warnings().to_vec()))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_takes_writes_at_once_and_remembers_itself() {
    let mut machine = Machine::new(1);
    let began = Instant::now();
    let running = machine.start(|_| ()).await;
    let first = running.node.view();
    assert_eq!(first.nodes.len(), 1);
    assert!(!first.has_data);
    write(&running.node, None, 20, NOW).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(running.node.view().has_data);
    assert_eq!(read(&running.node, ReadOptions::default()).await.unwrap(), (20, vec![]));
    let status = running.node.status();
    assert_eq!(
        status.shards,
        Shards { total: SHARDS, under_replicated: SHARDS, unavailable: 0, moving: 0, min_copies: 1 }
    );
    until(|| running.node.view().leader == Some(first.me)).await;
    running.node.stop().await;
    drop(running);

    let again = machine.start(|_| ()).await;
    let view = again.node.view();
    assert_eq!((view.cluster, view.me), (first.cluster, first.me));
    assert!(view.has_data);
    write(&again.node, None, 20, NOW + 1).await.unwrap();
    again.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_leaves_nothing_behind_does_not_settle_who_holds_what() {
    let mut machines: Vec<Machine> = (1..=3).map(Machine::new).collect();
    let mut running = vec![machines[0].start(|_| ()).await];
    let node = &running[0].node;
    let key = node.view().key;
    // Only metadata, or nothing at all.
    node.sink(None).append(&batch_with_key(key, &[]), None).unwrap().durable.await.unwrap();
    // A series that nobody knows, whose labels turn out to be wrong: it does not come again.
    let mut unchecked = (*batch_with_key(key, &series(1, NOW))).clone();
    unchecked.series[0].checked = false;
    let appended = node.sink(None).append(&Arc::new(unchecked), None).unwrap();
    assert_eq!(appended.unknown, [0]);
    appended.durable.await.unwrap();
    assert!(!node.view().has_data);

    let join = node.view().nodes[&node.me()].address.clone();
    for machine in &mut machines[1..] {
        running.push(machine.start(|options| options.join = vec![join.clone()]).await);
    }
    until(|| running.iter().all(|running| is_whole(&running.node, 3))).await;
    // The same of a node that is not alone.
    running[1].node.sink(None).append(&batch_with_key(key, &[]), None).unwrap().durable.await.unwrap();
    assert!(!running[1].node.view().has_data);
    write(&running[1].node, None, 1, NOW).await.unwrap();
    assert!(running[1].node.view().has_data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_write_that_only_this_node_keeps_is_noted_too() {
    let mut machines: Vec<Machine> = (1..=3).map(Machine::new).collect();
    let mut running = vec![machines[0].start(|options| options.replication_factor = 1).await];
    let join = running[0].node.view().nodes[&running[0].node.me()].address.clone();
    running.push(machines[1].start(|options| options.join = vec![join.clone()]).await);
    let node = running[0].node.clone();
    let shares = |node: &Node| node.view().nodes.keys().all(|id| !node.view().held_by(*id).is_empty());
    until(|| node.view().nodes.len() == 2 && shares(&node)).await;
    let view = node.view();
    let own = view.held_by(view.me);
    let mine: Vec<_> = series(50, NOW)
        .into_iter()
        .filter(|(labels, _)| own.contains(view.key.id(labels.as_bytes()).shard(view.shards())))
        .collect();
    assert!(!mine.is_empty());
    let batch = batch_with_key(view.key, &mine);
    let appended = node.sink(None).append(&batch, None).unwrap();
    timeout(LONG, appended.durable).await.unwrap().unwrap();
    assert!(node.view().has_data, "what was acknowledged could be left behind by another placement");

    running.push(machines[2].start(|options| options.join = vec![join]).await);
    until(|| running.iter().all(|running| running.node.view().nodes.len() == 3)).await;
    assert_eq!(read(&node, ReadOptions::default()).await.unwrap(), (mine.len(), vec![]));
    // The third gets its share by moves, and what was acknowledged moves along.
    until(|| {
        node.view().nodes.keys().all(|id| !node.view().readable_at(*id).is_empty()) && is_whole(&node, 1)
    })
    .await;
    for running in &running {
        assert_eq!(read(&running.node, ReadOptions::default()).await.unwrap(), (mine.len(), vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_with_data_becomes_three_and_no_write_or_read_fails() {
    let mut machines: Vec<Machine> = (1..=3).map(Machine::new).collect();
    let mut running = vec![machines[0].start(|_| ()).await];
    let first = running[0].node.clone();
    write(&first, None, 50, NOW).await.unwrap();
    let writing = {
        let node = first.clone();
        tokio::spawn(async move {
            let mut rounds = 1;
            while !is_whole(&node, 3) {
                write(&node, None, 50, NOW + rounds)
                    .await
                    .unwrap_or_else(|error| panic!("write {rounds}: {error}"));
                let (rows, warnings) = read(&node, ReadOptions::default()).await.unwrap();
                rounds += 1;
                assert_eq!((rows, warnings), (50 * rounds as usize, vec![]));
            }
            rounds
        })
    };
    let join = first.view().nodes[&first.me()].address.clone();
    for machine in &mut machines[1..] {
        running.push(machine.start(|options| options.join = vec![join.clone()]).await);
    }
    let rounds = timeout(2 * LONG, writing).await.expect("copies are not made").unwrap();
    until(|| running.iter().all(|one| is_whole(&one.node, 3))).await;
    for one in &running {
        assert_eq!(read(&one.node, ReadOptions::default()).await.unwrap().0, 50 * rounds as usize);
    }
    // Each of the three has everything by itself: what it was sent, and what it copied.
    until(|| running.iter().all(|one| one.memory.content() == running[0].memory.content())).await;
    assert_eq!(running[0].memory.content().len(), 50 * rounds as usize);
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_hold_everything_three_times_and_any_answers() {
    let (_machines, running) = three().await;
    for (i, one) in running.iter().enumerate() {
        write(&one.node, None, 50, NOW + i as i64).await.unwrap();
        // Known series travel by number, others with their labels: the third time all are known.
        write(&one.node, Some(Consistency::All), 50, NOW + 10 + i as i64).await.unwrap();
    }
    for one in &running {
        assert_eq!(read(&one.node, ReadOptions::default()).await.unwrap(), (300, vec![]));
    }
    until(|| running.iter().all(|one| one.memory.content() == running[0].memory.content())).await;
    assert_eq!(running[0].memory.content().len(), 300);
    let status = running[1].node.status();
    assert_eq!(
        status.shards,
        Shards { total: SHARDS, under_replicated: 0, unavailable: 0, moving: 0, min_copies: 3 }
    );
    until(|| running.iter().all(|one| one.node.status().voters.len() == 3)).await;
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_of_three_away_all_goes_on_and_it_catches_up_with_two_it_says_so() {
    let (mut machines, mut running) = three().await;
    write(&running[0].node, None, 30, NOW).await.unwrap();
    let third = running.pop().unwrap();
    let third_address = third.node.address().to_string();
    third.kill().await;
    write(&running[0].node, None, 30, NOW + 1).await.unwrap();
    write(&running[1].node, None, 30, NOW + 2).await.unwrap();
    for one in &running {
        assert_eq!(read(&one.node, ReadOptions::default()).await.unwrap().0, 90);
    }
    let all = write(&running[0].node, Some(Consistency::All), 30, NOW + 3).await;
    assert!(matches!(all, Err(DataError::Unavailable { .. })), "{all:?}");

    // Two away: neither writes nor majority reads, and what can be had is had only when asked for.
    running.pop().unwrap().kill().await;
    let one = &running[0];
    let write_failed = write(&one.node, None, 30, NOW + 4).await;
    assert!(matches!(write_failed, Err(DataError::Unavailable { .. })), "{write_failed:?}");
    let timeout = Some(Duration::from_secs(3));
    let read_failed = read(&one.node, ReadOptions { timeout, ..ReadOptions::default() }).await;
    assert!(matches!(read_failed, Err(DataError::Unavailable { .. })), "{read_failed:?}");
    let (rows, warnings) =
        read(&one.node, ReadOptions { timeout, partial: true, consistency: None }).await.unwrap();
    assert!(rows >= 90 && !warnings.is_empty(), "{rows} {warnings:?}");
    write(&one.node, Some(Consistency::One), 30, NOW + 5).await.unwrap();

    // They come back, at the same addresses, without anybody's help.
    running.push(machines[1].start(|_| ()).await);
    running.push(machines[2].start(|options| options.listen = third_address).await);
    let mut often = interval(Duration::from_millis(50));
    let deadline = Instant::now() + LONG;
    while let Err(error) = write(&running[0].node, Some(Consistency::All), 30, NOW + 6).await {
        assert!(Instant::now() < deadline, "{error}");
        often.tick().await;
    }
    for one in &running {
        let rows = read(&one.node, ReadOptions::default()).await.unwrap().0;
        assert!((150..=210).contains(&rows), "what a majority took, and maybe what fewer did: {rows}");
    }
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_of_a_known_series_takes_at_most_twelve_bytes_on_the_wire_to_each_replica() {
    // As many series in a section as 2,000 a request have with 64 shards.
    const SERIES: usize = 500;
    const REQUESTS: usize = 8;
    let (_machines, running) = three_with(16).await;
    // Values that nothing compresses: all bits of a double.
    let mut lots = 1u64;
    let mut request = |at: i64| {
        let mut series = series(SERIES, at);
        for (_, rows) in &mut series {
            lots = lots.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            rows[0].1 = f64::from_bits(lots & !(1 << 62));
        }
        batch_with_key(running[0].node.view().key, &series)
    };
    let sent = || {
        let counters = running.iter().map(|one| one.node.status().transport);
        counters.map(|counters| counters.sent[Kind::Write as usize].bytes).sum::<u64>()
    };
    let sink = running[0].node.sink(Some(Consistency::All));
    for at in 0..3 {
        sink.append(&request(NOW + at), None).unwrap().durable.await.unwrap();
    }
    let before = sent();
    for at in 0..REQUESTS as i64 {
        sink.append(&request(NOW + 1000 + at), None).unwrap().durable.await.unwrap();
    }
    // Frames and answers; HTTP's own are nine bytes for each 64 KiB.
    let each = (sent() - before) as f64 / (2 * SERIES * REQUESTS) as f64;
    println!("{each:.2} bytes a replicated sample");
    assert!(each <= 12.0, "{each:.2} bytes a replicated sample");
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_with_more_new_labels_than_a_frame_holds_reaches_every_replica() {
    // 6,000 series with 4 KiB of labels each are 24 MiB; then the same as a sender writes who does not know that they exist.
    const SERIES: usize = 6000;
    let (_machines, running) = three().await;
    let long = "x".repeat(4096);
    let series: Vec<(Labels, Vec<(i64, f64)>)> = (0..SERIES)
        .map(|i| (labels("metric", &[("i", &i.to_string()), ("long", &long)]), vec![(NOW, 1.5)]))
        .collect();
    let checked = batch_with_key(running[0].node.view().key, &series);
    let mut unchecked = model::Batch::clone(&checked);
    unchecked.series.iter_mut().for_each(|one| one.checked = false);
    let sink = running[0].node.sink(Some(Consistency::All));
    let first = sink.append(&Arc::new(unchecked), None).unwrap();
    assert_eq!(first.unknown, (0..SERIES as u32).collect::<Vec<_>>());
    let appended = sink.append(&checked, Some(&first.unknown)).unwrap();
    assert!(appended.unknown.is_empty() && appended.rejected.is_empty());
    assert_eq!(appended.written.floats, SERIES as u64);
    timeout(LONG, appended.durable).await.expect("neither yes nor no").unwrap();
    for one in &running {
        assert_eq!(one.memory.content().len(), SERIES);
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_hears_of_the_metric_families_that_it_missed() {
    let family = |name: &str| model::Metadata {
        family: name.into(),
        metric_type: model::MetricType::Gauge,
        help: "A metric.".into(),
        unit: String::new(),
    };
    let knows = |memory: &Memory, name: &str| !memory.metadata(Some(name)).unwrap().is_empty();
    let (mut machines, mut running) = three().await;
    let sink = running[0].node.sink(None);
    sink.describe(&[family("early")]).unwrap();
    until(|| running.iter().all(|one| knows(&one.memory, "early"))).await;
    let third = running.pop().unwrap();
    let address = third.node.address().to_string();
    third.kill().await;
    sink.describe(&[family("missed")]).unwrap();
    until(|| knows(&running[1].memory, "missed")).await;
    running.push(machines[2].start(|options| options.listen = address).await);
    // Senders tell the same again and again.
    until(|| {
        sink.describe(&[family("early"), family("missed")]).unwrap();
        knows(&running[2].memory, "missed")
    })
    .await;
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_copy_answers_for_the_same_range_whatever_its_clock_says_of_the_retention() {
    const DAY: i64 = 86_400_000;
    let (_machines, running) = three().await;
    // Ten that are older than the retention to come, ten that are about to expire, ten within.
    for at in [NOW - 2 * DAY, NOW - DAY + 10_000, NOW - DAY + 100_000] {
        write(&running[0].node, Some(Consistency::All), 10, at).await.unwrap();
    }
    assert_eq!(read(&running[1].node, ReadOptions::default()).await.unwrap().0, 30);
    let namespace = Namespace { retention_ms: DAY as u64, ..Namespace::default() };
    running[0].node.propose(Command::ApplyNamespace { name: "default".into(), namespace }).await.unwrap();
    for one in &running {
        until(|| one.node.view().namespaces["default"] == namespace).await;
        assert_eq!(read(&one.node, ReadOptions::default()).await.unwrap(), (10, vec![]));
    }
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_changes_and_all_see_them() {
    let (_machines, running) = three().await;
    let namespace = Namespace { write: Consistency::All, ..Namespace::default() };
    let command = Command::ApplyNamespace { name: "default".into(), namespace };
    running[2].node.propose(command).await.unwrap();
    running[1].node.catch_up().await.unwrap();
    assert_eq!(running[1].node.view().namespaces["default"], namespace);
    let refused = running[1].node.propose(Command::DeleteNamespace { name: "default".into() }).await;
    assert!(matches!(refused, Err(Error::Control(ControlError::Refused(_)))), "{refused:?}");
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_killed_at_once_come_back_unattended() {
    let (mut machines, running) = three().await;
    write(&running[0].node, None, 30, NOW).await.unwrap();
    let addresses: Vec<String> = running.iter().map(|one| one.node.address().to_string()).collect();
    for one in running {
        one.kill().await;
    }
    let mut running = Vec::new();
    for (machine, address) in machines.iter_mut().zip(&addresses) {
        running.push(machine.start(|options| options.listen = address.clone()).await);
    }
    let mut often = interval(Duration::from_millis(50));
    let deadline = Instant::now() + LONG;
    while let Err(error) = write(&running[2].node, None, 30, NOW + 1).await {
        assert!(Instant::now() < deadline, "{error}");
        often.tick().await;
    }
    assert_eq!(read(&running[1].node, ReadOptions::default()).await.unwrap().0, 60);
    until(|| running.iter().all(|one| one.node.view().leader.is_some())).await;
    until(|| running[0].node.view().nodes.values().all(|peer| peer.health == Health::Up)).await;
    for one in &running {
        one.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_do_not_fit_are_refused_and_name_the_way_out() {
    let mut machine = Machine::new(1);
    let first = machine.start(|_| ()).await;
    let address = first.node.address().to_string();

    // The same directory a second time.
    let error = machine.boot(machine.options()).await.err().unwrap();
    assert!(error.to_string().contains("--data-dir"), "{error}");
    // An address in use.
    let other = Machine::new(2);
    let error = other.boot(Options { listen: address.clone(), ..other.options() }).await.err().unwrap();
    assert!(error.to_string().contains("--cluster-listen"), "{error}");
    // A token that is none.
    let error = other.boot(Options { token: Some("a b".into()), ..other.options() }).await.err().unwrap();
    assert!(error.to_string().contains("token"), "{error}");
    // Another cluster's token.
    let joining = Options { join: vec![address.clone()], token: Some("another".into()), ..other.options() };
    let error = other.boot(joining).await.err().unwrap();
    assert!(error.reason() == Reason::Token && error.to_string().contains("--join-token"), "{error}");
    // A directory of a cluster of its own.
    let mut stranger = Machine::new(3);
    let own = stranger.start(|_| ()).await;
    own.node.stop().await;
    let joining = Options { join: vec![address.clone()], ..stranger.options() };
    let found = match stranger.boot(joining).await {
        Err(error) => (error.reason(), error.to_string()),
        Ok(boot) => {
            let stop = timeout(LONG, boot.failed()).await.expect("it goes on");
            (stop.reason, stop.why)
        }
    };
    assert!(found.0 == Reason::Foreign && found.1.contains("take --join away"), "{found:?}");
    first.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_waits_until_somebody_answers_and_says_for_whom() {
    let mut machine = Machine::new(1);
    let reserved = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.address().to_string();
    drop(reserved);
    let said = Arc::new(Mutex::new(Vec::new()));
    let joiner = Machine::new(2);
    let telling = said.clone();
    let options = Options {
        join: vec![address.clone()],
        progress: Arc::new(move |text| telling.lock().push(text)),
        ..joiner.options()
    };
    let vfs: Arc<dyn disk::Vfs> = Arc::new(joiner.vfs.clone());
    let joining = tokio::spawn(boot(options, vfs, None));
    until(|| said.lock().iter().any(|text| text.contains(&address))).await;
    let first = machine.start(|options| options.listen = address).await;
    let boot = timeout(LONG, joining).await.expect("it waits for ever").unwrap().unwrap();
    assert_eq!(boot.directory().cluster, first.node.view().cluster);
    until(|| first.node.view().nodes.len() == 2).await;
    first.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_by_a_bug_stops_the_node_and_says_so() {
    let mut machine = Machine::new(77);
    let running = machine.start(|_| ()).await;
    let watched = running.node.shared.watch("this test");
    let ended = tokio::spawn(async move {
        let _watched = watched;
        tokio::task::yield_now().await;
        panic!("a planned bug");
    });
    assert!(ended.await.is_err());
    let stop = timeout(LONG, running.node.failed()).await.unwrap();
    assert!(stop.why.contains("this test ended by a bug"), "{stop}");
    running.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_gets_its_copies_as_files_and_then_what_these_lack() {
    let mut machines = [Machine::new(1), Machine::new(2)];
    let first = machines[0].start(|_| ()).await;
    let key = first.node.view().key;
    let append = |at: i64| {
        first.memory.append_replicated(&batch_with_key(key, &series(50, at)), None).unwrap();
    };
    append(NOW);
    until(|| first.memory.commit().is_ok()).await;
    first.memory.seal(TimeRange::new(NOW, NOW + 1_999), 3 << 20, 1);
    append(NOW + 5_000);
    first.node.propose(Command::NoteData).await.unwrap();
    let address = first.node.address().to_string();
    let slowly = |options: &mut Options| {
        options.join = vec![address];
        options.bootstrap_bytes_per_second = 1 << 20;
    };
    let second = machines[1].start(slowly).await;
    let files = u64::from(SHARDS) * (3 << 20);
    // The leader is told how far it is.
    let is_told = || {
        let copies = first.node.status().copies;
        let sum = |of: fn(&CopyStatus) -> Option<u64>| copies.values().filter_map(of).sum::<u64>();
        let total = sum(|copy| copy.bytes_total);
        copies.values().all(|copy| copy.node == second.node.me())
            && total >= files
            && (1..total).contains(&sum(|copy| Some(copy.bytes_done)))
    };
    until(is_told).await;
    assert!(second.node.status().copies.is_empty());
    second.node.limit_filling(0).await;
    until(|| [&first, &second].iter().all(|running| is_whole(&running.node, 2))).await;
    assert_eq!(second.memory.content(), first.memory.content());
    // Only what was given up is forgotten, whoever decided so before.
    let (shard, since) = (model::Shard(0), second.node.view().placement.changed(model::Shard(0)));
    (0..=since).for_each(|since| second.node.shared.forget(shard, since));
    assert_eq!(second.memory.content(), first.memory.content());
    let received = second.node.status().transport.received[Kind::Bootstrap as usize];
    assert!(received.bytes >= files, "{received:?}");
    let progress = second.node.filling();
    assert_eq!((progress.filled, progress.running), (u64::from(SHARDS), 0), "{progress:?}");
    assert!(progress.bytes_done >= files && progress.bytes_done == progress.bytes_total, "{progress:?}");
}
