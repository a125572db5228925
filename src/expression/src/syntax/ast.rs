//! The syntax tree.

use bytes::Bytes;
use crossdock_message::{ByteString, Decimal};

use crate::problem::Span;

/// An expression with its source range.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    /// Its range in the source.
    pub span: Span,
    /// The height of the subtree: one more than that of its highest child.
    pub height: usize,
    /// Its kind.
    pub kind: ExprKind,
}

/// The kinds of expressions.
#[derive(Debug, Clone, PartialEq)]
pub enum ExprKind {
    /// A literal value.
    Literal(Literal),
    /// A name; with a leading dot, it is resolved outside of the container and of all macros.
    Ident(ByteString),
    /// `operand.field`, `operand.?field`, and `has(operand.field)`.
    Select {
        /// The record or map.
        operand: Box<Expr>,
        /// The field name.
        field: ByteString,
        /// The range of the name.
        field_span: Span,
        /// Whether it only tests for presence.
        test: bool,
        /// Whether the result is an optional.
        optional: bool,
    },
    /// `operand[index]` and `operand[?index]`.
    Index {
        /// The list or map.
        operand: Box<Expr>,
        /// The index or key.
        index: Box<Expr>,
        /// Whether the result is an optional.
        optional: bool,
    },
    /// `function(…)` and `target.function(…)`.
    Call {
        /// The function's name.
        function: ByteString,
        /// The range of the name.
        function_span: Span,
        /// The receiver of a method call.
        target: Option<Box<Expr>>,
        /// The arguments.
        arguments: Vec<Expr>,
    },
    /// `!x` and `-x`.
    Unary(UnaryOp, Box<Expr>),
    /// A binary operator.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a && b && …`: the operands in order.
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
        /// The value and the body.
        parts: Box<[Expr; 2]>,
    },
    /// `x.optMap(name, body)`, or `optFlatMap` if `flat`.
    OptionalMap {
        /// The variable.
        name: ByteString,
        /// The optional and the body.
        parts: Box<[Expr; 2]>,
        /// Whether the body already returns an optional.
        flat: bool,
    },
}

impl ExprKind {
    /// Visits its direct children.
    pub(crate) fn visit_parts<'x>(&'x self, visit: &mut dyn FnMut(&'x Expr)) {
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

/// An element of a list; an optional element is skipped if it has no value.
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
    /// The macro.
    pub kind: FoldKind,
    /// The list or map.
    pub range: Expr,
    /// One or two variables: element, or index and element, of a list; key, or key and value, of a map.
    pub variables: Vec<ByteString>,
    /// The filter of a macro that has both filter and body.
    pub filter: Option<Expr>,
    /// Evaluated for each element; a map for `transformMapEntry`.
    pub body: Expr,
}

/// The macros over lists and maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoldKind {
    /// Whether the condition holds for all elements.
    All,
    /// Whether the condition holds for at least one element.
    Exists,
    /// Whether the condition holds for exactly one element.
    ExistsOne,
    /// The results of the body.
    Map,
    /// The elements for which the condition holds.
    Filter,
    /// A map with the same keys.
    TransformMap,
    /// A map of the entries that the body returns.
    TransformMapEntry,
    /// The elements, sorted by the keys that the body returns.
    SortBy,
    /// The elements, grouped by the keys that the body returns.
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
    /// `1.5`, with the number as written, in JSON syntax.
    Double(f64, Decimal),
    /// `'text'`.
    Text(ByteString),
    /// `b'bytes'`.
    Bytes(Bytes),
}

/// Unary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `!`.
    Not,
    /// `-`.
    Negate,
}

/// Binary operators.
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
    /// Its symbol.
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

    /// Its precedence; a higher one binds tighter.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Multiply | Self::Divide | Self::Remainder => 5,
            Self::Add | Self::Subtract => 4,
            _ => 3,
        }
    }
}
