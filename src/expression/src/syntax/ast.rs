//! The syntax tree.

use bytes::Bytes;
use crossdock_message::{ByteString, Decimal};

use crate::problem::Span;

/// An expression with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Its bytes in the source.
    pub span: Span,
    /// Its levels: one more than the highest of its parts has.
    pub height: usize,
    /// What it is.
    pub kind: ExprKind,
}

/// The kinds of expressions.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A literal value.
    Literal(Literal),
    /// A name, with a leading dot where it is to be found outside of all containers and macros.
    Ident(ByteString),
    /// `operand.field`, `operand.?field`, and `has(operand.field)`.
    Select {
        /// What is looked into.
        operand: Box<Expr>,
        /// The name.
        field: ByteString,
        /// The name's place.
        field_span: Span,
        /// Whether it only asks if the field is there.
        test: bool,
        /// Whether it gives an optional.
        optional: bool,
    },
    /// `operand[index]` and `operand[?index]`.
    Index {
        /// The list or map.
        operand: Box<Expr>,
        /// Place or key.
        index: Box<Expr>,
        /// Whether it gives an optional.
        optional: bool,
    },
    /// `function(…)` and `target.function(…)`.
    Call {
        /// The function's name.
        function: ByteString,
        /// The name's place.
        function_span: Span,
        /// What a method is called on.
        target: Option<Box<Expr>>,
        /// The arguments.
        arguments: Vec<Expr>,
    },
    /// `!x` and `-x`.
    Unary(UnaryOp, Box<Expr>),
    /// An operator between two operands.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a && b && …`: operands of one operator, in order.
    And(Vec<Expr>),
    /// `a || b || …`.
    Or(Vec<Expr>),
    /// `condition ? yes : no`.
    Conditional(Box<[Expr; 3]>),
    /// `[…]`.
    List(Vec<Element>),
    /// `{…}`.
    Map(Vec<Entry>),
    /// `Name{field: value}`.
    Struct {
        /// The type's name.
        name: ByteString,
        /// Fields with their values.
        fields: Vec<(ByteString, Span, Expr, bool)>,
    },
    /// A macro over a list or a map.
    Fold(Box<Fold>),
    /// `cel.bind(name, value, body)`.
    Bind {
        /// The variable.
        name: ByteString,
        /// Its value and what uses it.
        parts: Box<[Expr; 2]>,
    },
    /// `x.optMap(name, body)`, and `optFlatMap` where `flat`.
    OptionalMap {
        /// The variable.
        name: ByteString,
        /// The optional, and what is made of its value.
        parts: Box<[Expr; 2]>,
        /// Whether the body gives an optional itself.
        flat: bool,
    },
}

impl ExprKind {
    /// Visits the parts of which it is made.
    pub(crate) fn each_part<'x>(&'x self, visit: &mut dyn FnMut(&'x Expr)) {
        match self {
            Self::Literal(_) | Self::Ident(_) => {}
            Self::Select { operand, .. } | Self::Unary(_, operand) => visit(operand),
            Self::Index { operand, index, .. } => {
                visit(operand);
                visit(index);
            }
            Self::Call { target, arguments, .. } => {
                if let Some(target) = target {
                    visit(target);
                }
                arguments.iter().for_each(visit);
            }
            Self::Binary(_, left, right) => {
                visit(left);
                visit(right);
            }
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(visit),
            Self::Conditional(parts) => parts.iter().for_each(visit),
            Self::List(elements) => elements.iter().for_each(|element| visit(&element.value)),
            Self::Map(entries) => entries.iter().for_each(|entry| {
                visit(&entry.key);
                visit(&entry.value);
            }),
            Self::Struct { fields, .. } => fields.iter().for_each(|(_, _, value, _)| visit(value)),
            Self::Fold(fold) => {
                visit(&fold.range);
                fold.filter.iter().for_each(&mut *visit);
                visit(&fold.body);
            }
            Self::Bind { parts, .. } | Self::OptionalMap { parts, .. } => parts.iter().for_each(visit),
        }
    }
}

/// An element of a list; one that is optional stands only where it has a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// The element.
    pub value: Expr,
    /// `?element`.
    pub optional: bool,
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Expr,
    /// The value.
    pub value: Expr,
    /// `?key: value`.
    pub optional: bool,
}

/// A macro over a list or a map.
#[derive(Debug, Clone, PartialEq)]
pub struct Fold {
    /// Which one.
    pub kind: FoldKind,
    /// The list or map.
    pub range: Expr,
    /// One or two variables: the element of a list, or index and element; the key of a map, or key and value.
    pub variables: Vec<ByteString>,
    /// What an element has to fulfil to be taken, where a macro has both.
    pub filter: Option<Expr>,
    /// What is done with each; of `transformMapEntry` a map.
    pub body: Expr,
}

/// The macros over lists and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldKind {
    /// True where it holds for each.
    All,
    /// True where it holds for one or more.
    Exists,
    /// True where it holds for exactly one.
    ExistsOne,
    /// What the body gives for each.
    Map,
    /// Those for which it holds.
    Filter,
    /// A map of the same keys.
    TransformMap,
    /// A map of the entries that the body gives.
    TransformMapEntry,
    /// The elements in the order of the keys that the body gives.
    SortBy,
    /// Lists of elements by the keys that the body gives.
    GroupBy,
}

/// A literal value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `1`.
    Int(i64),
    /// `1u`.
    UInt(u64),
    /// `1.5`, with the number as it was written, in the grammar of JSON numbers.
    Double(f64, Decimal),
    /// `'text'`.
    Text(ByteString),
    /// `b'bytes'`.
    Bytes(Bytes),
}

/// Operators before an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `!`.
    Not,
    /// `-`.
    Negate,
}

/// Operators between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Remainder,
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterEqual,
    /// `in`.
    In,
}

impl BinaryOp {
    /// As it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
        }
    }

    /// How tightly it binds; `None` never happens for these.
    pub(crate) fn binding(self) -> u8 {
        match self {
            Self::Multiply | Self::Divide | Self::Remainder => 5,
            Self::Add | Self::Subtract => 4,
            _ => 3,
        }
    }
}
