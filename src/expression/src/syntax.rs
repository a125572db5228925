//! The parser: from source text to a syntax tree ("CEL language definition", Syntax).

mod ast;
mod lexer;
mod literal;
mod macros;
mod parser;

pub use ast::{BinaryOp, Element, Entry, Expr, ExprKind, Fold, FoldKind, Literal, UnaryOp};
pub(crate) use lexer::closing_brace;
pub use parser::{Limits, Options, parse};
