//! From a label to the series that have it.
//!
//! ```text
//! labels   := FST of keys to u64
//! key      := name                  the series that have a label of this name
//!           | name 0xff value       the series with this label; 0xff occurs in no UTF-8
//! value    := series * 2 + 1        a single series
//!           | place * 2             of a list in the postings section
//! ```

use super::postings;
use super::series::Pair;
use fst::Automaton;
use std::collections::HashMap;

/// Between name and value in a key.
pub(super) const SEPARATOR: u8 = 0xff;

/// The key of a label.
pub(super) fn key(name: &str, value: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1 + value.len());
    key.extend_from_slice(name.as_bytes());
    key.push(SEPARATOR);
    key.extend_from_slice(value.as_bytes());
    key
}

/// What an FST value stands for.
pub(super) enum Found {
    One(u32),
    List(usize),
}

impl Found {
    pub fn decode(value: u64) -> Option<Found> {
        Some(if value & 1 != 0 {
            Found::One(u32::try_from(value >> 1).ok()?)
        } else {
            Found::List(usize::try_from(value >> 1).ok()?)
        })
    }
}

/// Both sections, for series with these labels.
pub(super) fn encode(symbols: &[&str], series: &[Vec<Pair>]) -> (Vec<u8>, Vec<u8>) {
    let mut lists: HashMap<Pair, Vec<u32>> = HashMap::new();
    let mut having: HashMap<u32, Vec<u32>> = HashMap::new();
    for (number, labels) in series.iter().enumerate() {
        for &(name, value) in labels {
            lists.entry((name, value)).or_default().push(number as u32);
            having.entry(name).or_default().push(number as u32);
        }
    }
    let named = having.into_iter().map(|(name, list)| (symbols[name as usize].as_bytes().to_vec(), list));
    let valued = (lists.into_iter())
        .map(|((name, value), list)| (key(symbols[name as usize], symbols[value as usize]), list));
    let mut entries: Vec<(Vec<u8>, Vec<u32>)> = named.chain(valued).collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));

    let mut labels = fst::MapBuilder::memory();
    let mut bytes = Vec::new();
    // Labels of one target sit on the same series: equal lists are stored once.
    let mut places: HashMap<Vec<u32>, u64> = HashMap::new();
    for (key, list) in entries {
        let value = match *list {
            [one] => u64::from(one) << 1 | 1,
            _ => *places.entry(list).or_insert_with_key(|list| {
                let at = (bytes.len() as u64) << 1;
                postings::encode(list, &mut bytes);
                at
            }),
        };
        labels.insert(key, value).expect("BUG: keys are sorted and memory takes them");
    }
    (labels.into_inner().expect("BUG: memory takes the FST"), bytes)
}

/// Accepts the keys that are bare names.
pub(super) struct BareNames;

impl Automaton for BareNames {
    type State = bool;

    fn start(&self) -> bool {
        true
    }

    fn is_match(&self, bare: &bool) -> bool {
        *bare
    }

    fn can_match(&self, bare: &bool) -> bool {
        *bare
    }

    fn accept(&self, bare: &bool, byte: u8) -> bool {
        *bare && byte != SEPARATOR
    }
}
