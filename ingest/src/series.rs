//! The labels of one series, looked at closely. Only series that the sink does not know come here.

use crate::Limits;
use crate::limits::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::problems::Reason;
use crate::remote_write::wire::{Cursor, Malformed, len};
use model::labels::{self, METRIC_NAME};
use std::fmt;

/// Field `labels` of a series in remote write 1, and so of the canonical form.
const LABEL: u32 = len(1);
const NAME: u32 = len(1);
const VALUE: u32 = len(2);

/// How label bytes that passed were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Canonical as they lie.
    Canonical,
    /// Good once rewritten.
    Rewritten,
}

/// What is wrong with a label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed(Malformed),
    Invalid,
    Duplicate(String),
    Limit { what: &'static str, key: &'static str, max: usize, got: usize },
    TooLarge,
}

impl Fault {
    pub fn reason(&self) -> Reason {
        match self {
            Fault::Malformed(_) => Reason::Malformed,
            Fault::Invalid => Reason::InvalidLabels,
            Fault::Duplicate(_) => Reason::DuplicateLabel,
            Fault::Limit { .. } | Fault::TooLarge => Reason::Limit,
        }
    }

    /// For the sender; the first texts are those of Prometheus.
    pub fn message(&self, raw: &[u8]) -> String {
        let text = Text(raw);
        match self {
            Fault::Malformed(malformed) => format!("malformed labels of a series: {malformed}"),
            Fault::Invalid => format!("invalid metric name or labels, got {text}"),
            Fault::Duplicate(name) => {
                format!("invalid labels for series, labels {text}, duplicated label {name}")
            }
            Fault::Limit { what, key, max, got } => {
                format!(
                    "{what}: {got} is over the limit of {max} (raise `{key}` to allow more) for series {text}"
                )
            }
            Fault::TooLarge => {
                format!("the request is too large to take series {text}; send smaller requests")
            }
        }
    }
}

/// The labels in wire form, one by one, in whatever order and spelling they came.
fn pairs(raw: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), Malformed>> {
    let mut cursor = Cursor::new(raw);
    std::iter::from_fn(move || {
        if cursor.is_done() {
            return None;
        }
        let label = label(&mut cursor);
        if label.is_err() {
            cursor = Cursor::new(&[]);
        }
        Some(label)
    })
}

fn label<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    let key = cursor.key()?;
    if key != LABEL {
        return Err(cursor.wrong_type(key));
    }
    let mut label = cursor.message()?;
    let (mut name, mut value) = (&[][..], &[][..]);
    while !label.is_done() {
        match label.key()? {
            NAME => name = label.bytes()?,
            VALUE => value = label.bytes()?,
            key => label.unknown(key, 1 << 1 | 1 << 2)?,
        }
    }
    Ok((name, value))
}

/// Checks the labels of a series that is about to be created. `canonical` receives the bytes to use instead of `raw`
/// when the answer is [`Form::Rewritten`]: sorted, without empty values.
pub(crate) fn check(raw: &[u8], canonical: &mut Vec<u8>, limits: &Limits) -> Result<Form, Fault> {
    let mut found: Vec<(&[u8], &[u8])> = Vec::with_capacity(16);
    // A bomb of a label set is told by its count; its labels need not be collected for that.
    let mut count = 0usize;
    for pair in pairs(raw) {
        let (name, value) = pair.map_err(Fault::Malformed)?;
        if !value.is_empty() {
            count += 1;
            if count <= limits.labels_max {
                found.push((name, value));
            }
        } else if name.is_empty() {
            // A label without a name is invalid even if its empty value would have been dropped.
            found.push((name, value));
        }
    }
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    let named = found.iter().any(|(name, _)| *name == METRIC_NAME.as_bytes());
    let over = count > limits.labels_max;
    if (!named && !over) || !found.iter().all(|(n, v)| !n.is_empty() && utf8(n) && utf8(v)) {
        return Err(Fault::Invalid);
    }
    let limit =
        |what, key, max, got| if got > max { Err(Fault::Limit { what, key, max, got }) } else { Ok(()) };
    limit("labels of one series", LABELS_MAX, limits.labels_max, count)?;
    let sorted = found.is_sorted_by(|a, b| a.0 < b.0);
    if !sorted {
        found.sort_by(|a, b| a.0.cmp(b.0));
        if let Some([twice, _]) = found.array_windows::<2>().find(|[a, b]| a.0 == b.0) {
            return Err(Fault::Duplicate(String::from_utf8_lossy(twice.0).into_owned()));
        }
    }
    for (name, value) in &found {
        limit("bytes of a label name", LABEL_NAME_BYTES_MAX, limits.label_name_bytes_max, name.len())?;
        limit("bytes of a label value", LABEL_VALUE_BYTES_MAX, limits.label_value_bytes_max, value.len())?;
    }
    for (name, value) in &found {
        labels::push(canonical, name, value);
    }
    // Comparing bytes catches every other deviation too: overlong lengths, unknown fields, value before name.
    Ok(if canonical == raw { Form::Canonical } else { Form::Rewritten })
}

/// Labels in wire form as Prometheus prints them in these errors: `{__name__="up", job="x"}`, sorted.
/// Cut when long; bytes that are not UTF-8 are escaped.
pub(crate) struct Text<'a>(pub &'a [u8]);

/// Labels shown of a set that is far over every limit.
const SHOWN_MAX: usize = 100;

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown: Vec<_> =
            pairs(self.0).map_while(Result::ok).filter(|p| !p.1.is_empty()).take(SHOWN_MAX).collect();
        shown.sort_by_key(|p| p.0);
        f.write_str("{")?;
        for (i, (name, value)) in shown.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match std::str::from_utf8(name) {
                Ok(legacy) if labels::is_legacy_name(legacy, false) => f.write_str(legacy)?,
                _ => quoted(f, name)?,
            }
            f.write_str("=")?;
            quoted(f, value)?;
        }
        f.write_str("}")
    }
}

/// Bytes of a name or value shown.
const SHOWN_BYTES_MAX: usize = 512;

/// Bytes in double quotes, escaped and cut for a message.
pub(crate) struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quoted(f, self.0)
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    let cut = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    f.write_str("\"")?;
    for chunk in cut.utf8_chunks() {
        let inner = labels::Quoted(chunk.valid()).to_string();
        f.write_str(inner.get(1..inner.len() - 1).unwrap_or_default())?;
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    f.write_str(if cut.len() < bytes.len() { "…\"" } else { "\"" })
}
