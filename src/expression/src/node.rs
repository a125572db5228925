//! The checked tree that the evaluator walks.

use crossdock_message::{ByteString, Decimal};

use crate::functions::Function;
use crate::problem::Span;
use crate::syntax::{BinaryOp, FoldKind, Literal};
use crate::types::TypeName;

/// A node of a checked expression. The parser bounds depth and number.
#[derive(Debug)]
pub(crate) enum Node {
    Literal(Literal),
    Type(TypeName),
    /// An input, by its index in the program's inputs.
    Input(usize, Span),
    /// Whether an input is present.
    InputIsPresent(usize),
    /// An input as an optional.
    OptionalInput(usize, Span),
    /// A macro variable, by its slot on the stack.
    Local(usize),
    /// A chain of fields below an input or a variable: the common case, evaluated without recursion.
    Path {
        root: Root,
        steps: Box<[(ByteString, Span)]>,
    },
    Field {
        operand: Box<Node>,
        name: ByteString,
        span: Span,
        optional: bool,
    },
    /// Null if the operand is missing: an unset wrapper.
    OrNull(Box<Node>),
    Has {
        operand: Box<Node>,
        name: ByteString,
        span: Span,
    },
    Index {
        parts: Box<[Node; 2]>,
        span: Span,
        optional: bool,
    },
    Not(Box<Node>, Span),
    Negate(Box<Node>, Span),
    And(Box<[Node]>, Span),
    Or(Box<[Node]>, Span),
    Conditional(Box<[Node; 3]>, Span),
    Equal {
        parts: Box<[Node; 2]>,
        written: Written,
        negated: bool,
        span: Span,
    },
    Order {
        operator: BinaryOp,
        parts: Box<[Node; 2]>,
        written: Written,
        span: Span,
    },
    In {
        parts: Box<[Node; 2]>,
        written: Written,
        span: Span,
    },
    Arithmetic(Box<Arithmetic>),
    /// `a + b + …` of strings.
    Joined {
        parts: Box<[Node]>,
        span: Span,
    },
    List {
        elements: Box<[(Node, bool)]>,
        span: Span,
    },
    Map {
        entries: Box<[(Node, Node, bool)]>,
        span: Span,
    },
    Call {
        function: &'static Function,
        arguments: Box<[Node]>,
        span: Span,
    },
    Fold(Box<FoldNode>),
    /// `parts` are the value and the body.
    Bind {
        parts: Box<[Node; 2]>,
        slot: usize,
    },
    OptionalMap {
        parts: Box<[Node; 2]>,
        slot: usize,
        flat: bool,
        span: Span,
    },
    /// `optional.or(other)`, or `optional.orValue(other)` if `value`.
    OrElse {
        parts: Box<[Node; 2]>,
        value: bool,
        span: Span,
    },
    /// Fails when evaluated.
    Fail {
        missing: bool,
        problem: String,
        span: Span,
    },
}

/// The operands or list elements that are double literals, with their source digits: next to a decimal, a double literal has exactly the
/// value written in the source.
pub(crate) type Written = Option<Box<[Option<Decimal>]>>;

/// Where a path begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Root {
    Input(usize, Span),
    Local(usize),
}

#[derive(Debug)]
pub(crate) struct Arithmetic {
    pub(crate) operator: BinaryOp,
    pub(crate) parts: [Node; 2],
    pub(crate) written: Written,
    /// The operands are not known to be integers, so division is exact.
    pub(crate) is_exact: bool,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct FoldNode {
    pub(crate) kind: FoldKind,
    pub(crate) range: Node,
    /// The slot of the first variable.
    pub(crate) slot: usize,
    pub(crate) has_two: bool,
    /// Units of work per element, without inner loops.
    pub(crate) weight: u64,
    pub(crate) filter: Option<Node>,
    pub(crate) body: Node,
    pub(crate) span: Span,
}
