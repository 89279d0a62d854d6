//! Numbers for series: a byte or two where an id has sixteen.

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::faults::{Mistake, planted};
use crate::rows;
use hashbrown::HashTable;
use model::{SeriesId, Shard};
use parking_lot::{Mutex, MutexGuard};

/// Series that have numbers, of all shards together: 16 bytes each at every receiver, about 48 at the sender.
const SERIES_MAX: u32 = 1 << 22;

/// Series of one shard that have numbers.
pub(super) fn series_max(shards: u32) -> u32 {
    (SERIES_MAX / shards.max(1)).max(64)
}

/// A sender's life, from one start to the next. A receiver forgets the numbers of an earlier one.
///
/// Rises with every start, and is never the same twice, not even where a directory was copied: the upper half is how often the node was
/// started, the lower half is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

impl Session {
    /// Of the start number `starts`.
    pub fn new(starts: u64, random: u32) -> Session {
        Session(starts << 32 | u64::from(random))
    }
}

/// The numbers that this node has given out, the same for all receivers. Shared between requests; each shard has its lock, and no other is
/// taken under it.
#[derive(Debug)]
pub struct Dictionary {
    shards: Vec<Mutex<Numbers>>,
    series_max: u32,
}

#[derive(Debug)]
pub(super) struct Numbers {
    /// Rises when all numbers are taken back. 0 stands for a section without numbers, so the first is 1.
    pub generation: u32,
    table: HashTable<Numbered>,
    series_max: u32,
}

/// 24 bytes, where `u128` would make it 32.
#[derive(Debug)]
struct Numbered {
    high: u64,
    low: u64,
    number: u32,
}

impl Dictionary {
    /// Without numbers, for this many shards.
    pub fn new(shards: u32) -> Dictionary {
        let series_max = series_max(shards);
        let numbers = || Mutex::new(Numbers { generation: 1, table: HashTable::new(), series_max });
        Dictionary { shards: (0..shards).map(|_| numbers()).collect(), series_max }
    }

    /// How many series have a number.
    pub fn series(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().table.len()).sum()
    }

    /// The numbers of a shard, with room for `series` more: if there is none, all numbers are taken back.
    pub(super) fn shard(&self, shard: Shard, series: usize) -> Option<MutexGuard<'_, Numbers>> {
        let mut numbers = self.shards.get(usize::from(shard.0))?.lock();
        if numbers.table.len() + series > self.series_max as usize && !numbers.table.is_empty() {
            numbers.table.clear();
            numbers.generation += 1;
        }
        Some(numbers)
    }
}

impl Numbers {
    /// The number of a series, if it has one.
    #[inline]
    pub fn get(&self, id: SeriesId) -> Option<u32> {
        let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
        self.table.find(low, |known| known.low == low && known.high == high).map(|known| known.number)
    }

    /// A number for a series that has none; `None` when there are no more.
    pub fn give(&mut self, id: SeriesId) -> Option<u32> {
        let number = u32::try_from(self.table.len()).ok().filter(|number| *number < self.series_max)?;
        let (high, low) = ((id.0 >> 64) as u64, id.0 as u64);
        self.table.insert_unique(low, Numbered { high, low, number }, |known| known.low);
        Some(number)
    }
}

/// What one sender's numbers stand for, as far as this node has heard.
#[derive(Debug)]
pub struct Mirror {
    session: Session,
    shards: Vec<Mutex<Reflected>>,
    series_max: u32,
}

#[derive(Debug, Default)]
struct Reflected {
    generation: u32,
    /// By number. [`SeriesId`] 0 stands for none: no series has it, and nobody can define it.
    ids: Vec<SeriesId>,
}

impl Mirror {
    /// Of a sender whose numbers are not known yet.
    pub fn new(session: Session, shards: u32) -> Mirror {
        let shards_max = shards as usize;
        Mirror {
            session,
            shards: (0..shards_max).map(|_| Mutex::default()).collect(),
            series_max: series_max(shards),
        }
    }

    /// The sender's session.
    pub fn session(&self) -> Session {
        self.session
    }

    /// What the numbers of a section stand for. Sections of an earlier session or generation find nothing and change nothing.
    pub(super) fn of(&self, session: Session, shard: Shard, generation: u32) -> Reflection<'_> {
        let usable = generation > 0 && (session == self.session || planted(Mistake::KeepOldNumbers));
        let numbers = self.shards.get(usize::from(shard.0)).filter(|_| usable).and_then(|shard| {
            let mut numbers = shard.lock();
            if generation > numbers.generation {
                numbers.ids.clear();
                numbers.generation = generation;
            }
            (generation == numbers.generation).then_some(numbers)
        });
        Reflection { numbers, series_max: self.series_max }
    }
}

/// The numbers of one shard while a section is read.
pub(super) struct Reflection<'a> {
    numbers: Option<MutexGuard<'a, Reflected>>,
    series_max: u32,
}

impl rows::Dictionary for Reflection<'_> {
    #[inline]
    fn resolve(&mut self, number: u32) -> Option<SeriesId> {
        let id = *self.numbers.as_ref()?.ids.get(number as usize)?;
        (id != SeriesId(0)).then_some(id)
    }

    fn define(&mut self, number: u32, id: SeriesId) -> bool {
        if number >= self.series_max || id == SeriesId(0) {
            return false;
        }
        if let Some(numbers) = &mut self.numbers {
            let at = number as usize;
            if numbers.ids.len() <= at {
                numbers.ids.resize(at + 1, SeriesId(0));
            }
            if let Some(known) = numbers.ids.get_mut(at) {
                *known = id;
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::rows::Dictionary as _;

    #[test]
    fn when_numbers_run_out_all_are_taken_back_and_a_mirror_forgets_the_old_ones() {
        // The fewest numbers: 64 a shard.
        let dictionary = Dictionary::new(1 << 16);
        let mirror = Mirror::new(Session(5), 1 << 16);
        let shard = Shard(3);
        for i in 1..=64u128 {
            let mut numbers = dictionary.shard(shard, 1).unwrap();
            assert_eq!((numbers.get(SeriesId(i)), numbers.generation), (None, 1));
            let number = numbers.give(SeriesId(i)).unwrap();
            assert!(mirror.of(Session(5), shard, 1).define(number, SeriesId(i)));
        }
        assert_eq!(mirror.of(Session(5), shard, 1).resolve(63), Some(SeriesId(64)));
        assert_eq!(dictionary.shard(shard, 0).unwrap().give(SeriesId(65)), None);
        let mut numbers = dictionary.shard(shard, 1).unwrap();
        assert_eq!((numbers.generation, numbers.give(SeriesId(65))), (2, Some(0)));
        assert!(mirror.of(Session(5), shard, 2).define(0, SeriesId(65)));
        // A late section of the old generation finds nothing, and does not bring it back.
        assert_eq!(mirror.of(Session(5), shard, 1).resolve(0), None);
        assert!(mirror.of(Session(5), shard, 1).define(1, SeriesId(9)));
        assert_eq!(mirror.of(Session(5), shard, 2).resolve(1), None);
        assert_eq!(mirror.of(Session(5), shard, 2).resolve(0), Some(SeriesId(65)));
        // Neither does another session, nor a number out of bounds.
        assert_eq!(mirror.of(Session(4), shard, 2).resolve(0), None);
        assert!(!mirror.of(Session(5), shard, 2).define(64, SeriesId(1)));
    }

    #[test]
    fn a_later_start_is_a_later_session() {
        assert!(Session::new(2, 0) > Session::new(1, u32::MAX));
    }
}
