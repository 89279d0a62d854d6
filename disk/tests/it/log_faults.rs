//! The log on disks that fail.

use disk::crash::{Dropped, Exploration, Survivors};
use disk::fault::{Fault, Operation, Rule};
use disk::log::{Log, Options, Position};
use disk::{CrashVfs, Error, FaultVfs};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

const DIR: &str = "/log";

fn options() -> Options {
    Options { segment_bytes: 4 << 10, pending_bytes_max: 16 << 10, preallocate: true }
}

fn open(vfs: &FaultVfs<CrashVfs>) -> Result<(Log, Vec<Vec<u8>>), Error> {
    let mut records = Vec::new();
    let mut visit = |record: disk::log::Record<'_>| records.push(record.payload.to_vec());
    let (log, _) = Log::recover(Arc::new(vfs.clone()), Path::new(DIR), options(), &mut visit)?;
    Ok((log, records))
}

fn is_failed<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Failed { .. }))
}

#[test]
fn a_segment_whose_first_sync_failed_gets_its_header_once_more() {
    let crash = CrashVfs::new();
    let vfs = FaultVfs::dropping(crash.clone(), Dropped::Readable);
    let (log, _) = open(&vfs).unwrap();
    log.commit(log.append(b"first").unwrap()).unwrap();
    vfs.add(Rule::new(Operation::Sync, Fault::Eio).path("0000000000000002"));
    assert!(log.rotate().is_err());
    drop(log);
    vfs.clear();
    // The pages are shown and called clean: a sync alone would not bring them to the disk.
    let (log, records) = open(&vfs).unwrap();
    assert_eq!(records, [b"first"]);
    log.commit(log.append(b"second").unwrap()).unwrap();
    let after = crash.journal().crash(crash.operations(), Survivors::Nothing).vfs;
    let mut records = Vec::new();
    let mut visit = |record: disk::log::Record<'_>| records.push(record.payload.to_vec());
    let (_, recovered) = Log::recover(Arc::new(after), Path::new(DIR), options(), &mut visit).unwrap();
    assert_eq!((records, recovered.corrupt), (vec![b"first".to_vec(), b"second".to_vec()], vec![]));
}

#[test]
fn a_failed_fsync_is_never_acknowledged_and_never_tried_again() {
    for dropped in [Dropped::Readable, Dropped::Evicted] {
        let crash = CrashVfs::new();
        let vfs = FaultVfs::dropping(crash.clone(), dropped);
        let (log, _) = open(&vfs).unwrap();
        let first = log.append(b"first").unwrap();
        log.commit(first).unwrap();
        vfs.add(Rule::new(Operation::Sync, Fault::Eio).nth(1));
        let second = log.append(b"second").unwrap();
        assert!(matches!(log.commit(second), Err(Error::Io { .. })));
        let (syncs, writes) = (vfs.calls(Operation::Sync, DIR), vfs.calls(Operation::Write, DIR));
        // The disk is well again, but nobody can know what it holds.
        assert!(is_failed(log.commit(second)));
        assert!(is_failed(log.ticket(second).wait()));
        assert!(is_failed(log.append(b"third")));
        assert!(is_failed(log.rotate()));
        log.commit(first).unwrap();
        log.close();
        assert!(!log.wait_pending());
        assert_eq!(log.durable(), first);
        drop(log);
        assert_eq!(syncs, vfs.calls(Operation::Sync, DIR), "fsync was tried again");
        assert_eq!(writes, vfs.calls(Operation::Write, DIR), "it wrote on");

        // A new run sees what the page cache shows. Whatever it delivers must be durable when it has returned.
        let (log, records) = open(&vfs).unwrap();
        let shown: &[&[u8]] = if dropped == Dropped::Readable { &[b"first", b"second"] } else { &[b"first"] };
        assert_eq!(records, shown, "{dropped:?}");
        let third = log.append(b"third").unwrap();
        log.commit(third).unwrap();
        drop(log);
        let journal = crash.journal();
        for state in journal.states(&Exploration::default()).filter(|state| state.after == journal.len()) {
            let (_, after) = open(&FaultVfs::new(state.vfs.clone())).unwrap();
            assert_eq!(after, [shown, &[b"third".as_slice()]].concat(), "{state}");
        }
    }
}

#[test]
fn every_failing_operation_fails_the_log_and_loses_nothing_acknowledged() {
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::SyncFolder,
        Operation::Create,
        Operation::SetLen,
        Operation::Allocate,
    ];
    let mut failures = 0;
    for operation in operations {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Short] {
            for nth in 1..12 {
                let vfs = FaultVfs::dropping(CrashVfs::new(), Dropped::Evicted);
                let (log, _) = open(&vfs).unwrap();
                vfs.add(Rule::new(operation, fault).nth(nth));
                let mut acknowledged = 0u64;
                let mut failed = None;
                for n in 0..30u64 {
                    let record = [n.to_le_bytes().as_slice(), &[n as u8; 700]].concat();
                    match log.append(&record).and_then(|position| log.commit(position)) {
                        Ok(()) => {
                            assert!(failed.is_none(), "acknowledged after a failure");
                            acknowledged = n + 1;
                        }
                        Err(error) => {
                            assert_eq!(error.is_full(), fault != Fault::Eio, "{error}");
                            failed.get_or_insert(n);
                        }
                    }
                }
                assert_eq!(failed.is_some(), vfs.injected() > 0);
                failures += vfs.injected();
                drop(log);
                vfs.clear();
                let (log, records) = open(&vfs).unwrap();
                let numbers: Vec<u64> =
                    records.iter().map(|r| u64::from_le_bytes(r[..8].try_into().unwrap())).collect();
                let what =
                    format!("{operation:?} {fault:?} {nth}: {acknowledged} acknowledged, {numbers:?} found");
                assert!(numbers.len() as u64 >= acknowledged, "{what}");
                assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{what}");
                let position = log.append(b"the log works again").unwrap();
                log.commit(position).unwrap();
            }
        }
    }
    assert!(failures > 100, "{failures}");
}

#[test]
fn recovery_copes_with_short_reads() {
    let vfs = FaultVfs::seeded(CrashVfs::new(), 7);
    let (log, _) = open(&vfs).unwrap();
    for n in 0..200u8 {
        let position = log.append(&vec![n; usize::from(n) * 10]).unwrap();
        log.commit(position).unwrap();
    }
    drop(log);
    vfs.add(Rule::new(Operation::Read, Fault::Short).percent(50));
    let (_, records) = open(&vfs).unwrap();
    assert!(vfs.injected() > 10);
    assert!(records.iter().enumerate().all(|(n, record)| *record == vec![n as u8; n * 10]));
    assert_eq!(records.len(), 200);
}

#[test]
fn an_unreadable_sector_costs_its_records_and_an_unreadable_end_is_not_cut() {
    let vfs = FaultVfs::new(CrashVfs::new());
    let options = Options { segment_bytes: 1 << 20, ..options() };
    let reopen = |numbers: &mut Vec<u8>| {
        let mut visit = |record: disk::log::Record<'_>| numbers.push(record.payload[0]);
        Log::recover(Arc::new(vfs.clone()), Path::new(DIR), options.clone(), &mut visit)
    };
    let (log, _) = reopen(&mut Vec::new()).unwrap();
    for n in 0..100u8 {
        let position = log.append(&[n; 1000]).unwrap();
        log.commit(position).unwrap();
    }
    drop(log);
    vfs.add(Rule::new(Operation::Read, Fault::Eio).bytes(40_960..45_056));
    let mut numbers = Vec::new();
    let (log, recovered) = reopen(&mut numbers).unwrap();
    drop(log);
    assert_eq!(recovered.corrupt.len(), 1, "{recovered:?}");
    let missing = (0..100).filter(|n| !numbers.contains(n)).count();
    assert!((4..=6).contains(&missing), "{missing}");
    vfs.clear();
    let end = 40 + 100 * 1017;
    vfs.add(Rule::new(Operation::Read, Fault::Eio).bytes(end - 100..end + 100));
    let refused = reopen(&mut Vec::new());
    assert!(matches!(refused, Err(Error::Io { .. })), "what cannot be read must not be cut");
    vfs.clear();
    let mut numbers = Vec::new();
    reopen(&mut numbers).unwrap();
    assert_eq!(numbers.len(), 100, "nothing was lost by refusing");
}

#[derive(Default)]
struct Wakes(AtomicU64);
impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn waiting_tickets_learn_of_a_failure() {
    let vfs = FaultVfs::new(CrashVfs::new());
    let (log, _) = open(&vfs).unwrap();
    let position = log.append(b"record").unwrap();
    let mut ticket = Box::pin(log.ticket(position));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut context = Context::from_waker(&waker);
    assert!(ticket.as_mut().poll(&mut context).is_pending());
    vfs.add(Rule::new(Operation::Write, Fault::Enospc));
    assert!(log.commit(position).unwrap_err().is_full());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    match ticket.as_mut().poll(&mut context) {
        Poll::Ready(Err(error)) => assert!(error.is_full() && is_failed(Err::<(), _>(error))),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stalled_disk_costs_bounded_memory() {
    let vfs = FaultVfs::new(CrashVfs::new());
    let (log, _) = open(&vfs).unwrap();
    let mut appended = Position(0);
    let refused = loop {
        match log.append(&[1; 100]) {
            Ok(position) => appended = position,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::Limit { max: 16384, .. }), "{refused}");
    assert!(log.pending_bytes() < (16 << 10) + 200);
    log.commit(appended).unwrap();
    assert_eq!(log.pending_bytes(), 0);
    log.append(&[1; 100]).unwrap();
}

#[test]
fn what_a_killed_run_left_in_the_page_cache_is_durable_once_recovery_has_delivered_it() {
    let mut interrupted = 0;
    for operation in [Operation::Sync, Operation::SyncFolder, Operation::Write] {
        for nth in 1..12 {
            // The run ends in the middle of this operation; the page cache keeps what had been written.
            let crash = CrashVfs::new();
            let vfs = FaultVfs::new(crash.clone());
            vfs.add(Rule::new(operation, Fault::Eio).nth(nth));
            if let Ok((log, _)) = open(&vfs) {
                for n in 0..20u8 {
                    log.append(&[n; 700]).unwrap();
                    if log.commit(log.appended()).is_err() {
                        break;
                    }
                }
            }
            interrupted += vfs.injected();
            vfs.clear();
            let (log, mut delivered) = open(&vfs).unwrap();
            for more in [false, true] {
                if more {
                    log.append(b"more").unwrap();
                    log.commit(log.appended()).unwrap();
                    delivered.push(b"more".to_vec());
                }
                let journal = crash.journal();
                for state in journal.states(&Exploration::default()).filter(|s| s.after == journal.len()) {
                    let (_, after) = open(&FaultVfs::new(state.vfs.clone())).unwrap();
                    assert_eq!(after, delivered, "{operation:?} {nth}, then {state}");
                }
            }
        }
    }
    assert!(interrupted > 20, "{interrupted}");
}
