//! The hints on a disk that says anything: those that are well and not too old come back, in order, and nothing else.

use cluster::hints::{Options, Store};
use cluster::placement::NodeId;
use disk::CrashVfs;
use disk::log::{Log, Options as LogOptions};
use model::Timestamp;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/hints";
const NODE: NodeId = NodeId(0x2a);
const NOW: Timestamp = Timestamp(1_700_000_000_000);

pub fn check(bytes: &[u8]) -> bool {
    let vfs = Arc::new(CrashVfs::new());
    // Small, so that there are several segments.
    let log = LogOptions { segment_bytes: 4 << 10, preallocate: false, ..LogOptions::default() };
    let folder = Path::new(DIR).join(format!("{:032x}", NODE.0));
    let (log, _) = Log::recover(vfs.clone(), &folder, log, &mut |_| {}).expect("an empty folder");
    let records: Vec<&[u8]> = super::parts(bytes).collect();
    for record in &records {
        log.append(record).expect("there is room");
    }
    log.commit(log.appended()).expect("a simulated disk");
    drop(log);

    let options = Options { segment_bytes: 4 << 10, ..Options::new(DIR) };
    let oldest = NOW.0 - options.age_max_ms as i64;
    let expected = records.iter().filter_map(|record| {
        let (at, sections) = record.split_first_chunk()?;
        (i64::from_le_bytes(*at) >= oldest).then_some(sections)
    });
    let expected: Vec<&[u8]> = expected.collect();
    let store = Store::open(vfs, options).expect("damaged hints are no reason to refuse");
    let mut found = Vec::new();
    while let Some(chunk) = store.load(NODE, NOW).expect("a simulated disk") {
        found.extend(chunk.hints.into_iter().map(|hint| hint.sections));
        store.remove(NODE, chunk.segment).expect("a simulated disk");
    }
    assert_eq!(found, expected);
    assert_eq!(store.nodes(), []);
    !found.is_empty()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let hint = |age_ms: i64, sections: &[u8]| [&(NOW.0 - age_ms).to_le_bytes()[..], sections].concat();
    let sections = super::rows::seeds();
    let mut hints: Vec<Vec<u8>> = sections.iter().map(|sections| hint(1_000, sections)).collect();
    let one = super::join([&hints[0]]);
    hints.push(hint(24 * 3_600_000, &sections[0]));
    vec![one, super::join(hints)]
}
