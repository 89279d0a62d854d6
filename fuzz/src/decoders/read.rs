//! What nodes ask and answer of reads: any request is answered or refused, any answer is taken or refused.

use cluster::placement::NodeId;
use cluster::quorum::Consistency;
use cluster::read::{Bounds, Effect, Event, Lookup, Plan, Request, Select, What, serve};
use disk::CrashVfs;
use model::{
    Batch, BatchSeries, LabelQuery, Labels, Matcher, Replica, Samples, Selection, SeriesSet, TimeRange,
    Timestamp,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::{Engine, Identity, Options};

const RANGE: TimeRange = TimeRange { min: Timestamp(0), max: Timestamp(1_000_000) };
/// Of no node that holds anything, so that everything is asked for.
const READER: u128 = 9;

enum Machine {
    Select(Box<Select>),
    Lookup(Box<Lookup>),
}

struct Run {
    machine: Machine,
    /// Number, addressee and bytes of every request so far.
    asked: Vec<(u32, NodeId, Vec<u8>)>,
}

fn matchers() -> Vec<Matcher> {
    vec![Matcher::equal("a", "b")]
}

fn plan() -> Plan {
    Plan {
        consistency: Consistency::Majority,
        partial: true,
        digests: true,
        hedge_after_ms: 10,
        deadline_ms: 1000,
        load: BTreeMap::new(),
    }
}

impl Run {
    fn new(lookup: bool) -> Run {
        let (view, bounds) = (Arc::new(super::view(READER)), Bounds { fetch_bytes_max: 1 << 20 });
        let machine = if lookup {
            let query =
                LabelQuery { selectors: vec![matchers()], range: RANGE, limit: Some(100), shards: None };
            Machine::Lookup(Box::new(Lookup::new(view, What::Series, query, plan(), bounds)))
        } else {
            let selection = Selection { matchers: matchers(), range: RANGE, series_max: 100, shards: None };
            Machine::Select(Box::new(Select::new(view, selection, plan(), bounds)))
        };
        let mut run = Run { machine, asked: Vec::new() };
        run.step(0, Event::Tick);
        run
    }

    fn step(&mut self, now_ms: u64, event: Event) {
        let effects = match &mut self.machine {
            Machine::Select(select) => select.step(now_ms, event),
            Machine::Lookup(lookup) => lookup.step(now_ms, event),
        };
        for effect in effects {
            if let Effect::Send { number, to, request, .. } = effect {
                self.asked.push((number, to, request));
            }
        }
    }

    /// Nobody says anything any more. How much was found.
    fn finish(mut self) -> usize {
        [500, 1000, 2000].into_iter().for_each(|now_ms| self.step(now_ms, Event::Tick));
        match self.machine {
            // Over a limit is an answer, too.
            Machine::Select(select) => select.finish().map_or(0, |set| {
                let mut samples = Samples::default();
                for index in 0..set.len() {
                    set.read(index, RANGE, &mut samples).expect("what was taken can be read");
                    assert_eq!(set.labels(index).get("a"), Some("b"));
                    assert!(samples.timestamps.iter().all(|t| RANGE.contains(*t)));
                }
                set.len()
            }),
            Machine::Lookup(lookup) => lookup.series().map_or(0, |found| {
                assert!(found.items.len() <= 100 && found.items.is_sorted());
                found.items.len()
            }),
        }
    }
}

/// A request; or parts of answers, each with a byte in front that says to which request.
pub fn check(bytes: &[u8]) -> bool {
    let request = Request::decode(bytes);
    if let Ok(request) = &request {
        let again = Request::decode(&request.encode()).expect("what was encoded decodes");
        assert_eq!(again.encode(), request.encode());
    }
    let found = [false, true].map(|lookup| {
        let mut run = Run::new(lookup);
        for part in super::parts(bytes) {
            let Some((which, chunk)) = part.split_first() else { continue };
            let number = run.asked[usize::from(*which) % run.asked.len()].0;
            run.step(1, Event::Chunk { number, bytes: chunk.to_vec() });
        }
        run.finish()
    });
    request.is_ok() || found.iter().any(|found| *found > 0)
}

/// A replica with some series that match; of the other one's, it lacks a row.
fn replica(lacks: i64) -> Arc<Engine> {
    let mut options = Options::new("/data", || 7);
    options.identity = Some(Identity { cluster: super::CLUSTER, node: 1, disk: 1, shards: 2 });
    let clock = Arc::new(|| RANGE.max);
    let engine =
        Engine::open(Arc::new(CrashVfs::new()), options, clock, &|_| {}).expect("an empty directory");
    let key = super::view(1).key;
    let mut batch = Batch::default();
    for i in 0..6 {
        let labels = Labels::from_pairs([("__name__", "m"), ("a", "b"), ("i", &i.to_string())]);
        let labels = labels.expect("valid labels");
        let floats_at = batch.timestamps.len() as u32;
        for t in (0..5).filter(|t| *t != lacks) {
            batch.timestamps.push(1_000 * t);
            batch.values.push((t as f64 / 3.0).to_bits());
        }
        batch.series.push(BatchSeries {
            id: key.id(labels.as_bytes()),
            checked: true,
            labels_at: batch.bytes.len() as u32,
            labels_len: labels.as_bytes().len() as u32,
            floats_at,
            floats_len: batch.timestamps.len() as u32 - floats_at,
            histograms_at: 0,
            histograms_len: 0,
        });
        batch.bytes.extend_from_slice(labels.as_bytes());
    }
    engine.append_replicated(&Arc::new(batch), None).expect("a simulated disk");
    engine
}

pub fn seeds() -> Vec<Vec<u8>> {
    let replicas = [replica(2), replica(3)];
    let mut seeds = Vec::new();
    for lookup in [false, true] {
        let mut run = Run::new(lookup);
        let (mut served, mut chunks) = (0, Vec::new());
        while let Some((number, to, request)) = run.asked.get(served).cloned() {
            let mut emit = |chunk: Vec<u8>| {
                chunks.push([&[served as u8][..], &chunk].concat());
                run.step(1, Event::Chunk { number, bytes: chunk });
                Ok(())
            };
            let view = super::view(to.0);
            let _ = serve(&view, &*replicas[to.0 as usize - 1], &request, 1, &|| 1, &mut emit);
            seeds.push(request);
            served += 1;
        }
        seeds.push(super::join(chunks));
    }
    seeds
}
