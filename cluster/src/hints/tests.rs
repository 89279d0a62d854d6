use super::*;
use crate::placement::NodeId;
use crate::rows::Limits;
use crate::testing::{KEY, Memory, batch, labels, view};
use crate::view::{Health, View};
use crate::write::{Header, Most, Received, Receiver, Reply, Session};
use disk::crash::Exploration;
use disk::{CrashVfs, Vfs};
use model::{Labels, Replica, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;

const SHARDS: u32 = 4;
const NODE: NodeId = NodeId(2);

fn options() -> Options {
    Options { segment_bytes: 400, ..Options::new("/data/cluster/hints") }
}

fn open(vfs: &CrashVfs) -> Store {
    Store::open(Arc::new(vfs.clone()) as Arc<dyn Vfs>, options()).expect("a store")
}

/// All hints that are there, by loading and removing.
fn drain(store: &Store, node: NodeId, now: Timestamp) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(chunk) = store.load(node, now).expect("loads") {
        all.extend(chunk.hints.into_iter().map(|hint| hint.sections));
        store.remove(node, chunk.segment).expect("removes");
    }
    all
}

fn hint(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(10)
}

#[test]
fn hints_come_back_in_order_after_a_restart_and_are_gone_when_they_were_removed() {
    let vfs = CrashVfs::new();
    let store = open(&vfs);
    (0..50).for_each(|i| store.add(NODE, Timestamp(1000), &hint(i)).unwrap());
    store.add(NodeId(3), Timestamp(1000), &hint(99)).unwrap();
    store.commit().unwrap();
    drop(store);
    let store = open(&vfs);
    assert_eq!(store.nodes().iter().map(|(node, _)| node.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(drain(&store, NODE, Timestamp(1000)), (0..50).map(hint).collect::<Vec<_>>());
    assert_eq!(store.nodes().len(), 1);
    // More can come while some are removed.
    store.add(NODE, Timestamp(1000), &hint(7)).unwrap();
    store.commit().unwrap();
    drop(store);
    let store = open(&vfs);
    assert_eq!(drain(&store, NODE, Timestamp(1000)), [hint(7)]);
    store.forget(NodeId(3)).unwrap();
    assert_eq!(store.nodes(), []);
    assert_eq!(open(&vfs).nodes(), []);
}

#[test]
fn at_every_crash_committed_hints_are_there_and_none_is_invented() {
    let vfs = CrashVfs::new();
    let store = open(&vfs);
    // After how many operations each hint must be there, and may be gone.
    let mut added: Vec<(usize, usize)> = Vec::new();
    for round in 0..3 {
        (0..4).for_each(|i| store.add(NODE, Timestamp(5), &hint(round * 4 + i)).unwrap());
        store.commit().unwrap();
        added.resize(added.len() + 4, (vfs.operations(), usize::MAX));
    }
    let before = vfs.operations();
    let chunk = store.load(NODE, Timestamp(5)).unwrap().expect("the oldest");
    store.remove(NODE, chunk.segment).unwrap();
    added.iter_mut().take(chunk.hints.len()).for_each(|one| one.1 = before);
    let mut states = 0;
    for crash in vfs.journal().states(&Exploration::default()) {
        let found = drain(&open(&crash.vfs), NODE, Timestamp(5));
        let must = |(i, (from, to)): (usize, &(usize, usize))| {
            (*from <= crash.after && crash.after < *to).then(|| hint(i as u32))
        };
        let must: Vec<Vec<u8>> = added.iter().enumerate().filter_map(must).collect();
        assert!(must.iter().all(|one| found.contains(one)), "{crash}: {} of {}", found.len(), must.len());
        assert!(found.iter().all(|one| (0..12).any(|i| hint(i) == *one)), "{crash}");
        states += 1;
    }
    assert!(states > 50, "{states}");
}

#[test]
fn the_oldest_hints_make_room_and_old_ones_expire() {
    let vfs = CrashVfs::new();
    let options = Options { node_bytes_max: 2000, bytes_max: 3000, age_max_ms: 100, ..options() };
    let store = Store::open(Arc::new(vfs), options).unwrap();
    for i in 0..200 {
        store.add(NODE, Timestamp(1000), &hint(i)).unwrap();
        assert!(store.counts().bytes <= 2000);
    }
    for i in 0..40 {
        store.add(NodeId(3), Timestamp(1050), &hint(i)).unwrap();
        assert!(store.counts().bytes <= 3000);
    }
    let counts = store.counts();
    assert!(counts.dropped_bytes > 0 && counts.added == 240 && counts.expired_bytes == 0, "{counts:?}");
    let chunk = store.load(NODE, Timestamp(1000)).unwrap().expect("some are left");
    assert!(chunk.hints[0].sections > hint(100) || chunk.hints[0].sections[0] > 100, "the oldest are gone");
    store.expire(Timestamp(1120)).unwrap();
    assert_eq!(store.load(NODE, Timestamp(1120)).unwrap(), None);
    assert!(store.counts().expired_bytes > 0);
    assert!(!drain(&store, NodeId(3), Timestamp(1120)).is_empty(), "those are newer");
    // One that is larger than all room is not kept.
    store.add(NODE, Timestamp(1120), &[0; 4000]).unwrap();
    assert_eq!(store.nodes(), []);
}

/// The situation of a node that sends hints.
fn situation<'a>(now_ms: u64, view: &'a View, replica: &'a Memory) -> Situation<'a> {
    let (session, most) = (Session::new(1, 1), Most::of_frame(16 << 20));
    Situation { now_ms, oldest: Timestamp(0), view, session, replica, timeout_ms: 1000, most }
}

/// A chunk of these hints.
fn chunk(hints: impl IntoIterator<Item = Vec<u8>>) -> Option<Chunk> {
    let hints = hints.into_iter().map(|sections| Hint { missed_at: Timestamp(5), sections });
    Some(Chunk { segment: disk::log::SegmentNumber(4), hints: hints.collect() })
}

/// A node that gets its hints: the receiver of the write path, and a store in memory.
struct Target {
    view: View,
    replica: Memory,
    receiver: Receiver,
}

impl Target {
    fn receive(&self, frame: &[u8]) -> Vec<u8> {
        let Received { round, reply, .. } =
            self.receiver.receive(&self.view, &self.replica, NodeId(1), frame);
        self.replica.commit().unwrap();
        reply.encode(round)
    }
}

fn target() -> Target {
    Target {
        view: view(2, 3, 3, SHARDS),
        replica: Memory::new(SHARDS),
        receiver: Receiver::new(Limits::default()),
    }
}

/// A hint for rows of these series, by id or by labels.
fn missed(names: &[&str], checked: bool) -> Vec<u8> {
    use crate::rows::{Encoder, Name};
    let mut out = Vec::new();
    let mut encoder = Encoder::default();
    for name in names {
        let rows = batch(&[(labels(name, &[]), vec![(1, 1.5)])]);
        let series = &rows.series[0];
        let name = if checked { Name::Labels(rows.labels(series)) } else { Name::Id(series.id) };
        encoder.push_batch(name, &rows, series);
        encoder.finish(series.id.shard(SHARDS), 0, &mut out);
    }
    out
}

#[test]
fn a_replay_waits_for_the_node_sends_everything_and_brings_labels_where_they_are_asked_for() {
    let vfs = CrashVfs::new();
    let store = open(&vfs);
    let (own, target) = (Memory::new(SHARDS), target());
    own.put(&labels("a", &[]), &[(1, 1.5)]);
    own.put(&labels("b", &[]), &[(1, 1.5)]);
    target.replica.put(&labels("b", &[]), &[]);
    // "a" is known here only, "b" there too, "c" came with its labels, "d" nobody knows.
    for hint in [missed(&["a", "b"], false), missed(&["c"], true), missed(&["d"], false)] {
        store.add(NODE, Timestamp(5), &hint).unwrap();
    }
    let mut replay = Replay::new(NODE, 1000);
    let mut view = view(1, 3, 3, SHARDS);
    let (mut sent, mut sent_ms) = (0, BTreeSet::new());
    view.nodes.get_mut(&NODE).expect("there").health = Health::Down;
    for now_ms in (0..30_000).step_by(10) {
        if now_ms == 5000 {
            view.nodes.get_mut(&NODE).expect("there").health = Health::Up;
        }
        let situation = situation(now_ms, &view, &own);
        let mut effect = replay.step(&situation, Event::Tick);
        while let Some(todo) = effect {
            effect = match todo {
                Effect::Load => {
                    replay.step(&situation, Event::Loaded(store.load(NODE, Timestamp(5)).unwrap()))
                }
                // The first one is lost.
                Effect::Send(_) if sent == 0 => {
                    sent = 1;
                    replay.step(&situation, Event::Failed)
                }
                Effect::Send(frame) => {
                    sent += frame.len();
                    sent_ms.insert(now_ms);
                    replay.step(&situation, Event::Reply(&target.receive(&frame)))
                }
                Effect::Remove(segment) => {
                    store.remove(NODE, segment).unwrap();
                    None
                }
            };
        }
    }
    assert!(sent_ms.first().is_some_and(|first| *first >= 6000), "after it is up, and a pause");
    assert!(sent_ms.last().unwrap() - sent_ms.first().unwrap() >= 100, "no faster than it may");
    let ids: BTreeSet<_> = target.replica.content().into_iter().map(|(id, ..)| id).collect();
    let expected = ["a", "b", "c"].map(|name| KEY.id(labels(name, &[]).as_bytes()));
    assert_eq!(ids, expected.into());
    assert_eq!(replay.replayed(), Replayed { delivered: 2, dropped: 1, expired_bytes: 0 });
    assert!(replay.why_dropped().contains("labels are not known"), "{}", replay.why_dropped());
    assert_eq!(store.nodes(), []);
}

#[test]
fn a_hint_that_is_too_large_for_a_frame_goes_out_in_several_and_so_do_the_labels_that_it_lacks() {
    let (own, target) = (Memory::new(SHARDS), target());
    let long = "x".repeat(200);
    let all: Vec<Labels> = (0..60).map(|i| labels("up", &[("i", &i.to_string()), ("long", &long)])).collect();
    all.iter().for_each(|labels| own.put(labels, &[]));
    // By id, a third of them with so many rows that the rows alone do not fit.
    let mut hint = Vec::new();
    let mut rows = 0;
    for (i, labels) in all.iter().enumerate() {
        let samples: Vec<(i64, f64)> =
            (0..if i % 3 == 0 { 300 } else { 1 }).map(|t| (t * t * 7, (t as f64).sqrt())).collect();
        rows += samples.len();
        let rows = batch(&[(labels.clone(), samples)]);
        let mut encoder = crate::rows::Encoder::default();
        encoder.push_batch(crate::rows::Name::Id(rows.series[0].id), &rows, &rows.series[0]);
        encoder.finish(rows.series[0].id.shard(SHARDS), 0, &mut hint);
    }
    let most = Most { bytes: 1500, ..Most::of_frame(0) };
    assert!(hint.len() > 10 * most.bytes);
    let view = view(1, 3, 3, SHARDS);
    let mut replay = Replay::new(NODE, u64::MAX);
    let mut effect = None;
    let mut frames = 0;
    for now_ms in 0..10_000 {
        let situation = Situation { most, ..situation(now_ms, &view, &own) };
        effect = match effect {
            None => replay.step(&situation, Event::Tick),
            Some(Effect::Load) => replay.step(&situation, Event::Loaded(chunk([hint.clone()]))),
            Some(Effect::Send(frame)) => {
                assert!(frame.len() <= most.bytes + Header::BYTES, "{}", frame.len());
                frames += 1;
                replay.step(&situation, Event::Reply(&target.receive(&frame)))
            }
            Some(Effect::Remove(_)) => break,
        };
    }
    assert!(matches!(effect, Some(Effect::Remove(_))), "{effect:?}");
    assert!(frames > 20, "{frames}");
    assert_eq!(target.replica.content().len(), rows);
    assert_eq!(replay.replayed(), Replayed { delivered: 1, dropped: 0, expired_bytes: 0 });
}

/// The name of a series of this shard.
fn name_in(shard: model::Shard) -> String {
    let here = |name: &String| KEY.id(labels(name, &[]).as_bytes()).shard(SHARDS) == shard;
    (0..).map(|i| format!("n{i}")).take(100).find(here).expect("every fourth")
}

#[test]
fn what_a_node_no_longer_holds_is_not_sent() {
    let own = Memory::new(SHARDS);
    let far = view(1, 5, 3, SHARDS);
    let shard = model::Shard(0);
    let stranger =
        *far.nodes.keys().find(|node| !far.held_by(**node).contains(shard)).expect("three of five");
    let mut replay = Replay::new(stranger, 1 << 20);
    assert_eq!(replay.step(&situation(0, &far, &own), Event::Tick), Some(Effect::Load));
    let hints = chunk([missed(&[&name_in(shard)], false)]);
    let removed = replay.step(&situation(0, &far, &own), Event::Loaded(hints));
    assert_eq!(removed, Some(Effect::Remove(disk::log::SegmentNumber(4))));
    assert_eq!(replay.replayed(), Replayed::default());
}

/// Answers every frame of a hint with this, until `until_ms` have passed or it is done with: how often, and when first and last.
fn refuse(replay: &mut Replay, reply: &Reply, until_ms: u64) -> (usize, Option<Effect>) {
    let (own, view) = (Memory::new(SHARDS), view(1, 3, 3, SHARDS));
    let mut effect = None;
    let mut refusals = 0;
    for now_ms in (0..until_ms).step_by(100) {
        let situation = situation(now_ms, &view, &own);
        effect = match effect {
            None => replay.step(&situation, Event::Tick),
            Some(Effect::Load) => {
                let hints = [missed(&["a"], true), missed(&["b"], true)];
                replay.step(&situation, Event::Loaded(chunk(hints)))
            }
            Some(Effect::Send(frame)) => {
                refusals += 1;
                let (header, _) = Header::decode(&frame).unwrap();
                replay.step(&situation, Event::Reply(&reply.encode(header.round)))
            }
            Some(Effect::Remove(_)) => break,
        };
    }
    (refusals, effect)
}

#[test]
fn a_refusal_that_passes_drops_nothing_and_is_asked_about_less_and_less_often() {
    for reply in [
        Reply::Failed { why: "read-only".into() },
        Reply::NotHeld { shard: model::Shard(1) },
        Reply::StaleEpoch { epoch: 9 },
        Reply::BehindEpoch { epoch: 0 },
    ] {
        let mut replay = Replay::new(NODE, 1 << 20);
        let (refusals, left) = refuse(&mut replay, &reply, 600_000);
        assert!(refusals > 20, "{reply:?}: {refusals}");
        if matches!(reply, Reply::Failed { .. }) {
            assert!(refusals < 40, "{refusals}");
            assert_eq!(replay.why_refused(), Some("read-only"));
        }
        assert!(!matches!(left, Some(Effect::Remove(_))), "{reply:?}");
        assert_eq!(replay.replayed(), Replayed::default(), "{reply:?}");
        // It takes them in the end.
        let all = Reply::Appended { missing: vec![], unknown: vec![], refused: vec![] };
        let (own, view) = (Memory::new(SHARDS), view(1, 3, 3, SHARDS));
        let mut effect = left;
        for now_ms in (600_000..700_000).step_by(100) {
            effect = match effect {
                Some(Effect::Send(_)) => {
                    replay.step(&situation(now_ms, &view, &own), Event::Reply(&all.encode(1)))
                }
                Some(Effect::Remove(_)) => break,
                _ => replay.step(&situation(now_ms, &view, &own), Event::Tick),
            };
        }
        assert!(matches!(effect, Some(Effect::Remove(_))), "{reply:?}: {effect:?}");
        assert_eq!(replay.replayed(), Replayed { delivered: 2, dropped: 0, expired_bytes: 0 });
        assert_eq!(replay.why_refused(), None);
    }
}

#[test]
fn what_a_node_will_never_take_is_dropped_counted_and_said() {
    let mut replay = Replay::new(NODE, 1 << 20);
    let (refusals, left) = refuse(&mut replay, &Reply::Never { why: "no rows".into() }, 60_000);
    assert!(matches!(left, Some(Effect::Remove(_))), "{left:?}");
    assert_eq!((refusals, replay.why_dropped()), (2, "no rows"));
    assert_eq!(replay.replayed(), Replayed { delivered: 0, dropped: 2, expired_bytes: 0 });
}

#[test]
fn a_hint_that_becomes_too_old_while_its_node_refuses_makes_way() {
    let mut replay = Replay::new(NODE, 1 << 20);
    refuse(&mut replay, &Reply::Failed { why: "read-only".into() }, 60_000);
    let (own, view) = (Memory::new(SHARDS), view(1, 3, 3, SHARDS));
    let now = situation(200_000, &view, &own);
    let later = Situation { oldest: Timestamp(6), ..now };
    assert!(matches!(replay.step(&later, Event::Tick), Some(Effect::Remove(_))));
    let expired_bytes = 2 * missed(&["a"], true).len() as u64;
    assert_eq!(replay.replayed(), Replayed { delivered: 0, dropped: 0, expired_bytes });
}

#[test]
fn the_example_of_the_page_is_what_is_written() {
    use crate::rows::{Encoder, Name, Rows, Values};
    let (mut encoder, mut hint) = (Encoder::default(), Vec::new());
    let rows = Rows { timestamps: &[1000], values: Values::Floats(&[2.0]), starts: &[] };
    encoder.push(Name::Id(model::SeriesId(1 << 126 | 9)), rows);
    encoder.finish(model::Shard(1), 0, &mut hint);
    let vfs = CrashVfs::new();
    let store = open(&vfs);
    store.add(NODE, Timestamp(1000), &hint).unwrap();
    store.commit().unwrap();
    drop(store);
    let page = include_str!("../../../docs/format/hints.md");
    let example = page.split("```example").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let columns = example.lines().filter_map(|line| line.split('|').nth(1));
    let hex = columns.flat_map(str::split_whitespace);
    let written: Vec<u8> = hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut found = Vec::new();
    let dir = std::path::Path::new("/data/cluster/hints/00000000000000000000000000000002");
    disk::log::Log::read(Arc::new(vfs), dir, &mut |record| found.push(record.payload.to_vec())).unwrap();
    assert_eq!(found, [written]);
}
