//! Static cost analysis: how the work of an expression grows with the size of the message.

use crate::node::{Node, Root};
use crate::problem::Span;

/// The growth of an expression's work, derived from its nested loops over message data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The power of the message size: 0 is constant, 1 is linear, 2 is quadratic.
    pub power: u32,
    /// The innermost loop.
    pub span: Span,
}

impl Growth {
    const NONE: Self = Self { power: 0, span: Span::ZERO };

    fn max(self, other: Self) -> Self {
        if other.power > self.power { other } else { self }
    }
}

/// The growth of a node. A loop over data held only by variables at slot `base` and above is not counted: it iterates over parts of a list
/// that an outer loop iterates over already, and all parts together are no longer than that list.
pub(crate) fn growth(node: &Node, base: usize) -> Growth {
    match node {
        Node::Fold(fold) => {
            let before = growth(&fold.range, base);
            let own = u32::from(is_external(&fold.range, base));
            let filter = fold.filter.as_ref().map_or(Growth::NONE, |filter| growth(filter, fold.slot));
            let inner = growth(&fold.body, fold.slot).max(filter);
            let span = if inner.power > 0 { inner.span } else { fold.span };
            before.max(Growth { power: own + inner.power, span })
        }
        Node::In { parts, span, .. } => {
            let own = u32::from(is_external(&parts[1], base));
            let inner = growth(&parts[0], base).max(growth(&parts[1], base));
            inner.max(Growth { power: own, span: *span })
        }
        _ => {
            let mut found = Growth::NONE;
            visit_parts(node, &mut |part| found = found.max(growth(part, base)));
            found
        }
    }
}

/// Whether a value depends on an input or on a variable below slot `base`. Literals do not grow.
fn is_external(node: &Node, base: usize) -> bool {
    match node {
        Node::Input(..) | Node::OptionalInput(..) | Node::Path { root: Root::Input(..), .. } => true,
        Node::Local(slot) | Node::Path { root: Root::Local(slot), .. } => *slot < base,
        _ => {
            let mut found = false;
            visit_parts(node, &mut |part| found |= is_external(part, base));
            found
        }
    }
}

/// Nodes evaluated per unit of work.
const NODES_PER_UNIT: u64 = 4;

/// Units of work to evaluate a node once. Loop bodies are charged per element and not counted here.
pub(crate) fn units(node: &Node) -> u64 {
    weight(node).div_ceil(NODES_PER_UNIT)
}

fn weight(node: &Node) -> u64 {
    let mut found = match node {
        Node::Path { steps, .. } => 1 + steps.len() as u64,
        _ => 1,
    };
    match node {
        Node::Fold(fold) => found += weight(&fold.range),
        _ => visit_parts(node, &mut |part| found += weight(part)),
    }
    found
}

fn visit_parts<'n>(node: &'n Node, visit: &mut dyn FnMut(&'n Node)) {
    match node {
        Node::Literal(_)
        | Node::Type(_)
        | Node::Input(..)
        | Node::InputIsPresent(_)
        | Node::OptionalInput(..)
        | Node::Local(_)
        | Node::Path { .. }
        | Node::Fail { .. } => {}
        Node::OrNull(operand)
        | Node::Field { operand, .. }
        | Node::Has { operand, .. }
        | Node::Not(operand, _)
        | Node::Negate(operand, _) => {
            visit(operand);
        }
        Node::Index { parts, .. }
        | Node::Equal { parts, .. }
        | Node::Order { parts, .. }
        | Node::In { parts, .. }
        | Node::Bind { parts, .. }
        | Node::OptionalMap { parts, .. }
        | Node::OrElse { parts, .. } => parts.iter().for_each(visit),
        Node::And(parts, _) | Node::Or(parts, _) | Node::Joined { parts, .. } => parts.iter().for_each(visit),
        Node::Conditional(parts, _) => parts.iter().for_each(visit),
        Node::Arithmetic(arithmetic) => arithmetic.parts.iter().for_each(visit),
        Node::List { elements, .. } => elements.iter().for_each(|(element, _)| visit(element)),
        Node::Map { entries, .. } => entries.iter().for_each(|(key, value, _)| {
            visit(key);
            visit(value);
        }),
        Node::Call { arguments, .. } => arguments.iter().for_each(visit),
        Node::Fold(fold) => {
            visit(&fold.range);
            fold.filter.iter().for_each(&mut *visit);
            visit(&fold.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Environment, Program, Type, Variable};

    #[test]
    fn nested_loops_over_the_message_are_quadratic() {
        let environment = Environment {
            variables: vec![Variable { name: "req".into(), ty: Type::Dyn }],
            splits_inputs: true,
            ..Environment::default()
        };
        for (source, power) in [
            ("req.a + 1", 0),
            ("req.a in ['x', 'y']", 0),
            ("req.a.map(x, x.b)", 1),
            ("req.a.map(x, x.inner.filter(y, y.c > 1))", 1),
            ("req.a.map(x, x.b).filter(x, x > 1)", 1),
            ("req.a.map(x, req.b.filter(y, y == x))", 2),
            ("req.a.filter(x, !(x in req.b))", 2),
            ("req.a.map(x, req.a.map(y, req.a.map(z, z)))", 3),
            ("cel.bind(b, req.b, req.a.map(x, b.filter(y, y == x)))", 2),
            ("[1, 2].map(x, req.a.map(y, y + x))", 1),
        ] {
            let program =
                Program::compile(source, &environment).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
            assert_eq!(program.growth().power, power, "{source}");
        }
    }
}
