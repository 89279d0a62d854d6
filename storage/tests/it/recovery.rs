//! What a restart brings back.

use crate::world::*;
use model::{Metadata, MetricType, Source};
use std::task::Poll;

#[test]
fn an_engine_that_was_not_closed_comes_back_with_all_kinds_of_samples() {
    let world = World::real();
    world.set_now(50 * WINDOW);
    let engine = world.open();
    let (a, b, c) = (labels("a", 1), labels("b", 2), labels("c", 3));
    for i in 0..100 {
        write(&engine, &a, &[(i * 15, i as f64)]);
    }
    // Late, twice, and a stale marker.
    write(&engine, &a, &[(7, 0.5), (7, 0.25), (1600, model::value::stale())]);
    Rows::default()
        .with_starts(&*engine, &b, &[(10, 5, 1.0), (20, 0, 2.0)])
        .histograms(&*engine, &c, &[(10, 0, histogram(4)), (20, 7, histogram(9))])
        .append(&engine);
    let family = Metadata {
        family: "a".into(),
        metric_type: MetricType::Counter,
        help: "Help.".into(),
        unit: "s".into(),
    };
    model::Sink::describe(&*engine, std::slice::from_ref(&family)).unwrap();
    engine.commit().unwrap();
    let before = read_all(&engine);
    assert_eq!(before[&a].floats.len(), 102);
    assert_eq!(before[&b].floats, [(10, 5, 1f64.to_bits()), (20, 0, 2f64.to_bits())]);
    assert_eq!(before[&c].histograms, [(10, 0, histogram(4)), (20, 7, histogram(9))]);
    drop(engine);

    let engine = world.open();
    assert_eq!(read_all(&engine), before);
    assert_eq!(engine.metadata(Some("a")).unwrap(), [family]);
    assert_eq!(engine.stats().suspect, [""; 0]);
    // Again, now with records of two generations, and in an orderly way.
    write(&engine, &a, &[(5000, 1.0)]);
    let before = read_all(&engine);
    engine.close().unwrap();
    drop(engine);
    assert_eq!(read_all(&world.open()), before);
}

#[test]
fn nothing_may_be_acknowledged_before_it_is_committed() {
    let world = World::real();
    let engine = world.open();
    let a = labels("a", 1);
    let mut first = Rows::default().floats(&*engine, &a, &[(1, 1.0)]).append(&engine);
    assert!(is_durable(&mut first).is_pending());
    // The same row again is nothing new, and yet not durable before the first is.
    let mut again = Rows::default().floats(&*engine, &a, &[(1, 1.0)]).append(&engine);
    assert!(is_durable(&mut again).is_pending());
    engine.commit().unwrap();
    assert!(matches!(is_durable(&mut again), Poll::Ready(Ok(()))));
    assert!(matches!(is_durable(&mut first), Poll::Ready(Ok(()))));
}

#[test]
fn with_an_interval_writes_are_done_at_once_and_durable_soon() {
    let mut world = World::real();
    world.options.durability = storage::Durability::Interval(std::time::Duration::from_millis(5));
    let engine = world.open();
    let looping = engine.clone();
    let thread = std::thread::spawn(move || looping.commit_loop());
    let a = labels("a", 1);
    let mut appended = Rows::default().floats(&*engine, &a, &[(1, 1.0)]).append(&engine);
    assert!(matches!(is_durable(&mut appended), Poll::Ready(Ok(()))));
    let began = std::time::Instant::now();
    while engine.stats().wal_commits == 0 || engine.stats().wal_pending_bytes > 0 {
        assert!(began.elapsed().as_secs() < 30, "nobody commits");
        std::thread::yield_now();
    }
    // What comes right before the end is kept too.
    Rows::default().floats(&*engine, &a, &[(2, 2.0)]).append(&engine);
    engine.close().unwrap();
    thread.join().unwrap().unwrap();
    drop(engine);
    assert_eq!(floats(&world.open(), &a), [(1, 1.0), (2, 2.0)]);
}

#[test]
fn progress_is_told_while_the_log_is_read() {
    let world = World::real();
    write(&world.open(), &labels("a", 1), &[(1, 1.0)]);
    let told = std::sync::Mutex::new(Vec::new());
    let clock = std::sync::Arc::new(|| model::Timestamp(1));
    let note = |progress| told.lock().unwrap().push(progress);
    storage::Engine::open(world.vfs.clone(), world.options.clone(), clock, &note).unwrap();
    let told = told.into_inner().unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.phase, last.done_bytes), ("wal", last.total_bytes));
    assert!(last.total_bytes > 0 && told.iter().any(|p| p.phase == "blocks"));
}
