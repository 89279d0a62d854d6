//! A machine without its programs: a disk and a clock.

use super::careless::Careless;
use super::swarm::DiskWeather;
use crate::random::Random;
use disk::crash::{Dropped, Survivors};
use disk::fault::{Fault, Operation, Rule};
use disk::{CrashVfs, FaultVfs, OpenMode, Vfs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The wall clock of everybody at the beginning: the middle of a day in 2026.
pub const EPOCH_MS: i64 = 1_780_000_000_000;

/// A disk that loses what was not synced when the power fails, and that can fail before that.
pub struct Disk {
    vfs: FaultVfs<CrashVfs>,
    /// Operations that somebody was told of: a crash goes back behind none of them.
    stable: usize,
    weather: DiskWeather,
    lots: Random,
    slow: bool,
    healed: bool,
}

impl Disk {
    /// An empty one.
    pub fn new(weather: DiskWeather, lots: Random) -> Disk {
        let vfs = FaultVfs::dropping(CrashVfs::new(), Dropped::Readable);
        Disk { vfs, stable: 0, weather, lots, slow: false, healed: false }
    }

    /// As programs see it.
    pub fn vfs(&self) -> Arc<dyn Vfs> {
        match Careless::planted(self.vfs.clone()) {
            Ok(careless) => Arc::new(careless),
            Err(vfs) => Arc::new(vfs),
        }
    }

    /// How long a sync takes that begins now.
    pub fn sync_ms(&mut self) -> u64 {
        let DiskWeather { sync_least_ms, sync_most_ms, stalls } = self.weather;
        let (usual, stall) =
            (self.lots.between(sync_least_ms, sync_most_ms), self.lots.between(1_000, 6_000));
        let stalled = self.lots.percent(stalls) || self.slow && self.lots.percent(50);
        if stalled && !self.healed { stall } else { usual }
    }

    /// Where the disk is now. What was done before is promised once [`Disk::settle`] is called with it.
    pub fn position(&self) -> usize {
        self.vfs.inner().operations()
    }

    /// Somebody was told that everything up to here is done.
    pub fn settle(&mut self, position: usize) {
        self.stable = self.stable.max(position);
    }

    /// The power fails. What was promised is there; of the rest, whatever the lots say.
    pub fn lose_power(&mut self) -> String {
        let journal = self.vfs.inner().journal();
        let after = self.lots.between(self.stable.min(journal.len()) as u64, journal.len() as u64) as usize;
        let survivors = match self.lots.below(6) {
            0 => Survivors::Nothing,
            1 => Survivors::Everything,
            2 => Survivors::Torn(self.lots.below(8) as u32),
            _ => Survivors::Lots(self.lots.number()),
        };
        let crash = journal.crash(after, survivors);
        self.vfs = FaultVfs::dropping(crash.vfs, Dropped::Readable);
        self.stable = 0;
        format!("{survivors} after {after} of {}", journal.len())
    }

    /// Errors go away with the process that saw them.
    pub fn replug(&mut self) {
        self.vfs.clear();
    }

    /// One write or sync in a file whose path has this part will fail.
    pub fn fail_one(&mut self, part: &str) -> String {
        let operation = *self.lots.pick(&[Operation::Sync, Operation::Sync, Operation::Write]);
        let fault = *self.lots.pick(&[Fault::Eio, Fault::Eio, Fault::Short]);
        let fault = if operation == Operation::Sync { Fault::Eio } else { fault };
        self.vfs.add(Rule::new(operation, fault).path(part).nth(self.lots.between(1, 3)));
        format!("{operation:?} {fault:?} in {part}")
    }

    /// Syncs take long, or no longer.
    pub fn set_slow(&mut self, slow: bool) {
        self.slow = slow;
    }

    /// From now on it is a good disk.
    pub fn heal(&mut self) {
        self.vfs.clear();
        self.slow = false;
        self.healed = true;
    }

    /// Changes one bit of a file below `dir` whose name ends so; `None` if there is none.
    pub fn flip_bit(&mut self, dir: &str, suffix: &str) -> Option<String> {
        let disk = self.vfs.inner().clone();
        let mut files = Vec::new();
        collect(&disk, Path::new(dir), suffix, &mut files);
        if files.is_empty() {
            return None;
        }
        let path = self.lots.pick(&files).clone();
        self.flip_file(&path)
    }

    fn flip_file(&mut self, path: &Path) -> Option<String> {
        let disk = self.vfs.inner().clone();
        let file = disk.open(path, OpenMode::Write).ok()?;
        let at = self.lots.below(file.len().ok()?.max(1));
        let bit = self.lots.below(8);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).ok()?;
        byte[0] ^= 1 << bit;
        file.write_all_at(&byte, at).ok()?;
        file.sync_data().ok()?;
        self.settle(self.position());
        Some(format!("bit {bit} of byte {at} of {}", path.display()))
    }
}

impl Disk {
    /// Changes one bit of a segment of the log in `dir`, not of the last one: there nobody could tell it from a torn tail, and a torn tail
    /// was not promised to anybody. Now and then.
    pub fn flip_log(&mut self, dir: &str) -> Option<String> {
        let disk = self.vfs.inner().clone();
        let mut files = Vec::new();
        collect(&disk, Path::new(dir), ".log", &mut files);
        files.sort();
        files.pop();
        if !self.lots.percent(60) || files.is_empty() {
            return None;
        }
        let path = self.lots.pick(&files).clone();
        self.flip_file(&path)
    }
}

fn collect(vfs: &CrashVfs, dir: &Path, suffix: &str, into: &mut Vec<PathBuf>) {
    for entry in vfs.list(dir).unwrap_or_default() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            collect(vfs, &path, suffix, into);
        } else if entry.name.ends_with(suffix) && entry.len > 0 {
            into.push(path);
        }
    }
}

/// A wall clock that need not be right. What reads it is handed [`WallClock::reader`] and sees what was last set.
pub struct WallClock {
    off_ms: i64,
    shown: Arc<AtomicI64>,
}

impl WallClock {
    /// So much before or behind the true time.
    pub fn new(off_ms: i64) -> WallClock {
        WallClock { off_ms, shown: Arc::new(AtomicI64::new(EPOCH_MS + off_ms)) }
    }

    /// It is so late in truth.
    pub fn set(&self, now_ms: u64) {
        self.shown.store(EPOCH_MS + now_ms as i64 + self.off_ms, Relaxed);
    }

    /// What it shows.
    pub fn shown(&self) -> i64 {
        self.shown.load(Relaxed)
    }

    /// For engines.
    pub fn reader(&self) -> Arc<dyn Fn() -> model::Timestamp + Send + Sync> {
        let shown = self.shown.clone();
        Arc::new(move || model::Timestamp(shown.load(Relaxed)))
    }

    /// It jumps.
    pub fn jump(&mut self, by_ms: i64) {
        self.off_ms += by_ms;
    }

    /// It is right again.
    pub fn heal(&mut self) {
        self.off_ms = 0;
    }
}
