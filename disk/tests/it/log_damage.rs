//! Bytes of the log that go bad: nothing wrong is ever delivered, and nothing durable disappears without a report.

use disk::log::{CorruptRange, Log, Options, Recovered, SegmentNumber, Torn, decode_segment};
use disk::{CrashVfs, Error, OpenMode, Vfs};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIR: &str = "/log";
const HEADER: u64 = 40;
const FRAME: u64 = 17;

/// A record that was appended, where it lies, and in which commit it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    segment: SegmentNumber,
    from: u64,
    payload: Vec<u8>,
    commit: usize,
}

impl Placed {
    fn to(&self) -> u64 {
        self.from + FRAME + self.payload.len() as u64
    }
}

struct Written {
    vfs: CrashVfs,
    options: Options,
    records: Vec<Placed>,
}

fn open(vfs: &CrashVfs, options: &Options) -> Result<(Log, Recovered, Vec<Placed>), Error> {
    let mut records = Vec::new();
    let mut visit = |record: disk::log::Record<'_>| {
        let (segment, from) = (record.segment, record.offset);
        records.push(Placed { segment, from, payload: record.payload.to_vec(), commit: 0 });
    };
    let (log, recovered) = Log::recover(Arc::new(vfs.clone()), Path::new(DIR), options.clone(), &mut visit)?;
    Ok((log, recovered, records))
}

/// A log of so many records in each commit, of these lengths.
fn write(commits: &[Vec<usize>], segment_bytes: u64, close: bool) -> Written {
    write_on(CrashVfs::new(), commits, segment_bytes, close)
}

fn write_on(vfs: CrashVfs, commits: &[Vec<usize>], segment_bytes: u64, close: bool) -> Written {
    let options = Options { segment_bytes, pending_bytes_max: 1 << 20, preallocate: true };
    let (log, _, _) = open(&vfs, &options).unwrap();
    let mut numbers = Vec::new();
    for (commit, lengths) in commits.iter().enumerate() {
        for len in lengths {
            let n = numbers.len();
            let payload: Vec<u8> = (0..*len).map(|i| (i * 7 + n * 131 + 1) as u8).collect();
            log.append(&payload).unwrap();
            numbers.push(commit);
        }
        log.commit(log.appended()).unwrap();
    }
    if close {
        log.close();
    }
    drop(log);
    let (log, _, mut records) = open(&vfs, &options).unwrap();
    drop(log);
    assert_eq!(records.len(), numbers.len());
    records.iter_mut().zip(numbers).for_each(|(record, commit)| record.commit = commit);
    Written { vfs, options, records }
}

impl Written {
    fn path(&self, segment: SegmentNumber) -> PathBuf {
        let prefix = format!("{:016x}-", segment.0);
        let entries = self.vfs.list(Path::new(DIR)).unwrap();
        Path::new(DIR).join(&entries.iter().find(|entry| entry.name.starts_with(&prefix)).unwrap().name)
    }

    fn bytes(&self, segment: SegmentNumber) -> Vec<u8> {
        self.vfs.map(&self.path(segment)).unwrap().to_vec()
    }

    fn overwrite(&self, segment: SegmentNumber, offset: u64, bytes: &[u8]) {
        self.vfs.open(&self.path(segment), OpenMode::Write).unwrap().write_all_at(bytes, offset).unwrap();
    }

    fn flip(&self, segment: SegmentNumber, offset: u64) {
        let byte = self.bytes(segment)[offset as usize];
        self.overwrite(segment, offset, &[byte ^ 0x10]);
    }

    fn last(&self) -> SegmentNumber {
        self.records.last().unwrap().segment
    }

    /// Opens the damaged log and checks what must hold whatever was damaged.
    fn recover(&self) -> (Recovered, Vec<Placed>) {
        let (log, recovered, mut found) = open(&self.vfs, &self.options).unwrap();
        let mut appended = self.records.iter();
        for record in &mut found {
            let same = appended.find(|a| (a.segment, a.from) == (record.segment, record.from));
            let same = same.expect("a record that was never appended, or out of order");
            assert_eq!(record.payload, same.payload, "a record changed");
            record.commit = same.commit;
        }
        let is_reported = |lost: &Placed| {
            let torn = recovered.torn.is_some_and(|t| t.segment == lost.segment && t.offset <= lost.from);
            let overlaps =
                |c: &CorruptRange| c.segment == lost.segment && c.from < lost.to() && lost.from < c.to;
            torn || recovered.corrupt.iter().any(overlaps)
        };
        let lost: Vec<&Placed> = self.records.iter().filter(|a| !found.contains(a)).collect();
        for lost in &lost {
            assert!(is_reported(lost), "{lost:?} disappeared in silence: {recovered:?}");
        }
        // The log goes on, and what it reports the next time is the same damage and no tail.
        let position = log.append(b"more").unwrap();
        log.commit(position).unwrap();
        drop(log);
        let (_, again, mut more) = open(&self.vfs, &self.options).unwrap();
        assert_eq!((again.torn, &again.corrupt), (None, &recovered.corrupt));
        assert_eq!(more.pop().unwrap().payload, b"more");
        assert!(more.iter().map(|r| &r.payload).eq(found.iter().map(|r| &r.payload)));
        (recovered, found)
    }
}

fn commits() -> impl Strategy<Value = Vec<Vec<usize>>> {
    let len = prop_oneof![4 => 0..60usize, 1 => 60..1500usize];
    proptest::collection::vec(proptest::collection::vec(len, 1..6), 2..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn everything_committed_is_found_again(commits in commits(), segment_bytes in 64..4000u64, close: bool) {
        let written = write(&commits, segment_bytes, close);
        let (recovered, found) = written.recover();
        prop_assert_eq!(&found, &written.records);
        prop_assert_eq!(recovered.torn, None);
        prop_assert_eq!(recovered.corrupt, []);
    }

    #[test]
    fn a_flipped_bit_before_the_last_commit_costs_one_record_and_is_reported(
        commits in commits(), segment_bytes in 200..4000u64, at: prop::sample::Index, within: prop::sample::Index,
    ) {
        let written = write(&commits, segment_bytes, false);
        let durable: Vec<&Placed> = written.records.iter().filter(|r| r.commit + 1 < commits.len()).collect();
        let hit = durable[at.index(durable.len())];
        let offset = hit.from + within.index((hit.to() - hit.from) as usize) as u64;
        written.flip(hit.segment, offset);
        let (recovered, found) = written.recover();
        let expected: Vec<Placed> = written.records.iter().filter(|r| *r != hit).cloned().collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(recovered.torn, None);
        prop_assert_eq!(recovered.corrupt, [CorruptRange { segment: hit.segment, from: hit.from, to: hit.to() }]);
    }

    #[test]
    fn after_an_orderly_end_damage_to_the_last_commit_is_known_too(
        commits in commits(), at: prop::sample::Index, within: prop::sample::Index,
    ) {
        let written = write(&commits, 1 << 20, true);
        let hit = &written.records[at.index(written.records.len())];
        written.flip(hit.segment, hit.from + within.index((hit.to() - hit.from) as usize) as u64);
        let (recovered, found) = written.recover();
        prop_assert_eq!(found.len(), written.records.len() - 1);
        prop_assert_eq!(recovered.torn, None);
        prop_assert_eq!(recovered.corrupt, [CorruptRange { segment: hit.segment, from: hit.from, to: hit.to() }]);
    }

    #[test]
    fn a_torn_last_commit_is_cut_and_nothing_else(
        commits in commits(), at: prop::sample::Index, within: prop::sample::Index,
    ) {
        let written = write(&commits, 1 << 20, false);
        let last: Vec<usize> =
            (0..written.records.len()).filter(|n| written.records[*n].commit + 1 == commits.len()).collect();
        let hit = last[at.index(last.len())];
        let record = &written.records[hit];
        written.flip(record.segment, record.from + within.index((record.to() - record.from) as usize) as u64);
        let (recovered, found) = written.recover();
        prop_assert_eq!(&found, &written.records[..hit]);
        prop_assert_eq!(recovered.corrupt, []);
        let end = written.records.last().unwrap().to();
        let bytes_cut = recovered.torn.map_or(0, |torn| torn.bytes_cut);
        prop_assert_eq!(recovered.torn, Some(Torn { segment: record.segment, offset: record.from, bytes_cut }));
        prop_assert!(record.from + bytes_cut <= end);
    }

    #[test]
    fn a_truncated_last_segment_keeps_what_is_left(commits in commits(), at: prop::sample::Index) {
        let written = write(&commits, 1 << 20, false);
        let end = written.records.last().unwrap().to();
        let len = HEADER + at.index((end - HEADER) as usize) as u64;
        let path = written.path(written.last());
        written.vfs.open(&path, OpenMode::Write).unwrap().set_len(len).unwrap();
        let (log, recovered, found) = open(&written.vfs, &written.options).unwrap();
        let left: Vec<_> = written.records.iter().filter(|r| r.to() <= len).map(|r| r.payload.clone()).collect();
        prop_assert!(found.iter().map(|r| &r.payload).eq(&left));
        prop_assert_eq!(recovered.corrupt, []);
        log.append(b"more").unwrap();
        log.commit(log.appended()).unwrap();
        drop(log);
        let (_, recovered, found) = open(&written.vfs, &written.options).unwrap();
        prop_assert_eq!((recovered.torn, found.len()), (None, left.len() + 1));
    }

    #[test]
    fn a_truncated_earlier_segment_is_corrupt_to_its_known_end(commits in commits(), at: prop::sample::Index) {
        let written = write(&commits, 100, false);
        let first = written.records[0].segment;
        prop_assume!(written.last() != first);
        let end = written.records.iter().rfind(|r| r.segment == first).unwrap().to();
        let len = HEADER + at.index((end - HEADER) as usize) as u64;
        written.vfs.open(&written.path(first), OpenMode::Write).unwrap().set_len(len).unwrap();
        let (recovered, found) = written.recover();
        let left = written.records.iter().filter(|r| r.segment != first || r.to() <= len).count();
        prop_assert_eq!(found.len(), left);
        let from = written.records.iter().filter(|r| r.segment == first && r.to() <= len).map(Placed::to).max();
        prop_assert_eq!(recovered.corrupt, [CorruptRange { segment: first, from: from.unwrap_or(HEADER), to: end }]);
    }

    #[test]
    fn any_damage_is_survived_and_reported(
        commits in commits(),
        segment_bytes in 200..4000u64,
        close: bool,
        damage in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..600)),
            1..6,
        ),
    ) {
        let written = write(&commits, segment_bytes, close);
        let mut segments: Vec<SegmentNumber> = written.records.iter().map(|r| r.segment).collect();
        segments.dedup();
        for (segment, offset, bytes) in damage {
            let segment = segments[segment.index(segments.len())];
            let len = written.bytes(segment).len();
            let offset = offset.index(len);
            // Inside of the file, which damage does not lengthen.
            let bytes = &bytes[..bytes.len().min(len - offset)];
            written.overwrite(segment, offset as u64, bytes);
        }
        written.recover();
    }

    #[test]
    fn random_bytes_are_no_segment_and_no_reason_to_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(decode_segment(&bytes, &mut |_| ()), None);
        let written = write(&[vec![5], vec![5]], 1 << 20, false);
        let mut segment = written.bytes(SegmentNumber(1));
        segment.truncate(HEADER as usize);
        segment.extend(&bytes);
        let mut records = 0;
        let decoded = decode_segment(&segment, &mut |_| records += 1).unwrap();
        prop_assert_eq!((records, decoded.records), (0, 0));
        let end_of_bytes = bytes.iter().rposition(|b| *b != 0);
        prop_assert_eq!(decoded.torn, end_of_bytes.map(|_| HEADER));
    }

    #[test]
    fn a_decoded_segment_is_what_recovery_delivers(commits in commits(), flips in proptest::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let written = write(&commits, 1 << 20, false);
        let end = written.records.last().unwrap().to();
        for flip in flips {
            written.flip(SegmentNumber(1), HEADER + flip.index((end - HEADER) as usize) as u64);
        }
        let bytes = written.bytes(SegmentNumber(1));
        let mut decoded_records = Vec::new();
        let decoded = decode_segment(&bytes, &mut |r| decoded_records.push(r.payload.to_vec())).unwrap();
        let (recovered, found) = written.recover();
        prop_assert!(found.iter().map(|r| &r.payload).eq(&decoded_records));
        prop_assert_eq!(decoded.corrupt, recovered.corrupt);
        prop_assert_eq!(decoded.torn, recovered.torn.map(|torn| torn.offset));
    }
}

/// Ten commits of two records of 100 bytes each, in segments of four.
fn ten_commits() -> Written {
    ten_commits_on(CrashVfs::new())
}

fn ten_commits_on(vfs: CrashVfs) -> Written {
    write_on(vfs, &vec![vec![100, 100]; 10], HEADER + 4 * (FRAME + 100), false)
}

#[test]
fn a_zeroed_sector_in_the_middle_is_corrupt_and_the_rest_is_read() {
    let written = write(&vec![vec![100, 100]; 30], 1 << 20, false);
    written.overwrite(SegmentNumber(1), 1024, &[0; 512]);
    let (recovered, found) = written.recover();
    assert_eq!(recovered.torn, None);
    assert_eq!(recovered.corrupt.len(), 1);
    let hole = recovered.corrupt[0];
    assert!(
        hole.from <= 1024 && hole.to >= 1536 && hole.to - hole.from < 512 + 2 * (FRAME + 100),
        "{hole:?}"
    );
    assert_eq!((60 - found.len()) as u64, (hole.to - hole.from) / (FRAME + 100));
}

#[test]
fn a_missing_segment_is_reported_and_the_others_are_read() {
    let written = ten_commits();
    written.vfs.remove(&written.path(SegmentNumber(3))).unwrap();
    let (recovered, found) = written.recover();
    let to = HEADER + 4 * (FRAME + 100);
    assert_eq!(recovered.corrupt, [CorruptRange { segment: SegmentNumber(3), from: 0, to }]);
    assert_eq!(found.len(), 16);
}

#[test]
fn a_damaged_header_costs_no_record() {
    for segment in 1..=5 {
        let written = ten_commits();
        written.overwrite(SegmentNumber(segment), 3, &[0xff; 20]);
        let (recovered, found) = written.recover();
        let header = CorruptRange { segment: SegmentNumber(segment), from: 0, to: HEADER };
        assert_eq!(recovered.corrupt, [header]);
        assert_eq!(found, written.records);
    }
}

#[test]
fn records_in_the_wrong_place_are_not_records() {
    let written = ten_commits();
    // A misdirected write: an intact record of segment 1 over one of segment 2, and over another one of its own segment.
    let bytes = written.bytes(SegmentNumber(1));
    let record = &bytes[HEADER as usize..][..(FRAME + 100) as usize];
    written.overwrite(SegmentNumber(2), HEADER, record);
    written.overwrite(SegmentNumber(1), HEADER + 2 * (FRAME + 100), record);
    let (recovered, found) = written.recover();
    assert_eq!(recovered.corrupt.len(), 2);
    assert_eq!(found.len(), 18);
}

#[test]
fn a_segment_under_another_name_is_not_read_as_that_segment() {
    let written = ten_commits();
    let bytes = written.bytes(SegmentNumber(2));
    written.overwrite(SegmentNumber(4), 0, &bytes);
    let (recovered, found) = written.recover();
    assert!(recovered.corrupt.iter().all(|c| c.segment == SegmentNumber(4)), "{recovered:?}");
    assert_eq!(found.len(), 16);
    // As the last segment it is not even written to.
    let written = ten_commits();
    written.overwrite(SegmentNumber(5), 0, &bytes);
    let (recovered, found) = written.recover();
    assert_eq!((recovered.torn, found.len()), (None, 16));
    assert_eq!(written.bytes(SegmentNumber(5))[..bytes.len()], bytes);
}

#[test]
fn files_of_another_log_are_named_and_left_alone() {
    let written = ten_commits();
    // Simulated disks give the same numbers in the same order; this one is one further.
    let vfs = CrashVfs::new();
    vfs.unique();
    let other = ten_commits_on(vfs);
    let foreign = other.path(SegmentNumber(2));
    let copy = written.vfs.open(&foreign, OpenMode::Create).unwrap();
    copy.write_all_at(&other.bytes(SegmentNumber(2)), 0).unwrap();
    written.vfs.open(&Path::new(DIR).join("README"), OpenMode::Create).unwrap();
    let (recovered, found) = written.recover();
    assert_eq!(recovered.foreign, std::slice::from_ref(&foreign));
    assert_eq!(found, written.records);
    assert!(written.vfs.exists(&foreign).unwrap());
}

#[test]
fn a_later_format_is_refused_by_its_version() {
    let written = ten_commits();
    let mut header = written.bytes(SegmentNumber(5))[..HEADER as usize].to_vec();
    header[8] = 2;
    let checksum = crc32fast::hash(&header[..36]);
    header[36..].copy_from_slice(&checksum.to_le_bytes());
    written.overwrite(SegmentNumber(5), 0, &header);
    let refused = open(&written.vfs, &written.options).err().unwrap();
    assert!(matches!(refused, Error::Version { found: 2, known: 1, .. }), "{refused}");
    assert_eq!(decode_segment(&written.bytes(SegmentNumber(5)), &mut |_| ()), None);
}

#[test]
fn old_records_behind_a_torn_tail_never_come_back() {
    // Three records in one commit, of which the first is torn: the other two are intact, right where they were.
    let written = write(&[vec![50], vec![100, 100, 100]], 1 << 20, false);
    written.flip(SegmentNumber(1), written.records[1].from + 3);
    let (log, recovered, found) = open(&written.vfs, &written.options).unwrap();
    assert!(recovered.torn.is_some());
    assert_eq!(found.len(), 1);
    // A new record of the same length ends exactly where the old second one would begin.
    log.append(&[7; 100]).unwrap();
    log.commit(log.appended()).unwrap();
    drop(log);
    let (_, recovered, found) = open(&written.vfs, &written.options).unwrap();
    assert_eq!((recovered.torn, recovered.corrupt.len(), found.len()), (None, 0, 2));
}

#[test]
fn a_long_segment_full_of_damage_is_read_in_linear_time() {
    // Every second record is damaged; a search to the end for each would take minutes.
    let written = write(&vec![vec![40]; 20_000], 4 << 20, false);
    for record in written.records.iter().step_by(2) {
        written.overwrite(record.segment, record.from + 1, &[0xff]);
    }
    let began = std::time::Instant::now();
    let (_, recovered, found) = open(&written.vfs, &written.options).unwrap();
    assert_eq!((recovered.corrupt.len(), found.len()), (10_000, 10_000));
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
