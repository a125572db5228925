//! What kind of value an expression gives, as far as its text says it.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

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

/// What the tree of a checked expression gives.
pub(super) fn gives(tree: &IdedExpr) -> Gives {
    match &tree.expr {
        Expr::Literal(literal) => match literal {
            LiteralValue::Boolean(_) => Gives::Bool,
            LiteralValue::Int(_) | LiteralValue::UInt(_) | LiteralValue::Double(_) => Gives::Number,
            LiteralValue::String(_) => Gives::Text,
            LiteralValue::Bytes(_) => Gives::Bytes,
            LiteralValue::Null => Gives::Anything,
        },
        Expr::List(_) => Gives::List,
        Expr::Select(select) if select.test => Gives::Bool,
        Expr::Call(call) => of_call(&call.func_name, &call.args),
        // `all`, `exists`, `map` and `filter` give what they gather in; `exists_one` compares at the end.
        Expr::Comprehension(comprehension) => match &comprehension.result.expr {
            Expr::Ident(_) => gives(&comprehension.accu_init),
            _ => gives(&comprehension.result),
        },
        Expr::Select(_) | Expr::Ident(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Gives::Anything,
    }
}

fn of_call(name: &str, arguments: &[IdedExpr]) -> Gives {
    match name {
        operators::EQUALS
        | operators::NOT_EQUALS
        | operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS
        | operators::IN
        | operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | "contains"
        | "startsWith"
        | "endsWith"
        | "bool" => Gives::Bool,
        operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO | operators::NEGATE => {
            Gives::Number
        }
        "size" | "int" | "uint" | "double" | "decimal" | "indexOf" | "lastIndexOf" => Gives::Number,
        "string" | "text" | "attr" | "charAt" | "join" | "lowerAscii" | "upperAscii" | "replace" | "substring"
        | "trim" => Gives::Text,
        "bytes" => Gives::Bytes,
        "split" => Gives::List,
        "dyn" => arguments.first().map_or(Gives::Anything, gives),
        // Both sides of a sum are of one kind, or there is none.
        operators::ADD => arguments.iter().map(gives).find(|side| *side != Gives::Anything).unwrap_or(Gives::Anything),
        operators::CONDITIONAL => match arguments {
            [_, yes, no] if gives(yes) == gives(no) => gives(yes),
            _ => Gives::Anything,
        },
        _ => Gives::Anything,
    }
}
