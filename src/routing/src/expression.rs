//! Expressions: CEL over the messages of one exchange.
//!
//! Most expressions in route files are plain paths such as `req.customer.id`. These never reach the CEL interpreter:
//! the value is looked up and cloned as it is, every digit included. All others see a projection of the messages that
//! holds just the fields which the expression names.
//!
//! CEL itself has no limits at run time. They are set here at load: length, depth, and one comprehension inside
//! another is refused; and what the steps of a route make of a message is counted and bounded while they run.

mod compile;
mod functions;
mod gives;
mod path;
mod projection;
mod scope;
mod template;
mod values;
mod work;

pub use compile::{Expression, ExpressionError, Names};
pub use gives::Gives;
pub use path::{Path, PathStep};
pub use scope::{Item, Request, Scope};
pub use template::Template;
pub use work::Meter;

#[cfg(test)]
mod tests;
