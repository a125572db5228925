//! Expressions: CEL over the messages of one exchange.
//!
//! Most expressions in route files are plain paths such as `req.customer.id`. These never reach the CEL interpreter:
//! the value is looked up and cloned as it is, every digit included. All others see a projection of the messages that
//! holds just the fields which the expression names.
//!
//! CEL itself has no limits at run time. They are set here at load: length, depth, and one comprehension inside
//! another is refused, so that the work is linear in the message.

mod compile;
mod functions;
mod path;
mod projection;
mod scope;
mod template;
mod values;

pub use compile::{Expression, ExpressionError, Names};
pub use path::{Path, PathStep};
pub use scope::{Request, Scope};
pub use template::Template;

#[cfg(test)]
mod tests;
