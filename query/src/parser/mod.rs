//! From text to tree.

use crate::ast::Expr;

/// Text that is not PromQL, in Prometheus's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct Error {
    /// Line, from 1.
    pub line: u32,
    /// Column in bytes, from 1.
    pub column: u32,
    /// What is wrong.
    pub message: String,
}

/// Parses and type-checks an expression.
pub fn parse(_text: &str) -> Result<Expr, Error> {
    Err(Error { line: 1, column: 1, message: "no expression found in input".into() })
}
