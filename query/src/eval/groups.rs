//! Running states of aggregations: a group for each set of retained labels, a slot for each step.

use super::budget::{Budget, Held};
use super::matching::LabelChoice;
use super::select::Sink;
use super::{ABSENT, Column, Series, column, is_absent};
use crate::engine::Error;
use model::Labels;
use std::collections::HashMap;
use std::sync::Arc;

/// What an aggregation does with native histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Histograms {
    /// Leaves them out and says so.
    Ignored,
    /// Takes them like any value.
    Counted,
    /// Cannot have them together with floats.
    Apart,
}

/// What one group holds at one step.
pub trait State: Copy + Send {
    /// What becomes of histograms.
    const HISTOGRAMS: Histograms;
    /// After the first value.
    fn first(value: f64) -> Self;
    /// After one more.
    fn add(&mut self, value: f64);
    /// After those that another thread gathered.
    fn merge(&mut self, other: Self);
    /// The result.
    fn finish(self) -> f64;
}

struct Group<A> {
    labels: Labels,
    drop_name: bool,
    slots: Vec<Option<A>>,
    /// Steps that have a histogram.
    histograms: Vec<u32>,
    held: Held,
}

/// All groups that one thread has met.
pub struct Groups<'a, A> {
    choice: &'a LabelChoice<'a>,
    /// Whether names that are to be dropped count as dropped already.
    eager: bool,
    budget: &'a Arc<Budget>,
    steps: usize,
    /// Whether `__type__` or `__unit__` was dropped from a series.
    pub metadata_dropped: bool,
    /// Whether there was a histogram.
    pub histograms_seen: bool,
    key: Vec<u8>,
    index: HashMap<Box<[u8]>, usize>,
    groups: Vec<Group<A>>,
}

impl<'a, A: State> Groups<'a, A> {
    /// None yet.
    pub fn new(choice: &'a LabelChoice<'a>, eager: bool, budget: &'a Arc<Budget>, steps: usize) -> Self {
        Groups {
            choice,
            eager,
            budget,
            steps,
            metadata_dropped: false,
            histograms_seen: false,
            key: Vec::new(),
            index: HashMap::new(),
            groups: Vec::new(),
        }
    }

    /// Takes what another thread gathered.
    pub fn merge(&mut self, other: Self) {
        self.histograms_seen |= other.histograms_seen;
        for group in other.groups {
            match self.index.get(group.labels.as_bytes()) {
                Some(&at) => {
                    let mine = &mut self.groups[at];
                    for (a, b) in mine.slots.iter_mut().zip(group.slots) {
                        match (a, b) {
                            (Some(a), Some(b)) => a.merge(b),
                            (a @ None, b) => *a = b,
                            (Some(_), None) => {}
                        }
                    }
                    mine.histograms.extend(group.histograms);
                }
                None => {
                    self.index.insert(group.labels.as_bytes().into(), self.groups.len());
                    self.groups.push(group);
                }
            }
        }
    }

    /// The series, and whether a step was left out because it had floats and histograms.
    pub fn finish(self) -> (Vec<Series>, bool) {
        let mut mixed = false;
        let finish = |group: Group<A>| {
            let mut floats: Vec<f64> =
                group.slots.into_iter().map(|slot| slot.map_or(ABSENT, A::finish)).collect();
            if A::HISTOGRAMS == Histograms::Apart {
                for step in group.histograms {
                    mixed |= !is_absent(std::mem::replace(&mut floats[step as usize], ABSENT));
                }
            }
            let column = Column { floats, histograms: Vec::new(), held: group.held };
            Series { labels: group.labels, drop_name: group.drop_name, column }
        };
        let mut series: Vec<Series> = self.groups.into_iter().map(finish).collect();
        series.retain(|s| !s.column.is_empty());
        (series, mixed)
    }
}

impl<A: State> Sink for Groups<'_, A> {
    fn push(&mut self, labels: Labels, drop_name: bool, column: &mut Column) -> Result<(), Error> {
        let dropped = drop_name && self.eager;
        if dropped && !self.metadata_dropped {
            self.metadata_dropped = labels.iter().any(|(n, _)| n == "__type__" || n == "__unit__");
        }
        self.choice.key(&labels, |name| dropped && column::is_metadata(name), &mut self.key);
        let at = match self.index.get(&self.key[..]) {
            Some(at) => *at,
            None => {
                self.groups.push(Group {
                    labels: Labels::from_canonical(&self.key),
                    drop_name: drop_name && !dropped,
                    slots: vec![None; self.steps],
                    histograms: Vec::new(),
                    held: self.budget.hold(self.steps)?,
                });
                self.index.insert(self.key.as_slice().into(), self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        let group = &mut self.groups[at];
        let mut add = |step: usize, value: f64| match &mut group.slots[step] {
            Some(slot) => slot.add(value),
            empty => *empty = Some(A::first(value)),
        };
        for (step, value) in column.floats.iter().enumerate() {
            if !is_absent(*value) {
                add(step, *value);
            }
        }
        for (step, _) in &column.histograms {
            match A::HISTOGRAMS {
                Histograms::Counted => add(*step as usize, 0.0),
                Histograms::Apart => group.histograms.push(*step),
                Histograms::Ignored => {}
            }
            self.histograms_seen = true;
        }
        Ok(())
    }
}

/// The states, by aggregation.
pub mod state {
    use super::{Histograms, State};
    use crate::functions::math;

    /// `sum`
    #[derive(Clone, Copy)]
    pub struct Sum(math::Sum);

    impl State for Sum {
        const HISTOGRAMS: Histograms = Histograms::Apart;

        fn first(value: f64) -> Self {
            Sum(math::Sum { sum: value, correction: 0.0 })
        }

        fn add(&mut self, value: f64) {
            self.0.add(value);
        }

        fn merge(&mut self, other: Self) {
            self.0.add(other.0.sum);
            self.0.correction += other.0.correction;
        }

        fn finish(self) -> f64 {
            self.0.total()
        }
    }

    /// `avg`
    #[derive(Clone, Copy)]
    pub struct Avg(math::Mean);

    impl State for Avg {
        const HISTOGRAMS: Histograms = Histograms::Apart;

        fn first(value: f64) -> Self {
            let mut mean = math::Mean::default();
            mean.add(value);
            Avg(mean)
        }

        fn add(&mut self, value: f64) {
            self.0.add(value);
        }

        fn merge(&mut self, other: Self) {
            self.0.merge(other.0);
        }

        fn finish(self) -> f64 {
            self.0.mean()
        }
    }

    /// `count`
    #[derive(Clone, Copy)]
    pub struct Count(f64);

    impl State for Count {
        const HISTOGRAMS: Histograms = Histograms::Counted;

        fn first(_value: f64) -> Self {
            Count(1.0)
        }

        fn add(&mut self, _value: f64) {
            self.0 += 1.0;
        }

        fn merge(&mut self, other: Self) {
            self.0 += other.0;
        }

        fn finish(self) -> f64 {
            self.0
        }
    }

    /// `group`
    #[derive(Clone, Copy)]
    pub struct Group;

    impl State for Group {
        const HISTOGRAMS: Histograms = Histograms::Counted;

        fn first(_value: f64) -> Self {
            Group
        }

        fn add(&mut self, _value: f64) {}

        fn merge(&mut self, _other: Self) {}

        fn finish(self) -> f64 {
            1.0
        }
    }

    /// `min`
    #[derive(Clone, Copy)]
    pub struct Min(f64);

    impl State for Min {
        const HISTOGRAMS: Histograms = Histograms::Ignored;

        fn first(value: f64) -> Self {
            Min(value)
        }

        fn add(&mut self, value: f64) {
            if value < self.0 || self.0.is_nan() {
                self.0 = value;
            }
        }

        fn merge(&mut self, other: Self) {
            self.add(other.0);
        }

        fn finish(self) -> f64 {
            self.0
        }
    }

    /// `max`
    #[derive(Clone, Copy)]
    pub struct Max(f64);

    impl State for Max {
        const HISTOGRAMS: Histograms = Histograms::Ignored;

        fn first(value: f64) -> Self {
            Max(value)
        }

        fn add(&mut self, value: f64) {
            if value > self.0 || self.0.is_nan() {
                self.0 = value;
            }
        }

        fn merge(&mut self, other: Self) {
            self.add(other.0);
        }

        fn finish(self) -> f64 {
            self.0
        }
    }

    /// `stdvar`, by Welford's method.
    #[derive(Clone, Copy)]
    pub struct Variance {
        count: f64,
        mean: f64,
        /// Sum of squared distances from the mean.
        squares: f64,
    }

    impl State for Variance {
        const HISTOGRAMS: Histograms = Histograms::Ignored;

        fn first(value: f64) -> Self {
            // The distance of an infinity from itself is not a number.
            let squares = if value.is_finite() { 0.0 } else { f64::NAN };
            Variance { count: 1.0, mean: value, squares }
        }

        fn add(&mut self, value: f64) {
            self.count += 1.0;
            let delta = value - self.mean;
            self.mean += delta / self.count;
            self.squares += delta * (value - self.mean);
        }

        fn merge(&mut self, other: Self) {
            let count = self.count + other.count;
            let delta = other.mean - self.mean;
            self.squares += other.squares + delta * delta * (self.count * other.count / count);
            self.mean += delta * (other.count / count);
            self.count = count;
        }

        fn finish(self) -> f64 {
            self.squares / self.count
        }
    }
}
