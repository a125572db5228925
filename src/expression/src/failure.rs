//! Evaluation failures. They never contain message data.

use std::borrow::Cow;

use crate::budget::Exhausted;
use crate::problem::Span;

/// Why an evaluation produced no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// What went wrong, for the author of the expression.
    pub problem: Cow<'static, str>,
    /// The place in the source.
    pub span: Span,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// A field, key or variable is missing; `problem` is its name.
    Missing,
    /// The operation does not accept the values.
    Value,
    /// The budget is exhausted. Not absorbed by `&&`, `||` or a macro.
    Exhausted(Exhausted),
    /// A number of a sequence is needed that the host does not have: it may have it when the expression is evaluated again. Not absorbed
    /// by `&&`, `||` or a macro.
    NoNumber,
}

/// A value, or the failure.
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
    pub(crate) fn no_number(span: Span) -> Box<Self> {
        let problem = "sequences are not available here".into();
        Box::new(Self { kind: FailureKind::NoNumber, problem, span })
    }

    #[cold]
    pub(crate) fn exhausted(span: Span, cause: Exhausted) -> Box<Self> {
        let problem = match cause {
            Exhausted::Work => "the work limit is exceeded",
            Exhausted::Bytes => "the memory limit is exceeded",
            Exhausted::Time => "the deadline has passed",
            Exhausted::Slice => "the slice is exceeded",
        };
        Box::new(Self { kind: FailureKind::Exhausted(cause), problem: problem.into(), span })
    }

    /// Whether no other operand can absorb it.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.kind, FailureKind::Exhausted(_) | FailureKind::NoNumber)
    }
}
