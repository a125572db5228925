//! Macros: calls whose arguments name variables or are not evaluated ("CEL language definition", Macros, and the extensions `bindings`,
//! `optional` and `two-var-comprehensions`). `sortBy` and `groupBy` are additions.

use crossdock_message::ByteString;

use super::ast::{Expr, ExprKind, Fold, FoldKind};
use super::parser::qualified_name;
use crate::problem::{Problem, Span};

/// The form of a macro over a list or a map.
struct Form {
    name: &'static str,
    kind: FoldKind,
    variables: usize,
    has_filter: bool,
}

const fn form(name: &'static str, kind: FoldKind, variables: usize, has_filter: bool) -> Form {
    Form { name, kind, variables, has_filter }
}

const FORMS: &[Form] = &[
    form("all", FoldKind::All, 1, false),
    form("all", FoldKind::All, 2, false),
    form("exists", FoldKind::Exists, 1, false),
    form("exists", FoldKind::Exists, 2, false),
    form("exists_one", FoldKind::ExistsOne, 1, false),
    form("exists_one", FoldKind::ExistsOne, 2, false),
    form("existsOne", FoldKind::ExistsOne, 1, false),
    form("existsOne", FoldKind::ExistsOne, 2, false),
    form("map", FoldKind::Map, 1, false),
    form("map", FoldKind::Map, 1, true),
    form("filter", FoldKind::Filter, 1, false),
    form("transformList", FoldKind::Map, 2, false),
    form("transformList", FoldKind::Map, 2, true),
    form("transformMap", FoldKind::TransformMap, 2, false),
    form("transformMap", FoldKind::TransformMap, 2, true),
    form("transformMapEntry", FoldKind::TransformMapEntry, 2, false),
    form("transformMapEntry", FoldKind::TransformMapEntry, 2, true),
    form("sortBy", FoldKind::SortBy, 1, false),
    form("groupBy", FoldKind::GroupBy, 1, false),
];

/// Expands a call to a macro, if it is one.
pub(super) fn expand(
    function: &ByteString,
    function_span: Span,
    span: Span,
    target: Option<Expr>,
    mut arguments: Vec<Expr>,
) -> Result<ExprKind, Problem> {
    let Some(target) = target else {
        if (&**function == "has" || &**function == ".has") && arguments.len() == 1 {
            return has(arguments.remove(0));
        }
        let (function, arguments) = (function.clone(), arguments);
        return Ok(ExprKind::Call { function, function_span, target: None, arguments });
    };
    if qualified_name(&target).as_deref() == Some("cel") && &**function == "bind" && arguments.len() == 3 {
        return bind(arguments);
    }
    let flat = &**function == "optFlatMap";
    if (flat || &**function == "optMap") && arguments.len() == 2 {
        let body = arguments.remove(1);
        let name = variable(&arguments[0])?;
        return Ok(ExprKind::OptionalMap { name, parts: Box::new([target, body]), flat });
    }
    let forms = || FORMS.iter().filter(|form| form.name == &**function);
    let count = |form: &Form| form.variables + usize::from(form.has_filter) + 1;
    let Some(form) = forms().find(|form| count(form) == arguments.len()) else {
        if forms().next().is_some() && !(&**function == "sortBy" || &**function == "groupBy") {
            let problem = format!("`{function}` does not accept {} arguments", arguments.len());
            return Err(Problem::new(span, problem, usage(function)));
        }
        return Ok(ExprKind::Call {
            function: function.clone(),
            function_span,
            target: Some(Box::new(target)),
            arguments,
        });
    };
    let body = arguments.pop();
    let filter = if form.has_filter { arguments.pop() } else { None };
    let mut variables: Vec<ByteString> = Vec::with_capacity(form.variables);
    for argument in &arguments {
        let name = variable(argument)?;
        if variables.contains(&name) {
            let problem = format!("duplicate variable `{name}`");
            return Err(Problem::new(argument.span, problem, "use different names"));
        }
        variables.push(name);
    }
    match body {
        Some(body) => Ok(ExprKind::Fold(Box::new(Fold { kind: form.kind, range: target, variables, filter, body }))),
        None => Err(Problem::new(span, "missing argument", usage(function))),
    }
}

fn usage(function: &str) -> String {
    match function {
        "transformList" | "transformMap" | "transformMapEntry" => format!("write `x.{function}(key, value, …)`"),
        _ => format!("write `list.{function}(x, …)`, where `x` names the element"),
    }
}

/// `has(x.field)`.
fn has(argument: Expr) -> Result<ExprKind, Problem> {
    match argument.kind {
        ExprKind::Select { operand, field, field_span, test: false, optional } => {
            Ok(ExprKind::Select { operand, field, field_span, test: true, optional })
        }
        _ => {
            let help = "write `has(x.field)`, or `'key' in x` for a map";
            Err(Problem::new(argument.span, "the argument of `has` must be a field", help))
        }
    }
}

/// `cel.bind(name, value, body)`.
fn bind(mut arguments: Vec<Expr>) -> Result<ExprKind, Problem> {
    let name = variable(&arguments[0])?;
    let body = arguments.pop();
    let value = arguments.pop();
    match (value, body) {
        (Some(value), Some(body)) => Ok(ExprKind::Bind { name, parts: Box::new([value, body]) }),
        _ => Err(Problem::new(Span::default(), "missing argument", "write `cel.bind(name, value, body)`")),
    }
}

fn variable(argument: &Expr) -> Result<ByteString, Problem> {
    match &argument.kind {
        ExprKind::Ident(name) if !name.starts_with('.') => Ok(name.clone()),
        _ => {
            let help = "name the element: `list.map(x, x.id)`";
            Err(Problem::new(argument.span, "expected a variable name", help))
        }
    }
}
