//! Checks lists, maps, and the macros over them.

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
        let mut ty: Option<Type> = None;
        for Element { value, optional } in elements {
            let (node, mut element_ty) = self.check(value);
            if *optional {
                element_ty = self.optional_inner(&element_ty, value.span);
            }
            nodes.push((node, *optional));
            ty = Some(match ty {
                None => element_ty,
                Some(before) => self.unifier.join(&before, &element_ty).unwrap_or(Type::Dyn),
            });
        }
        let ty = ty.unwrap_or_else(|| self.unifier.fresh());
        (Node::List { elements: nodes.into(), span }, Type::list(ty))
    }

    pub(super) fn optional_inner(&mut self, element_ty: &Type, span: Span) -> Type {
        match self.resolved(element_ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                self.report_mismatch(
                    span,
                    format!("`?` must be followed by an optional, not {other}"),
                    "remove the `?`",
                );
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
                value_type = self.optional_inner(&value_type, entry.value.span);
            }
            let key_type = match self.resolved(&key_type) {
                ty @ (Type::Text | Type::Int | Type::UInt | Type::Bool | Type::Dyn | Type::Param(_)) => ty,
                Type::Enum(_) => Type::Text,
                Type::Wrapper(_) | Type::Decimal => Type::Dyn,
                other => {
                    let help = "use a string, an integer or a boolean";
                    self.report_mismatch(entry.key.span, format!("a map key must not be {other}"), help);
                    Type::Dyn
                }
            };
            nodes.push((key, value, entry.optional));
            types = Some(match types {
                None => (key_type, value_type),
                Some((key, value)) => (
                    self.unifier.join(&key, &key_type).unwrap_or(Type::Dyn),
                    self.unifier.join(&value, &value_type).unwrap_or(Type::Dyn),
                ),
            });
        }
        let (key, value) = types.unwrap_or_else(|| (self.unifier.fresh(), self.unifier.fresh()));
        (Node::Map { entries: nodes.into(), span }, Type::map(key, value))
    }

    pub(super) fn fold(&mut self, fold: &Fold, span: Span) -> Checked {
        let (range, range_type) = self.check(&fold.range);
        let range_type = self.resolved(&range_type);
        let has_two = fold.variables.len() == 2;
        let (first, second) = match &range_type {
            Type::List(element) if has_two => (Type::Int, (**element).clone()),
            Type::List(element) => ((**element).clone(), Type::Dyn),
            Type::Map(parts) => parts.as_ref().clone(),
            Type::Dyn | Type::Param(_) | Type::Named(_) => {
                self.is_assignable(&range_type, &Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            Type::Record(_) => (Type::Text, Type::Dyn),
            other => {
                self.report_mismatch(fold.range.span, format!("{other} has no elements"), "use a list or a map");
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
        let filter = fold.filter.as_ref().map(|filter| self.condition(filter, "the filter of a macro"));
        let (body, body_type) = if is_condition {
            (self.condition(&fold.body, "the condition of a macro"), Type::Bool)
        } else {
            self.check(&fold.body)
        };
        self.locals.truncate(slot);
        let ty = match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Map => Type::list(body_type),
            FoldKind::Filter | FoldKind::SortBy => Type::list(element),
            FoldKind::TransformMap => {
                let key = if matches!(range_type, Type::List(_)) { Type::Int } else { first };
                Type::map(key, body_type)
            }
            FoldKind::TransformMapEntry => match self.resolved(&body_type) {
                ty @ (Type::Map(_) | Type::Dyn) => ty,
                other => {
                    self.report_mismatch(
                        fold.body.span,
                        format!("an entry must be a map, not {other}"),
                        "write `{key: value}`",
                    );
                    Type::Dyn
                }
            },
            FoldKind::GroupBy => Type::list(Type::map(Type::Text, Type::Dyn)),
        };
        let weight = 1 + units(&body) + filter.as_ref().map_or(0, units);
        let node = FoldNode { kind: fold.kind, range, slot, has_two, weight, filter, body, span };
        (Node::Fold(Box::new(node)), ty)
    }

    pub(super) fn optional_map(&mut self, name: &ByteString, parts: &[Expr; 2], flat: bool, span: Span) -> Checked {
        let (target, ty) = self.check(&parts[0]);
        let inner = match self.resolved(&ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                self.report_mismatch(
                    parts[0].span,
                    format!("this must be an optional, not {other}"),
                    "write `x.?field`, or `optional.of(x)`",
                );
                Type::Dyn
            }
        };
        let slot = self.push(name.clone(), inner);
        let (body, ty) = self.check(&parts[1]);
        self.locals.truncate(slot);
        let ty = if flat { ty } else { Type::optional(ty) };
        (Node::OptionalMap { parts: Box::new([target, body]), slot, flat, span }, ty)
    }
}
