//! Tokens, and how messages name them.

use crate::ast::{AggregateOp, BinaryOp, Span};
use std::fmt;

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The text is over.
    Eof,
    /// The lexer gave up here; its message is in [`super::lexer::Tokens::error`].
    Error,
    Identifier,
    /// An identifier with a colon: a name for metrics, not for labels.
    MetricIdentifier,
    Number,
    Duration,
    String,
    Operator(BinaryOp),
    Aggregate(AggregateOp),
    Keyword(Keyword),
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    /// `=`
    Assign,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

/// Words with a meaning that are neither operators nor aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyword {
    Offset,
    Anchored,
    Smoothed,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Bool,
    Fill,
    FillLeft,
    FillRight,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

/// What a word means, whatever its case. Words that mean nothing are identifiers.
pub fn word(text: &str) -> Option<TokenKind> {
    use TokenKind::{Aggregate, Keyword as K, Operator};
    // The longest word is `count_values`, so long identifiers need no lower-casing.
    if text.len() > 12 {
        return None;
    }
    let mut lower = [0; 12];
    let lower = &mut lower[..text.len()];
    lower.copy_from_slice(text.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => Operator(BinaryOp::And),
        b"or" => Operator(BinaryOp::Or),
        b"unless" => Operator(BinaryOp::Unless),
        b"atan2" => Operator(BinaryOp::Atan2),
        b"sum" => Aggregate(AggregateOp::Sum),
        b"avg" => Aggregate(AggregateOp::Avg),
        b"count" => Aggregate(AggregateOp::Count),
        b"min" => Aggregate(AggregateOp::Min),
        b"max" => Aggregate(AggregateOp::Max),
        b"group" => Aggregate(AggregateOp::Group),
        b"stddev" => Aggregate(AggregateOp::Stddev),
        b"stdvar" => Aggregate(AggregateOp::Stdvar),
        b"topk" => Aggregate(AggregateOp::Topk),
        b"bottomk" => Aggregate(AggregateOp::Bottomk),
        b"count_values" => Aggregate(AggregateOp::CountValues),
        b"quantile" => Aggregate(AggregateOp::Quantile),
        b"limitk" => Aggregate(AggregateOp::Limitk),
        b"limit_ratio" => Aggregate(AggregateOp::LimitRatio),
        b"offset" => K(Keyword::Offset),
        b"anchored" => K(Keyword::Anchored),
        b"smoothed" => K(Keyword::Smoothed),
        b"by" => K(Keyword::By),
        b"without" => K(Keyword::Without),
        b"on" => K(Keyword::On),
        b"ignoring" => K(Keyword::Ignoring),
        b"group_left" => K(Keyword::GroupLeft),
        b"group_right" => K(Keyword::GroupRight),
        b"bool" => K(Keyword::Bool),
        b"fill" => K(Keyword::Fill),
        b"fill_left" => K(Keyword::FillLeft),
        b"fill_right" => K(Keyword::FillRight),
        b"start" => K(Keyword::Start),
        b"end" => K(Keyword::End),
        b"step" => K(Keyword::Step),
        b"range" => K(Keyword::Range),
        b"min_of" => K(Keyword::MinOf),
        b"max_of" => K(Keyword::MaxOf),
        b"inf" | b"nan" => TokenKind::Number,
        _ => return None,
    })
}

impl Keyword {
    /// Words that are calls in arithmetic and in durations: `step()`, `min_of(…)`.
    pub fn is_function(self) -> bool {
        use Keyword::*;
        matches!(self, Start | End | Step | Range | MinOf | MaxOf)
    }
}

impl TokenKind {
    /// Whether a metric may have this word as its name, without quotes.
    pub fn names_metric(self) -> bool {
        use Keyword::*;
        match self {
            TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
            TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
            TokenKind::Keyword(word) => !matches!(word, On | Ignoring | GroupLeft | GroupRight | Bool),
            _ => false,
        }
    }

    /// Whether `by (…)`, `on (…)` and the like take this word as a label, without quotes.
    pub fn names_label(self) -> bool {
        matches!(
            self,
            TokenKind::Identifier
                | TokenKind::Aggregate(_)
                | TokenKind::Keyword(_)
                | TokenKind::Operator(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
        )
    }
}

impl Token {
    /// The token's text.
    pub fn text<'a>(&self, text: &'a str) -> &'a str {
        &text[self.span.start as usize..self.span.end as usize]
    }

    /// As in `unexpected …`.
    pub fn describe(&self, text: &str) -> String {
        let value = self.text(text);
        match self.kind {
            TokenKind::Eof | TokenKind::Error => "end of input".into(),
            TokenKind::Identifier => format!("identifier {}", Go(value)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", Go(value)),
            TokenKind::Number => format!("number {}", Shortened(value)),
            TokenKind::Duration => format!("duration {}", Shortened(value)),
            TokenKind::String => format!("string {}", Shortened(value)),
            TokenKind::Operator(_) => format!("<op:{value}>"),
            TokenKind::Aggregate(_) => format!("<aggr:{value}>"),
            TokenKind::Keyword(word) if !word.is_function() => format!("<{value}>"),
            _ => format!("{}", Go(value)),
        }
    }
}

use model::labels::Quoted as Go;

/// Quoted; after ten characters cut off with dots.
struct Shortened<'a>(&'a str);

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The limit for showing all of it counts bytes, the cut counts characters; as Prometheus does it.
        if self.0.len() <= 10 {
            return write!(f, "{}", Go(self.0));
        }
        let end = self.0.char_indices().nth(10).map_or(self.0.len(), |(at, _)| at);
        write!(f, "{}...", Go(&self.0[..end]))
    }
}
