//! Expressions of route files: CEL over the messages of one exchange.
//!
//! [`crossdock_expression`] implements the language; this module binds its names to messages and converts its failures to faults. Most
//! expressions are plain paths such as `req.customer.id`: their value is looked up and copied exactly, including every digit.

mod built_in;
mod compile;
mod contract;
mod exhausted;
mod path;
mod scope;
mod template;
mod value_kind;

pub use compile::{Expression, NO_NUMBER, Names};
pub use contract::type_of_record;
pub use crossdock_expression::{Budget as Meter, FixedHost, Host, Problem as ExpressionError, reference};
pub use path::{Path, PathStep};
pub use scope::{Item, Request, Scope};
pub use template::Template;
pub use value_kind::ValueKind;

#[cfg(test)]
mod tests;
