//! Calls of functions.

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
        // `math.abs(x)`: a namespace is no value.
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
            (None, None) => return self.no_function(function, function_span, false),
        };
        if let Some(target) = target
            && let ("or" | "orValue", [argument]) = (&*name, arguments)
        {
            return self.or_else(target, argument, &name == "orValue", span);
        }
        let Some((found, signatures)) = functions::find(&name) else {
            return self.no_function(function, function_span, target.is_some());
        };
        if name == "matches"
            && let Some(ExprKind::Literal(Literal::Text(pattern))) = arguments.last().map(|argument| &argument.kind)
            && let Err(problem) = functions::compile_regex(pattern)
        {
            let at = arguments.last().map_or(span, |argument| argument.span);
            self.misfit(at, problem, "write one of RE2: no look-around, no back references");
        }
        let is_method = target.is_some();
        let operands: Vec<&Expr> = target.into_iter().chain(arguments).collect();
        let (nodes, types): (Vec<_>, Vec<_>) = operands.iter().map(|operand| self.check(operand)).unzip();
        let mut result: Option<Type> = None;
        // Where there are several forms, a type that is still open is not settled by the first of them.
        let has_forms = signatures.iter().filter(|signature| signature.is_method == is_method).nth(1).is_some();
        let known: Vec<Type> =
            types.iter().map(|of| if has_forms { self.unifier.closed(of) } else { of.clone() }).collect();
        for signature in signatures.iter().filter(|signature| signature.is_method == is_method) {
            if let Some(of) = self.unifier.called(signature, &known) {
                result = Some(match result {
                    None => of,
                    Some(before) => self.unifier.joined(&before, &of).unwrap_or(Type::Dyn),
                });
                // Only values of unknown types fit several.
                if known.iter().all(|of| !matches!(self.unifier.settled(of), Type::Dyn)) {
                    break;
                }
            }
        }
        let of = match result {
            Some(of) => of,
            None => {
                let given: Vec<String> = types.iter().map(|of| self.settled(of).to_string()).collect();
                let problem = match given.as_slice() {
                    [] => format!("`{name}` takes arguments"),
                    given => format!("`{name}` does not take {}", given.join(" and ")),
                };
                let help = format!("write {}", found.forms(is_method).join(", "));
                let takes = |signature: &Signature| {
                    let least = signature.params.len();
                    signature.is_method == is_method
                        && (types.len() == least || signature.is_variadic && types.len() >= least)
                };
                if self.environment.is_unchecked && signatures.iter().any(takes) {
                    Type::Dyn
                } else {
                    return self.refuse(span, problem, help);
                }
            }
        };
        (Node::Call { function: found, arguments: nodes.into(), span }, of)
    }

    pub(super) fn or_else(&mut self, target: &Expr, argument: &Expr, value: bool, span: Span) -> Checked {
        let (optional, of) = self.check(target);
        let (other, other_type) = self.check(argument);
        let inner = match self.settled(&of) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                let help = "write `x.?field.orValue(…)`, so that `x.?field` is an optional";
                self.misfit(target.span, format!("this is {other}, and no optional"), help);
                Type::Dyn
            }
        };
        let other_inner = if value { other_type } else { self.inner_of_optional(&other_type, argument.span) };
        let joined = self.unifier.joined(&inner, &other_inner).unwrap_or(Type::Dyn);
        let node = Node::OrElse { parts: Box::new([optional, other]), value, span };
        (node, if value { joined } else { Type::optional(joined) })
    }

    pub(super) fn no_function(&mut self, name: &ByteString, span: Span, is_method: bool) -> Checked {
        let help = match nearest(name, functions::names()) {
            Some(meant) => format!("write `{meant}`"),
            None => "`crossdock eval --functions` lists all functions".to_owned(),
        };
        let what = if is_method { "method" } else { "function" };
        self.refuse(span, format!("there is no {what} `{name}`"), help)
    }
}
