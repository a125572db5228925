//! The checker: resolves names, gives each part its type, and makes of the tree what is evaluated.
//!
//! It is gradual: a value of which no contract speaks has the type `dyn`, which goes everywhere. What can only fail is refused.

mod calls;
mod collections;
mod names;
mod operators;
mod unify;

use crossdock_message::ByteString;

use self::unify::Unifier;
use crate::node::Node;
use crate::problem::{Problem, Span};
use crate::program::{Environment, Input};
use crate::syntax::{Expr, ExprKind, Literal, UnaryOp};
use crate::types::Type;

/// Checks an expression and makes its nodes.
pub(crate) struct Checker<'e> {
    environment: &'e Environment,
    pub(crate) inputs: Vec<Input>,
    locals: Vec<(ByteString, Type)>,
    pub(crate) locals_max: usize,
    pub(crate) problems: Vec<Problem>,
    unifier: Unifier,
}

type Checked = (Node, Type);

/// Problems reported for one expression, and names listed in one of them.
const PROBLEMS_MAX: usize = 16;
const NAMES_MAX: usize = 20;

impl<'e> Checker<'e> {
    pub(crate) fn new(environment: &'e Environment) -> Self {
        Self {
            environment,
            inputs: Vec::new(),
            locals: Vec::new(),
            locals_max: 0,
            problems: Vec::new(),
            unifier: Unifier::default(),
        }
    }

    /// The type with all that was found out of it; what is still open may be anything.
    pub(crate) fn settled(&self, of: &Type) -> Type {
        self.unifier.settled(of)
    }

    /// Refuses; without checks, it fails where it is evaluated.
    fn refuse(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) -> Checked {
        let problem = problem.into();
        if self.environment.is_unchecked {
            return (Node::Fail { missing: false, problem, span }, Type::Dyn);
        }
        self.misfit(span, problem.clone(), help);
        (Node::Fail { missing: false, problem, span }, Type::Dyn)
    }

    /// As [`Checker::refuse`], for a node whose types do not fit; without checks, the values decide.
    fn misfit(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) {
        if !self.environment.is_unchecked && self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(span, problem, help));
        }
    }

    fn fits(&mut self, given: &Type, wanted: &Type) -> bool {
        self.unifier.fits(given, wanted)
    }

    pub(crate) fn check(&mut self, expression: &Expr) -> Checked {
        let span = expression.span;
        match &expression.kind {
            ExprKind::Literal(literal) => (Node::Literal(literal.clone()), type_of_literal(literal)),
            ExprKind::Ident(name) => self.ident(name, span),
            ExprKind::Select { operand, field, field_span, test, optional } => {
                self.select(expression, operand, (field, *field_span), *test, *optional)
            }
            ExprKind::Index { operand, index, optional } => self.index(operand, index, span, *optional),
            ExprKind::Call { function, function_span, target, arguments } => {
                self.call((function, *function_span), span, target.as_deref(), arguments)
            }
            ExprKind::Unary(UnaryOp::Not, operand) => {
                let node = self.condition(operand, "`!` takes");
                (Node::Not(Box::new(node), span), Type::Bool)
            }
            ExprKind::Unary(UnaryOp::Negate, operand) => self.negate(operand, span),
            ExprKind::Binary(operator, left, right) => self.binary(*operator, left, right, span),
            ExprKind::And(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "`&&` takes")).collect();
                (Node::And(nodes, span), Type::Bool)
            }
            ExprKind::Or(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "`||` takes")).collect();
                (Node::Or(nodes, span), Type::Bool)
            }
            ExprKind::Conditional(parts) => {
                let condition = self.condition(&parts[0], "before the `?` stands");
                let (yes, yes_type) = self.check(&parts[1]);
                let (no, no_type) = self.check(&parts[2]);
                // Results of different types are allowed, unlike in CEL: a route may return one thing or another.
                let of = self.unifier.joined(&yes_type, &no_type).unwrap_or(Type::Dyn);
                (Node::Conditional(Box::new([condition, yes, no]), span), of)
            }
            ExprKind::List(elements) => self.list(elements, span),
            ExprKind::Map(entries) => self.map(entries, span),
            ExprKind::Struct { name, .. } => {
                let help = format!("write a map: `{{'field': value}}`; what takes it makes a `{name}` of it");
                self.refuse(span, "messages of a type are not built in expressions", help)
            }
            ExprKind::Fold(fold) => self.fold(fold, span),
            ExprKind::Bind { name, parts } => {
                let (value, of) = self.check(&parts[0]);
                let slot = self.push(name.clone(), of);
                let (body, of) = self.check(&parts[1]);
                self.locals.truncate(slot);
                (Node::Bind { parts: Box::new([value, body]), slot }, of)
            }
            ExprKind::OptionalMap { name, parts, flat } => self.optional_map(name, parts, *flat, span),
        }
    }

    fn push(&mut self, name: ByteString, of: Type) -> usize {
        let slot = self.locals.len();
        self.locals.push((name, of));
        self.locals_max = self.locals_max.max(self.locals.len());
        slot
    }

    /// A part that has to be true or false.
    fn condition(&mut self, expression: &Expr, where_to: &str) -> Node {
        let (node, of) = self.check(expression);
        if !self.fits(&of, &Type::Bool) {
            let of = self.settled(&of);
            let help = "write what is true or false, such as `size(x) > 0` or `x.name == 'a'`";
            self.misfit(expression.span, format!("{where_to} true or false, and this is {of}"), help);
        }
        node
    }
}

/// A wrapper of a contract that is not there is null.
fn or_null(node: Node, of: &Type) -> Node {
    if matches!(of, Type::Wrapper(_)) { Node::OrNull(Box::new(node)) } else { node }
}

fn type_of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::UInt(_) => Type::UInt,
        Literal::Double(..) => Type::Double,
        Literal::Text(_) => Type::Text,
        Literal::Bytes(_) => Type::Bytes,
    }
}
