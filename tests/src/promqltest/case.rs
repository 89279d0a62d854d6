//! Runs one case.

use super::database::Database;
use super::pinned;
use super::script::{Case, When};
use anyhow::{Context, Result, anyhow, bail, ensure};
use model::Timestamp;
use query::ast::{Expr, Kind};
use query::{Answer, Params, Value, parser};

/// Whether native histograms play a part: they are expected, or a selector of the expression matches some.
pub fn concerns_histograms(case: &Case, database: &Database) -> bool {
    fn selects(expr: &Expr, database: &Database) -> bool {
        let here = match &expr.kind {
            Kind::Vector(selector) => database.has_histograms(&selector.matchers),
            Kind::Matrix(matrix) => database.has_histograms(&matrix.selector.matchers),
            _ => false,
        };
        here || expr.children().into_iter().any(|child| selects(child, database))
    }
    case.expected.has_histograms() || parser::parse(&case.expr).is_ok_and(|expr| selects(&expr, database))
}

/// Runs the case with all its reruns; an error says what differs first.
pub fn run(case: &Case, database: &Database) -> Result<()> {
    match case.when {
        When::Range { start, end, step } => {
            if let Some(answer) = expect_answer(case, ask_range(database, &case.expr, start, end, step))? {
                case.expected.check_annotations(&answer)?;
                case.expected.check_value(&answer.value, case.when)?;
            }
            Ok(())
        }
        When::At(at) => {
            let expr = parser::parse(&case.expr).ok();
            let boundaries = expr.as_ref().is_some_and(pinned::asks_for_the_query);
            run_instant(case, database, &case.expr, at, !boundaries)?;
            if let Some(pinned) = expr.and_then(|expr| pinned::pin(&expr, at)) {
                let text = pinned.to_string();
                // As the original is pinned by now, only durations can still ask for the query's own boundaries.
                let as_range = !pinned::asks_for_the_query(&pinned);
                for other in other_times(at) {
                    run_instant(case, database, &text, other, as_range)
                        .with_context(|| format!("rerun as {text} at {other} ms"))?;
                }
            }
            Ok(())
        }
    }
}

/// The moments from which a pinned expression is asked again.
fn other_times(at: i64) -> Vec<i64> {
    if at == 0 { vec![-1_000, 0, 1_000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] }
}

fn run_instant(case: &Case, database: &Database, text: &str, at: i64, as_range: bool) -> Result<()> {
    let expected = &case.expected;
    let answer = database.engine.instant(database.source(), text, Timestamp(at), &Params::default());
    let Some(answer) = expect_answer(case, answer)? else { return Ok(()) };
    expected.check_value(&answer.value, case.when)?;
    expected.check_annotations(&answer)?;

    // Range queries know neither strings nor range vectors, and have their own order.
    let comparable = matches!(answer.value, Value::Scalar(..) | Value::Vector(_));
    if !as_range || !comparable || expected.is_ordered() {
        return Ok(());
    }
    in_a_range(case, database, text, at).context("as the middle step of a range query")
}

fn in_a_range(case: &Case, database: &Database, text: &str, at: i64) -> Result<()> {
    const MINUTE: i64 = 60_000;
    let answer = ask_range(database, text, at - MINUTE, at + MINUTE, MINUTE)?;
    let Value::Matrix(series) = &answer.value else { bail!("not a matrix: {:?}", answer.value) };
    ensure!(series.is_sorted_by(|a, b| a.0 < b.0), "series are not sorted by labels, or not unique");
    let middle: Vec<_> = series
        .iter()
        .filter_map(|(labels, points)| Some((labels, &points.iter().find(|(t, _)| *t == at)?.1)))
        .collect();
    case.expected.check_step(&middle)
}

fn ask_range(
    database: &Database,
    text: &str,
    start: i64,
    end: i64,
    step: i64,
) -> Result<Answer, query::Error> {
    let (start, end) = (Timestamp(start), Timestamp(end));
    database.engine.range(database.source(), text, start, end, step, &Params::default())
}

/// The answer, or none if the query had to fail and did.
fn expect_answer(case: &Case, got: Result<Answer, query::Error>) -> Result<Option<Answer>> {
    match (&case.expected.fail, got) {
        (None, Ok(answer)) => Ok(Some(answer)),
        (None, Err(error)) => Err(anyhow!("{error}")),
        (Some(_), Ok(_)) => bail!("expected to fail, but it did not"),
        (Some(expected), Err(error)) => {
            ensure!(expected.matches(&error.to_string()), "expected to fail with {expected:?}, got: {error}");
            Ok(None)
        }
    }
}
