//! The checker: resolves names, gives each part its type, and makes of the tree what is evaluated.
//!
//! It is gradual: a value of which no contract speaks has the type `dyn`, which goes everywhere. What can only fail is refused.

mod operators;
mod unify;

use std::sync::Arc;

use crossdock_message::ByteString;

use self::unify::Unifier;
use crate::cost::weight;
use crate::functions;
use crate::node::{FoldNode, Node, Root};
use crate::problem::{Problem, Span, nearest};
use crate::program::{Environment, Input};
use crate::syntax::{Element, Entry, Expr, ExprKind, Fold, FoldKind, Literal, UnaryOp};
use crate::types::{Signature, Type, type_of_name};

/// Checks an expression and makes its nodes.
pub(crate) struct Checker<'e> {
    environment: &'e Environment,
    pub(crate) inputs: Vec<Input>,
    locals: Vec<(ByteString, Type)>,
    pub(crate) locals_max: usize,
    pub(crate) problems: Vec<Problem>,
    unifier: Unifier,
}

type Checked = (Node, Type);

/// Problems of one expression that are told, and names that one of them lists.
const PROBLEMS_MAX: usize = 16;
const NAMES_MAX: usize = 20;
/// Nodes that are evaluated for one unit of work.
const NODES_PER_UNIT: u64 = 4;

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

    /// The type with all that was found out of it; what is still open may be anything.
    pub(crate) fn settled(&self, of: &Type) -> Type {
        self.unifier.settled(of)
    }

    /// Refuses; without checks, it fails where it is evaluated.
    fn refuse(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) -> Checked {
        let problem = problem.into();
        if self.environment.is_unchecked {
            return (Node::Fail { missing: false, problem, span }, Type::Dyn);
        }
        self.misfit(span, problem.clone(), help);
        (Node::Fail { missing: false, problem, span }, Type::Dyn)
    }

    /// As [`Checker::refuse`], for a node whose types do not fit; without checks, the values decide.
    fn misfit(&mut self, span: Span, problem: impl Into<String>, help: impl Into<String>) {
        if !self.environment.is_unchecked && self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(span, problem, help));
        }
    }

    fn fits(&mut self, given: &Type, wanted: &Type) -> bool {
        self.unifier.fits(given, wanted)
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
                let node = self.condition(operand, "`!` takes");
                (Node::Not(Box::new(node), span), Type::Bool)
            }
            ExprKind::Unary(UnaryOp::Negate, operand) => self.negate(operand, span),
            ExprKind::Binary(operator, left, right) => self.binary(*operator, left, right, span),
            ExprKind::And(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "`&&` takes")).collect();
                (Node::And(nodes, span), Type::Bool)
            }
            ExprKind::Or(operands) => {
                let nodes = operands.iter().map(|operand| self.condition(operand, "`||` takes")).collect();
                (Node::Or(nodes, span), Type::Bool)
            }
            ExprKind::Conditional(parts) => {
                let condition = self.condition(&parts[0], "before the `?` stands");
                let (yes, yes_type) = self.check(&parts[1]);
                let (no, no_type) = self.check(&parts[2]);
                let of = match self.unifier.joined(&yes_type, &no_type) {
                    Some(joined) => joined,
                    None => {
                        // A route file may give one thing or another; CEL itself refuses it.
                        Type::Dyn
                    }
                };
                (Node::Conditional(Box::new([condition, yes, no]), span), of)
            }
            ExprKind::List(elements) => self.list(elements, span),
            ExprKind::Map(entries) => self.map(entries, span),
            ExprKind::Struct { name, .. } => {
                let help = format!("write a map: `{{'field': value}}`; what takes it makes a `{name}` of it");
                self.refuse(span, "messages of a type are not built in expressions", help)
            }
            ExprKind::Fold(fold) => self.fold(fold, span),
            ExprKind::Bind { name, parts } => {
                let (value, of) = self.check(&parts[0]);
                let slot = self.push(name.clone(), of);
                let (body, of) = self.check(&parts[1]);
                self.locals.truncate(slot);
                (Node::Bind { parts: Box::new([value, body]), slot }, of)
            }
            ExprKind::OptionalMap { name, parts, flat } => self.optional_map(name, parts, *flat, span),
        }
    }

    fn push(&mut self, name: ByteString, of: Type) -> usize {
        let slot = self.locals.len();
        self.locals.push((name, of));
        self.locals_max = self.locals_max.max(self.locals.len());
        slot
    }

    /// A part that has to be true or false.
    fn condition(&mut self, expression: &Expr, where_to: &str) -> Node {
        let (node, of) = self.check(expression);
        if !self.fits(&of, &Type::Bool) {
            let of = self.settled(&of);
            let help = "write what is true or false, such as `size(x) > 0` or `x.name == 'a'`";
            self.misfit(expression.span, format!("{where_to} true or false, and this is {of}"), help);
        }
        node
    }

    // Names.

    /// Names that may be meant, the innermost container first ("CEL language definition", Name Resolution).
    fn candidates(&self, name: &str) -> Vec<String> {
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

    fn local(&self, name: &str) -> Option<(usize, Type)> {
        let at = self.locals.iter().rposition(|(local, _)| local == name)?;
        Some((at, self.locals[at].1.clone()))
    }

    /// A variable of the environment, or a type.
    fn global(&mut self, name: &str, span: Span) -> Option<Checked> {
        for candidate in self.candidates(name) {
            if let Some(variable) = self.environment.variables.iter().find(|variable| variable.name == candidate) {
                let of = variable.of.clone();
                let slot = self.input(candidate.into(), None, span);
                return Some((Node::Input(slot, span), of));
            }
            if let Some((type_name, of)) = type_of_name(&candidate) {
                return Some((Node::Type(type_name), Type::Type(Arc::new(of))));
            }
        }
        None
    }

    fn input(&mut self, variable: ByteString, field: Option<ByteString>, span: Span) -> usize {
        let is_it = |input: &Input| input.variable == variable && input.field == field;
        if let Some(at) = self.inputs.iter().position(is_it) {
            return at;
        }
        self.inputs.push(Input { variable, field, span });
        self.inputs.len() - 1
    }

    fn ident(&mut self, name: &ByteString, span: Span) -> Checked {
        if let Some((slot, of)) = self.local(name) {
            return (Node::Local(slot), of);
        }
        if let Some(found) = self.global(name, span) {
            return found;
        }
        if let Some((_, first)) = self.environment.unbound.iter().find(|(unbound, _)| unbound == name) {
            return self.refuse(span, format!("`{name}` is not there yet"), *first);
        }
        if functions::find(name).is_some() {
            return self.refuse(span, format!("`{name}` is a function"), format!("call it: `{name}(…)`"));
        }
        let known = || {
            let locals = self.locals.iter().map(|(name, _)| &**name);
            locals.chain(self.environment.variables.iter().map(|variable| &*variable.name))
        };
        let help = match nearest(name, known()) {
            Some(meant) => format!("write `{meant}`"),
            None => {
                let known = known().filter(|name| name.len() <= 64).take(NAMES_MAX).collect::<Vec<_>>().join(", ");
                format!("known here: {known}; a text stands in single quotes: `'{name}'`")
            }
        };
        if self.environment.is_unchecked {
            return (Node::Fail { missing: true, problem: name.to_string(), span }, Type::Dyn);
        }
        self.refuse(span, format!("there is no `{name}` here"), help)
    }

    /// The name that a chain of selections spells, where it is no variable of a macro.
    fn qualified(&self, expression: &Expr) -> Option<String> {
        match &expression.kind {
            ExprKind::Ident(name) if self.local(name).is_none() => Some(name.to_string()),
            ExprKind::Select { operand, field, test: false, optional: false, .. } => {
                Some(format!("{}.{field}", self.qualified(operand)?))
            }
            _ => None,
        }
    }

    fn select(
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
        // The first field of a variable is an input of its own, so that no more of a message is read than is looked at.
        let of_variable = match &operand.kind {
            ExprKind::Ident(name) if self.environment.splits_inputs && self.local(name).is_none() => {
                self.environment.variables.iter().find(|variable| variable.name == *name).cloned()
            }
            _ => None,
        };
        if let Some(variable) = of_variable {
            let given = self.field_type(&variable.of, field, field_span, test);
            if test || optional {
                let is_record = matches!(variable.of, Type::Record(_));
                let slot =
                    if is_record { 0 } else { self.input(variable.name.clone(), Some(field.clone()), whole.span) };
                let node = Node::Input(slot, whole.span);
                if test && !matches!(variable.of, Type::Record(_)) {
                    let present = Node::Has { operand: Box::new(node), name: ByteString::new(), span: field_span };
                    return (present, Type::Bool);
                }
                if optional && !matches!(variable.of, Type::Record(_)) {
                    let node =
                        Node::Field { operand: Box::new(node), name: ByteString::new(), span: field_span, optional };
                    return (node, Type::optional(given));
                }
                // Of a record, presence is more than a value.
                let slot = self.input(variable.name, None, operand.span);
                let operand = Box::new(Node::Input(slot, operand.span));
                if optional {
                    let node = Node::Field { operand, name: field.clone(), span: field_span, optional };
                    return (node, Type::optional(given));
                }
                return (Node::Has { operand, name: field.clone(), span: field_span }, Type::Bool);
            }
            let span = operand.span.to(field_span);
            let slot = self.input(variable.name, Some(field.clone()), span);
            return (or_null(Node::Input(slot, span), &given), given);
        }
        let (node, of) = self.check(operand);
        let of = self.settled(&of);
        // `a.?b.c` goes on with what is there.
        let (inner, chained) = match &of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let given = self.field_type(&inner, field, field_span, test);
        if test {
            return (Node::Has { operand: Box::new(node), name: field.clone(), span: field_span }, Type::Bool);
        }
        let given = if optional || chained { Type::optional(given) } else { given };
        if optional || chained {
            return (Node::Field { operand: Box::new(node), name: field.clone(), span: field_span, optional }, given);
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
        (or_null(node, &given), given)
    }

    /// The type of a field; refuses one that its record does not have.
    fn field_type(&mut self, of: &Type, field: &ByteString, span: Span, test: bool) -> Type {
        match of {
            Type::Record(record) => match record.field(field) {
                Some(of) => of,
                None => {
                    let names = record.field_names();
                    let help = match nearest(field, names.iter().map(String::as_str)) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("it has {}", names[..names.len().min(NAMES_MAX)].join(", ")),
                    };
                    self.misfit(span, format!("`{}` has no field `{field}`", record.name()), help);
                    Type::Dyn
                }
            },
            Type::Map(parts) => {
                let key = parts.0.clone();
                if !self.fits(&Type::Text, &key) {
                    self.misfit(span, "the keys of the map are no texts", "write `map[key]`");
                }
                parts.1.clone()
            }
            Type::Dyn | Type::Named(_) => Type::Dyn,
            Type::Param(_) => {
                self.fits(of, &Type::Dyn);
                Type::Dyn
            }
            Type::List(_) => {
                let help = format!("take one of its elements, `x[0].{field}`, or all: `x.map(e, e.{field})`");
                self.misfit(span, format!("a list has no field `{field}`"), help);
                Type::Dyn
            }
            other => {
                let what = if test { "has no fields" } else { "has no field of that name" };
                self.misfit(span, format!("{other} {what}: `{field}`"), "fields are those of records and maps");
                Type::Dyn
            }
        }
    }

    fn index(&mut self, operand: &Expr, index: &Expr, span: Span, optional: bool) -> Checked {
        // `x['name']` is `x.name`, as far as the types go.
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
        let (node, of) = self.check(operand);
        let (key, key_type) = self.check(index);
        let of = self.settled(&of);
        let (inner, chained) = match &of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let given = match &inner {
            Type::List(element) => {
                let fits =
                    self.fits(&key_type, &Type::Int) || matches!(key_type, Type::UInt | Type::Double | Type::Decimal);
                if !fits {
                    self.misfit(
                        index.span,
                        format!("a list is indexed by whole numbers, not by {key_type}"),
                        "write `list[0]`",
                    );
                }
                (**element).clone()
            }
            Type::Map(parts) => {
                let wanted = parts.0.clone();
                let are_numbers = key_type.is_number() && wanted.is_number();
                if !are_numbers && !self.fits(&key_type, &wanted) {
                    let (key_type, wanted) = (self.settled(&key_type), self.settled(&wanted));
                    self.misfit(index.span, format!("the keys are {wanted}, and this is {key_type}"), "");
                }
                parts.1.clone()
            }
            Type::Record(_) => match &index.kind {
                ExprKind::Literal(Literal::Text(name)) => self.field_type(&inner, name, index.span, false),
                _ => Type::Dyn,
            },
            Type::Dyn | Type::Param(_) | Type::Named(_) => Type::Dyn,
            other => {
                self.misfit(span, format!("{other} has no elements"), "lists and maps have");
                Type::Dyn
            }
        };
        let optional_result = optional || chained;
        let node = Node::Index { parts: Box::new([node, key]), span, optional };
        (node, if optional_result { Type::optional(given) } else { given })
    }

    fn list(&mut self, elements: &[Element], span: Span) -> Checked {
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

    fn inner_of_optional(&mut self, given: &Type, span: Span) -> Type {
        match self.settled(given) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => {
                self.misfit(span, format!("behind `?` stands an optional, and this is {other}"), "leave out the `?`");
                Type::Dyn
            }
        }
    }

    fn map(&mut self, entries: &[Entry], span: Span) -> Checked {
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

    fn fold(&mut self, fold: &Fold, span: Span) -> Checked {
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
        let weight = 1 + (weight(&body) + filter.as_ref().map_or(0, weight)) / NODES_PER_UNIT;
        let node = FoldNode { kind: fold.kind, range, slot, has_two, weight, filter, body, span };
        (Node::Fold(Box::new(node)), of)
    }

    fn optional_map(&mut self, name: &ByteString, parts: &[Expr; 2], flat: bool, span: Span) -> Checked {
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

    // Functions.

    fn call(
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

    fn or_else(&mut self, target: &Expr, argument: &Expr, value: bool, span: Span) -> Checked {
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

    fn no_function(&mut self, name: &ByteString, span: Span, is_method: bool) -> Checked {
        let help = match nearest(name, functions::names()) {
            Some(meant) => format!("write `{meant}`"),
            None => "`crossdock eval --functions` lists all functions".to_owned(),
        };
        let what = if is_method { "method" } else { "function" };
        self.refuse(span, format!("there is no {what} `{name}`"), help)
    }
}

/// A wrapper of a contract that is not there is null.
fn or_null(node: Node, of: &Type) -> Node {
    if matches!(of, Type::Wrapper(_)) { Node::OrNull(Box::new(node)) } else { node }
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
