//! Expressions: CEL over canonical values, typed, exact and bounded.
//!
//! [`syntax`] parses a source text; the checker resolves it against an [`Environment`] and compiles it to a [`Program`]. A program is
//! evaluated on message values in place, without copying them. Every evaluation is charged to a [`Budget`] before it spends work or memory.

#![expect(clippy::unnecessary_box_returns, reason = "failures are rare, and boxing them keeps results small")]

pub mod budget;
mod check;
mod cost;
mod eval;
pub mod failure;
pub mod functions;
mod node;
pub mod number;
pub mod problem;
pub mod program;
mod reference;
pub mod syntax;
pub mod template;
mod time;
pub mod types;
pub mod value;

pub use budget::{Budget, Exhausted};
pub use cost::Growth;
pub use failure::{Failure, FailureKind, Outcome};
pub use functions::{FixedHost, Function, Host};
pub use problem::{Problem, Span};
pub use program::{Environment, EvaluationError, Input, InputValue, Program, Step, Variable};
pub use reference::reference;
pub use types::{EnumInfo, RecordInfo, Type, TypeName};
pub use value::Val;
