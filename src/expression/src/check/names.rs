//! Resolves names: variables, types, fields and elements.

use std::sync::Arc;

use crossdock_message::ByteString;
use crossdock_settings::nearest;

use super::{Checked, Checker, NAMES_MAX, or_null};
use crate::functions;
use crate::node::{Node, Root};
use crate::problem::Span;
use crate::program::Input;
use crate::syntax::{Expr, ExprKind, Literal};
use crate::types::{Type, type_of_name};

impl Checker<'_> {
    /// Candidates for a name, the innermost container first ("CEL language definition", Name Resolution).
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_prefix('.') {
            return vec![absolute.to_owned()];
        }
        let mut candidates = Vec::new();
        let mut container: &str = &self.environment.container;
        while !container.is_empty() {
            candidates.push(format!("{container}.{name}"));
            container = container.rsplit_once('.').map_or("", |(outer, _)| outer);
        }
        candidates.push(name.to_owned());
        candidates
    }

    pub(super) fn local(&self, name: &str) -> Option<(usize, Type)> {
        let at = self.locals.iter().rposition(|(local, _)| local == name)?;
        Some((at, self.locals[at].1.clone()))
    }

    /// Resolves a variable of the environment, or a type.
    pub(super) fn global(&mut self, name: &str, span: Span) -> Option<Checked> {
        for candidate in self.candidates(name) {
            if let Some(variable) = self.environment.variables.iter().find(|variable| variable.name == candidate) {
                let ty = variable.ty.clone();
                let slot = self.input(candidate.into(), None, span);
                return Some((Node::Input(slot, span), ty));
            }
            if let Some((type_name, ty)) = type_of_name(&candidate) {
                return Some((Node::Type(type_name), Type::Type(Arc::new(ty))));
            }
        }
        None
    }

    pub(super) fn input(&mut self, variable: ByteString, field: Option<ByteString>, span: Span) -> usize {
        let is_it = |input: &Input| input.variable == variable && input.field == field;
        if let Some(at) = self.inputs.iter().position(is_it) {
            return at;
        }
        self.inputs.push(Input { variable, field, span });
        self.inputs.len() - 1
    }

    pub(super) fn ident(&mut self, name: &ByteString, span: Span) -> Checked {
        if let Some((slot, ty)) = self.local(name) {
            return (Node::Local(slot), ty);
        }
        if let Some(found) = self.global(name, span) {
            return found;
        }
        if let Some((_, first)) = self.environment.unbound.iter().find(|(unbound, _)| unbound == name) {
            return self.reject(span, format!("`{name}` is not available yet"), *first);
        }
        if functions::find(name).is_some() {
            return self.reject(span, format!("`{name}` is a function"), format!("call it: `{name}(…)`"));
        }
        let known = || {
            let locals = self.locals.iter().map(|(name, _)| &**name);
            locals.chain(self.environment.variables.iter().map(|variable| &*variable.name))
        };
        let help = match nearest(name, known()) {
            Some(meant) => format!("write `{meant}`"),
            None => {
                let known = known().filter(|name| name.len() <= 64).take(NAMES_MAX).collect::<Vec<_>>().join(", ");
                format!("known here: {known}; quote a string: `'{name}'`")
            }
        };
        if self.environment.is_unchecked {
            return (Node::Fail { missing: true, problem: name.to_string(), span }, Type::Dyn);
        }
        self.reject(span, format!("there is no `{name}` here"), help)
    }

    /// The dotted name that a chain of field selections forms, unless it starts with a macro variable.
    pub(super) fn qualified(&self, expression: &Expr) -> Option<String> {
        match &expression.kind {
            ExprKind::Ident(name) if self.local(name).is_none() => Some(name.to_string()),
            ExprKind::Select { operand, field, test: false, optional: false, .. } => {
                Some(format!("{}.{field}", self.qualified(operand)?))
            }
            _ => None,
        }
    }

    pub(super) fn select(
        &mut self,
        whole: &Expr,
        operand: &Expr,
        (field, field_span): (&ByteString, Span),
        test: bool,
        optional: bool,
    ) -> Checked {
        // A variable or a type may have dots in its name.
        if !test
            && !optional
            && let Some(name) = self.qualified(whole)
            && let Some(found) = self.global(&name, whole.span)
        {
            return found;
        }
        // The first field of a variable is a separate input, so that only the fields in use are read from a message.
        let of_variable = match &operand.kind {
            ExprKind::Ident(name) if self.environment.splits_inputs && self.local(name).is_none() => {
                self.environment.variables.iter().find(|variable| variable.name == *name).cloned()
            }
            _ => None,
        };
        if let Some(variable) = of_variable {
            let field_ty = self.field_type(&variable.ty, field, field_span);
            // The presence of a record field cannot be derived from its value.
            if (test || optional) && matches!(variable.ty, Type::Record(_)) {
                let slot = self.input(variable.name, None, operand.span);
                let (operand, name) = (Box::new(Node::Input(slot, operand.span)), field.clone());
                if test {
                    return (Node::Has { operand, name, span: field_span }, Type::Bool);
                }
                return (Node::Field { operand, name, span: field_span, optional }, Type::optional(field_ty));
            }
            let span = operand.span.to(field_span);
            let slot = self.input(variable.name, Some(field.clone()), span);
            if test {
                return (Node::InputIsPresent(slot), Type::Bool);
            }
            if optional {
                return (Node::OptionalInput(slot, span), Type::optional(field_ty));
            }
            return (or_null(Node::Input(slot, span), &field_ty), field_ty);
        }
        let (node, ty) = self.check(operand);
        let ty = self.resolved(&ty);
        // In `a.?b.c`, `.c` applies to the value of the optional.
        let (inner, chained) = match &ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let field_ty = self.field_type(&inner, field, field_span);
        if test {
            return (Node::Has { operand: Box::new(node), name: field.clone(), span: field_span }, Type::Bool);
        }
        let field_ty = if optional || chained { Type::optional(field_ty) } else { field_ty };
        if optional || chained {
            return (
                Node::Field { operand: Box::new(node), name: field.clone(), span: field_span, optional },
                field_ty,
            );
        }
        let node = match node {
            Node::OrNull(inner) => *inner,
            other => other,
        };
        let node = match node {
            Node::Input(slot, span) => {
                Node::Path { root: Root::Input(slot, span), steps: Box::new([(field.clone(), field_span)]) }
            }
            Node::Local(slot) => Node::Path { root: Root::Local(slot), steps: Box::new([(field.clone(), field_span)]) },
            Node::Path { root, steps } => {
                let steps = steps.into_iter().chain([(field.clone(), field_span)]).collect();
                Node::Path { root, steps }
            }
            other => Node::Field { operand: Box::new(other), name: field.clone(), span: field_span, optional: false },
        };
        (or_null(node, &field_ty), field_ty)
    }

    /// The type of a field; reports one that the record does not have.
    pub(super) fn field_type(&mut self, ty: &Type, field: &ByteString, span: Span) -> Type {
        match ty {
            Type::Record(record) => match record.field(field) {
                Some(ty) => ty,
                None => {
                    let names = record.field_names();
                    let help = match nearest(field, names.iter().map(String::as_str)) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("it has {}", names[..names.len().min(NAMES_MAX)].join(", ")),
                    };
                    self.report_mismatch(span, format!("`{}` has no field `{field}`", record.name()), help);
                    Type::Dyn
                }
            },
            Type::Map(parts) => {
                let key = parts.0.clone();
                if !self.is_assignable(&Type::Text, &key) {
                    self.report_mismatch(span, "the map keys are not strings", "write `map[key]`");
                }
                parts.1.clone()
            }
            Type::Dyn | Type::Named(_) => Type::Dyn,
            Type::Param(_) => {
                self.is_assignable(ty, &Type::Dyn);
                Type::Dyn
            }
            Type::List(_) => {
                let help = format!("select an element, `x[0].{field}`, or map all: `x.map(e, e.{field})`");
                self.report_mismatch(span, format!("a list has no field `{field}`"), help);
                Type::Dyn
            }
            other => {
                self.report_mismatch(
                    span,
                    format!("{other} has no field `{field}`"),
                    "only records and maps have fields",
                );
                Type::Dyn
            }
        }
    }

    pub(super) fn index(&mut self, operand: &Expr, index: &Expr, span: Span, optional: bool) -> Checked {
        // `x['name']` has the type of `x.name`.
        if let ExprKind::Literal(Literal::Text(name)) = &index.kind
            && !optional
        {
            let is_variable = matches!(&operand.kind, ExprKind::Ident(name) if self.environment.splits_inputs && self.local(name).is_none());
            if is_variable {
                return self.select(
                    &Expr { span, height: 1, kind: ExprKind::List(Vec::new()) },
                    operand,
                    (name, index.span),
                    false,
                    false,
                );
            }
        }
        let (node, ty) = self.check(operand);
        let (key, key_type) = self.check(index);
        let ty = self.resolved(&ty);
        let (inner, chained) = match &ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let element_ty = match &inner {
            Type::List(element) => {
                let fits = self.is_assignable(&key_type, &Type::Int)
                    || matches!(key_type, Type::UInt | Type::Double | Type::Decimal);
                if !fits {
                    self.report_mismatch(
                        index.span,
                        format!("a list index must be an integer, not {key_type}"),
                        "write `list[0]`",
                    );
                }
                (**element).clone()
            }
            Type::Map(parts) => {
                let wanted = parts.0.clone();
                let are_numbers = key_type.is_number() && wanted.is_number();
                if !are_numbers && !self.is_assignable(&key_type, &wanted) {
                    let (key_type, wanted) = (self.resolved(&key_type), self.resolved(&wanted));
                    self.report_mismatch(index.span, format!("the key must be {wanted}, not {key_type}"), "");
                }
                parts.1.clone()
            }
            Type::Record(_) => match &index.kind {
                ExprKind::Literal(Literal::Text(name)) => self.field_type(&inner, name, index.span),
                _ => Type::Dyn,
            },
            Type::Dyn | Type::Param(_) | Type::Named(_) => Type::Dyn,
            other => {
                self.report_mismatch(span, format!("{other} has no elements"), "use a list or a map");
                Type::Dyn
            }
        };
        let optional_result = optional || chained;
        let node = Node::Index { parts: Box::new([node, key]), span, optional };
        (node, if optional_result { Type::optional(element_ty) } else { element_ty })
    }
}
