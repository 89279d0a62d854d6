//! What a read of a majority costs besides reading one copy: 100,000 series of an hour, 240 samples each.
//!
//! Copies lie in memory, delta-coded like an open chunk, so that reading one decodes it, as an engine does. Times are of one thread:
//! `cargo bench -p cluster --bench read`.

use cluster::placement::NodeId;
use cluster::read::{Bounds, Effect, Event, Plan, Select, serve};
use cluster::view::View;
use model::*;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const SERIES: usize = 100_000;
const ROWS: usize = 240;
const SHARDS: u32 = 64;
const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);
const STEP_MS: i64 = 15_000;

/// A copy in memory. Of every `missing`-th series it lacks the last sample.
struct Copy {
    ids: Arc<Vec<SeriesId>>,
    labels: Arc<Vec<Labels>>,
    bytes: Arc<Vec<Vec<u8>>>,
    missing: Option<usize>,
}

struct Series {
    all: Arc<Vec<SeriesId>>,
    labels: Arc<Vec<Labels>>,
    bytes: Arc<Vec<Vec<u8>>>,
    missing: Option<usize>,
    chosen: Vec<u32>,
}

impl SeriesSet for Series {
    fn len(&self) -> usize {
        self.chosen.len()
    }
    fn id(&self, index: usize) -> SeriesId {
        self.all[self.chosen[index] as usize]
    }
    fn labels(&self, index: usize) -> Labels {
        self.labels[self.chosen[index] as usize].clone()
    }
    fn read(&self, index: usize, _: TimeRange, into: &mut Samples) -> Result<(), Error> {
        into.clear();
        let at = self.chosen[index] as usize;
        decode(&self.bytes[at], into);
        if self.missing.is_some_and(|every| at.is_multiple_of(every)) {
            into.timestamps.pop();
            into.values.pop();
        }
        Ok(())
    }
}

fn decode(bytes: &[u8], into: &mut Samples) {
    let (mut time, mut value, mut rest) = (0, 0i64, bytes);
    while let Some((delta, behind)) = varint::take(rest) {
        value += varint::unzigzag(delta);
        time += STEP_MS;
        into.timestamps.push(time);
        into.values.push(value as f64);
        rest = behind;
    }
}

impl Sink for Copy {
    fn key(&self) -> SeriesKey {
        KEY
    }
    fn append(&self, _: &Arc<Batch>, _: Option<&[u32]>) -> Result<Appended, Error> {
        Err(Error::Canceled)
    }
    fn describe(&self, _: &[Metadata]) -> Result<(), Error> {
        Ok(())
    }
}

impl Source for Copy {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, Error> {
        let wanted = selection.shards.as_ref().expect("a cluster names its shards");
        let here = |at: &u32| wanted.contains(self.ids[*at as usize].shard(SHARDS));
        let chosen = (0..SERIES as u32).filter(here).collect();
        let (all, labels, bytes) = (self.ids.clone(), self.labels.clone(), self.bytes.clone());
        Ok(Box::new(Series { all, labels, bytes, missing: self.missing, chosen }))
    }
    fn series(&self, _: &LabelQuery) -> Result<Limited<Labels>, Error> {
        Ok(Limited::default())
    }
    fn label_names(&self, _: &LabelQuery) -> Result<Limited<String>, Error> {
        Ok(Limited::default())
    }
    fn label_values(&self, _: &str, _: &LabelQuery) -> Result<Limited<String>, Error> {
        Ok(Limited::default())
    }
    fn metadata(&self, _: Option<&str>) -> Result<Vec<Metadata>, Error> {
        Ok(Vec::new())
    }
}

impl Replica for Copy {
    fn shards(&self) -> u32 {
        SHARDS
    }
    fn append_replicated(&self, batch: &Arc<Batch>, only: Option<&[u32]>) -> Result<Appended, Error> {
        self.append(batch, only)
    }
    fn commit(&self) -> Result<(), Error> {
        Ok(())
    }
    fn digest(&self, _: Shard, _: TimeRange) -> Result<Digest, Error> {
        Ok(Digest::default())
    }
    fn summary(&self, _: Shard, _: TimeRange) -> Vec<(TimeRange, Digest)> {
        Vec::new()
    }
    fn known_digests(&self, _: Shard, ranges: &[TimeRange]) -> Vec<Option<Digest>> {
        vec![None; ranges.len()]
    }
    fn series_digests(&self, _: Shard, _: TimeRange) -> Result<Vec<(SeriesId, Digest)>, Error> {
        Ok(Vec::new())
    }
    fn export(
        &self,
        _: Shard,
        _: TimeRange,
        wanted: &[SeriesId],
        _: usize,
        into: &mut Batch,
    ) -> Result<Option<SeriesId>, Error> {
        let mut samples = Samples::default();
        for (at, id) in self.ids.iter().enumerate().filter(|(_, id)| wanted.binary_search(id).is_ok()) {
            samples.clear();
            decode(&self.bytes[at], &mut samples);
            let (floats_at, labels_at) = (into.timestamps.len() as u32, into.bytes.len() as u32);
            into.bytes.extend_from_slice(self.labels[at].as_bytes());
            into.timestamps.extend_from_slice(&samples.timestamps);
            into.values.extend(samples.values.iter().map(|v| v.to_bits()));
            into.series.push(BatchSeries {
                id: *id,
                checked: true,
                labels_at,
                labels_len: self.labels[at].as_bytes().len() as u32,
                floats_at,
                floats_len: samples.timestamps.len() as u32,
                histograms_at: 0,
                histograms_len: 0,
            });
        }
        Ok(None)
    }
    fn labels_of(&self, _: SeriesId, _: &mut Vec<u8>) -> bool {
        false
    }
    fn damage(&self) -> Vec<Damage> {
        Vec::new()
    }
    fn mended(&self, _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn forget(&self, _: Shard) -> Result<model::Forgotten, Error> {
        Ok(model::Forgotten::default())
    }
    fn sealed(&self) -> Option<&dyn SealedBlocks> {
        None
    }
}

fn main() {
    let mut labels = Vec::with_capacity(SERIES);
    let mut ids = Vec::with_capacity(SERIES);
    let mut bytes = Vec::with_capacity(SERIES);
    let mut seed = 7u64;
    for i in 0..SERIES {
        let (pod, node) = (format!("pod-{i}"), format!("node-{}", i % 500));
        let pairs = [("__name__", "cpu_seconds_total"), ("pod", &pod), ("node", &node), ("job", "kubelet")];
        let one = Labels::from_pairs(pairs).expect("labels");
        ids.push(KEY.id(one.as_bytes()));
        labels.push(one);
        let mut column = Vec::new();
        for _ in 0..ROWS {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            varint::put(&mut column, varint::zigzag((seed >> 58) as i64));
        }
        bytes.push(column);
    }
    let (ids, labels, bytes) = (Arc::new(ids), Arc::new(labels), Arc::new(bytes));
    let copy = |missing| Copy { ids: ids.clone(), labels: labels.clone(), bytes: bytes.clone(), missing };
    let (own, other, behind) = (copy(None), copy(None), copy(Some(1000)));
    let view = Arc::new(view());
    let selection = Selection {
        matchers: vec![Matcher::equal("__name__", "cpu_seconds_total")],
        range: TimeRange::new(0, STEP_MS * ROWS as i64),
        series_max: 500_000,
        shards: None,
    };
    let all = Selection { shards: Some(ShardSet::all(SHARDS)), ..selection.clone() };

    for _ in 0..2 {
        let began = Instant::now();
        let set = own.select(&all).expect("a set");
        let one = read(&*set);
        println!("one copy, read once (select, decode, sum): {:.1} ms", ms(began.elapsed()));
        for (name, own) in [("equal copies", &own), ("every 1000th series differs", &behind)] {
            let began = Instant::now();
            let (set, replica_ms, bytes) = majority(&view, own, &other, &selection);
            let coordinator_ms = ms(began.elapsed()) - replica_ms;
            let began = Instant::now();
            let sum = read(&*set);
            println!(
                "majority, {name}: coordinator {coordinator_ms:.1} ms, digests at the replica {replica_ms:.1} ms, \
                 {bytes} bytes on the wire, reading the set {:.1} ms",
                ms(began.elapsed())
            );
            assert_eq!(sum, one, "the same answer");
        }
    }
}

fn read(set: &dyn SeriesSet) -> f64 {
    let (mut samples, mut sum) = (Samples::default(), 0.0);
    for index in 0..set.len() {
        set.read(index, TimeRange::ALL, &mut samples).expect("samples");
        sum += samples.values.iter().sum::<f64>();
    }
    black_box(sum)
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The set, time spent at the other replicas, bytes they sent.
fn majority(
    view: &Arc<View>,
    own: &Copy,
    other: &Copy,
    selection: &Selection,
) -> (Box<dyn SeriesSet>, f64, usize) {
    let plan = Plan {
        consistency: cluster::quorum::Consistency::Majority,
        partial: false,
        digests: true,
        hedge_after_ms: 1000,
        deadline_ms: 60_000,
        load: BTreeMap::new(),
    };
    let mut select = Select::new(view.clone(), selection.clone(), plan, Bounds { fetch_bytes_max: 1 << 30 });
    let mut effects = select.step(0, Event::Tick);
    let (mut replica_ms, mut bytes) = (0.0, 0);
    while let Some(effect) = effects.pop() {
        match effect {
            Effect::Own(ask) => {
                let answer = ask.perform(view, own, 1, &|| false);
                effects.extend(select.step(1, Event::Own { number: ask.number, answer }));
            }
            Effect::Send { number, to, request, .. } => {
                let theirs = View { me: to, ..(**view).clone() };
                let mut chunks = Vec::new();
                let began = Instant::now();
                serve(&theirs, other, &request, 1, &|| 0, &mut |chunk| {
                    chunks.push(chunk);
                    Ok(())
                })
                .expect("an answer");
                replica_ms += ms(began.elapsed());
                for chunk in chunks {
                    bytes += chunk.len();
                    effects.extend(select.step(1, Event::Chunk { number, bytes: chunk }));
                }
            }
        }
    }
    assert!(select.is_done());
    (Box::new(select.finish().expect("a set")), replica_ms, bytes)
}

/// Three nodes, three copies.
fn view() -> View {
    use cluster::placement::{Node, NodeState, Placement, Policy, compute};
    use std::num::{NonZeroU8, NonZeroU32};
    let nodes: Vec<Node> = (1..=3)
        .map(|id| Node {
            id: NodeId(id),
            domain: format!("zone-{id}").parse().expect("a path"),
            capacity: NonZeroU32::MIN,
            state: NodeState::Up,
        })
        .collect();
    let policy = Policy { replication_factor: NonZeroU8::new(3).expect("not zero"), shards: SHARDS };
    let empty = Placement::empty(SHARDS).expect("a power of two");
    let target = compute(&empty, &nodes, &policy).expect("a placement");
    View { key: KEY, ..View::at_rest(7, NodeId(1), &nodes, 3, empty.adopt(&target)) }
}
