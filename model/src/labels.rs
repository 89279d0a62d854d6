//! Label sets in one canonical byte form.
//!
//! ```text
//! labels := label*                      sorted by name (bytewise), names unique, no empty name or value
//! label  := 0x0a len(pair) pair         len: varint
//! pair   := 0x0a len(name) name 0x12 len(value) value
//! ```
//!
//! This is, byte for byte, what a remote-write 1.0 sender puts on the wire for the `labels` field of a `TimeSeries`. So
//! the bytes of a well-formed request can be hashed as they lie, and a series that is already known is found without
//! looking inside them.

use crate::varint;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

const LABEL_TAG: u8 = 0x0a;
const NAME_TAG: u8 = 0x0a;
const VALUE_TAG: u8 = 0x12;

/// An immutable label set in canonical form; cheap to clone.
///
/// Ordering is Prometheus's: label by label, name before value; a prefix sorts first.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Default for Labels {
    fn default() -> Self {
        Labels(Arc::from([]))
    }
}

/// Why bytes or pairs are not a valid label set. The texts are those of Prometheus where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The bytes do not follow the wire form.
    #[error("malformed label bytes")]
    Malformed,
    /// A name or value is not UTF-8.
    #[error("label name or value is not valid UTF-8")]
    NotUtf8,
    /// A label without a name.
    #[error("empty label name")]
    EmptyName,
    /// The same name twice.
    #[error("duplicated label {0}")]
    Duplicate(String),
}

/// Appends one label in canonical form. The caller keeps the order.
#[inline]
pub fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let pair = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
    out.push(LABEL_TAG);
    varint::put(out, pair as u64);
    out.push(NAME_TAG);
    varint::put(out, name.len() as u64);
    out.extend_from_slice(name);
    out.push(VALUE_TAG);
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value);
}

#[inline]
fn varint_len(value: usize) -> usize {
    (64 - (value as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

/// Whether `bytes` are canonical: well-formed in this very layout, UTF-8, strictly sorted, nothing empty.
pub fn is_canonical(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut previous: &[u8] = b"";
    while !rest.is_empty() {
        let Some((name, value, after)) = take_pair(rest) else { return false };
        let shortest =
            1 + varint_len(2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len());
        let body = 2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
        if rest.len() - after.len() != shortest + body
            || value.is_empty()
            || name <= previous
            || std::str::from_utf8(name).is_err()
            || std::str::from_utf8(value).is_err()
        {
            return false;
        }
        previous = name;
        rest = after;
    }
    true
}

/// One label from the front, only in the exact field order of the canonical form.
#[inline]
fn take_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (len, rest) = varint::take(rest)?;
    let (pair, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    if tag != LABEL_TAG {
        return None;
    }
    let (&tag, pair) = pair.split_first()?;
    let (len, pair) = varint::take(pair)?;
    let (name, pair) = pair.split_at_checked(usize::try_from(len).ok()?)?;
    if tag != NAME_TAG {
        return None;
    }
    let (&tag, pair) = pair.split_first()?;
    let (len, pair) = varint::take(pair)?;
    if tag != VALUE_TAG || usize::try_from(len).ok()? != pair.len() {
        return None;
    }
    Some((name, pair, after))
}

/// Walks the labels of canonical bytes.
#[derive(Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iter<'a> {
    /// Over bytes that are known to be canonical.
    pub fn new(canonical: &'a [u8]) -> Iter<'a> {
        Iter(canonical)
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (name, value, rest) = take_pair(self.0).expect("BUG: label bytes are not canonical");
        self.0 = rest;
        let text = |bytes| std::str::from_utf8(bytes).expect("BUG: label bytes are not UTF-8");
        Some((text(name), text(value)))
    }
}

impl Labels {
    /// Takes bytes that are known to be canonical ([`is_canonical`]); checked in debug builds.
    pub fn from_canonical(bytes: &[u8]) -> Labels {
        debug_assert!(is_canonical(bytes), "BUG: label bytes are not canonical");
        Labels(Arc::from(bytes))
    }

    /// Sorts the pairs and drops those with an empty value, as Prometheus's receiver does.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Labels, Invalid> {
        let mut pairs: Vec<(&str, &str)> = pairs.into_iter().collect();
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(Invalid::Duplicate(twice[0].0.to_string()));
        }
        let mut bytes = Vec::with_capacity(pairs.iter().map(|(n, v)| n.len() + v.len() + 8).sum());
        for (name, value) in pairs {
            if name.is_empty() {
                return Err(Invalid::EmptyName);
            }
            if !value.is_empty() {
                push(&mut bytes, name.as_bytes(), value.as_bytes());
            }
        }
        Ok(Labels(Arc::from(bytes)))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The labels, sorted by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// The value of the label `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The metric's name, if it has one.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the labels for which `keep(name, value)` holds.
    pub fn retain(&self, mut keep: impl FnMut(&str, &str) -> bool) -> Labels {
        let mut bytes = Vec::with_capacity(self.0.len());
        for (name, value) in self.iter().filter(|(n, v)| keep(n, v)) {
            push(&mut bytes, name.as_bytes(), value.as_bytes());
        }
        if bytes.len() == self.0.len() { self.clone() } else { Labels(Arc::from(bytes)) }
    }

    /// With the label `name` set to `value`, or removed when `value` is empty.
    pub fn with(&self, name: &str, value: &str) -> Labels {
        let mut bytes = Vec::with_capacity(self.0.len() + name.len() + value.len() + 8);
        let mut pending = (!value.is_empty()).then_some(());
        for (n, v) in self.iter() {
            if pending.is_some() && n >= name {
                push(&mut bytes, name.as_bytes(), value.as_bytes());
                pending = None;
            }
            if n != name {
                push(&mut bytes, n.as_bytes(), v.as_bytes());
            }
        }
        if pending.is_some() {
            push(&mut bytes, name.as_bytes(), value.as_bytes());
        }
        Labels(Arc::from(bytes))
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

/// Whether a metric or label name can be written without quotes (the classic Prometheus alphabet).
pub fn is_legacy_name(name: &str, colons: bool) -> bool {
    !name.is_empty()
        && name.bytes().enumerate().all(|(i, b)| {
            b.is_ascii_alphabetic() || b == b'_' || (colons && b == b':') || (i > 0 && b.is_ascii_digit())
        })
}

/// As Prometheus prints a series: `name{a="b", c="d"}`, names outside the classic alphabet quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name().unwrap_or("");
        let bare = is_legacy_name(name, true);
        if bare {
            f.write_str(name)?;
        }
        let mut rest = self.iter().filter(|(n, _)| *n != METRIC_NAME).peekable();
        if rest.peek().is_none() && bare {
            return Ok(());
        }
        f.write_str("{")?;
        let mut first = true;
        if !name.is_empty() && !bare {
            write!(f, "{}", Quoted(name))?;
            first = false;
        }
        for (n, v) in rest {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            if is_legacy_name(n, false) {
                write!(f, "{n}={}", Quoted(v))?;
            } else {
                write!(f, "{}={}", Quoted(n), Quoted(v))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A string in double quotes, escaped as Go's `%q` does.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c as u32 == 0x7f => write!(f, "\\x{:02x}", c as u32)?,
                c if c.is_control() => write!(f, "\\u{:04x}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_sorted_and_empty_values_dropped() {
        let labels = Labels::from_pairs([("b", "2"), ("__name__", "up"), ("c", ""), ("a", "1")]).unwrap();
        assert_eq!(labels.to_string(), r#"up{a="1", b="2"}"#);
        assert!(is_canonical(labels.as_bytes()));
    }

    #[test]
    fn a_name_twice_or_empty_is_refused() {
        assert_eq!(Labels::from_pairs([("a", "1"), ("a", "2")]), Err(Invalid::Duplicate("a".into())));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(Invalid::EmptyName));
    }

    #[test]
    fn order_is_by_label_not_by_byte_length() {
        let short = Labels::from_pairs([("a", "zz")]).unwrap();
        let long = Labels::from_pairs([("a", "b"), ("c", "d")]).unwrap();
        assert!(long < short);
        assert!(Labels::default() < long);
    }

    #[test]
    fn with_sets_replaces_and_removes() {
        let labels = Labels::from_pairs([("b", "2")]).unwrap();
        assert_eq!(labels.with("a", "1").to_string(), r#"{a="1", b="2"}"#);
        assert_eq!(labels.with("c", "3").to_string(), r#"{b="2", c="3"}"#);
        assert_eq!(labels.with("b", "x").to_string(), r#"{b="x"}"#);
        assert_eq!(labels.with("b", "").to_string(), "{}");
    }

    #[test]
    fn bytes_that_deviate_are_not_canonical() {
        let labels = Labels::from_pairs([("a", "1"), ("b", "2")]).unwrap();
        let mut swapped = Vec::new();
        push(&mut swapped, b"b", b"2");
        push(&mut swapped, b"a", b"1");
        assert!(!is_canonical(&swapped));
        assert!(!is_canonical(&labels.as_bytes()[1..]));
        // The same label with an overlong length still decodes as protobuf, but has another hash: not canonical.
        assert!(!is_canonical(&[0x0a, 0x86, 0x00, 0x0a, 1, b'a', 0x12, 1, b'1']));
        let mut empty = Vec::new();
        push(&mut empty, b"a", b"");
        assert!(!is_canonical(&empty));
    }
}
