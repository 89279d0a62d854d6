//! What the series in memory are made of.

use super::{Cardinality, Engine};
use model::labels::METRIC_NAME;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

/// The `limit` greatest, ties in the order of their names.
fn top<'a>(counts: impl IntoIterator<Item = (&'a String, u64)>, limit: usize) -> Vec<(String, u64)> {
    let mut all: Vec<(&String, u64)> = counts.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    all.into_iter().take(limit).map(|(name, count)| (name.clone(), count)).collect()
}

/// One label name over all shards.
#[derive(Default)]
struct Name {
    /// Hashes of the values, since a value occurs in several shards.
    values: HashSet<u64>,
    bytes: u64,
}

impl Engine {
    /// The `limit` greatest of each kind. Takes time and memory in proportion to the number of different labels.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        let hasher = RandomState::new();
        let mut names: HashMap<String, Name> = HashMap::new();
        let mut pairs: HashMap<String, u64> = HashMap::new();
        let mut metrics: HashMap<String, u64> = HashMap::new();
        let mut answer = Cardinality::default();
        for shard in &self.shards {
            let state = shard.state.lock();
            answer.series += state.head.series.len() as u64;
            for (name, values) in state.head.index.names() {
                let known = names.entry(name.to_owned()).or_default();
                for (value, slots) in values {
                    let series = slots.len() as u64;
                    answer.label_pairs += 1;
                    known.values.insert(hasher.hash_one(value));
                    known.bytes += value.len() as u64 * series;
                    *pairs.entry(format!("{name}={value}")).or_default() += series;
                    if name == METRIC_NAME {
                        *metrics.entry(value.to_owned()).or_default() += series;
                    }
                }
            }
        }
        answer.series_by_metric = top(metrics.iter().map(|(n, c)| (n, *c)), limit);
        answer.values_by_label = top(names.iter().map(|(n, v)| (n, v.values.len() as u64)), limit);
        answer.bytes_by_label = top(names.iter().map(|(n, v)| (n, v.bytes)), limit);
        answer.series_by_label_pair = top(pairs.iter().map(|(n, c)| (n, *c)), limit);
        answer
    }
}
