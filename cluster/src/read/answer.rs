//! One answer as it comes in.

use super::coordinator::Why;
use super::packed::Unpacker;
use super::wire::Chunk;
use crate::rows;
use model::{Digest, Labels, Matcher, Samples, SeriesId, Shard, ShardSet, TimeRange};

/// What a chunk means for the one who reads it.
pub(super) enum Taken<'a> {
    /// The header came: the replica is at work.
    Begun,
    /// Content, not looked into yet.
    Content(Chunk<'a>),
    /// The answer is complete.
    Complete { shards: ShardSet, refused: Vec<(Shard, Why)>, truncated: bool, warnings: Vec<String> },
    /// More series than the request allows.
    Limit { max: u64, got: u64 },
    /// There is no answer.
    Failed(Why),
}

/// An answer that is coming in.
pub(super) struct Incoming {
    /// What was asked for.
    asked: ShardSet,
    header: Option<(ShardSet, Vec<(Shard, Why)>)>,
    /// Content so far, in what the end counts.
    count: u64,
    pub open: bool,
}

impl Incoming {
    pub fn new(asked: ShardSet) -> Incoming {
        Incoming { asked, header: None, count: 0, open: true }
    }

    /// The shards that content may be of.
    pub fn covers(&self, shard: Shard) -> bool {
        self.header.as_ref().is_some_and(|(shards, _)| shards.contains(shard))
    }

    /// Counts content that was found right.
    pub fn add(&mut self, count: u64) {
        self.count += count;
    }

    /// Takes the next chunk.
    pub fn take<'a>(&mut self, bytes: &'a [u8]) -> Taken<'a> {
        let malformed = |what: &str| Taken::Failed(Why::Malformed(what.to_owned()));
        let chunk = match Chunk::decode(bytes) {
            Ok(chunk) => chunk,
            Err(error) => return malformed(&error.to_string()),
        };
        match (chunk, &mut self.header) {
            (Chunk::Refused(why), _) => Taken::Failed(why),
            (Chunk::Limit { max, got }, _) => Taken::Limit { max, got },
            (Chunk::Header { shards, refused }, header @ None) => {
                let answers = shards.iter().chain(refused.iter().map(|(shard, _)| *shard));
                if !answers.into_iter().all(|shard| self.asked.contains(shard)) {
                    return malformed("it answers for shards that it was not asked for");
                }
                *header = Some((shards, refused));
                Taken::Begun
            }
            (_, None) => malformed("its header is missing"),
            (Chunk::Header { .. }, Some(_)) => malformed("it has two headers"),
            (Chunk::End { truncated, warnings, count }, Some((shards, refused))) => match count == self.count
            {
                true => {
                    let (shards, refused) = (shards.clone(), refused.clone());
                    Taken::Complete { shards, refused, truncated, warnings }
                }
                false => malformed("a part of it is missing"),
            },
            (content, Some(_)) => Taken::Content(content),
        }
    }
}

/// Rows that arrived, encoded as they came.
#[derive(Default)]
pub(super) struct Received {
    pub chunks: Vec<Vec<u8>>,
    pub sections: Vec<Packed>,
}

/// Where the rows of a series are.
pub(super) struct Packed {
    pub id: SeriesId,
    /// With the first section of a series.
    pub labels: Option<Labels>,
    pub chunk: u32,
    pub at: u32,
    pub len: u32,
    /// Of these rows.
    pub digest: Digest,
}

/// What rows have to satisfy.
pub(super) struct Rules<'a> {
    pub matchers: &'a [Matcher],
    pub range: TimeRange,
    /// Whether a series may be there, by its id and whether it has labels.
    pub expected: &'a dyn Fn(SeriesId, bool) -> bool,
}

impl Received {
    /// Takes a chunk of sections, whose first byte is the chunk's kind; gives their number. What is not right is told.
    pub fn take(&mut self, bytes: &[u8], unpacker: &mut Unpacker, rules: &Rules<'_>) -> Result<u64, String> {
        let mut samples = Samples::default();
        let (mut at, mut count) = (1, 0);
        for section in rows::sections(&bytes[1..]) {
            let section = section.map_err(|error| error.to_string())?;
            let unpacked = unpacker.read(&section, &mut samples).map_err(|error| error.to_string())?;
            let labels = unpacked.labels.map(Labels::from_canonical);
            let id = unpacked.id;
            let follows = self.sections.last().is_some_and(|before| before.id == id);
            let is_expected = (rules.expected)(id, labels.is_some()) || follows && labels.is_none();
            if !is_expected {
                return Err("it gives a series that it was not asked for".into());
            }
            if let Some(labels) = &labels {
                let matches = |m: &Matcher| m.matches(labels.get(&m.name).unwrap_or(""));
                if !rules.matchers.iter().all(matches) {
                    return Err("it gives a series that does not match".into());
                }
            }
            if !lies_in(&samples, rules.range) {
                return Err("it gives samples outside the range".into());
            }
            self.sections.push(Packed {
                id,
                labels,
                chunk: self.chunks.len() as u32,
                at,
                len: section.bytes.len() as u32,
                digest: Digest::of(id, &samples),
            });
            at += section.bytes.len() as u32;
            count += 1;
        }
        self.chunks.push(bytes.to_vec());
        Ok(count)
    }
}

fn lies_in(samples: &Samples, range: TimeRange) -> bool {
    let ends = [samples.timestamps.first(), samples.timestamps.last()];
    let histograms = [samples.histograms.first(), samples.histograms.last()];
    ends.into_iter().flatten().all(|t| range.contains(*t))
        && histograms.into_iter().flatten().all(|(t, ..)| range.contains(*t))
}
