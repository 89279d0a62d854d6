//! The functions' names and types.

use crate::ast::ValueType;

/// A function's name and type.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature {
    /// Its name.
    pub name: &'static str,
    /// Types of the arguments.
    pub args: &'static [ValueType],
    /// 0: exactly `args`; n > 0: the last n may be left out; -1: the last may be left out or repeated.
    pub variadic: i8,
    /// Type of the result.
    pub returns: ValueType,
    /// Whether Prometheus has it behind a flag.
    pub experimental: bool,
}
