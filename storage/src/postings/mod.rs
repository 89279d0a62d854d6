//! Lists of series and how matchers select from them.
//!
//! A posting list is a strictly ascending list of series numbers within one index (a head, a block). [`resolve`] turns
//! matchers into such a list, with Prometheus's meaning: a missing label is the empty string, so a matcher that accepts
//! the empty string accepts the series that have no such label.

mod values;

pub use values::Values;

use crate::Result;
use model::matcher::Anchored;
use model::{MatchOp, Matcher};
use std::borrow::Cow;

/// Where posting lists come from.
pub trait Index {
    /// Every series.
    fn all(&self) -> Result<Vec<u32>>;
    /// The series with this label; none if the value is empty.
    fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>>;
    /// The series that have a label of this name.
    fn having(&self, name: &str) -> Result<Cow<'_, [u32]>>;
    /// One list for each value of the label `name` that is among `values`.
    fn matching(&self, name: &str, values: &Values<'_>) -> Result<Vec<Cow<'_, [u32]>>>;
    /// How many series have this label. Lists are taken in the order of their length.
    fn count(&self, name: &str, value: &str) -> Result<usize> {
        Ok(self.postings(name, value)?.len())
    }
    /// Keeps those of `series` whose labels satisfy all `matchers` and says `true`; an index that would not be faster by
    /// looking at labels than with lists does nothing and says `false`.
    fn retain(&self, _series: &mut Vec<u32>, _matchers: &[&Matcher]) -> Result<bool> {
        Ok(false)
    }
}

/// Elements of lists that can be decoded in the time that it takes to look at the labels of one series.
const LOOK: usize = 512;

/// What a regular expression is assumed to cost, in elements of lists.
const SEARCH: usize = 8 * LOOK;

/// The series that satisfy all matchers.
pub fn resolve(index: &impl Index, matchers: &[Matcher]) -> Result<Vec<u32>> {
    // A lookup that finds nothing settles the answer; lookups are the cheapest and come first, short lists before long
    // ones. What can only take away comes last.
    let mut plan = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        let cost = if matcher.op == MatchOp::Equal && !matcher.value.is_empty() {
            match index.count(&matcher.name, &matcher.value)? {
                0 => return Ok(Vec::new()),
                count => (0, count),
            }
        } else {
            (1 + u8::from(matcher.matches_missing()), SEARCH)
        };
        plan.push((cost, matcher));
    }
    plan.sort_by_key(|step| step.0);
    let mut ahead: usize = plan.iter().map(|((_, cost), _)| cost).sum();
    let plan: Vec<(usize, &Matcher)> = plan.into_iter().map(|((_, cost), matcher)| (cost, matcher)).collect();

    let mut found: Option<Vec<u32>> = None;
    for (at, &(cost, matcher)) in plan.iter().enumerate() {
        if let Some(found) = &mut found {
            if found.is_empty() {
                return Ok(Vec::new());
            }
            // Looking settles all that is ahead, but a list that is much shorter than that may leave less to look at.
            let looking = found.len() * LOOK;
            if looking <= ahead && looking <= 4 * cost {
                let rest: Vec<&Matcher> = plan[at..].iter().map(|step| step.1).collect();
                if index.retain(found, &rest)? {
                    return Ok(std::mem::take(found));
                }
            }
        }
        ahead -= cost;
        if !matcher.matches_missing() {
            narrow(&mut found, accepted(index, matcher)?);
        } else {
            let found = match &mut found {
                Some(found) => found,
                None => found.insert(index.all()?),
            };
            subtract(found, &refused(index, matcher)?);
        }
    }
    found.map_or_else(|| index.all(), Ok)
}

fn narrow(found: &mut Option<Vec<u32>>, list: Cow<'_, [u32]>) {
    match found {
        Some(found) => intersect(found, &list),
        None => *found = Some(list.into_owned()),
    }
}

/// The series with a value that satisfies `matcher`, which does not accept the empty string.
fn accepted<'i>(index: &'i impl Index, matcher: &Matcher) -> Result<Cow<'i, [u32]>> {
    match (matcher.regex(), matcher.op) {
        (Some(regex), op) => values(index, matcher, regex, op == MatchOp::NotMatches),
        (None, MatchOp::Equal) => index.postings(&matcher.name, &matcher.value),
        // Of `!=` only `!=""` does not accept the empty string.
        (None, _) => index.having(&matcher.name),
    }
}

/// The series with a value that does not satisfy `matcher`, which does accept the empty string.
fn refused<'i>(index: &'i impl Index, matcher: &Matcher) -> Result<Cow<'i, [u32]>> {
    match (matcher.regex(), matcher.op) {
        (Some(regex), op) => values(index, matcher, regex, op == MatchOp::Matches),
        // Of `=` only `=""` accepts the empty string.
        (None, MatchOp::Equal) => index.having(&matcher.name),
        (None, _) => index.postings(&matcher.name, &matcher.value),
    }
}

/// The series with a value that the expression matches; with `negated`, with one that it does not match.
fn values<'i>(
    index: &'i impl Index,
    matcher: &Matcher,
    regex: &Anchored,
    negated: bool,
) -> Result<Cow<'i, [u32]>> {
    let lists = match regex.literals() {
        Some(literals) if !negated => {
            let values = literals.iter().filter(|value| !value.is_empty());
            values.map(|value| index.postings(&matcher.name, value)).collect::<Result<_>>()?
        }
        _ => index.matching(&matcher.name, &Values::new(regex, negated))?,
    };
    Ok(Cow::Owned(union(lists)))
}

/// Everything that is in one of the lists.
pub fn union(mut lists: Vec<Cow<'_, [u32]>>) -> Vec<u32> {
    if lists.len() <= 1 {
        return lists.pop().map_or_else(Vec::new, Cow::into_owned);
    }
    let mut all = Vec::with_capacity(lists.iter().map(|list| list.len()).sum());
    lists.iter().for_each(|list| all.extend_from_slice(list));
    // The stable sort finds the ascending runs and merges them.
    all.sort();
    all.dedup();
    all
}

/// A list this many times shorter than the other is looked up in it instead of walked beside it.
const GALLOP: usize = 16;

/// Keeps of `a` what is in `b` too.
pub fn intersect(a: &mut Vec<u32>, b: &[u32]) {
    if b.len() * GALLOP < a.len() {
        let (mut rest, mut both) = (&a[..], Vec::with_capacity(b.len()));
        for &value in b {
            rest = skip_to(rest, value);
            if rest.first() == Some(&value) {
                both.push(value);
            }
        }
        *a = both;
        return;
    }
    let gallop = a.len() * GALLOP < b.len();
    let mut rest = b;
    a.retain(|&value| {
        rest = if gallop { skip_to(rest, value) } else { step_to(rest, value) };
        rest.first() == Some(&value)
    });
}

/// Drops from `a` what is in `b`.
pub fn subtract(a: &mut Vec<u32>, b: &[u32]) {
    let gallop = a.len() * GALLOP < b.len();
    let mut rest = b;
    a.retain(|&value| {
        rest = if gallop { skip_to(rest, value) } else { step_to(rest, value) };
        rest.first() != Some(&value)
    });
}

fn step_to(list: &[u32], value: u32) -> &[u32] {
    let at = list.iter().position(|&v| v >= value).unwrap_or(list.len());
    &list[at..]
}

/// Doubles the stride until it is beyond `value`, then searches the last stride.
fn skip_to(list: &[u32], value: u32) -> &[u32] {
    let mut stride = 1;
    while list.get(stride).is_some_and(|&v| v < value) {
        stride *= 2;
    }
    let from = stride / 2;
    let to = (stride + 1).min(list.len());
    let at = from.min(to) + list[from.min(to)..to].partition_point(|&v| v < value);
    &list[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Labels, Matcher};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Naive(Vec<Labels>);

    impl Naive {
        fn filter(&self, keep: impl Fn(&Labels) -> bool) -> Vec<u32> {
            (0..self.0.len() as u32).filter(|&i| keep(&self.0[i as usize])).collect()
        }
    }

    impl Index for Naive {
        fn all(&self) -> Result<Vec<u32>> {
            Ok(self.filter(|_| true))
        }
        fn postings(&self, name: &str, value: &str) -> Result<Cow<'_, [u32]>> {
            Ok(self.filter(|l| l.get(name) == Some(value)).into())
        }
        fn having(&self, name: &str) -> Result<Cow<'_, [u32]>> {
            Ok(self.filter(|l| l.get(name).is_some()).into())
        }
        fn matching(&self, name: &str, values: &Values<'_>) -> Result<Vec<Cow<'_, [u32]>>> {
            let all: BTreeSet<&str> = self.0.iter().filter_map(|l| l.get(name)).collect();
            all.into_iter()
                .filter(|value| values.contain(value))
                .map(|value| self.postings(name, value))
                .collect()
        }
    }

    pub(crate) fn label_sets() -> impl Strategy<Value = Vec<Labels>> {
        let value = prop::sample::select(vec!["", "a", "b", "ab", "abc", "é", "x\ny", "1"]);
        let set =
            prop::collection::vec((prop::sample::select(vec!["__name__", "job", "jo", "z"]), value), 0..5);
        prop::collection::vec(set, 0..20).prop_map(|sets| {
            let sets: BTreeSet<Labels> = sets
                .into_iter()
                .map(|pairs| {
                    let pairs: std::collections::BTreeMap<_, _> = pairs.into_iter().collect();
                    Labels::from_pairs(pairs).unwrap()
                })
                .collect();
            sets.into_iter().collect()
        })
    }

    pub(crate) fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
        let op = prop::sample::select(vec![
            MatchOp::Equal,
            MatchOp::NotEqual,
            MatchOp::Matches,
            MatchOp::NotMatches,
        ]);
        let value = prop::sample::select(vec![
            "", "a", "ab", "a|b", "a.*", ".*", ".+", "(a|)", "[^a]", "é", "x.y", "nothing", r"\d", "a?b?c?",
            "^a", "a$|b", r"a\b.*",
        ]);
        let name = prop::sample::select(vec!["__name__", "job", "jo", "z", "none"]);
        prop::collection::vec((name, op, value).prop_map(|(n, op, v)| Matcher::new(n, op, v).unwrap()), 0..4)
    }

    fn list() -> impl Strategy<Value = Vec<u32>> {
        let dense = prop::collection::btree_set(0u32..60, 0..50);
        let sparse = prop::collection::btree_set(0u32..5000, 0..400);
        prop_oneof![dense, sparse].prop_map(|set| set.into_iter().collect())
    }

    proptest! {
        #[test]
        fn resolving_equals_matching_each_series(sets in label_sets(), matchers in matchers()) {
            let naive = Naive(sets);
            let expected = naive.filter(|l| matchers.iter().all(|m| m.matches(l.get(&m.name).unwrap_or(""))));
            prop_assert_eq!(resolve(&naive, &matchers).unwrap(), expected);
        }

        #[test]
        fn lists_obey_set_algebra(a in list(), b in list()) {
            let set = |l: &[u32]| l.iter().copied().collect::<BTreeSet<u32>>();
            let (x, y) = (set(&a), set(&b));
            let mut both = a.clone();
            intersect(&mut both, &b);
            prop_assert_eq!(both, x.intersection(&y).copied().collect::<Vec<_>>());
            let mut less = a.clone();
            subtract(&mut less, &b);
            prop_assert_eq!(less, x.difference(&y).copied().collect::<Vec<_>>());
            let either = union(vec![a.into(), b.into()]);
            prop_assert_eq!(either, x.union(&y).copied().collect::<Vec<_>>());
        }
    }
}
