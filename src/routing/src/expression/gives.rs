//! What kind of value an expression gives, as far as its text and contracts say it.

use crossdock_expression::Type;

/// What an expression gives whenever it gives something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// True or false.
    Bool,
    /// A number of any kind.
    Number,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// A list.
    List,
    /// What only the message says.
    Anything,
}

impl Gives {
    pub(super) fn of(given: &Type) -> Self {
        match given {
            Type::Bool => Self::Bool,
            Type::Int | Type::UInt | Type::Double | Type::Decimal => Self::Number,
            Type::Text => Self::Text,
            Type::Bytes => Self::Bytes,
            Type::List(_) => Self::List,
            _ => Self::Anything,
        }
    }

    /// As errors name it; nothing where it is not known.
    #[must_use]
    pub fn describe(self) -> Option<&'static str> {
        match self {
            Self::Bool => Some("true or false"),
            Self::Number => Some("a number"),
            Self::Text => Some("a text"),
            Self::Bytes => Some("bytes"),
            Self::List => Some("a list"),
            Self::Anything => None,
        }
    }
}
