//! Samples at rest in the head: a short run of one series, packed, immutable, shared with readers.
//!
//! ```text
//! first: i64 | last: i64 | count: u16 | timestamps column | values column      (only in memory)
//! ```

use crate::codec::{floats, times};
use model::TimeRange;
use std::sync::Arc;

const HEADER: usize = 18;

/// A packed run of float samples in ascending order, without start timestamps. One allocation; cheap to clone.
#[derive(Clone)]
pub struct Chunk(Arc<[u8]>);

impl Chunk {
    /// Packs a run; `scratch` is only working memory.
    pub fn seal(timestamps: &[i64], values: &[f64], scratch: &mut Vec<u8>) -> Chunk {
        let (first, last) = (timestamps[0], timestamps[timestamps.len() - 1]);
        scratch.clear();
        scratch.extend_from_slice(&first.to_le_bytes());
        scratch.extend_from_slice(&last.to_le_bytes());
        scratch.extend_from_slice(&(timestamps.len() as u16).to_le_bytes());
        times::encode(timestamps, first, scratch);
        floats::encode(values, scratch);
        Chunk(Arc::from(&scratch[..]))
    }

    fn i64_at(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.0[at..at + 8].try_into().expect("BUG: eight bytes are eight bytes"))
    }

    /// The first timestamp.
    pub fn first(&self) -> i64 {
        self.i64_at(0)
    }

    /// The last timestamp.
    pub fn last(&self) -> i64 {
        self.i64_at(8)
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        usize::from(u16::from_le_bytes([self.0[16], self.0[17]]))
    }

    /// Bytes of memory, with the allocation's overhead.
    pub fn bytes(&self) -> usize {
        self.0.len() + 32
    }

    /// Whether it has, or may have, samples in the range.
    pub fn overlaps(&self, range: TimeRange) -> bool {
        TimeRange::new(self.first(), self.last()).overlaps(&range)
    }

    /// Appends all samples to two columns.
    pub fn unpack(&self, timestamps: &mut Vec<i64>, values: &mut Vec<f64>) {
        let count = self.len();
        times::decode(&self.0[HEADER..], self.first(), count, timestamps)
            .and_then(|rest| floats::decode(rest, count, values))
            .expect("BUG: a chunk of the head is malformed");
    }
}
