//! Expressions of route files: CEL over the messages of one exchange.
//!
//! The language is in [`crossdock_expression`]; here its names are bound to messages, and its failures become faults. Most expressions
//! are plain paths such as `req.customer.id`: the value is looked up and copied as it is, every digit included.

mod built_in;
mod compile;
mod contract;
mod gives;
mod path;
mod scope;
mod spent;
mod template;

pub use compile::{Expression, Names};
pub use contract::type_of_record;
pub use crossdock_expression::{Budget as Meter, FixedHost, Host, Problem as ExpressionError, reference};
pub use gives::Gives;
pub use path::{Path, PathStep};
pub use scope::{Item, Request, Scope};
pub use template::Template;

#[cfg(test)]
mod tests;
