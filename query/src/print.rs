//! Trees as text that parses to the same tree.

use crate::ast::*;
use model::labels::{METRIC_NAME, Quoted, is_legacy_name};
use std::fmt::{self, Display, Formatter};

impl BinaryOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        use BinaryOp::*;
        match self {
            Add => "+",
            Sub => "-",
            Mul => "*",
            Div => "/",
            Mod => "%",
            Pow => "^",
            Atan2 => "atan2",
            Equal => "==",
            NotEqual => "!=",
            Greater => ">",
            Less => "<",
            GreaterEqual => ">=",
            LessEqual => "<=",
            And => "and",
            Or => "or",
            Unless => "unless",
            TrimUpper => "</",
            TrimLower => ">/",
        }
    }
}

impl AggregateOp {
    /// As it is written.
    pub fn name(self) -> &'static str {
        use AggregateOp::*;
        match self {
            Sum => "sum",
            Avg => "avg",
            Count => "count",
            Min => "min",
            Max => "max",
            Group => "group",
            Stddev => "stddev",
            Stdvar => "stdvar",
            Topk => "topk",
            Bottomk => "bottomk",
            CountValues => "count_values",
            Quantile => "quantile",
            Limitk => "limitk",
            LimitRatio => "limit_ratio",
        }
    }
}

impl Display for UnaryOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnaryOp::Plus => "+",
            UnaryOp::Minus => "-",
        })
    }
}

/// A number as the parser reads it back, bit for bit. Infinity has no sign, since `+Inf ^ 2` would be `+(Inf ^ 2)`.
struct Number(f64, Notation);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if self.1 == Notation::Duration {
            let sign = if self.0.is_sign_negative() { "-" } else { "" };
            write!(f, "{sign}{}", Millis((size * 1000.0).round() as i64))
        } else if self.0.is_nan() {
            f.write_str("NaN")
        } else if size.is_infinite() {
            f.write_str(if self.0 > 0.0 { "Inf" } else { "-Inf" })
        } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// `(a, b, "c.d")`
struct Names<'a>(&'a [String]);

impl Display for Names<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, name) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            if is_legacy_name(name, false) {
                write!(f, "{comma}{name}")?;
            } else {
                write!(f, "{comma}{}", Quoted(name))?;
            }
        }
        f.write_str(")")
    }
}

/// A duration as Prometheus prints it: `1h30m`. Years and weeks stand for whole ones only, since `90d` says more than
/// `12w6d`.
struct Millis(i64);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const DAY: u64 = 86_400_000;
        let units = [
            ("y", 365 * DAY, true),
            ("w", 7 * DAY, true),
            ("d", DAY, false),
            ("h", 3_600_000, false),
            ("m", 60_000, false),
            ("s", 1000, false),
            ("ms", 1, false),
        ];
        let mut rest = self.0.unsigned_abs();
        if rest == 0 {
            return f.write_str("0s");
        }
        f.write_str(if self.0 < 0 { "-" } else { "" })?;
        for (unit, size, whole) in units {
            if rest >= size && (!whole || rest.is_multiple_of(size)) {
                write!(f, "{}{unit}", rest / size)?;
                rest %= size;
            }
        }
        Ok(())
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Millis(millis) => write!(f, "{}", Millis(*millis)),
            Duration::Expr(expr) => write!(f, "{expr}"),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Number(seconds, notation) => write!(f, "{}", Number(*seconds, *notation)),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Unary(op, inner) => write!(f, "{op}{inner}"),
            DurationKind::Binary(op, a, b) => write!(f, "{a} {} {b}", op.symbol()),
            DurationKind::Paren(inner) => write!(f, "({inner})"),
        }
    }
}

fn write_modifiers(f: &mut Formatter<'_>, at: &Option<At>, offset: &Option<Duration>) -> fmt::Result {
    match at {
        None => {}
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        Some(At::Timestamp(millis)) => {
            let sign = if *millis < 0 { "-" } else { "" };
            let (seconds, rest) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
            write!(f, " @ {sign}{seconds}.{rest:03}")?;
        }
    }
    match offset {
        None => Ok(()),
        Some(offset) => write!(f, " offset {offset}"),
    }
}

impl VectorSelector {
    fn write_matchers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut matchers = self.matchers.as_slice();
        if let Some(name) = &self.name {
            f.write_str(name)?;
            // The last matcher is the name that stands before the braces.
            matchers = &matchers[..matchers.len() - 1];
            debug_assert!(self.matchers.last().is_some_and(|m| m.name == METRIC_NAME && m.value == *name));
            if matchers.is_empty() {
                return Ok(());
            }
        }
        f.write_str("{")?;
        for (index, matcher) in matchers.iter().enumerate() {
            write!(f, "{}{matcher}", if index > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }

    fn write_after(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_modifiers(f, &self.at, &self.offset)?;
        f.write_str(match self.extension {
            Extension::None => "",
            Extension::Anchored => " anchored",
            Extension::Smoothed => " smoothed",
        })
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.lhs, self.op.symbol())?;
        if self.return_bool {
            f.write_str(" bool")?;
        }
        if let Some(matching) = &self.matching {
            let grouped = match matching.cardinality {
                Cardinality::ManyToOne => " group_left ",
                Cardinality::OneToMany => " group_right ",
                Cardinality::OneToOne | Cardinality::ManyToMany => "",
            };
            if matching.on || !matching.labels.is_empty() || !grouped.is_empty() {
                write!(f, " {} {}", if matching.on { "on" } else { "ignoring" }, Names(&matching.labels))?;
            }
            if !grouped.is_empty() {
                write!(f, "{grouped}{}", Names(&matching.include))?;
            }
            if let Some(value) = matching.fill_left {
                write!(f, " fill_left({})", Number(value, Notation::Decimal))?;
            }
            if let Some(value) = matching.fill_right {
                write!(f, " fill_right({})", Number(value, Notation::Decimal))?;
            }
        }
        write!(f, " {}", self.rhs)
    }
}

/// As PromQL. Parsing the text gives the same tree again, positions aside.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Number(value, notation) => write!(f, "{}", Number(*value, *notation)),
            Kind::String(value) => write!(f, "{}", Quoted(value)),
            Kind::Paren(inner) => write!(f, "({inner})"),
            Kind::Unary(op, inner) => write!(f, "{op}{inner}"),
            Kind::Binary(binary) => write!(f, "{binary}"),
            Kind::Aggregate(node) => {
                f.write_str(node.op.name())?;
                if node.without || !node.grouping.is_empty() {
                    let word = if node.without { "without" } else { "by" };
                    write!(f, " {word} {} ", Names(&node.grouping))?;
                }
                match &node.param {
                    Some(param) => write!(f, "({param}, {})", node.expr),
                    None => write!(f, "({})", node.expr),
                }
            }
            Kind::Call(call) => {
                write!(f, "{}(", call.function.name)?;
                for (index, arg) in call.args.iter().enumerate() {
                    write!(f, "{}{arg}", if index > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Kind::Vector(selector) => {
                selector.write_matchers(f)?;
                selector.write_after(f)
            }
            Kind::Matrix(matrix) => {
                matrix.selector.write_matchers(f)?;
                write!(f, "[{}]", matrix.range)?;
                matrix.selector.write_after(f)
            }
            Kind::Subquery(subquery) => {
                write!(f, "{}[{}:", subquery.expr, subquery.range)?;
                if let Some(step) = &subquery.step {
                    write!(f, "{step}")?;
                }
                f.write_str("]")?;
                write_modifiers(f, &subquery.at, &subquery.offset)
            }
        }
    }
}
