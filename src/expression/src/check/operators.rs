//! Checks operators.

use crossdock_settings::nearest;

use super::{Checked, Checker};
use crate::node::{Arithmetic, Node, Written};
use crate::problem::Span;
use crate::syntax::{BinaryOp, Expr, ExprKind, Literal};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn negate(&mut self, operand: &Expr, span: Span) -> Checked {
        let (node, ty) = self.check(operand);
        let ty = self.resolved(&ty);
        if !(matches!(
            ty,
            Type::Int | Type::Double | Type::Decimal | Type::Duration | Type::Dyn | Type::Param(_) | Type::Wrapper(_)
        )) {
            self.report_mismatch(span, format!("`-` does not accept {ty}"), "");
        }
        (Node::Negate(Box::new(node), span), ty)
    }

    pub(super) fn binary(&mut self, operator: BinaryOp, left: &Expr, right: &Expr, span: Span) -> Checked {
        let (left_node, left_type) = self.check(left);
        let (right_node, right_type) = self.check(right);
        let types = [self.resolved(&left_type), self.resolved(&right_type)];
        match operator {
            BinaryOp::Equal | BinaryOp::NotEqual => {
                self.check_equality(&types, [left, right], span);
                let negated = operator == BinaryOp::NotEqual;
                let written = written([left, right]);
                (Node::Equal { parts: Box::new([left_node, right_node]), written, negated, span }, Type::Bool)
            }
            BinaryOp::In => {
                self.check_membership(&types, right.span);
                let written = match &right.kind {
                    ExprKind::List(elements) => written(elements.iter().map(|element| &element.value)),
                    _ => None,
                };
                (Node::In { parts: Box::new([left_node, right_node]), written, span }, Type::Bool)
            }
            BinaryOp::Less | BinaryOp::LessEqual | BinaryOp::Greater | BinaryOp::GreaterEqual => {
                let ordered = |ty: &Type| {
                    ty.is_number()
                        || matches!(
                            ty,
                            Type::Bool
                                | Type::Text
                                | Type::Bytes
                                | Type::Time
                                | Type::Duration
                                | Type::Dyn
                                | Type::Param(_)
                                | Type::Enum(_)
                                | Type::Wrapper(_)
                        )
                };
                let alike = types[0].is_number() && types[1].is_number() || self.is_assignable(&types[0], &types[1]);
                if !alike || !types.iter().all(ordered) {
                    let problem = format!("`{}` cannot compare {} with {}", operator.symbol(), types[0], types[1]);
                    let help = "convert one of them with `decimal(x)`, `string(x)` or `timestamp(x)`";
                    self.report_mismatch(span, problem, help);
                }
                let written = written([left, right]);
                (Node::Order { operator, parts: Box::new([left_node, right_node]), written, span }, Type::Bool)
            }
            _ => {
                let literals = [is_double(left), is_double(right)];
                let ty = self.arithmetic_type(operator, &types, literals, span);
                if matches!(ty, Type::Text) {
                    // Join all strings at once instead of pairwise.
                    let mut parts = match left_node {
                        Node::Joined { parts, .. } => parts.into_vec(),
                        other => vec![other],
                    };
                    parts.push(right_node);
                    return (Node::Joined { parts: parts.into(), span }, ty);
                }
                let is_exact = types.iter().any(|ty| matches!(ty, Type::Dyn | Type::Param(_) | Type::Decimal));
                let parts = [left_node, right_node];
                let written = written([left, right]);
                let node = Arithmetic { operator, parts, written, is_exact, span };
                (Node::Arithmetic(Box::new(node)), ty)
            }
        }
    }

    /// Reports operands that can never be equal.
    fn check_equality(&mut self, types: &[Type; 2], expressions: [&Expr; 2], span: Span) {
        if types[0].is_number() && types[1].is_number() {
            return;
        }
        for (at, other) in [(0, 1), (1, 0)] {
            if let (Type::Enum(info), ExprKind::Literal(Literal::Text(name))) = (&types[at], &expressions[other].kind) {
                let names = info.value_names();
                if !names.iter().any(|known| *known == **name) {
                    let help = match nearest(name, names.iter().map(String::as_str)) {
                        Some(meant) => format!("write `'{meant}'`"),
                        None => format!("it has {}", names.join(", ")),
                    };
                    self.report_mismatch(
                        expressions[other].span,
                        format!("`{}` has no value `{name}`", info.name()),
                        help,
                    );
                }
                return;
            }
        }
        if !self.unifier.is_comparable(&types[0], &types[1]) {
            let (left, right) = (self.resolved(&types[0]), self.resolved(&types[1]));
            let problem = format!("{left} and {right} are never equal");
            self.report_mismatch(span, problem, "convert one of them with `string(x)`, `int(x)` or `decimal(x)`");
        }
    }

    fn check_membership(&mut self, types: &[Type; 2], span: Span) {
        let element = match &types[1] {
            Type::List(element) => (**element).clone(),
            Type::Map(parts) => parts.0.clone(),
            Type::Record(_) => Type::Text,
            Type::Dyn | Type::Param(_) | Type::Named(_) => return,
            other => {
                self.report_mismatch(
                    span,
                    format!("the right operand of `in` must be a list or a map, not {other}"),
                    "write `x in [a, b]`",
                );
                return;
            }
        };
        if types[0].is_number() && element.is_number() || self.is_assignable(&types[0], &element) {
            return;
        }
        let element = self.resolved(&element);
        self.report_mismatch(span, format!("{} can never equal {element}", types[0]), "");
    }

    fn arithmetic_type(&mut self, operator: BinaryOp, types: &[Type; 2], literals: [bool; 2], span: Span) -> Type {
        let unwrapped = types.clone().map(|ty| match ty {
            Type::Wrapper(inner) => (*inner).clone(),
            other => other,
        });
        let add = operator == BinaryOp::Add;
        let add_or_subtract = add || operator == BinaryOp::Subtract;
        let found = match (&unwrapped[0], &unwrapped[1]) {
            (Type::Int, Type::Int) => Some(Type::Int),
            (Type::UInt, Type::UInt) => Some(Type::UInt),
            (Type::Double, Type::Double) if operator != BinaryOp::Remainder => Some(Type::Double),
            (Type::Decimal, Type::Int | Type::UInt | Type::Decimal) | (Type::Int | Type::UInt, Type::Decimal) => {
                Some(Type::Decimal)
            }
            // Next to an exact number, a double literal has exactly the value written in the source.
            (Type::Decimal | Type::Int | Type::UInt, Type::Double) if literals[1] => Some(Type::Decimal),
            (Type::Double, Type::Decimal | Type::Int | Type::UInt) if literals[0] => Some(Type::Decimal),
            (Type::Text | Type::Enum(_), Type::Text | Type::Enum(_)) if add => Some(Type::Text),
            (Type::Bytes, Type::Bytes) if add => Some(Type::Bytes),
            (Type::List(left), Type::List(right)) if add => {
                let joined = self.unifier.join(left, right).unwrap_or(Type::Dyn);
                Some(Type::list(joined))
            }
            (Type::Time, Type::Duration) if add_or_subtract => Some(Type::Time),
            (Type::Duration, Type::Time) if add => Some(Type::Time),
            (Type::Duration, Type::Duration) if add_or_subtract => Some(Type::Duration),
            (Type::Time, Type::Time) if operator == BinaryOp::Subtract => Some(Type::Duration),
            // Strings, bytes and lists are only added to their own type.
            (Type::Dyn | Type::Param(_), ty @ (Type::Text | Type::Bytes | Type::List(_)))
            | (ty @ (Type::Text | Type::Bytes | Type::List(_)), Type::Dyn | Type::Param(_))
                if add =>
            {
                Some(ty.clone())
            }
            (Type::Dyn | Type::Param(_), ty) | (ty, Type::Dyn | Type::Param(_))
                if ty.is_number() || matches!(ty, Type::Dyn | Type::Param(_) | Type::Time | Type::Duration) =>
            {
                Some(Type::Dyn)
            }
            _ => None,
        };
        found.unwrap_or_else(|| {
            let problem = format!("`{}` does not accept {} and {}", operator.symbol(), types[0], types[1]);
            let help = match (&unwrapped[0], &unwrapped[1]) {
                (left, right) if left.is_number() && right.is_number() => {
                    "convert one of them with `decimal(x)`, `double(x)` or `int(x)`"
                }
                (Type::Text, _) | (_, Type::Text) if add => "convert the other operand with `string(x)`",
                _ => "convert one of them to the type of the other",
            };
            self.report_mismatch(span, problem, help);
            Type::Dyn
        })
    }
}

fn written<'x>(expressions: impl IntoIterator<Item = &'x Expr>) -> Written {
    let one = |expression: &Expr| match &expression.kind {
        ExprKind::Literal(Literal::Double(_, written)) => Some(written.clone()),
        _ => None,
    };
    let all: Box<[_]> = expressions.into_iter().map(one).collect();
    all.iter().any(Option::is_some).then_some(all)
}

fn is_double(expression: &Expr) -> bool {
    matches!(expression.kind, ExprKind::Literal(Literal::Double(..)))
}
