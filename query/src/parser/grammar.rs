//! From tokens to tree: recursive descent with binding powers for binary operators.
//!
//! Two bounds keep hostile text harmless: [`NESTING_MAX`] on the descent itself, and [`HEIGHT_MAX`] on the tree, whose
//! left-leaning chains (`a + a + a …`) grow without descending. Everything that later walks the tree recursively,
//! dropping it included, may rely on the second.

use super::Fault;
use super::lexer::Tokens;
use super::literal;
use super::token::{Keyword, Token, TokenKind};
use crate::ast::*;
use crate::signature;
use model::labels::{METRIC_NAME, Quoted};
use model::{MatchOp, Matcher};

/// How deep parentheses, calls, signs and right-hand sides may nest.
pub const NESTING_MAX: u32 = 256;

/// Most nodes on a path from the root of a tree to a leaf. Evaluation takes up to 2.5 KB of stack for each, so that the
/// highest tree needs half of the 2 MiB that a thread has.
pub const HEIGHT_MAX: u32 = 500;

/// A node and how many nodes there are below it on the longest path, itself included.
pub(super) struct Tree<T> {
    pub node: T,
    pub height: u32,
}

pub(super) struct Parser<'a> {
    pub text: &'a str,
    tokens: &'a Tokens,
    at: usize,
    nesting: u32,
}

type Result<T> = std::result::Result<T, Fault>;

const DURATION_EXPECTED: &str = "number, duration, step(), or range()";

impl<'a> Parser<'a> {
    pub fn new(text: &'a str, tokens: &'a Tokens) -> Parser<'a> {
        Parser { text, tokens, at: 0, nesting: 0 }
    }

    /// The whole text as one expression.
    pub fn whole(&mut self) -> Result<Expr> {
        if self.peek() == TokenKind::Eof {
            return Err(Fault::new(0, "no expression found in input"));
        }
        let expr = self.expr(0)?;
        match self.peek() {
            TokenKind::Eof => Ok(expr.node),
            _ => Err(self.unexpected("", "")),
        }
    }

    pub fn token(&self) -> Token {
        self.tokens.tokens[self.at]
    }

    pub fn peek(&self) -> TokenKind {
        self.token().kind
    }

    fn peek_second(&self) -> TokenKind {
        self.tokens.tokens.get(self.at + 1).map_or(TokenKind::Eof, |t| t.kind)
    }

    /// Takes the token. The last one stays.
    pub fn take(&mut self) -> Token {
        let token = self.token();
        if self.at + 1 < self.tokens.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub fn accept(&mut self, kind: TokenKind) -> bool {
        let found = self.peek() == kind;
        if found {
            self.take();
        }
        found
    }

    pub fn expect(&mut self, kind: TokenKind, context: &str, expected: &str) -> Result<Token> {
        if self.peek() == kind { Ok(self.take()) } else { Err(self.unexpected(context, expected)) }
    }

    /// Complains about the token at hand; with the lexer's own words if that is where it stopped.
    pub fn unexpected(&self, context: &str, expected: &str) -> Fault {
        let token = self.token();
        if token.kind == TokenKind::Error {
            return Fault::new(token.span.start, self.tokens.error.clone());
        }
        let mut message = format!("unexpected {}", token.describe(self.text));
        if !context.is_empty() {
            message += " in ";
            message += context;
        }
        if !expected.is_empty() {
            message += ", expected ";
            message += expected;
        }
        Fault::new(token.span.start, message)
    }

    /// End of the last token taken.
    fn end(&self) -> u32 {
        self.at.checked_sub(1).map_or(0, |last| self.tokens.tokens[last].span.end)
    }

    /// One level deeper, for as long as `inside` runs.
    pub fn nested<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == NESTING_MAX {
            let message = format!("expression is nested deeper than {NESTING_MAX} levels");
            return Err(Fault::new(self.token().span.start, message));
        }
        self.nesting += 1;
        let result = inside(self);
        self.nesting -= 1;
        result
    }

    /// A node on top of others, the highest of which has `height`.
    pub fn above<T>(&self, node: T, height: u32) -> Result<Tree<T>> {
        if height >= HEIGHT_MAX {
            let message = format!(
                "expression has more than {HEIGHT_MAX} operations on top of each other; use parentheses to balance it"
            );
            return Err(Fault::new(self.token().span.start, message));
        }
        Ok(Tree { node, height: height + 1 })
    }

    /// An expression whose operators bind at least as tightly as `power`.
    fn expr(&mut self, power: u8) -> Result<Tree<Expr>> {
        let mut lhs = self.nested(Self::operand)?;
        while let TokenKind::Operator(op) = self.peek() {
            let own = op.power();
            if own < power {
                break;
            }
            self.take();
            let (return_bool, matching) = self.modifiers()?;
            // Only `^` groups to the right.
            let rhs = self.nested(|p| p.expr(if op == BinaryOp::Pow { own } else { own + 1 }))?;
            let height = lhs.height.max(rhs.height);
            let (lhs_node, rhs) = (lhs.node, rhs.node);
            let span = Span { start: lhs_node.span.start, end: rhs.span.end };
            let binary = Binary { op, lhs: lhs_node, rhs, return_bool, matching: Some(matching) };
            lhs = self.above(Expr { kind: Kind::Binary(Box::new(binary)), span }, height)?;
        }
        Ok(lhs)
    }

    /// `bool`, `on (…)`, `group_left (…)`, `fill (…)` after an operator. The cardinality of set operators and the absence
    /// of matching between scalars are settled when types are known.
    fn modifiers(&mut self) -> Result<(bool, Matching)> {
        let return_bool = self.accept(TokenKind::Keyword(Keyword::Bool));
        let mut matching = Matching {
            cardinality: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if let TokenKind::Keyword(word @ (Keyword::On | Keyword::Ignoring)) = self.peek() {
            self.take();
            matching.on = word == Keyword::On;
            matching.labels = self.grouping()?;
            if let TokenKind::Keyword(word @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek() {
                self.take();
                matching.cardinality = match word {
                    Keyword::GroupLeft => Cardinality::ManyToOne,
                    _ => Cardinality::OneToMany,
                };
                if self.peek() == TokenKind::LeftParen {
                    matching.include = self.grouping()?;
                }
            }
        }
        // `fill` without a parenthesis is a metric of that name.
        while self.peek_second() == TokenKind::LeftParen {
            let TokenKind::Keyword(word) = self.peek() else { break };
            let free = match word {
                Keyword::Fill => matching.fill_left.is_none() && matching.fill_right.is_none(),
                Keyword::FillLeft => matching.fill_left.is_none(),
                Keyword::FillRight => matching.fill_right.is_none(),
                _ => break,
            };
            if !free {
                return Err(self.unexpected("", ""));
            }
            self.take();
            let value = Some(self.fill_value()?);
            if word != Keyword::FillRight {
                matching.fill_left = value;
            }
            if word != Keyword::FillLeft {
                matching.fill_right = value;
            }
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Result<f64> {
        self.expect(TokenKind::LeftParen, "", "")?;
        let sign = self.sign();
        let number = self.number("fill modifier", "number")?;
        self.expect(TokenKind::RightParen, "fill modifier", "\")\"")?;
        Ok(signed(sign, number))
    }

    pub fn sign(&mut self) -> Option<UnaryOp> {
        let sign = match self.peek() {
            TokenKind::Operator(BinaryOp::Add) => UnaryOp::Plus,
            TokenKind::Operator(BinaryOp::Sub) => UnaryOp::Minus,
            _ => return None,
        };
        self.take();
        Some(sign)
    }

    fn number(&mut self, context: &str, expected: &str) -> Result<f64> {
        let token = self.expect(TokenKind::Number, context, expected)?;
        literal::number(token.text(self.text)).map_err(|m| Fault::new(token.span.start, m))
    }

    /// Seconds of a number or a duration.
    pub fn seconds(&mut self) -> Result<(f64, Notation)> {
        let token = self.take();
        let text = token.text(self.text);
        let value = match token.kind {
            TokenKind::Duration => literal::duration(text).map(|ms| (ms as f64 / 1000.0, Notation::Duration)),
            _ => literal::number(text).map(|value| (value, Notation::Decimal)),
        };
        value.map_err(|m| Fault::new(token.span.start, m))
    }

    fn string(&mut self) -> Result<String> {
        let token = self.take();
        literal::string(token.text(self.text)).map_err(|m| Fault::new(token.span.start, m))
    }

    /// `( label, "label", … )`, a comma at the end allowed.
    fn grouping(&mut self) -> Result<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect(TokenKind::LeftParen, CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        while !self.accept(TokenKind::RightParen) {
            match self.peek() {
                kind if kind.names_label() => labels.push(self.take().text(self.text).to_string()),
                TokenKind::String => labels.push(self.string()?),
                _ => return Err(self.unexpected(CONTEXT, "label")),
            }
            if !self.accept(TokenKind::Comma) && self.peek() != TokenKind::RightParen {
                return Err(self.unexpected(CONTEXT, "\",\" or \")\""));
            }
        }
        Ok(labels)
    }

    /// What stands between operators: signs, then a primary expression with everything that is written behind it.
    fn operand(&mut self) -> Result<Tree<Expr>> {
        let start = self.token().span.start;
        if let Some(sign) = self.sign() {
            // A sign binds like `*`: `-a ^ b` is `-(a ^ b)`, `-a * b` is `(-a) * b`.
            let inner = self.expr(BinaryOp::Pow.power())?;
            let span = Span { start, end: inner.node.span.end };
            if let Kind::Number(value, notation) = inner.node.kind {
                let kind = Kind::Number(signed(Some(sign), value), notation);
                return Ok(Tree { node: Expr { kind, span }, height: inner.height });
            }
            return self.above(Expr { kind: Kind::Unary(sign, Box::new(inner.node)), span }, inner.height);
        }
        let mut tree = self.primary()?;
        loop {
            match self.peek() {
                TokenKind::LeftBracket => tree = self.brackets(tree)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(&mut tree.node)?,
                TokenKind::At => self.at_modifier(&mut tree.node)?,
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.extension(&mut tree.node, Extension::Anchored)?
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.extension(&mut tree.node, Extension::Smoothed)?
                }
                _ => return Ok(tree),
            }
        }
    }

    fn primary(&mut self) -> Result<Tree<Expr>> {
        let token = self.token();
        let start = token.span.start;
        let called = self.peek_second() == TokenKind::LeftParen;
        let leaf = |kind, end| Tree { node: Expr { kind, span: Span { start, end } }, height: 1 };
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let (value, notation) = self.seconds()?;
                Ok(leaf(Kind::Number(value, notation), token.span.end))
            }
            TokenKind::String => {
                self.take();
                Ok(leaf(Kind::String(literal::text(token.text(self.text))), token.span.end))
            }
            TokenKind::LeftParen => {
                self.take();
                let inner = self.expr(0)?;
                self.expect(TokenKind::RightParen, "", "")?;
                let span = Span { start, end: self.end() };
                self.above(Expr { kind: Kind::Paren(Box::new(inner.node)), span }, inner.height)
            }
            TokenKind::LeftBrace => {
                let matchers = self.braces()?;
                Ok(leaf(Kind::Vector(selector(None, matchers)), self.end()))
            }
            TokenKind::Identifier if called => self.call(token.text(self.text)),
            TokenKind::Keyword(word) if called && word.is_function() => {
                self.call(&token.text(self.text).to_ascii_lowercase())
            }
            TokenKind::Aggregate(op)
                if called
                    || matches!(self.peek_second(), TokenKind::Keyword(Keyword::By | Keyword::Without)) =>
            {
                self.aggregate(op)
            }
            kind if kind.names_metric() => {
                self.take();
                let name = token.text(self.text);
                let mut matchers = match self.peek() {
                    TokenKind::LeftBrace => self.braces()?,
                    _ => Vec::new(),
                };
                matchers.push(Matcher::equal(METRIC_NAME, name));
                Ok(leaf(Kind::Vector(selector(Some(name.to_string()), matchers)), self.end()))
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// `{ a="b", "c.d"=~"e", "metric.name" }`
    fn braces(&mut self) -> Result<Vec<Matcher>> {
        const CONTEXT: &str = "label matching";
        self.expect(TokenKind::LeftBrace, CONTEXT, "\"{\"")?;
        let mut matchers = Vec::new();
        while !self.accept(TokenKind::RightBrace) {
            let label = self.token();
            let name = match label.kind {
                TokenKind::Identifier => self.take().text(self.text).to_string(),
                TokenKind::String => self.string()?,
                _ => return Err(self.unexpected(CONTEXT, "identifier or \"}\"")),
            };
            let op = match self.peek() {
                TokenKind::Assign => MatchOp::Equal,
                TokenKind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
                TokenKind::Matches => MatchOp::Matches,
                TokenKind::NotMatches => MatchOp::NotMatches,
                // A quoted string alone is the metric's name.
                TokenKind::Comma | TokenKind::RightBrace if label.kind == TokenKind::String => {
                    matchers.push(Matcher::equal(METRIC_NAME, name));
                    self.accept(TokenKind::Comma);
                    continue;
                }
                _ => return Err(self.unexpected(CONTEXT, "label matching operator")),
            };
            self.take();
            if self.peek() != TokenKind::String {
                return Err(self.unexpected(CONTEXT, "string"));
            }
            let value = self.string()?;
            let matcher =
                Matcher::new(name, op, value).map_err(|e| Fault::new(label.span.start, e.to_string()))?;
            matchers.push(matcher);
            if !self.accept(TokenKind::Comma) && self.peek() != TokenKind::RightBrace {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
        Ok(matchers)
    }

    /// `( expr, … )`, and the greatest height among them.
    fn arguments(&mut self) -> Result<(Vec<Expr>, u32)> {
        self.expect(TokenKind::LeftParen, "", "")?;
        let (mut args, mut height) = (Vec::new(), 0);
        if self.accept(TokenKind::RightParen) {
            return Ok((args, height));
        }
        loop {
            let arg = self.expr(0)?;
            height = height.max(arg.height);
            args.push(arg.node);
            let comma = self.token();
            if self.accept(TokenKind::RightParen) {
                return Ok((args, height));
            }
            self.expect(TokenKind::Comma, "", "")?;
            if self.peek() == TokenKind::RightParen {
                return Err(Fault::new(
                    comma.span.start,
                    "trailing commas not allowed in function call args",
                ));
            }
        }
    }

    fn call(&mut self, name: &str) -> Result<Tree<Expr>> {
        let start = self.take().span.start;
        let (args, height) = self.arguments()?;
        let function = signature::find(name)
            .ok_or_else(|| Fault::new(start, format!("unknown function with name {}", Quoted(name))))?;
        let span = Span { start, end: self.end() };
        self.above(Expr { kind: Kind::Call(Call { function, args }), span }, height)
    }

    fn aggregate(&mut self, op: AggregateOp) -> Result<Tree<Expr>> {
        let start = self.take().span.start;
        let mut grouping = self.by_or_without()?;
        if self.peek() != TokenKind::LeftParen {
            return Err(self.unexpected("aggregation", ""));
        }
        let (mut args, height) = self.arguments()?;
        if grouping.is_none() {
            grouping = self.by_or_without()?;
        }
        let expected = if op.has_param() { 2 } else { 1 };
        if args.is_empty() {
            return Err(Fault::new(start, "no arguments for aggregate expression provided"));
        }
        if args.len() != expected {
            return Err(Fault::new(
                start,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {expected}, got {}",
                    args.len()
                ),
            ));
        }
        let expr = args.pop().expect("counted above");
        let (without, grouping) = grouping.unwrap_or_default();
        let aggregate = Aggregate { op, expr, param: args.pop(), grouping, without };
        let span = Span { start, end: self.end() };
        self.above(Expr { kind: Kind::Aggregate(Box::new(aggregate)), span }, height)
    }

    fn by_or_without(&mut self) -> Result<Option<(bool, Vec<String>)>> {
        let TokenKind::Keyword(word @ (Keyword::By | Keyword::Without)) = self.peek() else {
            return Ok(None);
        };
        self.take();
        Ok(Some((word == Keyword::Without, self.grouping()?)))
    }

    /// `[range]` or `[range:step]` behind an expression.
    fn brackets(&mut self, inner: Tree<Expr>) -> Result<Tree<Expr>> {
        const SUBQUERY: &str = "subquery selector";
        let bracket = self.take().span.start;
        if !self.starts_duration() {
            return Err(self.unexpected("subquery or range selector", DURATION_EXPECTED));
        }
        let range = self.positive_duration()?;
        let start = inner.node.span.start;
        match self.peek() {
            TokenKind::RightBracket => {
                self.take();
                let fault = |message: &str| Err(Fault::new(bracket, message));
                let selector_span = inner.node.span;
                let Kind::Vector(selector) = inner.node.kind else {
                    return fault("ranges only allowed for vector selectors");
                };
                if selector.offset.is_some() {
                    return fault("no offset modifiers allowed before range");
                }
                if selector.at.is_some() {
                    return fault("no @ modifiers allowed before range");
                }
                let kind = Kind::Matrix(Box::new(MatrixSelector { selector, selector_span, range }));
                let span = Span { start, end: self.end() };
                Ok(Tree { node: Expr { kind, span }, height: 1 })
            }
            TokenKind::Colon => {
                self.take();
                let step = if self.starts_duration() {
                    let step = self.positive_duration()?;
                    self.expect(TokenKind::RightBracket, SUBQUERY, "\"]\"")?;
                    Some(step)
                } else {
                    let expected = "number, duration, step(), range(), or \"]\"";
                    self.expect(TokenKind::RightBracket, SUBQUERY, expected)?;
                    None
                };
                let height = inner.height;
                let subquery = Subquery { expr: inner.node, range, step, offset: None, at: None };
                let span = Span { start, end: self.end() };
                self.above(Expr { kind: Kind::Subquery(Box::new(subquery)), span }, height)
            }
            _ => Err(self.unexpected("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn offset(&mut self, expr: &mut Expr) -> Result<()> {
        self.take();
        if !self.starts_duration() {
            return Err(self.unexpected("offset", DURATION_EXPECTED));
        }
        let duration = self.offset_duration()?;
        let start = expr.span.start;
        let Some((offset, _)) = expr.time_modifiers() else {
            return Err(Fault::new(
                start,
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            ));
        };
        if offset.replace(duration).is_some() {
            return Err(Fault::new(start, "offset may not be set multiple times"));
        }
        expr.span.end = self.end();
        Ok(())
    }

    /// `@ 12.5`, `@ start()`, `@ end()`
    fn at_modifier(&mut self, expr: &mut Expr) -> Result<()> {
        const EXPECTED: &str = "timestamp";
        self.take();
        let at = match self.peek() {
            TokenKind::Keyword(word @ (Keyword::Start | Keyword::End)) => {
                self.take();
                self.expect(TokenKind::LeftParen, "@", EXPECTED)?;
                self.expect(TokenKind::RightParen, "@", EXPECTED)?;
                if word == Keyword::Start { At::Start } else { At::End }
            }
            _ => {
                let start = self.token().span.start;
                let sign = self.sign();
                let seconds = signed(sign, self.number("@", EXPECTED)?);
                let millis = (seconds * 1000.0).round();
                if !(millis > i64::MIN as f64 && millis < i64::MAX as f64) {
                    let shown = match seconds {
                        f64::INFINITY => "+Inf".into(),
                        f64::NEG_INFINITY => "-Inf".into(),
                        _ => format!("{seconds:.6}"),
                    };
                    let message = format!("timestamp out of bounds for @ modifier: {shown}");
                    return Err(Fault::new(start, message));
                }
                At::Timestamp(millis as i64)
            }
        };
        let start = expr.span.start;
        let Some((_, slot)) = expr.time_modifiers() else {
            return Err(Fault::new(
                start,
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
            ));
        };
        if slot.replace(at).is_some() {
            return Err(Fault::new(start, "@ <timestamp> may not be set multiple times"));
        }
        expr.span.end = self.end();
        Ok(())
    }

    fn extension(&mut self, expr: &mut Expr, extension: Extension) -> Result<()> {
        let word = match extension {
            Extension::Smoothed => "smoothed",
            _ => "anchored",
        };
        let selector = match &mut expr.kind {
            Kind::Vector(selector) => selector,
            Kind::Matrix(matrix) => &mut matrix.selector,
            Kind::Subquery(_) => {
                let message = format!("{word} modifier is not supported for subqueries");
                return Err(Fault::new(expr.span.start, message));
            }
            _ => return Err(Fault::new(expr.span.start, format!("{word} modifier not implemented"))),
        };
        if selector.extension != Extension::None && selector.extension != extension {
            let message = "anchored and smoothed modifiers cannot be used together";
            return Err(Fault::new(expr.span.start, message));
        }
        selector.extension = extension;
        self.take();
        expr.span.end = self.end();
        Ok(())
    }
}

impl Expr {
    /// Where `offset` and `@` of this node go, if it may have them.
    fn time_modifiers(&mut self) -> Option<(&mut Option<Duration>, &mut Option<At>)> {
        match &mut self.kind {
            Kind::Vector(selector) => Some((&mut selector.offset, &mut selector.at)),
            Kind::Matrix(matrix) => Some((&mut matrix.selector.offset, &mut matrix.selector.at)),
            Kind::Subquery(subquery) => Some((&mut subquery.offset, &mut subquery.at)),
            _ => None,
        }
    }
}

fn selector(name: Option<String>, matchers: Vec<Matcher>) -> VectorSelector {
    VectorSelector { name, matchers, offset: None, at: None, extension: Extension::None }
}

pub(super) fn signed(sign: Option<UnaryOp>, value: f64) -> f64 {
    if sign == Some(UnaryOp::Minus) { -value } else { value }
}

impl BinaryOp {
    /// How tightly the operator binds; more is tighter.
    pub(crate) fn power(self) -> u8 {
        use BinaryOp::*;
        match self {
            Or => 1,
            And | Unless => 2,
            Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual | TrimUpper | TrimLower => 3,
            Add | Sub => 4,
            Mul | Div | Mod | Atan2 => 5,
            Pow => 6,
        }
    }
}

impl AggregateOp {
    /// Whether it takes an argument before the vector.
    pub fn has_param(self) -> bool {
        use AggregateOp::*;
        matches!(self, Topk | Bottomk | CountValues | Quantile | Limitk | LimitRatio)
    }
}
