//! From text to tree.
//!
//! `lexer` cuts the text, `grammar` and `duration` build the tree, `check` settles types. Messages and positions are
//! Prometheus's. Time and memory are linear in the length of the text; depth is bounded by [`NESTING_MAX`] and
//! [`HEIGHT_MAX`].

mod check;
mod duration;
mod grammar;
mod lexer;
pub mod literal;
pub mod series;
mod token;

pub use grammar::{HEIGHT_MAX, NESTING_MAX};

use crate::ast::Expr;
use std::fmt;

/// Text that is not PromQL, in Prometheus's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where; nowhere when there is no text at all.
    pub position: Option<Position>,
    /// What is wrong.
    pub message: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "{position}: parse error: {}", self.message),
            None => write!(f, "unknown position: parse error: {}", self.message),
        }
    }
}

/// A place in a text as people are told it: `2:7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
}

impl Position {
    /// The place of byte `offset` of `text`.
    pub fn of(text: &str, offset: u32) -> Position {
        let before = &text.as_bytes()[..text.len().min(offset as usize)];
        let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Position { line, column: (before.len() - start) as u32 + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// An [`Error`] before its offset became a line and a column.
struct Fault {
    at: u32,
    message: String,
}

impl Fault {
    fn new(at: u32, message: impl Into<String>) -> Fault {
        Fault { at, message: message.into() }
    }

    fn in_text(self, text: &str) -> Error {
        let position = (!text.is_empty()).then(|| Position::of(text, self.at));
        Error { position, message: self.message }
    }
}

/// Parses and type-checks an expression.
pub fn parse(text: &str) -> Result<Expr, Error> {
    if u32::try_from(text.len()).is_err() {
        return Err(Error { position: None, message: "expression is longer than 4 GiB".into() });
    }
    let tokens = lexer::tokens(text);
    let parsed = grammar::Parser::new(text, &tokens).whole();
    let checked = parsed.and_then(|mut expr| check::check(&mut expr, text).map(|_| expr));
    checked.map_err(|fault| fault.in_text(text))
}

#[cfg(test)]
mod tests;
