//! The same question, asked from another time.

use query::ast::{At, Duration, DurationExpr, DurationKind, Expr, Kind};

/// Functions whose result depends on the evaluation time even when their arguments do not.
const TIME_DEPENDENT: [&str; 15] = [
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "days_in_month",
    "end",
    "hour",
    "minute",
    "month",
    "predict_linear",
    "range",
    "start",
    "step",
    "time",
    "timestamp",
    "year",
];

/// The expression with all selectors pinned to `at`, so that it gives the same whenever it is evaluated. `None` if that
/// cannot be.
pub fn pin(expr: &Expr, at: i64) -> Option<Expr> {
    let mut pinned = expr.clone();
    set(&mut pinned, at).then_some(pinned)
}

fn set(expr: &mut Expr, at: i64) -> bool {
    let slot = match &mut expr.kind {
        Kind::Vector(selector) => &mut selector.at,
        Kind::Matrix(matrix) => &mut matrix.selector.at,
        Kind::Subquery(subquery) => &mut subquery.at,
        Kind::Call(call) if TIME_DEPENDENT.contains(&call.function.name) => return false,
        _ => return expr.children_mut().into_iter().all(|child| set(child, at)),
    };
    if !matches!(slot, Some(At::Timestamp(_))) {
        *slot = Some(At::Timestamp(at));
    }
    // What is inside a pinned subquery is pinned with it, as far as its functions allow.
    expr.children_mut().into_iter().all(|child| allows(child))
}

fn allows(expr: &Expr) -> bool {
    let here = !matches!(&expr.kind, Kind::Call(call) if TIME_DEPENDENT.contains(&call.function.name));
    here && expr.children().into_iter().all(allows)
}

/// Whether the expression asks for the query's own start, end or step, so that a range query around an instant is
/// another question.
pub fn asks_for_the_query(expr: &Expr) -> bool {
    let here = match &expr.kind {
        Kind::Call(call) => matches!(call.function.name, "start" | "end" | "step" | "range"),
        Kind::Vector(s) => boundary(s.at) || asks(s.offset.as_ref()),
        Kind::Matrix(m) => {
            boundary(m.selector.at) || asks(m.selector.offset.as_ref()) || asks(Some(&m.range))
        }
        Kind::Subquery(s) => {
            boundary(s.at) || asks(s.offset.as_ref()) || asks(Some(&s.range)) || asks(s.step.as_ref())
        }
        _ => false,
    };
    here || expr.children().into_iter().any(asks_for_the_query)
}

fn boundary(at: Option<At>) -> bool {
    matches!(at, Some(At::Start | At::End))
}

fn asks(duration: Option<&Duration>) -> bool {
    fn inside(expr: &DurationExpr) -> bool {
        match &expr.kind {
            DurationKind::Number(..) => false,
            DurationKind::Step | DurationKind::Range => true,
            DurationKind::Unary(_, a) | DurationKind::Paren(a) => inside(a),
            DurationKind::Min(a, b) | DurationKind::Max(a, b) | DurationKind::Binary(_, a, b) => {
                inside(a) || inside(b)
            }
        }
    }
    matches!(duration, Some(Duration::Expr(expr)) if inside(expr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(text: &str) -> Option<String> {
        pin(&query::parser::parse(text).unwrap(), 1_500).map(|expr| expr.to_string())
    }

    #[test]
    fn selectors_are_pinned_once_and_from_outside() {
        assert_eq!(pinned("a + b offset 1m").unwrap(), "a @ 1.500 + b @ 1.500 offset 1m");
        assert_eq!(pinned("rate(a[5m] @ 3)").unwrap(), "rate(a[5m] @ 3.000)");
        assert_eq!(pinned("a @ start()").unwrap(), "a @ 1.500");
        assert_eq!(
            pinned("sum_over_time(rate(a[1m])[5m:])").unwrap(),
            "sum_over_time(rate(a[1m])[5m:] @ 1.500)"
        );
    }

    #[test]
    fn what_depends_on_the_time_cannot_be_pinned() {
        assert_eq!(pinned("a + time()"), None);
        assert_eq!(pinned("max_over_time(timestamp(a)[5m:])"), None);
    }

    #[test]
    fn the_querys_own_boundaries_are_found_everywhere() {
        let asks = |text| asks_for_the_query(&query::parser::parse(text).unwrap());
        assert!(asks("1 + start()"));
        assert!(asks("a @ end()"));
        assert!(asks("rate(a[1m + step()])"));
        assert!(asks("abs(a offset -(range()))"));
        assert!(!asks("rate(a[1m + 2s] offset 5m)"));
    }
}
