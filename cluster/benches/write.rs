//! The codec of rows and the write path without network and engine: `cargo bench -p cluster --bench write`.
//!
//! Times are the process's CPU time, the best of several rounds.

use cluster::rows::{Decoder, Dictionary as Numbers, Encoder, Limits, Name, Rows, Values, sections};
use model::{Batch, SeriesId, SeriesKey, Shard};
use std::hint::black_box;
use std::time::Instant;

const KEY: SeriesKey = SeriesKey([1, 2, 3, 4]);
const SHARDS: u32 = 64;

/// Numbers as a plain column.
struct Column(Vec<SeriesId>);

impl Numbers for Column {
    fn resolve(&mut self, number: u32) -> Option<SeriesId> {
        self.0.get(number as usize).copied()
    }

    fn define(&mut self, _: u32, _: SeriesId) -> bool {
        true
    }
}

/// The least nanoseconds that one of `count` things takes.
fn best(count: usize, mut run: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_nanos() as f64 / count as f64);
    }
    best
}

/// A small generator, the same numbers each time.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}

fn codec(what: &str, series: usize, rows: usize, value: impl Fn(u64, usize, usize) -> f64) {
    let mut seed = 1;
    let columns: Vec<(Vec<i64>, Vec<f64>)> = (0..series)
        .map(|s| {
            let time = |r: usize| 1_700_000_000_000 + r as i64 * 15_000;
            ((0..rows).map(time).collect(), (0..rows).map(|r| value(random(&mut seed), s, r)).collect())
        })
        .collect();
    let ids = Column((0..series as u128 * 4).map(|i| SeriesId(i + 1)).collect());
    let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
    let encoded = best(series * rows, || {
        bytes.clear();
        for (at, (timestamps, values)) in columns.iter().enumerate() {
            let rows = Rows { timestamps, values: Values::Floats(values), starts: &[] };
            encoder.push(Name::Ref(at as u32 * 3), rows);
        }
        encoder.finish(Shard(0), 1, &mut bytes);
    });
    let decoder = Decoder { key: KEY, shards: SHARDS, limits: Limits::default() };
    let (mut batch, mut unresolved, mut ids) = (Batch::default(), Vec::new(), ids);
    let decoded = best(series * rows, || {
        batch.clear();
        for section in sections(&bytes) {
            let section = section.expect("a section");
            decoder.decode(&section, &mut ids, &mut batch, &mut unresolved).expect("decodes");
        }
        black_box(&batch);
    });
    let size = bytes.len() as f64 / (series * rows) as f64;
    println!("{what:34} {size:6.2} bytes/row  encode {encoded:6.2} ns/row  decode {decoded:6.2} ns/row");
}

fn main() {
    codec("1 row a series, floats", 31, 1, |r, _, _| (r >> 11) as f64 / 1e3);
    codec("1 row a series, integers", 31, 1, |r, _, _| (r % 100_000) as f64);
    codec("240 rows a series, floats", 100, 240, |r, _, _| (r >> 11) as f64 / 1e3);
    codec("240 rows a series, two decimals", 100, 240, |r, _, _| (r % 10_000) as f64 / 100.0);
    codec("240 rows a series, a counter", 100, 240, |r, s, i| {
        (s * 10_000 + i * 20 + (r % 20) as usize) as f64
    });
    codec("240 rows a series, constant", 100, 240, |_, s, _| s as f64);
    path();
}

/// A write of 2,000 series of 100,000, one sample each, through coordinator and receiver.
fn path() {
    use cluster::placement::{Node, NodeId, NodeState, Placement, Policy, compute};
    use cluster::quorum::Consistency;
    use cluster::view::View;
    use cluster::write::{Bounds, Context, Coordinator, Dictionary, Local, Reply, Session};
    use model::BatchSeries;
    use std::num::{NonZeroU8, NonZeroU32};
    use std::sync::Arc;

    let nodes: Vec<Node> = (1..=3)
        .map(|id| Node {
            id: NodeId(id),
            domain: format!("zone-{id}").parse().expect("a path"),
            capacity: NonZeroU32::MIN,
            state: NodeState::Up,
        })
        .collect();
    let empty = Placement::empty(SHARDS).expect("a power of two");
    let replication_factor = NonZeroU8::new(3).expect("not zero");
    let target =
        compute(&empty, &nodes, &Policy { replication_factor, shards: SHARDS }).expect("a placement");
    let placement = empty.adopt(&target);
    let view = Arc::new(View { key: KEY, ..View::at_rest(7, NodeId(1), &nodes, 3, placement) });
    let context = Context {
        view: view.clone(),
        bounds: Bounds::ALL,
        consistency: Consistency::Majority,
        dictionary: Arc::new(Dictionary::new(SHARDS)),
        session: Session::new(1, 1),
        timeout_ms: 1000,
    };
    let mut seed = 7;
    let ids: Vec<SeriesId> = (0..100_000)
        .map(|_| SeriesId(u128::from(random(&mut seed)) << 64 | u128::from(random(&mut seed))))
        .collect();
    let batches: Vec<Arc<Batch>> = ids
        .chunks(2000)
        .map(|ids| {
            let series = ids.iter().enumerate().map(|(i, id)| BatchSeries {
                id: *id,
                checked: false,
                labels_at: 0,
                labels_len: 0,
                floats_at: i as u32,
                floats_len: 1,
                histograms_at: 0,
                histograms_len: 0,
            });
            Arc::new(Batch {
                series: series.collect(),
                timestamps: vec![1_700_000_000_000; ids.len()],
                values: (0..ids.len()).map(|_| ((random(&mut seed) >> 11) as f64 / 1e3).to_bits()).collect(),
                ..Batch::default()
            })
        })
        .collect();
    let reply = Reply::Appended { missing: vec![], unknown: vec![], refused: vec![] }.encode(1);
    let mut frames = Vec::new();
    let coordinated = best(ids.len(), || {
        frames.clear();
        for batch in &batches {
            let mut coordinator = Coordinator::begin(context.clone(), batch, None);
            let sends = coordinator.on_local(Ok(Local::default()));
            coordinator.on_durable(Ok(()));
            sends.iter().for_each(|send| drop(coordinator.on_reply(send.to, &reply)));
            assert_eq!(coordinator.outcome().map(|result| result.is_ok()), Some(true));
            frames.extend(sends.into_iter().next());
        }
    });
    let bytes = frames.iter().map(|frame| frame.body.len()).sum::<usize>() as f64 / ids.len() as f64;
    println!(
        "2,000 of 100,000 series a request, floats: coordinator {coordinated:.1} ns/row, {bytes:.2} bytes/row"
    );
}
