//! PromQL: parser and columnar evaluator over a [`model::Source`].
//!
//! * [`parser`] turns text into the tree of [`ast`]; [`signature`] knows the functions; `ast::Expr` prints itself.
//! * [`Engine`] evaluates: [`Engine::instant`] and [`Engine::range`].

mod annotations;
pub mod ast;
pub mod engine;
mod eval;
mod functions;
pub mod parser;
mod print;
pub mod signature;

pub use engine::{Answer, Engine, Error, Options, Params, Point, Value};
