//! Operators.

use crossdock_settings::nearest;

use super::{Checked, Checker};
use crate::node::{Arithmetic, Node, Written};
use crate::problem::Span;
use crate::syntax::{BinaryOp, Expr, ExprKind, Literal};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn negate(&mut self, operand: &Expr, span: Span) -> Checked {
        let (node, of) = self.check(operand);
        let of = self.settled(&of);
        if !(matches!(
            of,
            Type::Int | Type::Double | Type::Decimal | Type::Duration | Type::Dyn | Type::Param(_) | Type::Wrapper(_)
        )) {
            self.misfit(span, format!("`-` takes a number with a sign, and this is {of}"), "");
        }
        (Node::Negate(Box::new(node), span), of)
    }

    pub(super) fn binary(&mut self, operator: BinaryOp, left: &Expr, right: &Expr, span: Span) -> Checked {
        let (left_node, left_type) = self.check(left);
        let (right_node, right_type) = self.check(right);
        let types = [self.settled(&left_type), self.settled(&right_type)];
        match operator {
            BinaryOp::Equal | BinaryOp::NotEqual => {
                self.equality(&types, [left, right], span);
                let negated = operator == BinaryOp::NotEqual;
                let written = written([left, right]);
                (Node::Equal { parts: Box::new([left_node, right_node]), written, negated, span }, Type::Bool)
            }
            BinaryOp::In => {
                self.membership(&types, right.span);
                let written = match &right.kind {
                    ExprKind::List(elements) => written(elements.iter().map(|element| &element.value)),
                    _ => None,
                };
                (Node::In { parts: Box::new([left_node, right_node]), written, span }, Type::Bool)
            }
            BinaryOp::Less | BinaryOp::LessEqual | BinaryOp::Greater | BinaryOp::GreaterEqual => {
                let ordered = |of: &Type| {
                    of.is_number()
                        || matches!(
                            of,
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
                let alike = types[0].is_number() && types[1].is_number() || self.fits(&types[0], &types[1]);
                if !alike || !types.iter().all(ordered) {
                    let problem = format!("`{}` does not compare {} with {}", operator.symbol(), types[0], types[1]);
                    let help = "make both of one kind, by `decimal(x)`, `string(x)` or `timestamp(x)`";
                    self.misfit(span, problem, help);
                }
                let written = written([left, right]);
                (Node::Order { operator, parts: Box::new([left_node, right_node]), written, span }, Type::Bool)
            }
            _ => {
                let literals = [is_double(left), is_double(right)];
                let of = self.arithmetic(operator, &types, literals, span);
                if matches!(of, Type::Text) {
                    // One text is made of all, not one of each two.
                    let mut parts = match left_node {
                        Node::Joined { parts, .. } => parts.into_vec(),
                        other => vec![other],
                    };
                    parts.push(right_node);
                    return (Node::Joined { parts: parts.into(), span }, of);
                }
                let is_exact = types.iter().any(|of| matches!(of, Type::Dyn | Type::Param(_) | Type::Decimal));
                let parts = [left_node, right_node];
                let written = written([left, right]);
                let node = Arithmetic { operator, parts, written, is_exact, span };
                (Node::Arithmetic(Box::new(node)), of)
            }
        }
    }

    /// What can never be equal is not what its author means.
    fn equality(&mut self, types: &[Type; 2], expressions: [&Expr; 2], span: Span) {
        if types[0].is_number() && types[1].is_number() {
            return;
        }
        for (at, other) in [(0, 1), (1, 0)] {
            if let (Type::Enum(of), ExprKind::Literal(Literal::Text(name))) = (&types[at], &expressions[other].kind) {
                let names = of.value_names();
                if !names.iter().any(|known| *known == **name) {
                    let help = match nearest(name, names.iter().map(String::as_str)) {
                        Some(meant) => format!("write `'{meant}'`"),
                        None => format!("it has {}", names.join(", ")),
                    };
                    self.misfit(expressions[other].span, format!("`{}` has no value `{name}`", of.name()), help);
                }
                return;
            }
        }
        if !self.unifier.alike(&types[0], &types[1]) {
            let (left, right) = (self.settled(&types[0]), self.settled(&types[1]));
            let problem = format!("{left} and {right} are never equal");
            self.misfit(span, problem, "make both of one kind, by `string(x)`, `int(x)` or `decimal(x)`");
        }
    }

    fn membership(&mut self, types: &[Type; 2], span: Span) {
        let element = match &types[1] {
            Type::List(element) => (**element).clone(),
            Type::Map(parts) => parts.0.clone(),
            Type::Record(_) => Type::Text,
            Type::Dyn | Type::Param(_) | Type::Named(_) => return,
            other => {
                self.misfit(
                    span,
                    format!("`in` looks into a list or a map, and this is {other}"),
                    "write `x in [a, b]`",
                );
                return;
            }
        };
        if types[0].is_number() && element.is_number() || self.fits(&types[0], &element) {
            return;
        }
        let element = self.settled(&element);
        self.misfit(span, format!("{} is in no list of {element}", types[0]), "");
    }

    fn arithmetic(&mut self, operator: BinaryOp, types: &[Type; 2], literals: [bool; 2], span: Span) -> Type {
        let unwrapped = types.clone().map(|of| match of {
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
            // A double in the source is the number as it is written, beside what is exact.
            (Type::Decimal | Type::Int | Type::UInt, Type::Double) if literals[1] => Some(Type::Decimal),
            (Type::Double, Type::Decimal | Type::Int | Type::UInt) if literals[0] => Some(Type::Decimal),
            (Type::Text | Type::Enum(_), Type::Text | Type::Enum(_)) if add => Some(Type::Text),
            (Type::Bytes, Type::Bytes) if add => Some(Type::Bytes),
            (Type::List(left), Type::List(right)) if add => {
                let joined = self.unifier.joined(left, right).unwrap_or(Type::Dyn);
                Some(Type::list(joined))
            }
            (Type::Time, Type::Duration) if add_or_subtract => Some(Type::Time),
            (Type::Duration, Type::Time) if add => Some(Type::Time),
            (Type::Duration, Type::Duration) if add_or_subtract => Some(Type::Duration),
            (Type::Time, Type::Time) if operator == BinaryOp::Subtract => Some(Type::Duration),
            // Text, bytes and lists go with their own kind only.
            (Type::Dyn | Type::Param(_), of @ (Type::Text | Type::Bytes | Type::List(_)))
            | (of @ (Type::Text | Type::Bytes | Type::List(_)), Type::Dyn | Type::Param(_))
                if add =>
            {
                Some(of.clone())
            }
            (Type::Dyn | Type::Param(_), of) | (of, Type::Dyn | Type::Param(_))
                if of.is_number() || matches!(of, Type::Dyn | Type::Param(_) | Type::Time | Type::Duration) =>
            {
                Some(Type::Dyn)
            }
            _ => None,
        };
        found.unwrap_or_else(|| {
            let problem = format!("`{}` does not take {} and {}", operator.symbol(), types[0], types[1]);
            let help = match (&unwrapped[0], &unwrapped[1]) {
                (left, right) if left.is_number() && right.is_number() => {
                    "make both of one kind, by `decimal(x)`, `double(x)` or `int(x)`"
                }
                (Type::Text, _) | (_, Type::Text) if add => "make a text of the other, by `string(x)`",
                _ => "make both of one kind",
            };
            self.misfit(span, problem, help);
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
