//! From series id to slot, in one cache line most of the time.
//!
//! Open addressing with linear probing. An entry is 32 bits of the id and the slot beside them, so that neither growing
//! nor probing touches the series themselves; the caller compares the whole id in the slot, which it is about to use
//! anyway. Ids are keyed hashes already and are not hashed again. Nothing is ever removed: a head that drops series is
//! rebuilt.

use model::SeriesId;

/// Maps ids to slots.
#[derive(Default)]
pub struct Table {
    /// Tag in the high half, slot + 1 in the low half; 0 is empty. The length is a power of two, or zero.
    entries: Vec<u64>,
    len: usize,
}

/// The part of the id that is kept in an entry. It must not overlap the top bits, which are the same for a whole shard.
#[inline]
fn tag(id: SeriesId) -> u32 {
    id.0 as u32
}

impl Table {
    /// The slot of `id`, where `is(slot)` tells whether a slot really has that id.
    #[inline]
    pub fn find(&self, id: SeriesId, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let (tag, mask) = (tag(id), self.entries.len() - 1);
        let mut at = tag as usize & mask;
        loop {
            let entry = self.entries[at];
            if entry == 0 {
                return None;
            }
            let slot = (entry as u32) - 1;
            if (entry >> 32) as u32 == tag && is(slot) {
                return Some(slot);
            }
            at = (at + 1) & mask;
        }
    }

    /// The slot that `id` has if it has one and nothing was displaced: one load, and nothing that depends on it.
    #[inline]
    pub fn guess(&self, id: SeriesId) -> u32 {
        let at = tag(id) as usize & self.entries.len().wrapping_sub(1);
        self.entries.get(at).map_or(0, |entry| (*entry as u32).saturating_sub(1))
    }

    /// Adds an id that is not there.
    pub fn insert(&mut self, id: SeriesId, slot: u32) {
        // At most three quarters full.
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            let grown = vec![0; (self.entries.len() * 2).max(16)];
            for entry in std::mem::replace(&mut self.entries, grown) {
                if entry != 0 {
                    self.place(entry);
                }
            }
        }
        self.place(u64::from(tag(id)) << 32 | (u64::from(slot) + 1));
        self.len += 1;
    }

    fn place(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = (entry >> 32) as usize & mask;
        while self.entries[at] != 0 {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_again_while_the_table_grows() {
        let mut table = Table::default();
        let mut ids = Vec::new();
        let mut state = 1u128;
        for slot in 0..5000u32 {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(7);
            // Few distinct tags, so that probing and the comparison are exercised.
            let id = SeriesId(state << 32 | u128::from(slot % 700));
            assert_eq!(table.find(id, |s| ids[s as usize] == id), None);
            table.insert(id, slot);
            ids.push(id);
        }
        for (slot, &id) in ids.iter().enumerate() {
            assert_eq!(table.find(id, |s| ids[s as usize] == id), Some(slot as u32));
        }
    }
}
