//! A checked expression, ready to be evaluated.

use crossdock_message::{ByteString, Decimal};

use crate::functions::Function;
use crate::problem::Span;
use crate::syntax::{BinaryOp, FoldKind, Literal};
use crate::types::TypeName;

/// What is evaluated. Depth and number are bounded by the parser.
#[derive(Debug)]
pub(crate) enum Node {
    Literal(Literal),
    Type(TypeName),
    /// An input, by its place among the inputs of the program.
    Input(usize, Span),
    /// Whether an input is there.
    InputIsThere(usize),
    /// An input as an optional.
    OptionalInput(usize, Span),
    /// A variable of a macro, by its place on the stack.
    Local(usize),
    /// Fields below an input or a variable: the common case, without recursion.
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
    /// A wrapper that is not there is null.
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
    /// `a + b + …` of texts.
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
    /// Value, place of the variable, body.
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
    /// `optional.or(other)`, and `optional.orValue(other)` where `value`.
    OrElse {
        parts: Box<[Node; 2]>,
        value: bool,
        span: Span,
    },
    /// What fails whenever it is evaluated.
    Fail {
        missing: bool,
        problem: String,
        span: Span,
    },
}

/// The operands, or elements of a list, that are doubles in the source, as they are written there: beside a decimal they are those
/// numbers.
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
    /// No type says that the operands are integers: a quotient is exact.
    pub(crate) is_exact: bool,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct FoldNode {
    pub(crate) kind: FoldKind,
    pub(crate) range: Node,
    /// The place of the first variable.
    pub(crate) slot: usize,
    pub(crate) has_two: bool,
    /// Units of work of one element, its loops not counted.
    pub(crate) weight: u64,
    pub(crate) filter: Option<Node>,
    pub(crate) body: Node,
    pub(crate) span: Span,
}
