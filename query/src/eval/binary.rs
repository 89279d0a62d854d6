//! Binary operations.
//!
//! Series of both sides are put together by the labels that count, once for the whole range. Within such a group the
//! steps decide: who is there at the same step meets. Nearly always a group has one series on either side, and then
//! it is two columns against each other.

use super::matching::LabelChoice;
use super::{ABSENT, Evaluator, Output, Series, Steps, Value, column, fail, is_absent, same_labelset};
use crate::ast::{Binary, BinaryOp, Cardinality, Matching, Span};
use crate::engine::{Error, Point};
use model::Labels;
use std::collections::HashMap;

/// The result of an operator on two floats: a value, or nothing when a comparison does not hold.
#[inline]
fn apply(op: BinaryOp, a: f64, b: f64) -> Option<f64> {
    use BinaryOp::*;
    let holds = |condition: bool| condition.then_some(a);
    match op {
        Add => Some(a + b),
        Sub => Some(a - b),
        Mul => Some(a * b),
        Div => Some(a / b),
        Mod => Some(a % b),
        Pow => Some(a.powf(b)),
        Atan2 => Some(a.atan2(b)),
        Equal => holds(a == b),
        NotEqual => holds(a != b),
        Greater => holds(a > b),
        Less => holds(a < b),
        GreaterEqual => holds(a >= b),
        LessEqual => holds(a <= b),
        And | Or | Unless | TrimUpper | TrimLower => None,
    }
}

/// One operator with its `bool`.
#[derive(Clone, Copy)]
struct Operator {
    op: BinaryOp,
    returns_bool: bool,
}

impl Operator {
    #[inline]
    fn apply(self, a: f64, b: f64) -> Option<f64> {
        let value = apply(self.op, a, b);
        if self.returns_bool { Some(f64::from(u8::from(value.is_some()))) } else { value }
    }

    /// Whether the value means something else than the operand's, so that its name no longer fits.
    fn drops_name(self) -> bool {
        self.returns_bool || !self.op.is_comparison() && !self.op.is_set()
    }
}

impl Evaluator<'_> {
    /// A binary operation at all steps.
    pub fn binary(&self, binary: &Binary, span: Span, steps: Steps) -> Result<Value, Error> {
        let operator = Operator { op: binary.op, returns_bool: binary.return_bool };
        let lhs = self.eval(&binary.lhs, steps)?;
        let rhs = self.eval(&binary.rhs, steps)?;
        match (lhs, rhs) {
            (Value::Scalar(mut lhs), Value::Scalar(rhs)) => {
                let compares = operator.op.is_comparison();
                for (a, b) in lhs.iter_mut().zip(rhs) {
                    let value = apply(operator.op, *a, b);
                    *a = if compares {
                        f64::from(u8::from(value.is_some()))
                    } else {
                        value.unwrap_or(f64::NAN)
                    };
                }
                Ok(Value::Scalar(lhs))
            }
            (Value::Vector(vector), Value::Scalar(scalar)) => {
                self.with_scalar(operator, span, vector, &scalar, false).map(Value::Vector)
            }
            (Value::Scalar(scalar), Value::Vector(vector)) => {
                self.with_scalar(operator, span, vector, &scalar, true).map(Value::Vector)
            }
            (Value::Vector(lhs), Value::Vector(rhs)) => {
                let Some(matching) = &binary.matching else {
                    return fail("BUG: two vectors without a matching");
                };
                let vector = if operator.op.is_set() {
                    self.set_operation(operator.op, matching, lhs, rhs, steps)?
                } else {
                    self.match_vectors(operator, span, matching, lhs, rhs, steps)?
                };
                Ok(Value::Vector(vector))
            }
            _ => fail("BUG: a binary operation on a string"),
        }
    }

    fn incompatible(&self, op: BinaryOp, span: Span, lhs: &str, rhs: &str) {
        let op = op.symbol();
        let text =
            format!("incompatible sample types encountered for binary operator {op:?}: {lhs} {op} {rhs}");
        self.annotations.lock().info(span, text);
    }

    fn with_scalar(
        &self,
        operator: Operator,
        span: Span,
        mut vector: Vec<Series>,
        scalar: &[f64],
        scalar_first: bool,
    ) -> Result<Vec<Series>, Error> {
        let op = operator.op;
        let trims = matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        for series in &mut vector {
            self.check_canceled()?;
            if !series.column.histograms.is_empty() {
                series.column.histograms.clear();
                let (lhs, rhs) = if scalar_first { ("float", "histogram") } else { ("histogram", "float") };
                self.incompatible(op, span, lhs, rhs);
            }
            for (value, scalar) in series.column.floats.iter_mut().zip(scalar) {
                if is_absent(*value) {
                    continue;
                }
                let result = if scalar_first {
                    operator.apply(*scalar, *value)
                } else {
                    operator.apply(*value, *scalar)
                };
                *value = match result {
                    // A filter keeps the vector's value, whichever side it stands on.
                    Some(_) if op.is_comparison() && !operator.returns_bool => *value,
                    Some(result) => result,
                    None => ABSENT,
                };
                if trims {
                    self.incompatible(op, span, "float", "float");
                }
            }
            series.drop_name |= operator.drops_name();
        }
        vector.retain(|s| !s.column.is_empty());
        self.settle_names(vector)
    }

    fn set_operation(
        &self,
        op: BinaryOp,
        matching: &Matching,
        mut lhs: Vec<Series>,
        mut rhs: Vec<Series>,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let choice = LabelChoice::of(matching);
        let mut key = Vec::new();
        // Which steps of each key are there on the side that decides.
        let mut present: HashMap<Vec<u8>, Vec<bool>> = HashMap::new();
        let (deciding, filtered) = if op == BinaryOp::Or { (&lhs, &mut rhs) } else { (&rhs, &mut lhs) };
        for series in deciding {
            choice.key(&series.labels, |_| false, &mut key);
            let steps = present.entry(key.clone()).or_insert_with(|| vec![false; steps.count]);
            steps.iter_mut().enumerate().for_each(|(step, there)| *there |= series.column.has(step));
        }
        let wanted = op == BinaryOp::And;
        for series in filtered.iter_mut() {
            self.check_canceled()?;
            choice.key(&series.labels, |_| false, &mut key);
            match present.get(&key) {
                Some(present) => series.column.retain(|step| present[step] == wanted),
                None if wanted => series.column.reset(steps.count),
                None => {}
            }
        }
        filtered.retain(|s| !s.column.is_empty());
        if op != BinaryOp::Or {
            return Ok(lhs);
        }
        lhs.extend(rhs);
        super::output::merge_same(lhs)
    }

    /// Arithmetic and comparisons between two vectors.
    fn match_vectors(
        &self,
        operator: Operator,
        span: Span,
        matching: &Matching,
        lhs: Vec<Series>,
        rhs: Vec<Series>,
        steps: Steps,
    ) -> Result<Vec<Series>, Error> {
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (&rhs, &lhs) } else { (&lhs, &rhs) };
        // Prometheus swaps the sides of `group_right`, but not their fill values: `fill_left` always fills the many.
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let choice = LabelChoice::of(matching);
        let mut index: HashMap<Vec<u8>, usize> = HashMap::new();
        let mut groups: Vec<MatchGroup> = Vec::new();
        let mut key = Vec::new();
        for (side, series) in
            one.iter().enumerate().map(|s| (true, s)).chain(many.iter().enumerate().map(|s| (false, s)))
        {
            self.check_canceled()?;
            choice.key(&series.1.labels, |_| false, &mut key);
            let group = match index.get(&key) {
                Some(group) => *group,
                // A lonely series of the many can only meet a filled one.
                None if !side && fill_one.is_none() => continue,
                None => {
                    index.insert(key.clone(), groups.len());
                    groups.push(MatchGroup::default());
                    groups.len() - 1
                }
            };
            let group = &mut groups[group];
            (if side { &mut group.one } else { &mut group.many }).push(series.0);
        }
        let mut run = Matcher {
            evaluator: self,
            operator,
            span,
            matching,
            swapped,
            many,
            one,
            fill_many,
            fill_one,
            active: active_steps(many, one, fill_many.is_some() || fill_one.is_some(), steps.count),
            output: Output::new(steps.count, &self.budget),
            choice: &choice,
        };
        for (number, group) in groups.iter().enumerate() {
            self.check_canceled()?;
            run.group(number, group)?;
        }
        let output = run.output.finish();
        self.settle_names(output)
    }
}

/// Steps at which anything is matched at all: both sides have something, or one is filled.
fn active_steps(many: &[Series], one: &[Series], fills: bool, count: usize) -> Vec<bool> {
    if fills {
        return vec![true; count];
    }
    let any = |side: &[Series]| {
        let mut any = vec![false; count];
        let mut missing = count;
        for series in side {
            if missing == 0 {
                break;
            }
            for (step, any) in any.iter_mut().enumerate() {
                if !*any && series.column.has(step) {
                    *any = true;
                    missing -= 1;
                }
            }
        }
        any
    };
    any(many).into_iter().zip(any(one)).map(|(a, b)| a && b).collect()
}

/// Series that share the labels that count.
#[derive(Default)]
struct MatchGroup {
    one: Vec<usize>,
    many: Vec<usize>,
}

/// A matching under way. "Many" is the left side unless `group_right` swaps them.
struct Matcher<'a> {
    evaluator: &'a Evaluator<'a>,
    operator: Operator,
    span: Span,
    matching: &'a Matching,
    swapped: bool,
    many: &'a [Series],
    one: &'a [Series],
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    active: Vec<bool>,
    output: Output,
    choice: &'a LabelChoice<'a>,
}

/// A side of one match: a series, or a filled gap.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Series(usize),
    Filled,
}

impl Matcher<'_> {
    fn group(&mut self, number: usize, group: &MatchGroup) -> Result<(), Error> {
        let mut slots: HashMap<(Side, Side), usize> = HashMap::new();
        let one_to_one = self.matching.cardinality == Cardinality::OneToOne;
        for step in 0..self.active.len() {
            if !self.active[step] {
                continue;
            }
            let mut one = None;
            for &i in group.one.iter().filter(|i| self.one[**i].column.has(step)) {
                if let Some(other) = one.replace(i) {
                    return self.duplicate(i, other);
                }
            }
            let mut met = false;
            let mut results = 0;
            for &i in group.many.iter().filter(|i| self.many[**i].column.has(step)) {
                met = true;
                let one = match (one, self.fill_one) {
                    (Some(one), _) => Side::Series(one),
                    (None, Some(_)) => Side::Filled,
                    (None, None) => continue,
                };
                if self.pair(number, &mut slots, step, Side::Series(i), one)? {
                    results += 1;
                }
                if one_to_one && results > 1 {
                    return fail(
                        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                    );
                }
            }
            if let (false, Some(one), true) = (met, one, self.fill_many.is_some()) {
                self.pair(number, &mut slots, step, Side::Filled, Side::Series(one))?;
            }
        }
        Ok(())
    }

    /// Applies the operator to one sample of either side; whether there is a result.
    fn pair(
        &mut self,
        number: usize,
        slots: &mut HashMap<(Side, Side), usize>,
        step: usize,
        many: Side,
        one: Side,
    ) -> Result<bool, Error> {
        let value = |side: Side, series: &[Series], fill: Option<f64>| match side {
            Side::Series(i) => series[i].column.floats[step],
            Side::Filled => fill.unwrap_or(f64::NAN),
        };
        let many_value = value(many, self.many, self.fill_many);
        let one_value = value(one, self.one, self.fill_one);
        let (a, b) = if self.swapped { (one_value, many_value) } else { (many_value, one_value) };
        let op = self.operator.op;
        if is_absent(a) || is_absent(b) || matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
            let kind = |v: f64| if is_absent(v) { "histogram" } else { "float" };
            self.evaluator.incompatible(op, self.span, kind(a), kind(b));
            return Ok(false);
        }
        let Some(result) = self.operator.apply(a, b) else { return Ok(false) };
        let slot = match slots.get(&(many, one)) {
            Some(slot) => *slot,
            None => {
                let (labels, drop_name) = self.labels(many, one);
                let slot = self.output.slot(labels, drop_name)?;
                slots.insert((many, one), slot);
                slot
            }
        };
        match self.output.set(slot, step, Point::Float(result), number) {
            Ok(()) => Ok(true),
            Err(writer) if writer != number => same_labelset(),
            Err(_) if self.matching.cardinality == Cardinality::OneToOne => fail(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
            ),
            Err(_) => fail("multiple matches for labels: grouping labels must ensure unique matches"),
        }
    }

    /// The labels of a result, and whether its name is still to be dropped.
    fn labels(&self, many: Side, one: Side) -> (Labels, bool) {
        let choice = self.choice;
        let (base, drop_name) = match (many, one) {
            (Side::Series(i), _) => (self.many[i].labels.clone(), self.many[i].drop_name),
            (Side::Filled, Side::Series(i)) => (choice.labels(&self.one[i].labels), false),
            (Side::Filled, Side::Filled) => (Labels::default(), false),
        };
        let renamed = !self.operator.op.is_comparison();
        let mut labels = if renamed { base.retain(|name, _| !column::is_metadata(name)) } else { base };
        if self.matching.cardinality == Cardinality::OneToOne {
            let listed = |name: &str| self.matching.labels.iter().any(|l| l == name);
            labels = labels.retain(|name, _| listed(name) == self.matching.on);
        }
        for name in &self.matching.include {
            let value = match one {
                Side::Series(i) => self.one[i].labels.get(name).unwrap_or(""),
                Side::Filled => "",
            };
            labels = labels.with(name, value);
        }
        (labels, self.operator.returns_bool || drop_name && !renamed)
    }

    /// Two series where only one may be.
    fn duplicate(&self, first: usize, second: usize) -> Result<(), Error> {
        let side = if self.swapped { "left" } else { "right" };
        let group = self.choice.labels(&self.one[first].labels);
        fail(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];\
             many-to-many matching not allowed: matching labels must be unique on one side",
            Braced(&group),
            Braced(&self.one[first].labels),
            Braced(&self.one[second].labels),
        ))
    }
}

/// Labels as Prometheus's Go type prints them: all in braces, the name as `__name__`.
struct Braced<'a>(&'a Labels);

impl std::fmt::Display for Braced<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}")?;
            if model::labels::is_legacy_name(name, false) {
                write!(f, "{name}={}", model::labels::Quoted(value))?;
            } else {
                write!(f, "{}={}", model::labels::Quoted(name), model::labels::Quoted(value))?;
            }
        }
        f.write_str("}")
    }
}
