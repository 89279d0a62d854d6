//! Which labels decide what belongs together, in binary operations and aggregations.

use crate::ast::Matching;
use model::Labels;
use model::labels::{METRIC_NAME, push};

/// A choice of labels. Its key for a series is a label set in canonical bytes.
pub struct LabelChoice<'a> {
    /// Sorted.
    names: Vec<&'a str>,
    /// Whether these are kept (`by`, `on`) or dropped (`without`, `ignoring`); the metric's name is dropped with them.
    keep: bool,
}

impl<'a> LabelChoice<'a> {
    /// `keep` for `by` and `on`.
    pub fn new(names: &'a [String], keep: bool) -> LabelChoice<'a> {
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        LabelChoice { names, keep }
    }

    /// `on` or `ignoring` of a binary operation.
    pub fn of(matching: &'a Matching) -> LabelChoice<'a> {
        LabelChoice::new(&matching.labels, matching.on)
    }

    fn takes(&self, name: &str) -> bool {
        let listed = self.names.binary_search(&name).is_ok();
        if self.keep { listed } else { !listed && name != METRIC_NAME }
    }

    /// Writes the key of a series. `skip` names labels that count as dropped already.
    pub fn key(&self, labels: &Labels, skip: impl Fn(&str) -> bool, into: &mut Vec<u8>) {
        into.clear();
        if self.keep && self.names.is_empty() {
            return;
        }
        for (name, value) in labels.iter() {
            if self.takes(name) && !skip(name) {
                push(into, name.as_bytes(), value.as_bytes());
            }
        }
    }

    /// The chosen labels of a series.
    pub fn labels(&self, labels: &Labels) -> Labels {
        labels.retain(|name, _| self.takes(name))
    }
}
