//! How a list of series is stored.
//!
//! ```text
//! list := count * 4 + kind: varint | first: varint | body
//! kind 0: gap - 1: varint, (count - 1) times        kind 1: nothing, the numbers are consecutive
//! kind 2: len: varint | Roaring's portable format (the numbers from `first` on included)
//! ```

use crate::codec::Input;
use model::varint;
use roaring::RoaringBitmap;

const GAPS: u64 = 0;
const RUN: u64 = 1;
const ROARING: u64 = 2;

/// Appends a list that is strictly ascending and not empty.
pub(super) fn encode(list: &[u32], out: &mut Vec<u8>) {
    let (Some(&first), Some(&last)) = (list.first(), list.last()) else { return };
    let count = list.len() as u64;
    let put_head = |kind, out: &mut Vec<u8>| {
        varint::put(out, count << 2 | kind);
        varint::put(out, u64::from(first));
    };
    if u64::from(last - first) + 1 == count {
        return put_head(RUN, out);
    }
    let at = out.len();
    put_head(GAPS, out);
    list.windows(2).for_each(|pair| varint::put(out, u64::from(pair[1] - pair[0] - 1)));
    // Bitmaps begin to pay where an eighth of all series are in the list.
    if list.len() > 4096
        && let Ok(bitmap) = RoaringBitmap::from_sorted_iter(list.iter().copied())
        && bitmap.serialized_size() < out.len() - at
    {
        out.truncate(at);
        put_head(ROARING, out);
        varint::put(out, bitmap.serialized_size() as u64);
        bitmap.serialize_into(&mut *out).expect("BUG: writing to memory cannot fail");
    }
}

/// How many numbers the list at the front of `bytes` has.
pub(super) fn count(bytes: &[u8]) -> Option<usize> {
    usize::try_from(Input(bytes).varint()? >> 2).ok()
}

/// Reads a list of numbers below `series_count` from the front of `bytes`; `None` when malformed.
pub(super) fn decode(bytes: &[u8], series_count: u32) -> Option<Vec<u32>> {
    let mut input = Input(bytes);
    let head = input.varint()?;
    let count = u32::try_from(head >> 2).ok().filter(|&count| count > 0 && count <= series_count)?;
    let first = u32::try_from(input.varint()?).ok()?;
    let list = match head & 3 {
        GAPS => {
            if count as usize > input.0.len() + 1 {
                return None;
            }
            let mut list = Vec::with_capacity(count as usize);
            let mut at = first;
            list.push(at);
            for _ in 1..count {
                let gap = u32::try_from(input.varint()?).ok()?;
                at = at.checked_add(gap)?.checked_add(1)?;
                list.push(at);
            }
            list
        }
        RUN => (first..first.checked_add(count)?).collect(),
        ROARING => {
            let len = input.count(input.0.len())?;
            let bitmap = RoaringBitmap::deserialize_from(input.take(len)?).ok()?;
            if bitmap.len() != u64::from(count) {
                return None;
            }
            bitmap.iter().collect()
        }
        _ => return None,
    };
    list.last().is_some_and(|&last| last < series_count).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(list: &[u32]) -> usize {
        let mut bytes = Vec::new();
        encode(list, &mut bytes);
        let len = bytes.len();
        bytes.extend([1, 2, 3]);
        assert_eq!(decode(&bytes, list.last().unwrap() + 1).as_deref(), Some(list));
        assert_eq!(decode(&bytes, *list.last().unwrap()), None, "a number beyond the last series");
        len
    }

    #[test]
    fn each_kind_is_used_where_it_is_smallest() {
        assert_eq!(round_trip(&(7..100_000).collect::<Vec<_>>()), 4);
        assert!(round_trip(&(0..100_000).filter(|i| i % 3 > 0).collect::<Vec<_>>()) < 20_000);
        assert_eq!(round_trip(&[5, 9, 1000]), 5);
    }

    proptest! {
        #[test]
        fn lists_round_trip(list in prop::collection::btree_set(any::<u32>().prop_map(|v| v >> 1), 1..300)) {
            round_trip(&list.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes, 1000);
        }
    }
}
