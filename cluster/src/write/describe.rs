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

    /// Forgets what was told: a node has come that did not hear it.
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
