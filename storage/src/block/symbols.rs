//! Every label name and value once, sorted, front-coded in groups.
//!
//! ```text
//! section := count: u32 | starts: u32 x groups, from the first group | groups
//! group   := up to 8 x (shared: varint | len: varint | bytes)      shared with the symbol before; 0 for the first
//! ```

use crate::codec::Input;
use model::varint;

/// Symbols that must be read to reach one, at most. Longer groups are denser and slower.
const GROUP: usize = 8;

/// Appends the section; `sorted` is sorted and has no symbol twice.
pub(super) fn encode(sorted: &[&str], out: &mut Vec<u8>) -> Option<()> {
    out.extend(u32::try_from(sorted.len()).ok()?.to_le_bytes());
    let mut groups = Vec::new();
    for group in sorted.chunks(GROUP) {
        out.extend(u32::try_from(groups.len()).ok()?.to_le_bytes());
        let mut before: &[u8] = &[];
        for symbol in group {
            let symbol = symbol.as_bytes();
            let shared = before.iter().zip(symbol).take_while(|(a, b)| a == b).count();
            varint::put(&mut groups, shared as u64);
            varint::put(&mut groups, (symbol.len() - shared) as u64);
            groups.extend_from_slice(&symbol[shared..]);
            before = symbol;
        }
    }
    out.append(&mut groups);
    Some(())
}

/// Replaces `into` with symbol `number`; `None` if there is no such symbol or the bytes make no sense.
pub(super) fn get(section: &[u8], number: u32, into: &mut Vec<u8>) -> Option<()> {
    into.clear();
    let (count, rest) = section.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*count) as usize;
    let number = number as usize;
    if number >= count {
        return None;
    }
    let (starts, groups) = rest.split_at_checked(4 * count.div_ceil(GROUP))?;
    let start = starts.get(4 * (number / GROUP)..)?.first_chunk::<4>()?;
    let mut input = Input(groups.get(u32::from_le_bytes(*start) as usize..)?);
    for _ in 0..=number % GROUP {
        let shared = input.count(into.len())?;
        into.truncate(shared);
        let len = input.count(input.0.len())?;
        into.extend_from_slice(input.take(len)?);
    }
    Some(())
}
