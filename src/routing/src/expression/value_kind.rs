//! The kind of an expression's value, as far as its source and contracts determine it.

use crossdock_expression::Type;

/// The kind of an expression's value, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// A boolean.
    Bool,
    /// A number of any type.
    Number,
    /// A string.
    Text,
    /// Bytes.
    Bytes,
    /// A list.
    List,
    /// Known only at run time.
    Any,
}

impl ValueKind {
    pub(super) fn of(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Bool,
            Type::Int | Type::UInt | Type::Double | Type::Decimal => Self::Number,
            Type::Text => Self::Text,
            Type::Bytes => Self::Bytes,
            Type::List(_) => Self::List,
            _ => Self::Any,
        }
    }

    /// Its name in error messages; `None` if it is not known.
    #[must_use]
    pub fn describe(self) -> Option<&'static str> {
        match self {
            Self::Bool => Some("a boolean"),
            Self::Number => Some("a number"),
            Self::Text => Some("a string"),
            Self::Bytes => Some("bytes"),
            Self::List => Some("a list"),
            Self::Any => None,
        }
    }
}
