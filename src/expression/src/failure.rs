//! Why an evaluation produced no value. Never contains data of the message.

use std::borrow::Cow;

use crate::budget::Spent;
use crate::problem::Span;

/// Why an evaluation gives no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What is wrong, in words of the expression's author.
    pub problem: Cow<'static, str>,
    /// Where, in the source.
    pub span: Span,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A field, key or variable is not there; the problem is its name.
    Missing,
    /// The values do not fit the operation.
    Value,
    /// The budget is spent: no operator makes up for that.
    Spent(Spent),
}

/// A result, or why there is none.
pub type Outcome<T> = Result<T, Box<Failure>>;

impl Failure {
    #[cold]
    pub(crate) fn value(span: Span, problem: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { kind: FailureKind::Value, problem: problem.into(), span })
    }

    #[cold]
    pub(crate) fn missing(span: Span, name: &str) -> Box<Self> {
        Box::new(Self { kind: FailureKind::Missing, problem: name.to_owned().into(), span })
    }

    #[cold]
    pub(crate) fn spent(span: Span, spent: Spent) -> Box<Self> {
        let problem = match spent {
            Spent::Work => "it takes too much work",
            Spent::Bytes => "it takes too much memory",
            Spent::Time => "its time is over",
            Spent::Slice => "it does not fit into its slice",
        };
        Box::new(Self { kind: FailureKind::Spent(spent), problem: problem.into(), span })
    }

    /// Whether another operand may make up for it.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.kind, FailureKind::Spent(_))
    }
}
