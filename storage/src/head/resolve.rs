//! Which series satisfy a list of matchers.

use super::Head;
use model::{MatchOp, Matcher};

impl Head {
    /// The slots of the series that satisfy all matchers, ascending.
    pub fn resolve(&self, matchers: &[Matcher]) -> Vec<u32> {
        let mut all: Option<Vec<u32>> = None;
        for matcher in matchers {
            let missing = matcher.matches_missing();
            let mut hit = vec![missing; self.series.len()];
            if matcher.op == MatchOp::Equal && !missing {
                self.index.slots_of(&matcher.name, &matcher.value).iter().for_each(|&s| hit[s as usize] = true);
            } else {
                for (value, slots) in self.index.values_of(&matcher.name) {
                    let matches = matcher.matches(value);
                    slots.iter().for_each(|&s| hit[s as usize] = matches);
                }
            }
            let slots = all.take().unwrap_or_else(|| (0..self.series.len() as u32).collect());
            all = Some(slots.into_iter().filter(|&s| hit[s as usize]).collect());
        }
        all.unwrap_or_else(|| (0..self.series.len() as u32).collect())
    }
}
