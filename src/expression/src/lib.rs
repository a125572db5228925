//! Expressions: CEL over canonical values, typed, exact and bounded.
//!
//! [`syntax`] parses a source text; the checker resolves it against an [`Environment`] and compiles it to a [`Program`]. A program is
//! evaluated on message values in place, without copying them. Every evaluation is charged to a [`Budget`] before it spends work or memory.
//!
//! ```
//! use std::borrow::Cow;
//! use std::time::{Duration, Instant};
//!
//! use crossdock_expression::{Budget, Environment, FixedHost, InputValue, Program, Type, Variable};
//! use crossdock_message::{Limits, Value, json};
//!
//! let req = Variable { name: "req".into(), ty: Type::Dyn };
//! let environment = Environment { variables: vec![req], ..Environment::default() };
//! let program = Program::compile("req.price * 3", &environment).expect("a valid expression");
//!
//! let request = json::read(&br#"{"price": 0.10}"#[..].into(), &Limits::default()).expect("JSON");
//! let budget = Budget::new(Instant::now() + Duration::from_secs(1));
//! let find = |_: &_| Ok::<_, ()>(InputValue::Data(Cow::Borrowed(&request), false));
//! let result = program.evaluate_to_value(find, &budget, &FixedHost::default()).expect("the input was found");
//! let total = result.expect("no failure");
//! // Exact: the decimal is not rounded.
//! assert_eq!(json::write(&total).expect("JSON"), b"0.30");
//!
//! let problems = Program::compile("req.price * 'three'", &environment).expect_err("text is no number");
//! assert_eq!(problems.len(), 1);
//! ```

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
