//! The syntax tree of PromQL, with byte spans on every node.

use crate::signature::Signature;
use model::Matcher;

/// A range of bytes of the query's text, end excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// A node and where it stands in the text.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub span: Span,
}

impl Expr {
    /// Type of the value.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            Kind::Number(..) => ValueType::Scalar,
            Kind::String(_) => ValueType::String,
            Kind::Paren(inner) | Kind::Unary(_, inner) => inner.value_type(),
            Kind::Binary(node) => match (node.lhs.value_type(), node.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            Kind::Aggregate(_) | Kind::Vector(_) => ValueType::Vector,
            Kind::Call(call) => call.function.returns,
            Kind::Matrix(_) | Kind::Subquery(_) => ValueType::Matrix,
        }
    }

    /// The expressions directly below, in the order of the text.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Number(..) | Kind::String(_) | Kind::Vector(_) | Kind::Matrix(_) => Vec::new(),
            Kind::Paren(inner) | Kind::Unary(_, inner) => vec![inner],
            Kind::Binary(node) => vec![&node.lhs, &node.rhs],
            Kind::Aggregate(node) => node.param.iter().chain([&node.expr]).collect(),
            Kind::Call(call) => call.args.iter().collect(),
            Kind::Subquery(node) => vec![&node.expr],
        }
    }

    /// The same, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            Kind::Number(..) | Kind::String(_) | Kind::Vector(_) | Kind::Matrix(_) => Vec::new(),
            Kind::Paren(inner) | Kind::Unary(_, inner) => vec![inner],
            Kind::Binary(node) => vec![&mut node.lhs, &mut node.rhs],
            Kind::Aggregate(node) => node.param.iter_mut().chain([&mut node.expr]).collect(),
            Kind::Call(call) => call.args.iter_mut().collect(),
            Kind::Subquery(node) => vec![&mut node.expr],
        }
    }
}

/// The kinds of nodes.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A number; durations are numbers too (`5m` is 300).
    Number(f64, Notation),
    /// A string. U+FFFD stands for escaped bytes that are not UTF-8.
    String(String),
    /// `( … )`
    Paren(Box<Expr>),
    /// `+x`, `-x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`
    Binary(Box<Binary>),
    /// `sum by (x) (…)`
    Aggregate(Box<Aggregate>),
    /// `rate(…)`
    Call(Call),
    /// `name{…}`
    Vector(VectorSelector),
    /// `name{…}[5m]`
    Matrix(Box<MatrixSelector>),
    /// `…[5m:1m]`
    Subquery(Box<Subquery>),
}

/// How a number was written, so that it is printed that way again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Notation {
    /// `300`, `0x12c`, `3e2`
    #[default]
    Decimal,
    /// `5m`
    Duration,
}

/// Type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number a step.
    Scalar,
    /// A set of series with one sample a step.
    Vector,
    /// A set of series with a window of samples a step.
    Matrix,
    /// A string.
    String,
}

impl ValueType {
    /// As in Prometheus's messages: `instant vector`, `range vector`.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
            ValueType::String => "string",
        }
    }

    /// As in the HTTP API and some of Prometheus's messages: `vector`, `matrix`.
    pub fn internal(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
            ValueType::String => "string",
        }
    }
}

/// Sign of a unary expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
}

impl BinaryOp {
    /// `==`, `!=`, `>`, `<`, `>=`, `<=`
    pub fn is_comparison(self) -> bool {
        use BinaryOp::*;
        matches!(self, Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual)
    }

    /// `and`, `or`, `unless`
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// `lhs op rhs`
#[derive(Clone, Debug)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Expr,
    /// Right side.
    pub rhs: Expr,
    /// Whether `bool` was given.
    pub return_bool: bool,
    /// How the series of both sides are paired; `Some` exactly when both sides are vectors.
    pub matching: Option<Matching>,
}

/// How many series of one side meet how many of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Cardinality {
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Pairing of series in a binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Matching {
    /// The cardinality.
    pub cardinality: Cardinality,
    /// The labels of `on(…)` or `ignoring(…)`.
    pub labels: Vec<String>,
    /// Whether it was `on`.
    pub on: bool,
    /// The labels in `group_left(…)` or `group_right(…)`.
    pub include: Vec<String>,
    /// `fill_left(…)`: value for series missing on the left.
    pub fill_left: Option<f64>,
    /// `fill_right(…)`: value for series missing on the right.
    pub fill_right: Option<f64>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

/// `op by (…) (param, expr)`
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// First argument of `topk`, `quantile`, `count_values` and the like.
    pub param: Option<Expr>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether it was `without`.
    pub without: bool,
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: &'static Signature,
    /// The arguments as written; defaults are not filled in.
    pub args: Vec<Expr>,
}

/// `@ …`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// `@ 1234.5`, in milliseconds.
    Timestamp(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// A duration: known, or computed from the query's step and range when it is run.
#[derive(Clone, Debug)]
pub enum Duration {
    /// Milliseconds.
    Millis(i64),
    /// `[5m + step()]`: evaluates to seconds.
    Expr(Box<DurationExpr>),
}

/// Arithmetic on durations.
#[derive(Clone, Debug)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands.
    pub span: Span,
}

/// Kinds of [`DurationExpr`].
#[derive(Clone, Debug)]
pub enum DurationKind {
    /// Seconds; a literal `5m` or `300`.
    Number(f64, Notation),
    /// `step()`: the query's step.
    Step,
    /// `range()`: the query's end minus its start.
    Range,
    /// `min_of(a, b)`
    Min(Box<DurationExpr>, Box<DurationExpr>),
    /// `max_of(a, b)`
    Max(Box<DurationExpr>, Box<DurationExpr>),
    /// `-a`, `+a`
    Unary(UnaryOp, Box<DurationExpr>),
    /// `a op b` with `+ - * / % ^`
    Binary(BinaryOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `( a )`
    Paren(Box<DurationExpr>),
}

/// How a range selector treats its edges (`anchored`, `smoothed`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extension {
    /// Only samples inside the window.
    #[default]
    None,
    /// The last sample before the window stands at its start.
    Anchored,
    /// Values at both edges are interpolated.
    Smoothed,
}

/// `name{matchers} offset … @ …`
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The metric's name if it was written before the braces. It is among the matchers too.
    pub name: Option<String>,
    /// All matchers, the one for the name included.
    pub matchers: Vec<Matcher>,
    /// `offset …`; `None` when not given.
    pub offset: Option<Duration>,
    /// `@ …`
    pub at: Option<At>,
    /// `anchored`, `smoothed`
    pub extension: Extension,
}

/// `selector[range]`
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// The selector; its offset and `@` apply to the window.
    pub selector: VectorSelector,
    /// Where the selector without its brackets stands.
    pub selector_span: Span,
    /// Width of the window.
    pub range: Duration,
}

/// `expr[range:step]`
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is evaluated at every inner step.
    pub expr: Expr,
    /// Width of the window.
    pub range: Duration,
    /// Inner step; `None` for the engine's default.
    pub step: Option<Duration>,
    /// `offset …`
    pub offset: Option<Duration>,
    /// `@ …`
    pub at: Option<At>,
}
