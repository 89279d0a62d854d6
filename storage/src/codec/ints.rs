//! Integers: what every column ends as.
//!
//! All arithmetic is modulo 2^64, so any `i64` survives. With `q` the values minus the first, divided by their greatest
//! common divisor, and `a` one of `q`, its differences, or the differences of those, the mapped values are `a` minus
//! its minimum, or `a` in zigzag (plain values around the one that most of them have); those are packed, with their zeros in a bitmap of their own if that is smaller.
//!
//! ```text
//! chunk   := flags: u8 | first: zigzag varint | [gcd: varint] | [step: zigzag varint] | [min: zigzag varint]
//!            | [bitmap: one bit a mapped value, set if it is not zero] | stream
//! flags   : bits 0-1  0 values, 1 differences, 2 differences of differences, 3 constant (nothing after `first`)
//!           bit 2     zigzag, else `min` is there; but plain values have neither: `first` is the minimum, or zigzag's zero
//!           bit 3     gcd
//!           bit 4     bitmap; the stream then has only the values that are not zero
//!           bits 5-6  layout of the stream: 0 flat, 1 patched, 2 sub-blocks; bit 7 is zero
//! flat    := width: u8 | packed
//! patched := width: u8 | width of the patches: u8 | patches: varint | packed low bits | packed positions | packed high bits
//! blocks  := a width: u8 for each 64 values | packed, block after block
//! ```
//!
//! `step`, the first difference, is there for differences of differences. Positions take as many bits as the largest
//! possible one. Chunks of no values are no bytes.

use super::bits::{bit_len, pack, packed_len, unpack, width_for};
use super::{CHUNK_MAX, Input, with_room};
use model::varint;

const PLAIN: u8 = 0;
const DELTA: u8 = 1;
const DELTA2: u8 = 2;
const CONSTANT: u8 = 3;
const ZIGZAG: u8 = 1 << 2;
const GCD: u8 = 1 << 3;
const BITMAP: u8 = 1 << 4;
const LAYOUT_SHIFT: u32 = 5;
const FLAT: u8 = 0;
const PATCHED: u8 = 1;
const BLOCKS: u8 = 2;

/// Values in a sub-block.
const BLOCK: usize = 64;

/// Appends `values`, at most [`CHUNK_MAX`] of them.
pub fn encode(values: &[i64], out: &mut Vec<u8>) {
    assert!(values.len() <= CHUNK_MAX, "BUG: a chunk of {} values", values.len());
    let Some((&first, _)) = values.split_first() else { return };
    match values.len() {
        0..=32 => encode_with(first, values, [&mut [0; 32], &mut [0; 32], &mut [0; 32]], out),
        33..=128 => encode_with(first, values, [&mut [0; 128], &mut [0; 128], &mut [0; 128]], out),
        _ => encode_with(first, values, [&mut [0; CHUNK_MAX], &mut [0; CHUNK_MAX], &mut [0; CHUNK_MAX]], out),
    }
}

fn encode_with(first: i64, values: &[i64], buffers: [&mut [i64]; 3], out: &mut Vec<u8>) {
    let n = values.len();
    let [q, d1, d2] = buffers.map(|b| b.split_at_mut(n).0);
    let mut any = 0;
    for (q, v) in q.iter_mut().zip(values) {
        *q = v.wrapping_sub(first);
        any |= *q;
    }
    if any == 0 {
        out.push(CONSTANT);
        varint::put(out, varint::zigzag(first));
        return;
    }
    let gcd = Divisor::of(q);
    if let Some(gcd) = &gcd {
        q.iter_mut().for_each(|q| *q = gcd.quotient(*q));
    }
    differences(q, d1);
    differences(d1.split_at(n - 1).0, d2);
    let d1 = d1.split_at(n - 1).0;
    let d2 = d2.split_at(n.saturating_sub(2)).0;

    // A sequence that spreads wider than its neighbour cannot win, as outliers, which patches could take, are in both;
    // except that a steady climb with a few breaks is nothing but outliers once it is differenced twice.
    let (all, steps, bends) = (Range::of(q), Range::of(d1), Range::of(d2));
    let steady = || 4 * d2.iter().filter(|&&d| d == 0).count() > n;
    let plain = (all.bits() <= steps.bits() + 2).then(|| Plan::best(PLAIN, q, &all));
    let delta = Some(Plan::best(DELTA, d1, &steps));
    let delta2 =
        (n > 2 && (bends.bits() <= steps.bits() || steady())).then(|| Plan::best(DELTA2, d2, &bends));
    let plans = [plain, delta, delta2, Plan::around_rest(q, d1)].into_iter().flatten();
    let plan = plans.min_by_key(|plan| plan.bits).expect("BUG: differences always have a plan");
    let a = match plan.flags & 3 {
        PLAIN => &*q,
        DELTA => d1,
        _ => d2,
    };
    plan.write(first, gcd.as_ref(), d1.first().copied().unwrap_or(0), a, out);
}

fn differences(of: &[i64], into: &mut [i64]) {
    for (d, pair) in into.iter_mut().zip(of.array_windows::<2>()) {
        *d = pair[1].wrapping_sub(pair[0]);
    }
}

/// A common divisor of at least 2, ready for fast exact division.
struct Divisor {
    gcd: u64,
    /// `gcd` is `odd << shift`; `inverse * odd` is 1 modulo 2^64, which makes exact division a multiplication.
    inverse: u64,
    shift: u32,
    /// A multiple's quotient is at most this; anything else's pseudo-quotient is greater.
    quotient_max: u64,
}

impl Divisor {
    /// The greatest common divisor of `values`, of which one is not zero; `None` if it is 1.
    fn of(values: &[i64]) -> Option<Divisor> {
        let mut divisor = Divisor::new(0);
        for value in values {
            let value = value.unsigned_abs();
            if divisor.gcd == 0 || !divisor.divides(value) {
                divisor = Divisor::new(gcd(divisor.gcd, value));
                if divisor.gcd == 1 {
                    return None;
                }
            }
        }
        Some(divisor)
    }

    fn new(gcd: u64) -> Divisor {
        if gcd == 0 {
            return Divisor { gcd, inverse: 0, shift: 0, quotient_max: 0 };
        }
        let shift = gcd.trailing_zeros();
        let odd = gcd >> shift;
        // Newton's iteration doubles the bits that are right; an odd number is its own inverse modulo 8.
        let mut inverse = odd;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        }
        Divisor { gcd, inverse, shift, quotient_max: u64::MAX / gcd }
    }

    #[inline]
    fn divides(&self, value: u64) -> bool {
        value.wrapping_mul(self.inverse).rotate_right(self.shift) <= self.quotient_max
    }

    #[inline]
    fn quotient(&self, multiple: i64) -> i64 {
        (multiple >> self.shift).wrapping_mul(self.inverse as i64)
    }
}

/// Stein's algorithm: no division.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    if a == 0 || b == 0 {
        return a | b;
    }
    let shift = (a | b).trailing_zeros();
    a >>= a.trailing_zeros();
    while b != 0 {
        b >>= b.trailing_zeros();
        (a, b) = (a.min(b), a.abs_diff(b));
    }
    a << shift
}

/// The smallest and the largest of some values.
struct Range {
    min: i64,
    max: i64,
}

impl Range {
    fn of(values: &[i64]) -> Range {
        let (mut min, mut max) = (i64::MAX, i64::MIN);
        for &v in values {
            min = min.min(v);
            max = max.max(v);
        }
        Range { min, max }
    }

    fn bits(&self) -> u32 {
        bit_len(self.max.wrapping_sub(self.min) as u64)
    }
}

/// How to write one sequence, and its exact size.
struct Plan {
    /// As in the chunk, without the gcd's flag.
    flags: u8,
    /// What is subtracted before mapping: the minimum, or where zigzag has its zero.
    origin: i64,
    layout: Layout,
    /// Size of everything that depends on the plan.
    bits: usize,
}

#[derive(Clone, Copy)]
struct Layout {
    width: u32,
    /// Widest value; wider than `width` if there are patches.
    widest: u32,
    patches: usize,
    bits: usize,
}

impl Plan {
    /// The smallest way to write `a`, the sequence of this transform.
    fn best(transform: u8, a: &[i64], range: &Range) -> Plan {
        let Range { min, max } = *range;
        let min_bits = if transform == PLAIN { 0 } else { signed_bits(min) };
        let by_min = Plan::with_map(
            transform,
            min,
            min_bits,
            &histogram(a.iter().map(|v| v.wrapping_sub(min) as u64)),
            a.len(),
        );
        // With a minimum of 0 zigzag only doubles; far from 0 it has nothing to gain over the minimum's few bytes.
        if transform == PLAIN || min >= 0 || max <= 0 {
            return by_min;
        }
        let zigzag = Plan::with_map(
            transform | ZIGZAG,
            0,
            0,
            &histogram(a.iter().map(|&v| varint::zigzag(v))),
            a.len(),
        );
        if zigzag.bits <= by_min.bits { zigzag } else { by_min }
    }

    /// Plain values in zigzag around the one that most of them have, if there is one: scrapes that are on time but for a
    /// few, states that are left for a moment. Differences see each such excursion twice.
    fn around_rest(q: &[i64], differences: &[i64]) -> Option<Plan> {
        let resting = differences.iter().filter(|&&d| d == 0).count();
        if 2 * resting <= q.len() {
            return None;
        }
        // The majority vote of Boyer and Moore; without a majority any value is as good.
        let (mut rest, mut votes) = (0, 0usize);
        for &v in q {
            if votes == 0 {
                rest = v;
            }
            votes = if v == rest { votes + 1 } else { votes - 1 };
        }
        let lengths = histogram(q.iter().map(|v| varint::zigzag(v.wrapping_sub(rest))));
        Some(Plan::with_map(PLAIN | ZIGZAG, rest, 0, &lengths, q.len()))
    }

    fn with_map(flags: u8, origin: i64, extra_bits: usize, lengths: &[u16; 65], count: usize) -> Plan {
        let all = Layout::of(lengths, count);
        let [zeros, ..] = *lengths;
        let mut plan = Plan { flags, origin, layout: all, bits: all.bits + extra_bits };
        let bitmap_bits = count.div_ceil(8) * 8;
        if zeros as usize * usize::from(all.width as u8) > bitmap_bits {
            let mut lengths = *lengths;
            lengths[0] = 0;
            let rest = Layout::of(&lengths, count - zeros as usize);
            if rest.bits + bitmap_bits < all.bits {
                plan.flags |= BITMAP;
                plan.layout = rest;
                plan.bits = rest.bits + bitmap_bits + extra_bits;
            }
        }
        plan
    }

    fn write(&self, first: i64, gcd: Option<&Divisor>, step: i64, a: &[i64], out: &mut Vec<u8>) {
        let transform = self.flags & 3;
        let at = out.len();
        out.push(self.flags);
        let base = match (transform, gcd) {
            (PLAIN, None) => first.wrapping_add(self.origin),
            (PLAIN, Some(d)) => first.wrapping_add(self.origin.wrapping_mul(d.gcd as i64)),
            _ => first,
        };
        varint::put(out, varint::zigzag(base));
        let mut flags = self.flags;
        if let Some(divisor) = gcd {
            flags |= GCD;
            varint::put(out, divisor.gcd);
        }
        if transform == DELTA2 {
            varint::put(out, varint::zigzag(step));
        }
        if transform != PLAIN && flags & ZIGZAG == 0 {
            varint::put(out, varint::zigzag(self.origin));
        }
        let zigzag = flags & ZIGZAG != 0;
        let map = |v: i64| {
            let v = v.wrapping_sub(self.origin);
            if zigzag { varint::zigzag(v) } else { v as u64 }
        };
        let layout = with_room(a.len(), |mapped| {
            let mut count = a.len();
            if flags & BITMAP != 0 {
                count = 0;
                for eight in a.chunks(8) {
                    let mut byte = 0;
                    for (i, &v) in eight.iter().enumerate() {
                        let value = map(v);
                        byte |= u8::from(value != 0) << i;
                        if let Some(slot) = mapped.get_mut(count) {
                            *slot = value;
                        }
                        count += usize::from(value != 0);
                    }
                    out.push(byte);
                }
            } else {
                mapped.iter_mut().zip(a).for_each(|(slot, &v)| *slot = map(v));
            }
            Some(self.layout.write(mapped.get(..count)?, out))
        });
        let layout = layout.expect("BUG: a sequence longer than a chunk");
        if let Some(first) = out.get_mut(at) {
            *first = flags | layout << LAYOUT_SHIFT;
        }
    }
}

impl Layout {
    /// Flat or patched, whichever is smaller, for `count` values of these bit lengths.
    fn of(lengths: &[u16; 65], count: usize) -> Layout {
        let widest = lengths.iter().rposition(|&n| n > 0).unwrap_or(0) as u32;
        let width = width_for(widest);
        let mut best = Layout { width, widest, patches: 0, bits: 8 + 8 * packed_len(count, width) };
        let position = bit_len(count.saturating_sub(1) as u64);
        let mut patches = 0;
        for width in (0..widest.min(57)).rev() {
            patches += usize::from(lengths.get(width as usize + 1).copied().unwrap_or(0));
            if widest > 57 && width == 56 {
                // Everything of 57 bits and more becomes a patch at once.
                patches = lengths.iter().skip(57).map(|&n| usize::from(n)).sum();
            }
            // Bits, not yet rounded to bytes: two bytes of slack cover it.
            let each = (position + width_for(widest - width)) as usize;
            let bits = 8 * 4 + count * width as usize + patches * each;
            if bits < best.bits {
                best = Layout { width, widest, patches, bits };
            }
        }
        best
    }

    /// Writes the stream and says in which layout.
    fn write(&self, values: &[u64], out: &mut Vec<u8>) -> u8 {
        let widths = values.chunks(BLOCK).map(|b| width_for(bit_len(b.iter().fold(0, |or, v| or | v))));
        let block_bits: usize = widths
            .clone()
            .zip(values.chunks(BLOCK))
            .map(|(width, block)| 8 + 8 * packed_len(block.len(), width))
            .sum();
        if block_bits < self.bits {
            out.extend(widths.clone().map(|w| w as u8));
            for (block, width) in values.chunks(BLOCK).zip(widths) {
                pack(block.iter().copied(), width, out);
            }
            return BLOCKS;
        }
        out.push(self.width as u8);
        if self.patches == 0 {
            pack(values.iter().copied(), self.width, out);
            return FLAT;
        }
        let high = width_for(self.widest - self.width);
        out.push(high as u8);
        varint::put(out, self.patches as u64);
        let mask = (1u64 << self.width) - 1;
        pack(values.iter().map(|v| v & mask), self.width, out);
        let patched = || values.iter().enumerate().filter(|&(_, &v)| v > mask);
        pack(patched().map(|(at, _)| at as u64), bit_len(values.len() as u64 - 1), out);
        pack(patched().map(|(_, v)| v >> self.width), high, out);
        PATCHED
    }
}

fn signed_bits(value: i64) -> usize {
    8 * (bit_len(varint::zigzag(value)) as usize).div_ceil(7).max(1)
}

/// How many values have each bit length.
#[inline]
fn histogram(values: impl Iterator<Item = u64>) -> [u16; 65] {
    // Two tables, so that equal lengths in a row do not wait for each other's count.
    let mut tables = [[0u16; 128]; 2];
    let [even, odd] = &mut tables;
    let count = |table: &mut [u16; 128], value: u64| {
        if let Some(slot) = table.get_mut((bit_len(value) & 127) as usize) {
            *slot += 1;
        }
    };
    let mut values = values;
    while let Some(value) = values.next() {
        count(even, value);
        if let Some(value) = values.next() {
            count(odd, value);
        }
    }
    std::array::from_fn(|i| even.get(i).copied().unwrap_or(0) + odd.get(i).copied().unwrap_or(0))
}

/// Fills `out` with as many values as it has room for and gives the bytes behind the chunk.
pub fn decode<'a>(bytes: &'a [u8], out: &mut [i64]) -> Option<&'a [u8]> {
    let n = out.len();
    if n == 0 {
        return Some(bytes);
    }
    if n > CHUNK_MAX {
        return None;
    }
    let mut input = Input(bytes);
    let flags = input.byte()?;
    let first = input.signed()?;
    if flags == CONSTANT {
        out.fill(first);
        return Some(input.0);
    }
    let transform = flags & 3;
    if transform == CONSTANT || flags & 0x80 != 0 || n <= usize::from(transform) {
        return None;
    }
    let gcd = if flags & GCD != 0 { input.varint()? as i64 } else { 1 };
    let step = if transform == DELTA2 { input.signed()? } else { 0 };
    let zigzag = flags & ZIGZAG != 0;
    let min = if transform != PLAIN && !zigzag { input.signed()? } else { 0 };
    let a = out.get_mut(usize::from(transform)..)?;
    let layout = flags >> LAYOUT_SHIFT;
    if flags & BITMAP != 0 {
        bitmap(&mut input, layout, a)?;
    } else {
        stream(&mut input, layout, a)?;
    }
    match transform {
        PLAIN => {
            if zigzag {
                out.iter_mut().for_each(|v| *v = varint::unzigzag(*v as u64));
            }
            scale(out, first, gcd);
        }
        DELTA => {
            let mut q = 0i64;
            if gcd == 1 {
                q = first;
            }
            if let Some(slot) = out.first_mut() {
                *slot = q;
            }
            let rest = out.get_mut(1..)?;
            if zigzag {
                for slot in rest {
                    q = q.wrapping_add(varint::unzigzag(*slot as u64));
                    *slot = q;
                }
            } else {
                for slot in rest {
                    q = q.wrapping_add(slot.wrapping_add(min));
                    *slot = q;
                }
            }
            if gcd != 1 {
                scale(out, first, gcd);
            }
        }
        _ => {
            let (head, rest) = out.split_at_mut(2);
            head.copy_from_slice(&[0, step]);
            let (mut q, mut d) = (step, step);
            for slot in rest {
                let a = if zigzag { varint::unzigzag(*slot as u64) } else { slot.wrapping_add(min) };
                d = d.wrapping_add(a);
                q = q.wrapping_add(d);
                *slot = q;
            }
            scale(out, first, gcd);
        }
    }
    Some(input.0)
}

fn scale(values: &mut [i64], first: i64, gcd: i64) {
    if gcd == 1 {
        values.iter_mut().for_each(|v| *v = first.wrapping_add(*v));
    } else {
        values.iter_mut().for_each(|v| *v = first.wrapping_add(v.wrapping_mul(gcd)));
    }
}

/// Reads the mapped values that are not zero and puts them where the bitmap says.
fn bitmap(input: &mut Input<'_>, layout: u8, out: &mut [i64]) -> Option<()> {
    let map = input.take(out.len().div_ceil(8))?;
    let count = map.iter().map(|byte| byte.count_ones() as usize).sum::<usize>();
    with_room(count, |packed| {
        stream(input, layout, packed)?;
        out.fill(0);
        let mut packed = packed.iter();
        for (eight, &byte) in out.chunks_mut(8).zip(map) {
            let mut bits = byte;
            while bits != 0 {
                // A bit beyond the last value has no slot.
                *eight.get_mut(bits.trailing_zeros() as usize)? = *packed.next()?;
                bits &= bits - 1;
            }
        }
        Some(())
    })
}

fn stream(input: &mut Input<'_>, layout: u8, out: &mut [i64]) -> Option<()> {
    match layout & 3 {
        FLAT => {
            let width = u32::from(input.byte()?);
            unpack(input.take(packed_len(out.len(), width))?, width, out)
        }
        PATCHED => {
            let width = u32::from(input.byte()?);
            let high = u32::from(input.byte()?);
            let count = input.count(out.len())?;
            if width > 56 || count == 0 {
                return None;
            }
            unpack(input.take(packed_len(out.len(), width))?, width, out)?;
            let position = bit_len(out.len() as u64 - 1);
            with_room(count, |positions| {
                unpack(input.take(packed_len(count, position))?, position, positions)?;
                with_room(count, |highs| {
                    unpack(input.take(packed_len(count, high))?, high, highs)?;
                    for (&at, &bits) in positions.iter().zip(highs.iter()) {
                        *out.get_mut(at as usize)? |= bits << width;
                    }
                    Some(())
                })
            })
        }
        BLOCKS => {
            let widths = input.take(out.len().div_ceil(BLOCK))?;
            for (block, &width) in out.chunks_mut(BLOCK).zip(widths) {
                let width = u32::from(width);
                unpack(input.take(packed_len(block.len(), width))?, width, block)?;
            }
            Some(())
        }
        _ => None,
    }
}
