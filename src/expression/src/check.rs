//! The checker: resolves names, infers types, and compiles the syntax tree to nodes.
//!
//! Typing is gradual: a value without a contract has type `dyn`, which is accepted everywhere. Only an expression that must fail is rejected.

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

/// Checks an expression and compiles it to nodes.
pub(crate) struct Checker<'e> {
    environment: &'e Environment,
    pub(crate) inputs: Vec<Input>,
    locals: Vec<(ByteString, Type)>,
    pub(crate) locals_max: usize,
    pub(crate) problems: Vec<Problem>,
    unifier: Unifier,
}

type Checked = (Node, Type);

/// Problems reported per expression, and names listed per problem.
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

    /// The type with all known type variables substituted.
    pub(crate) fn resolved(&self, ty: &Type) -> Type {
        self.unifier.resolved(ty)
    }

    /// Rejects an expression; if unchecked, it compiles to a node that fails when evaluated.
    fn reject(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) -> Checked {
        let problem = problem.into();
        if self.environment.is_unchecked {
            return (Node::Fail { missing: false, problem, span }, Type::Dyn);
        }
        self.report_mismatch(span, problem.clone(), help);
        (Node::Fail { missing: false, problem, span }, Type::Dyn)
    }

    /// As [`Checker::reject`], for a type mismatch; if unchecked, the values decide at run time.
    fn report_mismatch(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) {
        if !self.environment.is_unchecked && self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(span, problem, help));
        }
    }

    fn is_assignable(&mut self, actual: &Type, expected: &Type) -> bool {
        self.unifier.is_assignable(actual, expected)
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
                let node = self.condition(operand, "the operand of `!`");
                (Node::Not(Box::new(node), span), Type::Bool)
            }
            ExprKind::Unary(UnaryOp::Negate, operand) => self.negate(operand, span),
            ExprKind::Binary(operator, left, right) => self.binary(*operator, left, right, span),
            ExprKind::And(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "an operand of `&&`")).collect();
                (Node::And(nodes, span), Type::Bool)
            }
            ExprKind::Or(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "an operand of `||`")).collect();
                (Node::Or(nodes, span), Type::Bool)
            }
            ExprKind::Conditional(parts) => {
                let condition = self.condition(&parts[0], "the condition of `? :`");
                let (yes, yes_type) = self.check(&parts[1]);
                let (no, no_type) = self.check(&parts[2]);
                // Unlike in CEL, the branches may have different types: a route may return one thing or another.
                let ty = self.unifier.join(&yes_type, &no_type).unwrap_or(Type::Dyn);
                (Node::Conditional(Box::new([condition, yes, no]), span), ty)
            }
            ExprKind::List(elements) => self.list(elements, span),
            ExprKind::Map(entries) => self.map(entries, span),
            ExprKind::Struct { name, .. } => {
                let help = format!("write a map, `{{'field': value}}`; it is converted to `{name}` where it is used");
                self.reject(span, "message literals are not supported", help)
            }
            ExprKind::Fold(fold) => self.fold(fold, span),
            ExprKind::Bind { name, parts } => {
                let (value, ty) = self.check(&parts[0]);
                let slot = self.push(name.clone(), ty);
                let (body, ty) = self.check(&parts[1]);
                self.locals.truncate(slot);
                (Node::Bind { parts: Box::new([value, body]), slot }, ty)
            }
            ExprKind::OptionalMap { name, parts, flat } => self.optional_map(name, parts, *flat, span),
        }
    }

    fn push(&mut self, name: ByteString, ty: Type) -> usize {
        let slot = self.locals.len();
        self.locals.push((name, ty));
        self.locals_max = self.locals_max.max(self.locals.len());
        slot
    }

    /// A boolean operand; `what` names it in errors.
    fn condition(&mut self, expression: &Expr, what: &str) -> Node {
        let (node, ty) = self.check(expression);
        if !self.is_assignable(&ty, &Type::Bool) {
            let ty = self.resolved(&ty);
            let help = "write a condition such as `size(x) > 0` or `x.name == 'a'`";
            self.report_mismatch(expression.span, format!("{what} must be a boolean, not {ty}"), help);
        }
        node
    }
}

/// An unset wrapper is null.
fn or_null(node: Node, ty: &Type) -> Node {
    if matches!(ty, Type::Wrapper(_)) { Node::OrNull(Box::new(node)) } else { node }
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
