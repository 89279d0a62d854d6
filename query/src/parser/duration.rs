//! Durations: `[5m + step()]`, `offset -(2 * 30s)`, and what they come to when a query runs.

use super::Fault;
use super::grammar::{Parser, Tree, signed};
use super::token::{Keyword, TokenKind};
use crate::ast::{BinaryOp, Duration, DurationExpr, DurationKind, Span, UnaryOp};

type Result<T> = std::result::Result<T, Fault>;

/// Prometheus keeps durations as nanoseconds in 64 bits.
const SECONDS_MAX: f64 = (1i64 << 62) as f64 * 2.0 / 1e9;

/// Whole milliseconds of a number of seconds, if there can be such a duration. Rounded to nanoseconds first, so that
/// `1001ms`, which has no exact number of seconds, is not a millisecond short.
fn millis(seconds: f64) -> Option<i64> {
    (-SECONDS_MAX..=SECONDS_MAX).contains(&seconds).then(|| (seconds * 1e9).round() as i64 / 1_000_000)
}

impl Parser<'_> {
    /// Whether a duration may begin with the token at hand.
    pub fn starts_duration(&self) -> bool {
        use Keyword::{MaxOf, MinOf, Range, Step};
        matches!(
            self.peek(),
            TokenKind::Number
                | TokenKind::Duration
                | TokenKind::LeftParen
                | TokenKind::Operator(BinaryOp::Add | BinaryOp::Sub)
                | TokenKind::Keyword(Step | Range | MinOf | MaxOf)
        )
    }

    /// The width or the step inside brackets.
    pub fn positive_duration(&mut self) -> Result<Duration> {
        let expr = self.duration_expr(0)?.node;
        if let DurationKind::Number(seconds, _) = expr.kind
            && seconds <= 0.0
        {
            return Err(Fault::new(expr.span.start, "duration must be greater than 0"));
        }
        literal_or_expr(expr)
    }

    /// Behind `offset`: one operand with its sign. Arithmetic needs parentheses there, since `x offset 1m * 2` is
    /// `(x offset 1m) * 2`.
    pub fn offset_duration(&mut self) -> Result<Duration> {
        let start = self.token().span.start;
        let sign = self.sign();
        let operand = self.duration_operand()?;
        literal_or_expr(with_sign(sign, start, operand.node))
    }

    fn duration_expr(&mut self, power: u8) -> Result<Tree<DurationExpr>> {
        use BinaryOp::{Add, Div, Mod, Mul, Pow, Sub};
        let mut lhs = self.nested(Self::signed_duration)?;
        while let TokenKind::Operator(op @ (Add | Sub | Mul | Div | Mod | Pow)) = self.peek() {
            let own = op.power();
            if own < power {
                break;
            }
            self.take();
            let rhs = self.nested(|p| p.duration_expr(if op == Pow { own } else { own + 1 }))?;
            let span = Span { start: lhs.node.span.start, end: rhs.node.span.end };
            let height = lhs.height.max(rhs.height);
            let kind = DurationKind::Binary(op, Box::new(lhs.node), Box::new(rhs.node));
            lhs = self.above(DurationExpr { kind, span }, height)?;
        }
        Ok(lhs)
    }

    fn signed_duration(&mut self) -> Result<Tree<DurationExpr>> {
        let start = self.token().span.start;
        let Some(sign) = self.sign() else { return self.duration_operand() };
        let inner = self.duration_expr(BinaryOp::Pow.power())?;
        self.above(with_sign(Some(sign), start, inner.node), inner.height)
    }

    fn duration_operand(&mut self) -> Result<Tree<DurationExpr>> {
        let context = "duration expression";
        let token = self.token();
        let span = |end| Span { start: token.span.start, end };
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let (seconds, notation) = self.seconds()?;
                let kind = DurationKind::Number(seconds, notation);
                Ok(Tree { node: DurationExpr { kind, span: token.span }, height: 1 })
            }
            TokenKind::LeftParen => {
                self.take();
                let inner = self.duration_expr(0)?;
                let end = self.expect(TokenKind::RightParen, context, "\")\"")?.span.end;
                let kind = DurationKind::Paren(Box::new(inner.node));
                self.above(DurationExpr { kind, span: span(end) }, inner.height)
            }
            TokenKind::Keyword(word @ (Keyword::Step | Keyword::Range)) => {
                self.take();
                self.expect(TokenKind::LeftParen, context, "\"(\"")?;
                let end = self.expect(TokenKind::RightParen, context, "\")\"")?.span.end;
                let kind = if word == Keyword::Step { DurationKind::Step } else { DurationKind::Range };
                Ok(Tree { node: DurationExpr { kind, span: span(end) }, height: 1 })
            }
            TokenKind::Keyword(word @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.take();
                self.expect(TokenKind::LeftParen, context, "\"(\"")?;
                let a = self.duration_expr(0)?;
                self.expect(TokenKind::Comma, context, "\",\"")?;
                let b = self.duration_expr(0)?;
                let end = self.expect(TokenKind::RightParen, context, "\")\"")?.span.end;
                let height = a.height.max(b.height);
                let (a, b) = (Box::new(a.node), Box::new(b.node));
                let kind = match word {
                    Keyword::MinOf => DurationKind::Min(a, b),
                    _ => DurationKind::Max(a, b),
                };
                self.above(DurationExpr { kind, span: span(end) }, height)
            }
            _ => Err(self.unexpected(context, "number, duration, step(), or range()")),
        }
    }
}

fn with_sign(sign: Option<UnaryOp>, start: u32, inner: DurationExpr) -> DurationExpr {
    let Some(op) = sign else { return inner };
    let span = Span { start, end: inner.span.end };
    let kind = match inner.kind {
        DurationKind::Number(seconds, notation) => DurationKind::Number(signed(sign, seconds), notation),
        _ => DurationKind::Unary(op, Box::new(inner)),
    };
    DurationExpr { kind, span }
}

fn literal_or_expr(expr: DurationExpr) -> Result<Duration> {
    match expr.kind {
        DurationKind::Number(seconds, _) => match millis(seconds) {
            Some(millis) => Ok(Duration::Millis(millis)),
            None => Err(Fault::new(expr.span.start, "duration out of range")),
        },
        _ => Ok(Duration::Expr(Box::new(expr))),
    }
}

impl Duration {
    /// Milliseconds, in a query with this step and this distance from start to end (both 0 for an instant query).
    pub fn resolve(&self, step_ms: i64, range_ms: i64) -> std::result::Result<i64, String> {
        match self {
            Duration::Millis(millis) => Ok(*millis),
            Duration::Expr(expr) => {
                let seconds = expr.seconds(step_ms as f64 / 1000.0, range_ms as f64 / 1000.0)?;
                millis(seconds).ok_or_else(|| expr.complaint("duration is out of range"))
            }
        }
    }

    /// The same for the width of a range or the step of a subquery, which must be positive.
    pub fn resolve_positive(&self, step_ms: i64, range_ms: i64) -> std::result::Result<i64, String> {
        let millis = self.resolve(step_ms, range_ms)?;
        match self {
            Duration::Expr(expr) if millis <= 0 => Err(expr.complaint("duration must be greater than 0")),
            Duration::Millis(_) if millis <= 0 => Err("duration must be greater than 0".into()),
            _ => Ok(millis),
        }
    }
}

impl DurationExpr {
    fn complaint(&self, what: &str) -> String {
        format!("{}:{}: {what}", self.span.start, self.span.end)
    }

    fn seconds(&self, step: f64, range: f64) -> std::result::Result<f64, String> {
        let value = |expr: &DurationExpr| expr.seconds(step, range);
        Ok(match &self.kind {
            DurationKind::Number(seconds, _) => *seconds,
            DurationKind::Step => step,
            DurationKind::Range => range,
            DurationKind::Min(a, b) => value(a)?.min(value(b)?),
            DurationKind::Max(a, b) => value(a)?.max(value(b)?),
            DurationKind::Unary(op, inner) => signed(Some(*op), value(inner)?),
            DurationKind::Paren(inner) => value(inner)?,
            DurationKind::Binary(op, a, b) => {
                let (a, b) = (value(a)?, value(b)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Div if b == 0.0 => return Err(self.complaint("division by zero")),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod if b == 0.0 => return Err(self.complaint("modulo by zero")),
                    BinaryOp::Mod => a % b,
                    BinaryOp::Pow => a.powf(b),
                    other => unreachable!("BUG: {other:?} in a duration"),
                }
            }
        })
    }
}
