//! Floats: most of what is measured has few decimals, so it is an integer over a power of ten.
//!
//! `value = integer / 10^e` with `e` up to 15 and the integer below 2^51, taken only if the division gives back the
//! very same bits. What does not (NaN, -0.0, infinities, full-precision values among short ones) is an exception if
//! there are few runs of those; otherwise the chunk's float bits become integers in the order of the floats.
//!
//! ```text
//! chunk    := flags: u8 | body
//! flags    : bits 0-3 e; bits 4-5 kind: 0 decimal, 1 decimal with exceptions, 2 raw, 3 one raw value; bit 6 constant
//! decimal  := ints, or one zigzag varint if constant
//! with exceptions := runs: varint | runs x (gap: varint | length: varint | bits: u64 LE) | ints or constant as above
//! raw      := ints of the ordered bits
//! one      := bits: u64 LE
//! ```
//!
//! A gap counts the values since the last run's end. Under an exception lies any integer (in fact the one before it).

use super::{CHUNK_MAX, Input, ints, with_room};
use model::varint;

const EXCEPTIONS: u8 = 1 << 4;
const RAW: u8 = 2 << 4;
const ONE: u8 = 3 << 4;
const KIND: u8 = 3 << 4;
const EXPONENT: u8 = 0x0f;
const CONSTANT: u8 = 1 << 6;

const POW10: [f64; 16] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[inline(always)]
fn power(e: u8) -> f64 {
    POW10.get(usize::from(e & EXPONENT)).copied().unwrap_or(1.0)
}

/// Adding this to a float of less than 2^51 rounds it to an integer and leaves that in the low bits. Two plain
/// instructions that exist for vectors everywhere, unlike conversions of 64-bit integers.
const MAGIC: f64 = 6_755_399_441_055_744.0;
const MAGIC_BITS: i64 = MAGIC.to_bits() as i64;
const INTEGER_MAX: f64 = (1u64 << 51) as f64;

/// Values looked at to guess the exponent.
const PROBES: usize = 6;

/// Appends `values`, at most [`CHUNK_MAX`] of them.
pub fn encode(values: &[f64], out: &mut Vec<u8>) {
    assert!(values.len() <= CHUNK_MAX, "BUG: a chunk of {} values", values.len());
    let Some(first) = values.first() else { return };
    let first = first.to_bits();
    if values.iter().fold(0, |or, v| or | (v.to_bits() ^ first)) == 0 {
        return encode_constant(f64::from_bits(first), out);
    }
    let done = with_room(values.len(), |integers| {
        encode_decimals(values, integers, out).or_else(|| {
            out.push(RAW);
            for (integer, value) in integers.iter_mut().zip(values) {
                *integer = ordered(value.to_bits() as i64);
            }
            ints::encode(integers, out);
            Some(())
        })
    });
    done.expect("BUG: no room for a chunk");
}

fn encode_constant(value: f64, out: &mut Vec<u8>) {
    if let Some(e) = exponent_of(value) {
        out.push(e | CONSTANT);
        varint::put(out, varint::zigzag(to_integer(value, e).0));
    } else {
        out.push(ONE);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

/// `None` if too many values are no decimals.
fn encode_decimals(values: &[f64], integers: &mut [i64], out: &mut Vec<u8>) -> Option<()> {
    let stride = values.len().div_ceil(PROBES);
    let mut e = values.iter().step_by(stride).filter_map(|&v| exponent_of(v)).max()?;
    let mut odd = try_exponent(values, e, integers);
    if odd > 0 {
        e = better_exponent(values, e)?;
        odd = try_exponent(values, e, integers);
    }
    if odd == 0 {
        out.push(e);
        ints::encode(integers, out);
        return Some(());
    }
    let runs = exception_runs(values, e, integers)?;
    out.push(e | EXCEPTIONS);
    varint::put(out, runs.len() as u64);
    let mut at = 0;
    for run in runs {
        varint::put(out, (run.at - at) as u64);
        varint::put(out, run.len as u64);
        out.extend_from_slice(&run.bits.to_le_bytes());
        at = run.at + run.len;
    }
    ints::encode(integers, out);
    Some(())
}

/// The integer and whether dividing it gives back the value's bits.
#[inline(always)]
fn to_integer(value: f64, e: u8) -> (i64, bool) {
    let unit = power(e);
    let shifted = value * unit + MAGIC;
    let rounded = shifted - MAGIC;
    let exact = ((rounded / unit).to_bits() == value.to_bits()) & (rounded.abs() < INTEGER_MAX);
    ((shifted.to_bits() as i64).wrapping_sub(MAGIC_BITS), exact)
}

/// The smallest exponent under which `value` is a decimal.
fn exponent_of(value: f64) -> Option<u8> {
    (0..16u8).take_while(|&e| (value * power(e)).abs() < INTEGER_MAX).find(|&e| to_integer(value, e).1)
}

/// Turns all values into integers and counts those that are not exact.
fn try_exponent(values: &[f64], e: u8, integers: &mut [i64]) -> usize {
    let mut odd = 0;
    for (integer, &value) in integers.iter_mut().zip(values) {
        let (number, exact) = to_integer(value, e);
        *integer = number;
        odd += u64::from(!exact);
    }
    odd as usize
}

/// The guess did not fit all values. Weighs exceptions against longer integers.
fn better_exponent(values: &[f64], guess: u8) -> Option<u8> {
    // How many values need exactly this exponent; the last slot counts those that are no decimals.
    let mut need = [0usize; 17];
    let mut previous = (0, 16);
    for &value in values {
        let exponent = if to_integer(value, guess).1 {
            usize::from(guess)
        } else {
            if previous.0 != value.to_bits() {
                previous = (value.to_bits(), exponent_of(value).map_or(16, usize::from));
            }
            previous.1
        };
        if let Some(need) = need.get_mut(exponent) {
            *need += 1;
        }
    }
    // An exception takes about 10 bytes, a decimal more makes each integer 3.3 bits longer.
    let cost = |e: usize| need.iter().skip(e + 1).sum::<usize>() * 80 + values.len() * e * 10 / 3;
    let possible = |e: &usize| need.iter().take(e + 1).sum::<usize>() > 0;
    (0..16).filter(possible).min_by_key(|&e| cost(e)).map(|e| e as u8)
}

struct Run {
    at: usize,
    len: usize,
    bits: u64,
}

/// The exceptions; their integers become that of the value before, which costs least. `None` if there are too many.
fn exception_runs(values: &[f64], e: u8, integers: &mut [i64]) -> Option<Vec<Run>> {
    let runs_max = values.len().div_ceil(16);
    let mut runs: Vec<Run> = Vec::new();
    // In front of the first decimal lies the first decimal.
    let mut before = values.iter().map(|&v| to_integer(v, e)).find(|&(_, exact)| exact)?.0;
    for (at, (integer, value)) in integers.iter_mut().zip(values).enumerate() {
        if to_integer(*value, e).1 {
            before = *integer;
            continue;
        }
        *integer = before;
        let bits = value.to_bits();
        match runs.last_mut() {
            Some(run) if run.bits == bits && run.at + run.len == at => run.len += 1,
            _ => runs.push(Run { at, len: 1, bits }),
        }
        if runs.len() > runs_max {
            return None;
        }
    }
    Some(runs)
}

/// Float bits as integers in the floats' order; its own inverse.
#[inline]
fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Appends `count` values to `out` and gives the bytes behind the chunk. On `None`, `out` is as before.
pub fn decode<'a>(bytes: &'a [u8], count: usize, out: &mut Vec<f64>) -> Option<&'a [u8]> {
    with_room(count, |integers| decode_through(bytes, integers, out))
}

fn decode_through<'a>(bytes: &'a [u8], integers: &mut [i64], out: &mut Vec<f64>) -> Option<&'a [u8]> {
    if integers.is_empty() {
        return Some(bytes);
    }
    let mut input = Input(bytes);
    let flags = input.byte()?;
    if flags & 0x80 != 0 {
        return None;
    }
    let e = flags & EXPONENT;
    let unit = power(e);
    let start = out.len();
    let mut runs = None;
    match flags & KIND {
        RAW if flags == RAW => {
            let rest = ints::decode(input.0, integers)?;
            out.extend(integers.iter().map(|&v| f64::from_bits(ordered(v) as u64)));
            return Some(rest);
        }
        ONE if flags == ONE => {
            let value = f64::from_bits(input.word()?);
            out.resize(start + integers.len(), value);
            return Some(input.0);
        }
        RAW | ONE => return None,
        EXCEPTIONS => {
            let count = input.count(integers.len())?;
            runs = Some((count, Input(input.0)));
            for _ in 0..count {
                input.varint()?;
                input.varint()?;
                input.word()?;
            }
        }
        _ => {}
    }
    let rest = if flags & CONSTANT != 0 {
        let value = to_float(input.signed()?) / unit;
        out.resize(start + integers.len(), value);
        input.0
    } else {
        let rest = ints::decode(input.0, integers)?;
        if e == 0 {
            out.extend(integers.iter().map(|&v| to_float(v)));
        } else {
            out.extend(integers.iter().map(|&v| to_float(v) / unit));
        }
        rest
    };
    if let Some((count, runs)) = runs
        && patch(count, runs, out.get_mut(start..)?).is_none()
    {
        out.truncate(start);
        return None;
    }
    Some(rest)
}

#[inline(always)]
fn to_float(integer: i64) -> f64 {
    f64::from_bits(integer.wrapping_add(MAGIC_BITS) as u64) - MAGIC
}

fn patch(count: usize, mut runs: Input<'_>, values: &mut [f64]) -> Option<()> {
    let mut rest = values;
    for _ in 0..count {
        let gap = runs.count(rest.len())?;
        let len = runs.count(rest.len() - gap)?;
        let bits = runs.word()?;
        let (run, after) = rest.get_mut(gap..)?.split_at_mut(len);
        run.fill(f64::from_bits(bits));
        rest = after;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(values: &[f64]) -> usize {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let len = bytes.len();
        bytes.push(0x5a);
        let mut back = vec![1.5];
        let rest = decode(&bytes, values.len(), &mut back).expect("own bytes decode");
        assert_eq!(rest, [0x5a]);
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back[1..]), bits(values));
        len
    }

    #[test]
    fn short_decimals_take_two_bytes_when_constant() {
        assert_eq!(round_trip(&[0.25; 480]), 2);
        assert_eq!(round_trip(&[1.0; 480]), 2);
        assert_eq!(round_trip(&[model::value::stale(); 480]), 9);
    }

    #[test]
    fn odd_values_among_decimals_are_exceptions() {
        let mut values: Vec<f64> = (0..480).map(|i| f64::from(i) * 0.5 + 1000.0).collect();
        let plain = round_trip(&values);
        values[7] = model::value::stale();
        values[8] = model::value::stale();
        values[100] = -0.0;
        values[479] = f64::INFINITY;
        values[200] = std::f64::consts::PI;
        // Ten bytes each, and two steps of the counter that are now irregular.
        assert!(round_trip(&values) < plain + 4 * 14 + 64);
    }

    #[test]
    fn counters_with_resets_stay_small() {
        let values: Vec<f64> = (0..480).map(|i| f64::from(i % 97) * 3.0).collect();
        assert!(round_trip(&values) < 480 / 4);
    }

    fn special() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => Just(model::value::stale()),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => prop::sample::select(vec![
                -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, f64::MIN_POSITIVE, 5e-324, f64::MAX,
                2_251_799_813_685_247.0, 2_251_799_813_685_248.0, 4_503_599_627_370_497.0, 9_007_199_254_740_993.0, 1e15, 1e16, 1e300,
                0.1 + 0.2, 1e-15, 1e-16, -1e-7,
            ]),
        ]
    }

    fn columns() -> impl Strategy<Value = Vec<f64>> {
        let decimals = (0i32..16, -1_000_000i64..1_000_000, 1i64..5000).prop_flat_map(|(e, start, step)| {
            prop::collection::vec(-step..=step, 0..=CHUNK_MAX).prop_map(move |steps| {
                let mut at = start;
                steps
                    .into_iter()
                    .map(|s| {
                        at += s;
                        at as f64 / 10f64.powi(e)
                    })
                    .collect::<Vec<f64>>()
            })
        });
        let mixed = (decimals, prop::collection::vec((any::<prop::sample::Index>(), special()), 0..8))
            .prop_map(|(mut values, odd)| {
                for (at, value) in odd {
                    if !values.is_empty() {
                        let at = at.index(values.len());
                        values[at] = value;
                    }
                }
                values
            });
        prop_oneof![
            4 => mixed,
            1 => prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..=CHUNK_MAX),
            1 => prop::collection::vec(special(), 0..=CHUNK_MAX),
        ]
    }

    proptest! {
        #[test]
        fn every_bit_survives(values in columns()) {
            round_trip(&values);
        }

        #[test]
        fn damaged_bytes_never_panic_and_never_overrun(values in columns(), at in any::<prop::sample::Index>(), xor in 1u8..,
                                                      count in 0usize..600) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= xor;
            }
            let mut out = Vec::new();
            let decoded = decode(&bytes, count, &mut out).is_some();
            prop_assert_eq!(out.len(), if decoded { count } else { 0 });
            for cut in 0..bytes.len() {
                let _ = decode(&bytes[..cut], values.len(), &mut out);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0usize..=CHUNK_MAX) {
            let _ = decode(&bytes, count, &mut Vec::new());
            let _ = ints::decode(&bytes, &mut vec![0; count]);
            let _ = super::super::times::decode(&bytes, 0, count, &mut Vec::new());
        }
    }
}
