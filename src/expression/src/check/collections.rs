//! Lists, maps, and the macros over them.

use crossdock_message::ByteString;

use super::{Checked, Checker};
use crate::cost::units;
use crate::node::{FoldNode, Node};
use crate::problem::Span;
use crate::syntax::{Element, Entry, Expr, Fold, FoldKind};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn list(&mut self, elements: &[Element], span: Span) -> Checked {
        let mut nodes = Vec::with_capacity(elements.len());
        let mut of: Option<Type> = None;
        for Element { value, optional } in elements {
            let (node, mut given) = self.check(value);
            if *optional {
                given = self.inner_of_optional(&given, value.span);
            }
            nodes.push((node, *optional));
            of = Some(match of {
                None => given,
                Some(before) => self.unifier.joined(&before, &given).unwrap_or(Type::Dyn),
            });
        }
        let of = of.unwrap_or_else(|| self.unifier.fresh());
        (Node::List { elements: nodes.into(), span }, Type::list(of))
    }

    pub(super) fn inner_of_optional(&mut self, given: &Type, span: Span) -> Type {
        match self.settled(given) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                self.misfit(span, format!("behind `?` stands an optional, and this is {other}"), "leave out the `?`");
                Type::Dyn
            }
        }
    }

    pub(super) fn map(&mut self, entries: &[Entry], span: Span) -> Checked {
        let mut nodes = Vec::with_capacity(entries.len());
        let mut types: Option<(Type, Type)> = None;
        for entry in entries {
            let (key, key_type) = self.check(&entry.key);
            let (value, mut value_type) = self.check(&entry.value);
            if entry.optional {
                value_type = self.inner_of_optional(&value_type, entry.value.span);
            }
            let key_type = match self.settled(&key_type) {
                of @ (Type::Text | Type::Int | Type::UInt | Type::Bool | Type::Dyn | Type::Param(_)) => of,
                Type::Enum(_) => Type::Text,
                Type::Wrapper(_) | Type::Decimal => Type::Dyn,
                other => {
                    let help = "keys are texts, whole numbers, true and false";
                    self.misfit(entry.key.span, format!("{other} is no key of a map"), help);
                    Type::Dyn
                }
            };
            nodes.push((key, value, entry.optional));
            types = Some(match types {
                None => (key_type, value_type),
                Some((key, value)) => (
                    self.unifier.joined(&key, &key_type).unwrap_or(Type::Dyn),
                    self.unifier.joined(&value, &value_type).unwrap_or(Type::Dyn),
                ),
            });
        }
        let (key, value) = types.unwrap_or_else(|| (self.unifier.fresh(), self.unifier.fresh()));
        (Node::Map { entries: nodes.into(), span }, Type::map(key, value))
    }

    pub(super) fn fold(&mut self, fold: &Fold, span: Span) -> Checked {
        let (range, range_type) = self.check(&fold.range);
        let range_type = self.settled(&range_type);
        let has_two = fold.variables.len() == 2;
        let (first, second) = match &range_type {
            Type::List(element) if has_two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(parts) => parts.as_ref().clone(),
            Type::Dyn | Type::Param(_) | Type::Named(_) => {
                self.fits(&range_type, &Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            Type::Record(_) => (Type::Text, Type::Dyn),
            other => {
                self.misfit(fold.range.span, format!("{other} has no elements"), "lists and maps have");
                (Type::Dyn, Type::Dyn)
            }
        };
        let element = if has_two { second.clone() } else { first.clone() };
        let slot = self.locals.len();
        let mut variables = fold.variables.iter().cloned();
        if let Some(name) = variables.next() {
            self.push(name, first.clone());
        }
        if let Some(name) = variables.next() {
            self.push(name, second);
        }
        let is_condition =
            matches!(fold.kind, FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne | FoldKind::Filter);
        let filter = fold.filter.as_ref().map(|filter| self.condition(filter, "the filter of a macro is"));
        let (body, body_type) = if is_condition {
            (self.condition(&fold.body, "the condition of a macro is"), Type::Bool)
        } else {
            self.check(&fold.body)
        };
        self.locals.truncate(slot);
        let of = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Map => Type::list(body_type),
            FoldKind::Filter | FoldKind::SortBy => Type::list(element),
            FoldKind::TransformMap => {
                let key = if matches!(range_type, Type::List(_)) { Type::Int } else { first };
                Type::map(key, body_type)
            }
            FoldKind::TransformMapEntry => match self.settled(&body_type) {
                of @ (Type::Map(_) | Type::Dyn) => of,
                other => {
                    self.misfit(
                        fold.body.span,
                        format!("an entry is a map, and this is {other}"),
                        "write `{key: value}`",
                    );
                    Type::Dyn
                }
            },
            FoldKind::GroupBy => Type::list(Type::map(Type::Text, Type::Dyn)),
        };
        let weight = 1 + units(&body) + filter.as_ref().map_or(0, units);
        let node = FoldNode { kind: fold.kind, range, slot, has_two, weight, filter, body, span };
        (Node::Fold(Box::new(node)), of)
    }

    pub(super) fn optional_map(&mut self, name: &ByteString, parts: &[Expr; 2], flat: bool, span: Span) -> Checked {
        let (target, of) = self.check(&parts[0]);
        let inner = match self.settled(&of) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                self.misfit(
                    parts[0].span,
                    format!("this is {other}, and no optional"),
                    "write `x.?field`, or `optional.of(x)`",
                );
                Type::Dyn
            }
        };
        let slot = self.push(name.clone(), inner);
        let (body, of) = self.check(&parts[1]);
        self.locals.truncate(slot);
        let of = if flat { of } else { Type::optional(of) };
        (Node::OptionalMap { parts: Box::new([target, body]), slot, flat, span }, of)
    }
}
