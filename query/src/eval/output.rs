//! Collects the series of a result and keeps label sets unique.

use super::{Column, Series, budget::Budget, same_labelset};
use crate::engine::{Error, Point};
use model::Labels;
use std::collections::HashMap;
use std::sync::Arc;

/// The series of a result under construction, one for each label set.
pub struct Output {
    steps: usize,
    budget: Arc<Budget>,
    index: HashMap<Labels, usize>,
    series: Vec<Series>,
    /// For each series, who wrote to it last.
    writer: Vec<usize>,
}

impl Output {
    /// Nothing yet, for columns of `steps` steps.
    pub fn new(steps: usize, budget: &Arc<Budget>) -> Output {
        Output {
            steps,
            budget: budget.clone(),
            index: HashMap::new(),
            series: Vec::new(),
            writer: Vec::new(),
        }
    }

    /// The series with these labels, created when it is not there.
    pub fn slot(&mut self, labels: Labels, drop_name: bool) -> Result<usize, Error> {
        if let Some(slot) = self.index.get(&labels) {
            return Ok(*slot);
        }
        let mut column = Column::absent(self.steps);
        column.held = self.budget.hold(self.steps)?;
        let slot = self.series.len();
        self.index.insert(labels.clone(), slot);
        self.series.push(Series { labels, drop_name, column });
        self.writer.push(usize::MAX);
        Ok(slot)
    }

    /// Sets a value on behalf of `writer`; when there is one already, gives back who set a value in this series last.
    pub fn set(&mut self, slot: usize, step: usize, point: Point, writer: usize) -> Result<(), usize> {
        let column = &mut self.series[slot].column;
        if column.has(step) {
            return Err(self.writer[slot]);
        }
        self.writer[slot] = writer;
        match point {
            Point::Float(value) => column.floats[step] = value,
            Point::Histogram(histogram) => {
                let at = column.histograms.partition_point(|(s, _)| *s < step as u32);
                column.histograms.insert(at, (step as u32, histogram));
            }
        }
        Ok(())
    }

    /// The series that have a value, in the order in which they were created.
    pub fn finish(self) -> Vec<Series> {
        let mut series = self.series;
        series.retain(|s| !s.column.is_empty());
        series
    }
}

/// Puts together series with the same labels; an error when two have a value at the same step.
pub fn merge_same(vector: Vec<Series>) -> Result<Vec<Series>, Error> {
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(vector.len());
    let mut merged: Vec<Series> = Vec::with_capacity(vector.len());
    for series in vector {
        match index.get(&series.labels) {
            Some(&at) => {
                if !merged[at].column.merge(&series.column) {
                    return same_labelset();
                }
            }
            None => {
                index.insert(series.labels.clone(), merged.len());
                merged.push(series);
            }
        }
    }
    Ok(merged)
}

/// Fails when two series have the same labels.
pub fn refuse_same(vector: &[Series]) -> Result<(), Error> {
    let mut seen = std::collections::HashSet::with_capacity(vector.len());
    if vector.iter().all(|series| seen.insert(&series.labels)) { Ok(()) } else { same_labelset() }
}
