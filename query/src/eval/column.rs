//! What expressions evaluate to while a query runs: columns with one slot a step.
//!
//! A slot without a float holds the stale marker. No operation on numbers can produce that (it is a signalling NaN) and
//! no selector lets it through, so a column is one plain `Vec<f64>` and needs no mask beside it. Native histograms are
//! rare; they lie beside the floats, sparse, in the order of steps. A step never has both.

use super::budget::Held;
use crate::engine::Point;
use model::{Histogram, Labels};
use std::sync::Arc;

/// A slot without a float.
pub const ABSENT: f64 = f64::from_bits(model::value::STALE_NAN_BITS);

/// Whether a slot has no float.
#[inline]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == model::value::STALE_NAN_BITS
}

/// The times at which something is evaluated: `start`, `start + step`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first, in milliseconds.
    pub start: i64,
    /// Distance in milliseconds.
    pub step: i64,
    /// How many.
    pub count: usize,
}

impl Steps {
    /// One moment.
    pub fn once(at: i64) -> Steps {
        Steps { start: at, step: 1, count: 1 }
    }

    /// The time of step `index`.
    #[inline]
    pub fn at(&self, index: usize) -> i64 {
        self.start.saturating_add(self.step * index as i64)
    }

    /// The last time.
    pub fn end(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }

    /// All times.
    pub fn iter(&self) -> impl Iterator<Item = i64> + use<> {
        let steps = *self;
        (0..steps.count).map(move |i| steps.at(i))
    }
}

/// The values of one series at all steps.
#[derive(Debug, Default)]
pub struct Column {
    /// One slot a step, [`ABSENT`] where there is no float.
    pub floats: Vec<f64>,
    /// Steps that have a native histogram, ascending.
    pub histograms: Vec<(u32, Arc<Histogram>)>,
    /// Its share of the query's budget.
    pub held: Held,
}

impl Column {
    /// An empty column that costs nothing of the budget yet.
    pub fn absent(steps: usize) -> Column {
        Column { floats: vec![ABSENT; steps], ..Column::default() }
    }

    /// Makes every slot empty.
    pub fn reset(&mut self, steps: usize) {
        self.floats.clear();
        self.floats.resize(steps, ABSENT);
        self.histograms.clear();
    }

    /// Whether no step has a value.
    pub fn is_empty(&self) -> bool {
        self.histograms.is_empty() && self.floats.iter().all(|v| is_absent(*v))
    }

    /// The histogram at `step`.
    pub fn histogram(&self, step: usize) -> Option<&Arc<Histogram>> {
        if self.histograms.is_empty() {
            return None;
        }
        let at = self.histograms.binary_search_by_key(&(step as u32), |(s, _)| *s).ok()?;
        Some(&self.histograms[at].1)
    }

    /// Whether there is a value at `step`.
    #[inline]
    pub fn has(&self, step: usize) -> bool {
        !is_absent(self.floats[step]) || self.histogram(step).is_some()
    }

    /// The value at `step`.
    pub fn point(&self, step: usize) -> Option<Point> {
        let float = self.floats[step];
        if !is_absent(float) {
            return Some(Point::Float(float));
        }
        self.histogram(step).map(|h| Point::Histogram(h.clone()))
    }

    /// Sets the value at `step`; steps must come in ascending order.
    #[inline]
    pub fn set(&mut self, step: usize, point: Point) {
        match point {
            Point::Float(v) => self.floats[step] = v,
            Point::Histogram(h) => self.histograms.push((step as u32, h)),
        }
    }

    /// Keeps only the steps for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        self.histograms.retain(|(step, _)| keep(*step as usize));
        for (step, value) in self.floats.iter_mut().enumerate() {
            if !is_absent(*value) && !keep(step) {
                *value = ABSENT;
            }
        }
    }

    /// Fills the empty slots with the values of `other`; `false` when both have a value at one step.
    #[must_use]
    pub fn merge(&mut self, other: &Column) -> bool {
        for step in 0..self.floats.len() {
            if other.has(step) {
                if self.has(step) {
                    return false;
                }
                self.floats[step] = other.floats[step];
            }
        }
        self.histograms.extend(other.histograms.iter().cloned());
        self.histograms.sort_by_key(|(step, _)| *step);
        true
    }

    /// The one value of a column of one step, at each of `steps` steps.
    pub fn spread(&self, steps: usize) -> Column {
        Column {
            floats: vec![self.floats[0]; steps],
            histograms: match self.histograms.first() {
                Some((_, h)) => (0..steps as u32).map(|s| (s, h.clone())).collect(),
                None => Vec::new(),
            },
            held: Held::default(),
        }
    }
}

/// A series of an instant vector, at all steps.
#[derive(Debug)]
pub struct Series {
    /// Its labels; with delayed name removal the name may still be there although it is to be dropped.
    pub labels: Labels,
    /// Whether the name is to be dropped from the final answer.
    pub drop_name: bool,
    /// Its values.
    pub column: Column,
}

/// What an expression evaluates to at all steps.
#[derive(Debug)]
pub enum Value {
    /// A number a step.
    Scalar(Vec<f64>),
    /// Series; those without any value are left out.
    Vector(Vec<Series>),
    /// A string.
    String(String),
}

/// The name of a series for a message.
pub fn metric_name(labels: &Labels) -> &str {
    labels.metric_name().unwrap_or("")
}

/// Whether a label says what the metric is; these are dropped by operations that change the meaning of the value.
pub fn is_metadata(name: &str) -> bool {
    matches!(name, "__name__" | "__type__" | "__unit__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_arithmetic_yields_the_mark_of_an_empty_slot() {
        for (a, b) in [(ABSENT, 1.0), (ABSENT, ABSENT), (0.0, 0.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            for result in [a + b, a - b, a * b, a / b, a % b, a.powf(b), a.atan2(b), (a + b).sqrt()] {
                assert!(!is_absent(result), "{a} {b}");
            }
        }
    }

    #[test]
    fn columns_merge_only_where_they_do_not_overlap() {
        let mut a = Column { floats: vec![1.0, ABSENT, ABSENT], ..Column::default() };
        let b = Column { floats: vec![ABSENT, 2.0, ABSENT], ..Column::default() };
        assert!(a.merge(&b));
        assert_eq!(a.floats[..2], [1.0, 2.0]);
        assert!(!a.has(2));
        assert!(!a.merge(&b));
    }
}
