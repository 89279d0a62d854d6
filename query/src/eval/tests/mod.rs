//! The evaluator over a small source in memory.

mod naive;
mod operators;
mod queries;

use crate::{Answer, Engine, Error, Options, Params, Point, Value};
use model::{
    LabelQuery, Labels, Limited, Metadata, Samples, Selection, SeriesId, SeriesSet, Source, TimeRange,
    Timestamp,
};
use std::collections::BTreeMap;

/// Series in memory.
#[derive(Clone, Default)]
pub struct Memory(Vec<(Labels, Samples)>);

impl Memory {
    /// With one more series; `None` leaves a gap of `step` milliseconds.
    fn with(mut self, name: &str, labels: &[(&str, &str)], step: i64, values: &[Option<f64>]) -> Memory {
        let pairs = labels.iter().copied().chain([("__name__", name)]);
        let mut samples = Samples::default();
        for (i, value) in values.iter().enumerate() {
            if let Some(value) = value {
                samples.timestamps.push(step * i as i64);
                samples.values.push(*value);
            }
        }
        self.0.push((Labels::from_pairs(pairs).unwrap(), samples));
        self
    }
}

impl Source for Memory {
    fn select(&self, selection: &Selection) -> Result<Box<dyn SeriesSet>, model::Error> {
        let matches =
            |labels: &Labels| selection.matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")));
        Ok(Box::new(Memory(self.0.iter().filter(|(labels, _)| matches(labels)).cloned().collect())))
    }

    fn series(&self, _: &LabelQuery) -> Result<Limited<Labels>, model::Error> {
        Ok(Limited::default())
    }

    fn label_names(&self, _: &LabelQuery) -> Result<Limited<String>, model::Error> {
        Ok(Limited::default())
    }

    fn label_values(&self, _: &str, _: &LabelQuery) -> Result<Limited<String>, model::Error> {
        Ok(Limited::default())
    }

    fn metadata(&self, _: Option<&str>) -> Result<Vec<Metadata>, model::Error> {
        Ok(Vec::new())
    }
}

impl SeriesSet for Memory {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn id(&self, index: usize) -> SeriesId {
        SeriesId(index as u128)
    }

    fn labels(&self, index: usize) -> Labels {
        self.0[index].0.clone()
    }

    fn read(&self, index: usize, range: TimeRange, into: &mut Samples) -> Result<(), model::Error> {
        into.clear();
        let samples = &self.0[index].1;
        for (time, value) in samples.timestamps.iter().zip(&samples.values) {
            if range.contains(*time) {
                into.timestamps.push(*time);
                into.values.push(*value);
            }
        }
        Ok(())
    }
}

/// One series for every label set, one value for every time.
type Matrix = BTreeMap<String, Vec<(i64, f64)>>;

fn floats(answer: Answer) -> Matrix {
    let float = |point: Point| match point {
        Point::Float(value) => value,
        Point::Histogram(_) => panic!("a histogram"),
    };
    match answer.value {
        Value::Matrix(matrix) => matrix
            .into_iter()
            .map(|(l, points)| (l.to_string(), points.into_iter().map(|(t, p)| (t, float(p))).collect()))
            .collect(),
        Value::Vector(vector) => {
            vector.into_iter().map(|(l, t, p)| (l.to_string(), vec![(t, float(p))])).collect()
        }
        Value::Scalar(t, value) => [(String::new(), vec![(t, value)])].into(),
        Value::String(..) => panic!("a string"),
    }
}

fn range_with(options: Options, source: &Memory, query: &str, steps: [i64; 3]) -> Result<Answer, Error> {
    let [start, end, step] = steps;
    Engine::new(options).range(source, query, Timestamp(start), Timestamp(end), step, &Params::default())
}

fn range(source: &Memory, query: &str, steps: [i64; 3]) -> Matrix {
    floats(range_with(Options::default(), source, query, steps).unwrap())
}

fn instant(source: &Memory, query: &str, at: i64) -> Result<Answer, Error> {
    Engine::new(Options::default()).instant(source, query, Timestamp(at), &Params::default())
}

/// The values of an instant query by series.
fn values(source: &Memory, query: &str, at: i64) -> Vec<(String, f64)> {
    let matrix = floats(instant(source, query, at).unwrap());
    matrix.into_iter().map(|(labels, points)| (labels, points[0].1)).collect()
}

fn some(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().copied().map(Some).collect()
}

/// Equal, or as near as another order of additions leads.
fn near(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * (a.abs() + b.abs()).max(1e-3)
}

fn assert_near(a: &Matrix, b: &Matrix, what: &str) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
    for (labels, points) in a {
        let others = &b[labels];
        let times = |points: &[(i64, f64)]| points.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(times(points), times(others), "{what} {labels}");
        for ((t, a), (_, b)) in points.iter().zip(others) {
            assert!(near(*a, *b), "{what} {labels} at {t}: {a} and {b}");
        }
    }
}
