//! Checks function calls.

use crossdock_message::ByteString;
use crossdock_settings::nearest;

use super::{Checked, Checker};
use crate::functions;
use crate::node::Node;
use crate::problem::Span;
use crate::syntax::{Expr, ExprKind, Literal};
use crate::types::{Signature, Type};

impl Checker<'_> {
    pub(super) fn call(
        &mut self,
        (function, function_span): (&ByteString, Span),
        span: Span,
        target: Option<&Expr>,
        arguments: &[Expr],
    ) -> Checked {
        // `math.abs(x)`: `math` is a namespace, not a receiver.
        let qualified =
            target.and_then(|target| self.qualified(target)).map(|namespace| format!("{namespace}.{function}"));
        let global = match (&qualified, target) {
            (Some(name), _) => self.candidates(name).into_iter().find(|name| functions::find(name).is_some()),
            (None, None) => self.candidates(function).into_iter().find(|name| functions::find(name).is_some()),
            (None, Some(_)) => None,
        };
        let (name, target) = match (global, target) {
            (Some(name), _) => (name, None),
            (None, Some(target)) => (function.to_string(), Some(target)),
            (None, None) => return self.unknown_function(function, function_span, false),
        };
        if let Some(target) = target
            && let ("or" | "orValue", [argument]) = (&*name, arguments)
        {
            return self.or_else(target, argument, &name == "orValue", span);
        }
        let Some((found, signatures)) = functions::find(&name) else {
            return self.unknown_function(function, function_span, target.is_some());
        };
        if target.is_none()
            && let Some((_, instead)) = self.environment.unbound.iter().find(|(unbound, _)| **unbound == *name)
        {
            return self.reject(function_span, format!("`{name}` cannot be used here"), *instead);
        }
        if name == "matches"
            && let Some(ExprKind::Literal(Literal::Text(pattern))) = arguments.last().map(|argument| &argument.kind)
            && let Err(problem) = functions::compile_regex(pattern)
        {
            let at = arguments.last().map_or(span, |argument| argument.span);
            self.report_mismatch(at, problem, "use RE2 syntax, without look-around and backreferences");
        }
        let is_method = target.is_some();
        let operands: Vec<&Expr> = target.into_iter().chain(arguments).collect();
        let (nodes, types): (Vec<_>, Vec<_>) = operands.iter().map(|operand| self.check(operand)).unzip();
        let mut result: Option<Type> = None;
        // With several overloads, the first one must not bind a type variable.
        let has_overloads = signatures.iter().filter(|signature| signature.is_method == is_method).nth(1).is_some();
        let known: Vec<Type> =
            types.iter().map(|ty| if has_overloads { self.unifier.resolved_or_dyn(ty) } else { ty.clone() }).collect();
        for signature in signatures.iter().filter(|signature| signature.is_method == is_method) {
            if let Some(found) = self.unifier.call_result(signature, &known) {
                result = Some(match result {
                    None => found.result,
                    Some(before) => self.unifier.join(&before, &found.result).unwrap_or(Type::Dyn),
                });
                if found.is_certain {
                    break;
                }
            }
        }
        let ty = match result {
            Some(ty) => ty,
            None => {
                let actual: Vec<String> = types.iter().map(|ty| self.resolved(ty).to_string()).collect();
                let problem = match actual.as_slice() {
                    [] => format!("`{name}` needs arguments"),
                    actual => format!("`{name}` does not accept {}", actual.join(" and ")),
                };
                let help = format!("write {}", found.forms(is_method).join(", "));
                let accepts = |signature: &Signature| {
                    let least = signature.params.len();
                    signature.is_method == is_method
                        && (types.len() == least || signature.is_variadic && types.len() >= least)
                };
                if self.environment.is_unchecked && signatures.iter().any(accepts) {
                    Type::Dyn
                } else {
                    return self.reject(span, problem, help);
                }
            }
        };
        (Node::Call { function: found, arguments: nodes.into(), span }, ty)
    }

    pub(super) fn or_else(&mut self, target: &Expr, argument: &Expr, value: bool, span: Span) -> Checked {
        let (optional, ty) = self.check(target);
        let (other, other_type) = self.check(argument);
        let inner = match self.resolved(&ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                let help = "write `x.?field.orValue(…)`: `x.?field` is an optional";
                self.report_mismatch(target.span, format!("this must be an optional, not {other}"), help);
                Type::Dyn
            }
        };
        let other_inner = if value { other_type } else { self.optional_inner(&other_type, argument.span) };
        let joined = self.unifier.join(&inner, &other_inner).unwrap_or(Type::Dyn);
        let node = Node::OrElse { parts: Box::new([optional, other]), value, span };
        (node, if value { joined } else { Type::optional(joined) })
    }

    pub(super) fn unknown_function(&mut self, name: &ByteString, span: Span, is_method: bool) -> Checked {
        let help = match nearest(name, functions::names()) {
            Some(meant) => format!("write `{meant}`"),
            None => "`crossdock eval --functions` lists all functions".to_owned(),
        };
        let what = if is_method { "method" } else { "function" };
        self.reject(span, format!("there is no {what} `{name}`"), help)
    }
}
