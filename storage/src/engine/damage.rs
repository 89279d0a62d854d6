//! Where samples may be missing because bytes were damaged: found, written down, and kept until it is mended.
//!
//! ```text
//! a block's page fails ─▶ the block is marked, reads of it fail ─▶ written down ─▶ what is readable goes to a new block,
//!                                                                                  the file goes to quarantine/
//! a block does not open ─▶ written down ─▶ quarantine/
//! the log has a hole   ─▶ written down: all shards, all times
//!                                              mended ─▶ crossed out ─▶ the file in quarantine/ is removed
//! ```
//!
//! Invariants:
//! * A damage is in the file `damage`, durably, before anything that was damaged leaves its place; so a crash at any point finds the
//!   damaged bytes, or the word of them.
//! * A mended damage of the log stays written down as mended for as long as the log has the hole, so that a restart does not find it
//!   anew.
//! * What is set aside gets a new number, so that whoever compared the block while it was still in its place, by the digest of what it had
//!   before it rotted, cannot mend it.
//! * A torn tail of the log is no damage.

use super::Engine;
use super::flush::Maintenance;
use crate::note::{self, Note};
use crate::shard::Shard;
use crate::{Result, block};
use disk::{Mapped, OpenMode, Vfs};
use model::{Damage, Labels, Samples, ShardSet, TimeRange};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const FILE: &str = "damage";
const TITLE: &str = "sarsen damage";
/// The folder of files that are read no more.
const QUARANTINE: &str = "quarantine";
/// Damages that are told apart. More become one of everything.
const ENTRIES_MAX: usize = 4096;
/// Numbers are below this: there is room for a shard's behind each.
const NUMBERS_MAX: u64 = 1 << 48;
/// Bytes of the text about one.
const WHAT_MAX: usize = 512;
/// Bytes of one plain read.
const READ: usize = 1 << 20;

/// The shards that a damage still concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shards {
    All,
    Only(ShardSet),
}

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    number: u64,
    shards: Shards,
    range: TimeRange,
    /// What tells it from others when it is found again: `block/<shard>/<file>`, `log/<segment>/<from>-<to>`, ...; no spaces.
    source: String,
    what: String,
}

/// All damages that are not mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    next: u64,
    /// Whether it says more than its file.
    dirty: bool,
}

/// What opening has found.
pub(super) struct Finding {
    /// `None`: any shard.
    pub shard: Option<model::Shard>,
    pub range: TimeRange,
    pub source: String,
    pub what: String,
}

/// The source of a damaged block.
pub(super) fn block_source(shard: model::Shard, file: &str) -> String {
    format!("block/{}/{file}", shard.0)
}

impl Shards {
    fn contains(&self, shard: model::Shard) -> bool {
        match self {
            Shards::All => true,
            Shards::Only(set) => set.contains(shard),
        }
    }

    fn render(&self) -> String {
        match self {
            Shards::All => "*".to_owned(),
            Shards::Only(set) if set.is_empty() => "-".to_owned(),
            Shards::Only(set) => set.iter().map(|s| s.0.to_string()).collect::<Vec<_>>().join(","),
        }
    }

    fn parse(text: &str) -> Option<Shards> {
        match text {
            "*" => Some(Shards::All),
            "-" => Some(Shards::Only(ShardSet::default())),
            list => list
                .split(',')
                .map(|s| s.parse().ok().map(model::Shard))
                .collect::<Option<_>>()
                .map(Shards::Only),
        }
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        !matches!(&self.shards, Shards::Only(set) if set.is_empty())
    }

    fn parse(line: &str) -> Option<Entry> {
        let mut fields = line.splitn(6, ' ');
        let mut field = || fields.next();
        let (number, shards) = (field()?.parse().ok()?, Shards::parse(field()?)?);
        let (min, max): (i64, i64) = (field()?.parse().ok()?, field()?.parse().ok()?);
        Some(Entry {
            number,
            shards,
            range: (min <= max).then(|| TimeRange::new(min, max))?,
            source: field()?.to_owned(),
            what: field()?.to_owned(),
        })
    }
}

impl Ledger {
    fn render(&self) -> String {
        let mut body = format!("next = {}\n", self.next);
        for Entry { number, shards, range, source, what } in &self.entries {
            let shards = shards.render();
            body += &format!("{number} {shards} {} {} {source} {what}\n", range.min, range.max);
        }
        body
    }

    fn parse(body: &str) -> Option<Ledger> {
        let (first, rest) = body.split_once('\n')?;
        let next = first.strip_prefix("next = ")?.parse().ok()?;
        let entries: Vec<Entry> = rest.lines().map(Entry::parse).collect::<Option<_>>()?;
        // Each number is given once: of two damages with one, only one could be mended.
        let numbered = entries.is_sorted_by(|a, b| a.number < b.number)
            && entries.last().is_none_or(|last| last.number < next)
            && next < NUMBERS_MAX;
        let ledger = Ledger { entries, next, dirty: false };
        (numbered && ledger.render() == body).then_some(ledger)
    }

    /// What was written down in `dir`.
    pub fn open(vfs: &dyn Vfs, dir: &Path) -> Result<Ledger> {
        let parsed = match note::read(vfs, dir, FILE, TITLE)? {
            Note::Missing => return Ok(Ledger::default()),
            Note::Damaged => None,
            Note::Body(body) => Ledger::parse(&body),
        };
        Ok(parsed.unwrap_or_else(|| {
            let mut ledger = Ledger::default();
            ledger.add(Finding {
                shard: None,
                range: TimeRange::ALL,
                source: FILE.to_owned(),
                what: format!(
                    "{} is damaged itself: what was damaged is not known any more",
                    dir.join(FILE).display()
                ),
            });
            ledger
        }))
    }

    /// Makes its file say what it says.
    pub fn save(&mut self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        if self.dirty {
            note::write(vfs, dir, FILE, TITLE, &self.render())?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Whether it is written down, mended or not.
    pub fn knows(&self, source: &str) -> bool {
        self.entries.iter().any(|entry| entry.source == source)
    }

    /// Writes one down, unless it is known.
    pub fn add(&mut self, finding: Finding) {
        if self.knows(&finding.source) {
            return;
        }
        self.dirty = true;
        if self.entries.len() >= ENTRIES_MAX {
            // All of it is compared with the peers then, which ends well too.
            self.entries.retain(|entry| !entry.is_open());
            self.entries.truncate(ENTRIES_MAX / 2);
            self.add(Finding {
                shard: None,
                range: TimeRange::ALL,
                source: format!("many/{}", self.next),
                what: format!("more than {ENTRIES_MAX} damaged places; the last: {}", finding.what),
            });
            return;
        }
        let mut what: String = finding.what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while what.len() > WHAT_MAX {
            what.pop();
        }
        let shards =
            finding.shard.map_or(Shards::All, |shard| Shards::Only(std::iter::once(shard).collect()));
        self.entries.push(Entry {
            number: self.next,
            shards,
            range: finding.range,
            source: finding.source,
            what,
        });
        self.next += 1;
    }

    /// The same damage under a new number: who knows the old one has not seen what is missing now.
    fn renew(&mut self, finding: Finding) {
        self.withdraw(&finding.source);
        self.add(finding);
    }

    /// After opening: mended damage of the log that was not found again is forgotten for good.
    pub fn forget_gone(&mut self, found: &[String]) {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.is_open() || found.contains(&entry.source));
        self.dirty |= self.entries.len() < before;
    }

    /// A block is whole again, because somebody put it back.
    pub fn withdraw(&mut self, source: &str) {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.source != source);
        self.dirty |= self.entries.len() < before;
    }

    /// Open damages, each once, with what it concerns.
    pub fn open_places(&self) -> impl Iterator<Item = (TimeRange, &str)> {
        self.entries.iter().filter(|entry| entry.is_open()).map(|entry| (entry.range, &*entry.what))
    }

    /// Whether `visible` in one of `asked` is concerned, in words.
    pub fn warnings(&self, visible: TimeRange, asked: Option<&ShardSet>) -> Vec<String> {
        let concerns = |entry: &&Entry| {
            let shard = match (&entry.shards, asked) {
                (Shards::Only(set), Some(asked)) => set.iter().any(|shard| asked.contains(shard)),
                _ => true,
            };
            entry.is_open() && shard && entry.range.overlaps(&visible)
        };
        self.entries.iter().filter(concerns).map(|e| format!("samples may be missing: {}", e.what)).collect()
    }

    /// One for each shard.
    fn damages(&self, shards: u32) -> Vec<Damage> {
        let mut all = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.is_open()) {
            let concerned =
                (0..shards).map(|shard| model::Shard(shard as u16)).filter(|s| entry.shards.contains(*s));
            all.extend(concerned.map(|shard| Damage {
                number: entry.number << 16 | u64::from(shard.0),
                shard,
                range: entry.range,
                what: entry.what.clone(),
            }));
        }
        all
    }

    /// Crosses one out; the file in quarantine that is of no use any more.
    fn mend(&mut self, number: u64, shards: u32) -> Option<String> {
        let (number, shard) = (number >> 16, model::Shard(number as u16));
        let at = self.entries.iter().position(|entry| entry.number == number)?;
        let entry = &mut self.entries[at];
        if !entry.shards.contains(shard) {
            return None;
        }
        let left =
            (0..shards).map(|s| model::Shard(s as u16)).filter(|s| *s != shard && entry.shards.contains(*s));
        entry.shards = Shards::Only(left.collect());
        self.dirty = true;
        if entry.is_open() {
            return None;
        }
        let file = quarantined_name(&entry.source);
        // The log may have its hole for some time yet.
        if file.is_some() || !entry.source.starts_with("log/") {
            self.entries.remove(at);
        }
        file
    }
}

/// The name in quarantine of a source that is a block.
fn quarantined_name(source: &str) -> Option<String> {
    let (shard, file) = source.strip_prefix("block/")?.split_once('/')?;
    Some(format!("{shard}.{file}"))
}

/// Moves a block's file out of the way, durably.
pub(super) fn quarantine_file(vfs: &dyn Vfs, dir: &Path, shard: model::Shard, path: &Path) -> Result<()> {
    let folder = dir.join(QUARANTINE);
    vfs.create_dir_all(&folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    vfs.rename(path, &folder.join(format!("{}.{name}", shard.0)))?;
    // The new name first: at no time there is none.
    vfs.sync_dir(&folder)?;
    vfs.sync_dir(path.parent().unwrap_or(dir))?;
    Ok(())
}

/// Removes from quarantine what was mended, where a crash came between.
pub(super) fn sweep(vfs: &dyn Vfs, dir: &Path, ledger: &Ledger) -> Result<()> {
    let folder = dir.join(QUARANTINE);
    let entries = match vfs.list(&folder) {
        Err(e) if e.is_not_found() => return Ok(()),
        entries => entries?,
    };
    // If the list itself was lost, nothing is known to be mended.
    if ledger.knows(FILE) {
        return Ok(());
    }
    let wanted: Vec<String> =
        ledger.entries.iter().filter_map(|entry| quarantined_name(&entry.source)).collect();
    for entry in entries.iter().filter(|entry| !wanted.contains(&entry.name)) {
        vfs.remove(&folder.join(&entry.name))?;
    }
    Ok(())
}

impl Engine {
    /// See [`model::Replica::damage`]. A block that was found damaged is written down here already, and quarantined by maintenance. Every read
    /// asks: the shards are looked through only after somebody has found something.
    pub(super) fn damages(&self) -> Vec<Damage> {
        let found = block::found_damaged();
        if self.damage_seen.load(SeqCst) != found {
            self.note(&self.damaged_blocks());
            self.damage_seen.store(found, SeqCst);
        }
        self.damage.lock().damages(self.options.shards)
    }

    /// See [`model::Replica::mended`].
    pub(super) fn mend(&self, number: u64) -> Result<()> {
        let file = {
            let mut ledger = self.damage.lock();
            let file = ledger.mend(number, self.options.shards);
            // A block that is still in its place is damaged all the same.
            self.damage_seen.store(u64::MAX, SeqCst);
            ledger.save(&*self.vfs, &self.options.dir)?;
            file
        };
        if let Some(file) = file {
            let folder = self.options.dir.join(QUARANTINE);
            match self.vfs.remove(&folder.join(file)) {
                Err(e) if !e.is_not_found() => return Err(e.into()),
                Err(_) => {}
                Ok(()) => self.vfs.sync_dir(&folder)?,
            }
        }
        Ok(())
    }

    fn damaged_blocks(&self) -> Vec<(&Shard, Arc<block::Reader>)> {
        let mut damaged = Vec::new();
        for shard in &self.shards {
            let state = shard.state.lock();
            damaged.extend(state.blocks.iter().filter(|b| b.damaged().is_some()).map(|b| (shard, b.clone())));
        }
        damaged
    }

    /// Writes down which blocks were found damaged. Should that fail, they are known all the same, and written down later.
    fn note(&self, damaged: &[(&Shard, Arc<block::Reader>)]) {
        for (shard, block) in damaged {
            self.damage.lock().add(finding(shard, block));
        }
        // An engine that was opened to be looked into keeps it to itself.
        let _ = self.damage.lock().save(&*self.vfs, &self.options.dir);
    }

    /// Takes damaged blocks out of the read set and puts what is readable of them in their place. The damage of what retention has
    /// removed is forgotten.
    pub(super) fn quarantine(&self, _only_maintenance: &mut Maintenance) -> Result<()> {
        self.forget_expired()?;
        let damaged = self.damaged_blocks();
        if damaged.is_empty() {
            return Ok(());
        }
        self.note(&damaged);
        // Not before it is written down.
        self.damage.lock().save(&*self.vfs, &self.options.dir)?;
        for (shard, block) in damaged {
            let salvaged = self.salvage(shard, &block)?;
            {
                let mut state = shard.state.lock();
                let kept = state.blocks.iter().filter(|other| !Arc::ptr_eq(other, &block)).cloned();
                state.blocks = kept.chain(salvaged).collect();
                let span = block.meta().span;
                state.changed((self.clock)().0, span);
            }
            {
                let mut ledger = self.damage.lock();
                ledger.renew(finding(shard, &block));
                ledger.save(&*self.vfs, &self.options.dir)?;
            }
            quarantine_file(&*self.vfs, &self.options.dir, shard.number, &block.meta().path)?;
        }
        Ok(())
    }

    fn forget_expired(&self) -> Result<()> {
        let cut_off = self.cut_off();
        let expired: Vec<u64> = {
            let ledger = self.damage.lock();
            let gone = |entry: &&Entry| entry.is_open() && entry.range.max.0 < cut_off;
            let gone = ledger.entries.iter().filter(gone).map(|entry| entry.number).collect::<Vec<_>>();
            let of = |damage: &Damage| gone.contains(&(damage.number >> 16));
            if gone.is_empty() {
                return Ok(());
            }
            ledger.damages(self.options.shards).iter().filter(|d| of(d)).map(|d| d.number).collect()
        };
        expired.into_iter().try_for_each(|number| self.mend(number))
    }

    /// A block of those series of a damaged one that can be read. Plain reads: bytes that the disk does not give are zeros, which fail
    /// their checksum.
    fn salvage(&self, shard: &Shard, damaged: &block::Reader) -> Result<Option<Arc<block::Reader>>> {
        let meta = damaged.meta();
        let bytes = read_what_can_be_read(&*self.vfs, &meta.path)?;
        let Ok(source) = block::Reader::from_bytes(Mapped(Arc::new(bytes)), &meta.path) else {
            return Ok(None);
        };
        let header = block::Header {
            shard: shard.number,
            range: meta.range,
            level: meta.level,
            id: (self.options.random)(),
        };
        let mut builder = block::Builder::new(header);
        let (mut cursor, mut samples) = (source.cursor(), Samples::default());
        let mut last: Option<Labels> = None;
        for series in 0..source.series_count() {
            let Ok(labels) = cursor.labels(series) else { continue };
            samples.clear();
            if source.read(series, TimeRange::ALL, &mut samples).is_err() {
                continue;
            }
            let id = self.key.id(labels.as_bytes());
            // What passes its checksum and makes no sense is not taken over.
            let sound = last.as_ref().is_none_or(|last| block::order(last, &labels).is_lt())
                && id.shard(self.options.shards) == shard.number
                && samples.timestamps.is_sorted_by(|a, b| a < b)
                && samples.histograms.is_sorted_by(|a, b| a.0 < b.0)
                && samples
                    .timestamps
                    .iter()
                    .chain(samples.histograms.iter().map(|h| &h.0))
                    .all(|t| meta.range.contains(*t));
            if sound {
                builder.add(id, &labels, &samples)?;
                last = Some(labels);
            }
        }
        if builder.is_empty() {
            return Ok(None);
        }
        let meta = builder.finish(&*self.vfs, &self.blocks_dir(shard.number))?;
        Ok(Some(Arc::new(block::Reader::open(&*self.vfs, &meta.path)?)))
    }
}

fn finding(shard: &Shard, block: &block::Reader) -> Finding {
    let meta = block.meta();
    let name = meta.path.file_name().unwrap_or_default().to_string_lossy();
    let what = format!(
        "{}; what is readable of it is served, the rest is missing from answers until other replicas have brought it, or the file is put back from a copy and the server restarted (removing the file `damage` accepts the loss)",
        block.damaged().unwrap_or_default()
    );
    Finding { shard: Some(shard.number), range: meta.range, source: block_source(shard.number, &name), what }
}

/// All bytes of a file, with zeros for what cannot be read.
fn read_what_can_be_read(vfs: &dyn Vfs, path: &Path) -> Result<Vec<u8>> {
    let file = vfs.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; file.len()? as usize];
    for (number, piece) in bytes.chunks_mut(READ).enumerate() {
        let at = (number * READ) as u64;
        if file.read_exact_at(piece, at).is_err() {
            for (page, small) in piece.chunks_mut(4096).enumerate() {
                small.fill(0);
                if file.read_exact_at(small, at + (page * 4096) as u64).is_err() {
                    small.fill(0);
                }
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(shard: Option<u16>, source: &str) -> Finding {
        let range = TimeRange::new(-1_000, 999);
        Finding {
            shard: shard.map(model::Shard),
            range,
            source: source.to_owned(),
            what: "it is\ndamaged".to_owned(),
        }
    }

    #[test]
    fn what_is_written_down_is_found_again_and_each_place_once() {
        let vfs = disk::CrashVfs::new();
        let dir = Path::new("/data");
        vfs.create_dir_all(dir).unwrap();
        let mut ledger = Ledger::open(&vfs, dir).unwrap();
        ledger.add(finding(Some(3), "block/3/a.block"));
        ledger.add(finding(None, "log/1/20"));
        ledger.add(finding(Some(3), "block/3/a.block"));
        ledger.save(&vfs, dir).unwrap();
        let mut again = Ledger::open(&vfs, dir).unwrap();
        assert_eq!(again, ledger);
        let damages = again.damages(2);
        assert_eq!(
            damages.iter().map(|d| (d.number, d.shard.0)).collect::<Vec<_>>(),
            [(1 << 16, 0), (1 << 16 | 1, 1)]
        );
        assert_eq!(again.damages(4).len(), 5);
        // A mended block is forgotten, a mended hole in the log is not while the log has it.
        assert_eq!(again.mend(3, 4).as_deref(), Some("3.a.block"));
        assert_eq!(again.mend(3, 4), None);
        for damage in again.damages(4) {
            again.mend(damage.number, 4);
        }
        assert_eq!(again.damages(4), []);
        assert!(again.knows("log/1/20") && !again.knows("block/3/a.block"));
        again.forget_gone(&["log/1/20".to_owned()]);
        again.add(finding(None, "log/1/20"));
        assert_eq!(again.damages(4), []);
        again.forget_gone(&[]);
        again.add(finding(None, "log/1/20"));
        assert_eq!(again.damages(4).len(), 4);
        assert_eq!(again.damages(1)[0].number, 2 << 16, "numbers are never given again");
    }

    #[test]
    fn a_list_that_is_damaged_itself_says_that_everything_may_be() {
        let vfs = disk::CrashVfs::new();
        let dir = Path::new("/data");
        vfs.create_dir_all(dir).unwrap();
        let file = vfs.open(&dir.join(FILE), OpenMode::Create).unwrap();
        file.write_all_at(b"sarsen damage\nnext = 1\n", 0).unwrap();
        let ledger = Ledger::open(&vfs, dir).unwrap();
        assert_eq!(ledger.damages(8).len(), 8);
        assert_eq!(ledger.warnings(TimeRange::new(5, 5), None).len(), 1);
    }

    #[test]
    fn a_list_that_no_engine_has_written_is_damaged_itself() {
        let whole = "next = 4\n1 0,1 -5 5 log/1/20-30 a hole\n3 - 0 9 log/2/0-9 mended\n";
        assert!(Ledger::parse(whole).is_some());
        for (from, to) in [
            ("3 -", "1 -"),
            ("next = 4", "next = 3"),
            ("next = 4", "next = 281474976710656"),
            ("next = 4", "next = +4"),
            ("-5 5", "5 -5"),
            ("0,1", "1,0"),
            ("hole\n", "hole\r\n"),
        ] {
            let spoilt = whole.replace(from, to);
            assert_ne!(spoilt, whole);
            assert_eq!(Ledger::parse(&spoilt), None, "{from} becomes {to}");
        }
    }

    #[test]
    fn too_many_damages_become_one_of_everything() {
        let mut ledger = Ledger::default();
        for i in 0..=ENTRIES_MAX {
            ledger.add(finding(Some(1), &format!("block/1/{i}.block")));
        }
        assert_eq!(
            ledger.damages(2).iter().map(|d| (d.shard.0, d.range)).collect::<Vec<_>>(),
            [(0, TimeRange::ALL), (1, TimeRange::ALL)]
        );
    }

    #[test]
    fn asking_for_damage_does_not_wait_for_shards_that_are_busy() {
        let (vfs, drawn) = (Arc::new(disk::CrashVfs::new()), std::sync::atomic::AtomicU64::new(1));
        let random = move || u128::from(drawn.fetch_add(1, SeqCst));
        let options = crate::Options { shards: 4, ..crate::Options::new("/data", random) };
        let engine = Engine::open(vfs, options, Arc::new(|| model::Timestamp(1)), &|_| ()).unwrap();
        // Other tests of this process find damaged blocks: then it has to look once more.
        let answered = (0..10).any(|_| {
            engine.damages();
            let busy: Vec<_> = engine.shards.iter().map(|shard| shard.state.lock()).collect();
            std::thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::channel();
                let engine = &engine;
                scope.spawn(move || tell.send(engine.damages()));
                let answer = told.recv_timeout(std::time::Duration::from_secs(1));
                drop(busy);
                answer.is_ok()
            })
        });
        assert!(answered);
    }

    #[test]
    fn the_format_page_shows_the_text_that_is_written() {
        let vfs = disk::CrashVfs::new();
        let dir = Path::new("/data");
        vfs.create_dir_all(dir).unwrap();
        let mut ledger = Ledger::default();
        let page_3 = "-1000-999-0-00000000000000000000000000000007.block";
        let mut block = finding(Some(3), &block_source(model::Shard(3), page_3));
        block.what = "the page fails its checksum".to_owned();
        ledger.add(block);
        let mut log = finding(None, "log/12/4096-8192");
        log.range = TimeRange::ALL;
        log.what = "log segment 12, bytes 4096 to 8192: damaged".to_owned();
        ledger.add(log);
        ledger.save(&vfs, dir).unwrap();
        let file = vfs.open(&dir.join(FILE), OpenMode::Read).unwrap();
        let mut text = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut text, 0).unwrap();
        let text = String::from_utf8(text).unwrap();
        let page = include_str!("../../../docs/format/damage.md");
        assert!(page.contains(&text), "docs/format/damage.md does not show:\n{text}");
    }
}
