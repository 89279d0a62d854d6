//! Types: what may be given to what.

use super::Fault;
use crate::ast::*;
use model::labels::{METRIC_NAME, Quoted};

type Result<T> = std::result::Result<T, Fault>;

/// Checks the tree and settles what depends on types: the matching of binary operations. `text` is for positions.
pub(super) fn check(expr: &mut Expr, text: &str) -> Result<ValueType> {
    let start = expr.span.start;
    match &mut expr.kind {
        Kind::Number(..) => Ok(ValueType::Scalar),
        Kind::String(_) => Ok(ValueType::String),
        Kind::Paren(inner) => check(inner, text),
        Kind::Unary(_, inner) => match check(inner, text)? {
            ty @ (ValueType::Scalar | ValueType::Vector) => Ok(ty),
            ty => Err(Fault::new(
                start,
                format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                    Quoted(ty.documented())
                ),
            )),
        },
        Kind::Binary(node) => binary(node, start, text),
        Kind::Aggregate(node) => {
            expect(&mut node.expr, ValueType::Vector, "aggregation expression", text)?;
            if let Some(param) = &mut node.param {
                let wanted = match node.op {
                    AggregateOp::CountValues => ValueType::String,
                    _ => ValueType::Scalar,
                };
                expect(param, wanted, "aggregation parameter", text)?;
            }
            Ok(ValueType::Vector)
        }
        Kind::Call(node) => call(node, start, text),
        Kind::Subquery(node) => match check(&mut node.expr, text)? {
            ValueType::Vector => Ok(ValueType::Matrix),
            ty => {
                let message =
                    format!("subquery is only allowed on instant vector, got {} instead", ty.internal());
                Err(Fault::new(start, message))
            }
        },
        Kind::Matrix(node) => selector(&node.selector, start).map(|()| ValueType::Matrix),
        Kind::Vector(node) => selector(node, start).map(|()| ValueType::Vector),
    }
}

fn expect(expr: &mut Expr, wanted: ValueType, context: &str, text: &str) -> Result<()> {
    let got = check(expr, text)?;
    if got == wanted {
        return Ok(());
    }
    let message = format!("expected type {} in {context}, got {}", wanted.documented(), got.documented());
    Err(Fault::new(expr.span.start, message))
}

fn binary(node: &mut Binary, start: u32, text: &str) -> Result<ValueType> {
    use ValueType::{Scalar, Vector};
    let lhs = check(&mut node.lhs, text)?;
    let rhs = check(&mut node.rhs, text)?;
    let op = node.op;
    let gap = &text[node.lhs.span.end as usize..];
    let at_op = node.lhs.span.end + (gap.len() - gap.trim_start().len()) as u32;

    if node.return_bool && !op.is_comparison() {
        return Err(Fault::new(at_op, "bool modifier can only be used on comparison operators"));
    }
    if op.is_comparison() && !node.return_bool && lhs == Scalar && rhs == Scalar {
        return Err(Fault::new(at_op, "comparisons between scalars must use BOOL modifier"));
    }
    let matching = node.matching.as_mut().expect("BUG: only the check removes it");
    if op.is_set() && matching.cardinality == Cardinality::OneToOne {
        matching.cardinality = Cardinality::ManyToMany;
    }
    if let Some(label) = matching.labels.iter().find(|l| matching.on && matching.include.contains(l)) {
        let message = format!("label {} must not occur in ON and GROUP clause at once", Quoted(label));
        return Err(Fault::new(at_op, message));
    }
    for (ty, side) in [(lhs, &node.lhs), (rhs, &node.rhs)] {
        if !matches!(ty, Scalar | Vector) {
            let message = "binary expression must contain only scalar and instant vector types";
            return Err(Fault::new(side.span.start, message));
        }
    }
    let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
    if lhs != Vector || rhs != Vector {
        if !matching.labels.is_empty() {
            return Err(Fault::new(start, "vector matching only allowed between instant vectors"));
        }
        if filled {
            let message = "filling in missing series only allowed between instant vectors";
            return Err(Fault::new(start, message));
        }
        node.matching = None;
    } else if op.is_set() {
        if matching.cardinality != Cardinality::ManyToMany {
            return Err(Fault::new(
                start,
                format!("no grouping allowed for {} operation", Quoted(op.symbol())),
            ));
        }
        if filled {
            return Err(Fault::new(start, "filling in missing series not allowed for set operators"));
        }
    }
    if op.is_set() && (lhs == Scalar || rhs == Scalar) {
        let message = format!("set operator {} not allowed in binary scalar expression", Quoted(op.symbol()));
        return Err(Fault::new(start, message));
    }
    Ok(if lhs == Scalar && rhs == Scalar { Scalar } else { Vector })
}

fn call(node: &mut Call, start: u32, text: &str) -> Result<ValueType> {
    let function = node.function;
    let got = node.args.len();
    let (least, most) = function.arity();
    let complaint = if least == most && got != least {
        Some(format!("expected {least} argument(s)"))
    } else if got < least {
        Some(format!("expected at least {least} argument(s)"))
    } else if got > most {
        Some(format!("expected at most {most} argument(s)"))
    } else {
        None
    };
    if let Some(complaint) = complaint {
        let message = format!("{complaint} in call to {}, got {got}", Quoted(function.name));
        return Err(Fault::new(start, message));
    }
    let context = format!("call to function {}", Quoted(function.name));
    for (index, arg) in node.args.iter_mut().enumerate() {
        let wanted = function.args[index.min(function.args.len() - 1)];
        if function.name == "info" && index == 1 {
            // Label matchers only; they say which labels to add, so they may match everything.
            match &arg.kind {
                Kind::Vector(VectorSelector { name: None, .. }) => continue,
                Kind::Vector(_) => {
                    let message = "expected label selectors only, got vector selector instead";
                    return Err(Fault::new(arg.span.start, message));
                }
                _ => expect(arg, wanted, &context, text)?,
            }
            return Err(Fault::new(arg.span.start, "expected label selectors only"));
        }
        expect(arg, wanted, &context, text)?;
    }
    Ok(function.returns)
}

fn selector(node: &VectorSelector, start: u32) -> Result<()> {
    match &node.name {
        // The name from before the braces is the last matcher.
        Some(name) => {
            let inside = &node.matchers[..node.matchers.len() - 1];
            match inside.iter().find(|m| m.name == METRIC_NAME) {
                Some(second) => Err(Fault::new(
                    start,
                    format!(
                        "metric name must not be set twice: {} or {}",
                        Quoted(name),
                        Quoted(&second.value)
                    ),
                )),
                None => Ok(()),
            }
        }
        None if node.matchers.iter().all(|m| m.matches_missing()) => {
            Err(Fault::new(start, "vector selector must contain at least one non-empty matcher"))
        }
        None => Ok(()),
    }
}
