//! What is known about metric families, told to all nodes as far as it is new.
//!
//! ```text
//! metadata := count ( text type:u8 text text )*        family, type, help, unit; text: varint length, UTF-8
//! ```

#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::wire::{Malformed, Reader, Writer};
use model::{Metadata, MetricType};
use std::collections::BTreeMap;

/// The body of a message that describes metric families.
pub fn encode_metadata(metadata: &[Metadata]) -> Vec<u8> {
    let mut out = Writer::default();
    out.count(metadata.len());
    for one in metadata {
        out.bytes(one.family.as_bytes());
        out.u8(one.metric_type as u8);
        out.bytes(one.help.as_bytes());
        out.bytes(one.unit.as_bytes());
    }
    out.0
}

/// Families in parts whose encoding fits into a frame.
pub fn in_frames(mut metadata: &[Metadata], bytes_max: usize) -> impl Iterator<Item = &[Metadata]> {
    // The count, and of each family three lengths and the type.
    let bytes = |one: &Metadata| one.family.len() + one.help.len() + one.unit.len() + 16;
    std::iter::from_fn(move || {
        let mut room = bytes_max.saturating_sub(10);
        let fits = metadata.iter().take_while(|one| {
            let left = room.checked_sub(bytes(one));
            room = left.unwrap_or(0);
            left.is_some()
        });
        let (some, rest) = metadata.split_at(fits.count().max(1).min(metadata.len()));
        metadata = rest;
        (!some.is_empty()).then_some(some)
    })
}

/// Reads [`encode_metadata`]'s bytes. A type that this version does not know is [`MetricType::Unknown`].
pub fn decode_metadata(bytes: &[u8]) -> Result<Vec<Metadata>, Malformed> {
    let mut input = Reader::new(bytes, "metadata");
    let text = |input: &mut Reader<'_>| {
        let text = std::str::from_utf8(input.bytes()?);
        text.map(str::to_owned).map_err(|_| input.malformed())
    };
    let all = input.list(|input| {
        Ok(Metadata {
            family: text(input)?,
            metric_type: MetricType::from_wire(u64::from(input.u8()?)),
            help: text(input)?,
            unit: text(input)?,
        })
    })?;
    input.end()?;
    Ok(all)
}

/// Families whose description is remembered; beyond that everything is told again.
const FAMILIES_MAX: usize = 1 << 16;

/// What all nodes were told.
#[derive(Debug, Default)]
pub struct Described(BTreeMap<String, Metadata>);

impl Described {
    /// What of this is not known to have been told, and from now on is.
    pub fn changed(&mut self, metadata: &[Metadata]) -> Vec<Metadata> {
        let new = |one: &&Metadata| self.0.get(&one.family) != Some(*one);
        let changed: Vec<Metadata> = metadata.iter().filter(new).cloned().collect();
        if self.0.len() + changed.len() > FAMILIES_MAX {
            self.0.clear();
        }
        let room = changed.iter().take(FAMILIES_MAX);
        self.0.extend(room.map(|one| (one.family.clone(), one.clone())));
        changed
    }

    /// Forgets what was told: there may be a node that did not hear it.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn metadata(family: &str, help: &str) -> Metadata {
        Metadata {
            family: family.into(),
            metric_type: MetricType::Gauge,
            help: help.into(),
            unit: "s".into(),
        }
    }

    #[test]
    fn metadata_comes_back_and_a_part_of_it_is_refused() {
        let all = [metadata("up", "Whether it is."), metadata("x", "")];
        let bytes = encode_metadata(&all);
        assert_eq!(decode_metadata(&bytes).unwrap(), all);
        (0..bytes.len()).for_each(|len| assert!(decode_metadata(&bytes[..len]).is_err(), "{len}"));
    }

    #[test]
    fn many_families_come_in_frames() {
        let all: Vec<Metadata> = (0..100).map(|i| metadata(&format!("m{i}"), &"?".repeat(i * 7))).collect();
        for bytes_max in [800, 1000, 5000, 1 << 20] {
            let frames: Vec<&[Metadata]> = in_frames(&all, bytes_max).collect();
            assert!(frames.iter().all(|frame| encode_metadata(frame).len() <= bytes_max));
            assert_eq!(frames.concat(), all);
            assert_eq!(frames.len() > 1, bytes_max < 1 << 20);
        }
        // One alone that is larger is not left out; it is refused where it is sent.
        assert_eq!(in_frames(&all[99..], 10).count(), 1);
        assert_eq!(in_frames(&[], 10).count(), 0);
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut told = Described::default();
        let (a, b) = (metadata("a", "1"), metadata("b", "1"));
        assert_eq!(told.changed(&[a.clone(), b.clone()]).len(), 2);
        assert_eq!(told.changed(&[a.clone(), b.clone()]).len(), 0);
        let other = metadata("b", "2");
        assert_eq!(told.changed(&[a, other.clone()]), [other]);
        told.forget();
        assert_eq!(told.changed(&[b]).len(), 1);
    }
}
