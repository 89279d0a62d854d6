//! The blocking source, with threads for other nodes.

use super::*;
use model::{Metadata, MetricType, Source};
use std::any::Any;
use std::sync::Mutex;
use std::time::Instant;

/// Answers from threads.
struct Threads {
    world: Arc<Mutex<World>>,
    began: Instant,
    differed: Mutex<Vec<Shard>>,
}

impl Asker for Threads {
    fn ask(&self, to: NodeId, request: Vec<u8>, _: u64, mut inbox: Inbox) -> Box<dyn Any + Send> {
        let world = self.world.clone();
        std::thread::spawn(move || {
            let (fate, answer) = {
                let world = world.lock().unwrap();
                (world.fate(to), world.answer(to, &request))
            };
            match fate {
                // Held open until the test ends.
                Fate::Silent => std::mem::forget(inbox),
                Fate::Gone => inbox.fail("connection refused"),
                _ => answer.into_iter().flatten().for_each(|chunk| {
                    // Nobody may want more.
                    let _ = inbox.put(chunk);
                }),
            }
        });
        Box::new(())
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn differed(&self, shards: &model::ShardSet, _: TimeRange) {
        self.differed.lock().unwrap().extend(shards.iter());
    }
}

fn source(world: World) -> (ClusterSource<Threads>, Arc<Threads>) {
    let replica = Arc::new(world.nodes[&ME].clone());
    let view = Arc::new(world.view.clone());
    let world = Arc::new(Mutex::new(world));
    let asker = Arc::new(Threads { world, began: Instant::now(), differed: Mutex::default() });
    let options = Options {
        consistency: Consistency::Majority,
        partial: false,
        timeout_ms: 10_000,
        fetch_bytes_max: 1 << 20,
        oldest: i64::MIN,
        threads: 2,
    };
    let shared = Arc::new(Shared::default());
    (ClusterSource::new(Arc::new(move || view.clone()), replica, asker.clone(), shared, options), asker)
}

fn selection() -> Selection {
    Selection {
        matchers: vec![Matcher::equal("__name__", "m")],
        range: RANGE,
        series_max: 2000,
        shards: None,
    }
}

/// A thousand series, of which node 2 and 3 have one sample more than node 1.
fn world() -> World {
    let world = World::new(3, 3, 4);
    for number in 0..1000 {
        for (node, memory) in &world.nodes {
            memory.put(&series(number), &[(10, 1.0), (20, 2.0)]);
            if *node != ME && number == 500 {
                memory.put(&series(number), &[(30, 3.0)]);
            }
        }
    }
    world
}

#[test]
fn selectors_of_a_query_are_read_together_and_differences_are_told() {
    let (source, asker) = source(world());
    let sets = source.select_all(&[selection(), selection()]).unwrap();
    assert_eq!(sets.len(), 2);
    sets.iter().for_each(|set| assert_eq!(content(&**set).len(), 2001));
    let shard = asker.world.lock().unwrap().shard(&series(500));
    assert_eq!(*asker.differed.lock().unwrap(), [shard, shard]);
}

#[test]
fn one_node_gone_or_silent_is_not_noticed() {
    for fate in [Fate::Gone, Fate::Silent, Fate::CutOff] {
        let mut world = world();
        world.fates.insert(NodeId(2), fate);
        let (source, _) = source(world);
        assert_eq!(content(&*source.select(&selection()).unwrap()).len(), 2001, "{fate:?}");
        let query = LabelQuery { selectors: vec![], range: RANGE, limit: None, shards: None };
        assert_eq!(source.series(&query).unwrap().items.len(), 1000);
        assert_eq!(source.label_values("s", &query).unwrap().items.len(), 1000);
        assert_eq!(source.label_names(&query).unwrap().items, ["__name__", "s"]);
    }
}

#[test]
fn two_nodes_gone_are_named() {
    let mut world = world();
    world.fates = BTreeMap::from([(NodeId(2), Fate::Gone), (NodeId(3), Fate::Gone)]);
    let (source, _) = source(world);
    let error = source.select(&selection()).err().unwrap().to_string();
    // As many shards are named as are known to be lost when the first one is.
    assert!(error.starts_with("shard") && error.contains("1 of the 2 replicas that are needed"), "{error}");
    assert!(error.contains("node-2:7421 (connection refused)"), "{error}");
}

#[test]
fn metadata_comes_from_others_only_if_this_node_has_none() {
    let metadata = |help: &str| Metadata {
        family: "up".into(),
        metric_type: MetricType::Gauge,
        help: help.into(),
        unit: String::new(),
    };
    let world = world();
    let me = world.nodes[&ME].clone();
    for node in [2, 3] {
        let known = metadata(&format!("from {node}"));
        model::Sink::describe(&world.nodes[&NodeId(node)], &[known]).unwrap();
    }
    let (source, _) = source(world);
    assert_eq!(source.metadata(Some("up")).unwrap(), [metadata("from 3")]);
    model::Sink::describe(&me, &[metadata("mine")]).unwrap();
    assert_eq!(source.metadata(None).unwrap(), [metadata("mine")]);
}

#[test]
fn reads_that_begin_and_end_all_the_time_do_not_wait_for_each_other() {
    let mut world = World::new(3, 3, 4);
    // Nobody needs to be asked for rows, so that little else is done.
    world.fates.insert(NodeId(2), Fate::Gone);
    let (source, _) = source(world);
    let source = Arc::new(source);
    let (done, all) = std::sync::mpsc::channel();
    for _ in 0..4 {
        let (source, done) = (source.clone(), done.clone());
        std::thread::spawn(move || {
            for _ in 0..1500 {
                source.select(&selection()).unwrap();
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..4 {
        all.recv_timeout(std::time::Duration::from_secs(60)).expect("they wait for each other");
    }
}
