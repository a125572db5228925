//! Expressions: CEL over canonical values, typed, exact and bounded.
//!
//! A source text is read by [`syntax`], checked against an [`Environment`] and made a [`Program`], which is evaluated over values of
//! messages as they stand there. What an evaluation takes is charged to a [`Budget`] before it is taken.

#![expect(clippy::unnecessary_box_returns, reason = "failures are rare, and results that hold one are to stay small")]

pub mod budget;
mod check;
mod cost;
mod eval;
pub mod failure;
pub mod functions;
mod moments;
mod node;
pub mod number;
pub mod problem;
pub mod program;
mod reference;
pub mod syntax;
pub mod template;
pub mod types;
pub mod value;

pub use budget::{Budget, Spent};
pub use cost::Growth;
pub use failure::{Failure, FailureKind, Outcome};
pub use functions::{FixedHost, Function, Host};
pub use problem::{Problem, Span};
pub use program::{Environment, Given, Input, Program, Step, Unvalued, Variable};
pub use reference::reference;
pub use types::{EnumInfo, RecordInfo, Type, TypeName};
pub use value::Val;
