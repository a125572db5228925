//! The evaluator: a recursive walk over the nodes of a program. The parser bounds its depth.

mod arithmetic;
mod fold;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::rc::Rc;

use crossdock_message::{ByteString, Record, Time, Value};

use crate::budget::{Budget, Exhausted};
use crate::failure::{Failure, FailureKind, Outcome};
use crate::functions::{Call, Function, Host};
use crate::node::{Node, Root, Written};
use crate::number::Dec;
use crate::problem::Span;
use crate::program::Input;
use crate::syntax::{BinaryOp, Literal};
use crate::value::{Key, List, Map, OPTIONAL_LEN, OwnedMap, Val, compare_within, equal};

/// One evaluation.
pub(crate) struct Evaluator<'v, 'e> {
    names: &'e [Input],
    inputs: &'v [Option<Val<'v>>],
    locals: Vec<Val<'v>>,
    /// Slots of `cel.bind` variables whose values failed to evaluate; using the variable returns the failure.
    failed: Vec<(usize, Box<Failure>)>,
    budget: &'e Budget,
    host: &'e dyn Host,
    time: OnceCell<Time>,
}

/// Up to this number, arguments are kept on the stack.
const FEW: usize = 3;

impl<'v, 'e> Evaluator<'v, 'e> {
    pub(crate) fn new(
        names: &'e [Input],
        inputs: &'v [Option<Val<'v>>],
        locals: usize,
        budget: &'e Budget,
        host: &'e dyn Host,
    ) -> Self {
        Self {
            names,
            inputs,
            locals: if locals == 0 { Vec::new() } else { vec![Val::Null; locals] },
            failed: Vec::new(),
            budget,
            host,
            time: OnceCell::new(),
        }
    }

    fn charge_work(&self, span: Span, units: u64) -> Outcome<()> {
        self.budget.charge_work(units).map_err(|cause| Failure::exhausted(span, cause))
    }

    fn charge_bytes(&self, span: Span, len: usize) -> Outcome<()> {
        self.budget.charge_bytes(len).map_err(|cause| Failure::exhausted(span, cause))
    }

    #[expect(clippy::inline_always, reason = "constructing the value in place halves the cost")]
    #[inline(always)]
    fn input(&self, slot: usize, span: Span) -> Outcome<Val<'v>> {
        match self.inputs.get(slot) {
            Some(Some(value)) => Ok(value.clone()),
            _ => Err(self.missing_input(slot, span)),
        }
    }

    /// An input, if present.
    fn present_input(&self, slot: usize) -> Option<&'v Val<'v>> {
        self.inputs.get(slot)?.as_ref().filter(|value| !value.is_missing_element())
    }

    #[cold]
    fn missing_input(&self, slot: usize, span: Span) -> Box<Failure> {
        let name = self.names.get(slot).map(|input| match &input.field {
            Some(field) => format!("{}.{field}", input.variable),
            None => input.variable.to_string(),
        });
        Failure::missing(span, name.as_deref().unwrap_or_default())
    }

    pub(crate) fn evaluate(&mut self, node: &'v Node) -> Outcome<Val<'v>> {
        match node {
            Node::Literal(literal) => Ok(literal_value(literal)),
            Node::Type(name) => Ok(Val::Type(name.clone())),
            Node::Input(slot, span) => self.input(*slot, *span),
            Node::InputIsPresent(slot) => Ok(Val::Bool(self.present_input(*slot).is_some())),
            Node::OptionalInput(slot, span) => {
                self.charge_bytes(*span, OPTIONAL_LEN)?;
                Ok(Val::Optional(self.present_input(*slot).cloned().map(Rc::new)))
            }
            Node::Local(slot) => self.local(*slot),
            Node::Path { root, steps } => self.path(*root, steps),
            Node::Field { operand, name, span, optional } => self.field(operand, name, *span, *optional),
            Node::OrNull(operand) => match self.evaluate(operand) {
                Err(failure) if failure.kind == FailureKind::Missing => Ok(Val::Null),
                other => other,
            },
            Node::Has { operand, name, span } => self.has(operand, name, *span),
            Node::Index { parts, span, optional } => self.index(parts, *span, *optional),
            Node::Not(operand, span) => match self.evaluate(operand)? {
                Val::Bool(truth) => Ok(Val::Bool(!truth)),
                _ => Err(no_overload(*span, "!")),
            },
            Node::Negate(operand, span) => {
                let value = self.evaluate(operand)?;
                within_budget(*span, self.budget.charge_scan(value.scan_len()))?;
                arithmetic::negate(value, *span)
            }
            Node::And(operands, span) => self.junction(operands, false, *span),
            Node::Or(operands, span) => self.junction(operands, true, *span),
            Node::Conditional(parts, span) => match self.evaluate(&parts[0])? {
                Val::Bool(true) => self.evaluate(&parts[1]),
                Val::Bool(false) => self.evaluate(&parts[2]),
                _ => Err(no_overload(*span, "? :")),
            },
            Node::Equal { parts, written, negated, span } => {
                let (left, right) = (self.evaluate(&parts[0])?, self.evaluate(&parts[1])?);
                let (left, right) = if written.is_some() { as_written(left, right, written) } else { (left, right) };
                let is_equal = within_budget(*span, equal(&left, &right, self.budget))?;
                Ok(Val::Bool(is_equal != *negated))
            }
            Node::Order { operator, parts, written, span } => self.order(*operator, parts, written, *span),
            Node::In { parts, written, span } => self.contains(parts, written, *span),
            Node::Arithmetic(arithmetic) => {
                let left = self.evaluate(&arithmetic.parts[0])?;
                let right = self.evaluate(&arithmetic.parts[1])?;
                self.arithmetic(arithmetic, left, right)
            }
            Node::Joined { parts, span } => self.concat(parts, *span),
            Node::List { elements, span } => self.list(elements, *span),
            Node::Map { entries, span } => self.map(entries, *span),
            Node::Call { function, arguments, span } => {
                if arguments.len() <= FEW {
                    let mut few = [const { Val::Null }; FEW];
                    for (slot, argument) in few.iter_mut().zip(arguments) {
                        *slot = self.evaluate(argument)?;
                    }
                    return (function.run)(&self.call(function, *span), &mut few[..arguments.len()]);
                }
                let mut many =
                    arguments.iter().map(|argument| self.evaluate(argument)).collect::<Result<Vec<_>, _>>()?;
                (function.run)(&self.call(function, *span), &mut many)
            }
            Node::Fold(fold) => self.fold(fold),
            Node::Bind { parts, slot } => self.bind_value(parts, *slot),
            Node::OptionalMap { parts, slot, flat, span } => match self.evaluate(&parts[0])? {
                Val::Optional(None) => Ok(Val::Optional(None)),
                Val::Optional(Some(value)) => {
                    self.set(*slot, (*value).clone());
                    let result = self.evaluate(&parts[1])?;
                    self.charge_bytes(*span, OPTIONAL_LEN)?;
                    Ok(if *flat { result } else { Val::some(result) })
                }
                _ => Err(no_overload(*span, "optMap")),
            },
            Node::OrElse { parts, value, span } => match self.evaluate(&parts[0])? {
                Val::Optional(None) => self.evaluate(&parts[1]),
                Val::Optional(Some(inner)) if *value => Ok((*inner).clone()),
                found @ Val::Optional(_) => Ok(found),
                _ => Err(no_overload(*span, "orValue")),
            },
            Node::Fail { missing: true, problem, span } => Err(Failure::missing(*span, problem)),
            Node::Fail { missing: false, problem, span } => Err(Failure::value(*span, problem.clone())),
        }
    }

    fn path(&mut self, root: Root, steps: &'v [(ByteString, Span)]) -> Outcome<Val<'v>> {
        if let Some(value) = self.follow_path(root, steps) {
            return Ok(value);
        }
        let mut value = match root {
            Root::Input(slot, span) => self.input(slot, span)?,
            Root::Local(slot) => self.local(slot)?,
        };
        for (name, span) in steps {
            value = match value {
                Val::Map(map) => map.field(name).ok_or_else(|| Failure::missing(*span, name))?,
                Val::Optional(_) => {
                    self.charge_bytes(*span, OPTIONAL_LEN)?;
                    optional_field(value, name, *span)?
                }
                other => return Err(no_field(&other, name, *span)),
            };
        }
        Ok(value)
    }

    fn list(&mut self, elements: &'v [(Node, bool)], span: Span) -> Outcome<Val<'v>> {
        self.charge_work(span, 1 + elements.len() as u64)?;
        self.charge_bytes(span, List::copy_len(elements.len()))?;
        let mut result = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            match (self.evaluate(element)?, optional) {
                (value, false) => result.push(value),
                (Val::Optional(Some(value)), true) => result.push((*value).clone()),
                (Val::Optional(None), true) => {}
                (_, true) => return Err(no_overload(span, "[?]")),
            }
        }
        Ok(Val::list(result))
    }

    fn bind_value(&mut self, parts: &'v [Node; 2], slot: usize) -> Outcome<Val<'v>> {
        match self.evaluate(&parts[0]) {
            Ok(value) => self.set(slot, value),
            Err(failure) if failure.is_final() => return Err(failure),
            Err(failure) => {
                self.set(slot, Val::Null);
                self.failed.push((slot, failure));
                let value = self.evaluate(&parts[1]);
                self.failed.pop();
                return value;
            }
        }
        self.evaluate(&parts[1])
    }

    /// Follows a path through records of the message without creating a value per step.
    #[inline]
    fn follow_path(&self, root: Root, steps: &[(ByteString, Span)]) -> Option<Val<'v>> {
        let start = match root {
            Root::Input(slot, _) => self.inputs.get(slot)?.as_ref()?,
            Root::Local(slot) => self.locals.get(slot)?,
        };
        let Val::Map(Map::Data(record, xml)) = start else { return None };
        let (mut record, xml): (&'v Record, bool) = (record, *xml);
        let ((last, _), before) = steps.split_last()?;
        for (name, _) in before {
            match record.get(name) {
                Some(Value::Record(inner)) => record = inner,
                _ => return None,
            }
        }
        record.get(last).map(|value| Val::data(value, xml))
    }

    fn call(&self, function: &Function, span: Span) -> Call<'_> {
        Call { span, name: function.name, budget: self.budget, host: self.host, time: &self.time }
    }

    fn concat(&mut self, parts: &'v [Node], span: Span) -> Outcome<Val<'v>> {
        if parts.len() <= FEW {
            let mut few = [const { Val::Null }; FEW];
            for (slot, part) in few.iter_mut().zip(parts) {
                *slot = self.evaluate(part)?;
            }
            return self.concat_values(&few[..parts.len()], span);
        }
        let many = parts.iter().map(|part| self.evaluate(part)).collect::<Result<Vec<_>, _>>()?;
        self.concat_values(&many, span)
    }

    fn concat_values(&self, parts: &[Val<'v>], span: Span) -> Outcome<Val<'v>> {
        let mut len = 0;
        for part in parts {
            let Val::Text(text) = part else { return Err(no_overload(span, "+")) };
            len += text.len();
        }
        self.charge_bytes(span, len)?;
        within_budget(span, self.budget.charge_scan(len))?;
        let mut joined = String::with_capacity(len);
        for part in parts {
            if let Val::Text(text) = part {
                joined.push_str(text);
            }
        }
        Ok(Val::text(joined))
    }

    #[inline]
    fn local(&self, slot: usize) -> Outcome<Val<'v>> {
        if let Some((_, failure)) = self.failed.iter().find(|(failed, _)| *failed == slot) {
            return Err(failure.clone());
        }
        Ok(self.locals.get(slot).cloned().unwrap_or(Val::Null))
    }

    fn set(&mut self, slot: usize, value: Val<'v>) {
        if let Some(local) = self.locals.get_mut(slot) {
            *local = value;
        }
    }

    fn field(&mut self, operand: &'v Node, name: &'v str, span: Span, optional: bool) -> Outcome<Val<'v>> {
        let value = self.evaluate(operand)?;
        match value {
            Val::Optional(_) => {
                self.charge_bytes(span, OPTIONAL_LEN)?;
                optional_field(value, name, span)
            }
            Val::Map(map) if optional => {
                self.charge_bytes(span, OPTIONAL_LEN)?;
                Ok(Val::Optional(map.field(name).filter(|_| map.has(name)).map(Rc::new)))
            }
            Val::Map(map) => map.field(name).ok_or_else(|| Failure::missing(span, name)),
            other => Err(no_field(&other, name, span)),
        }
    }

    fn has(&mut self, operand: &'v Node, name: &'v str, span: Span) -> Outcome<Val<'v>> {
        match self.evaluate(operand)? {
            Val::Map(map) => Ok(Val::Bool(map.has(name))),
            Val::Optional(None) => Ok(Val::Bool(false)),
            Val::Optional(Some(inner)) => match &*inner {
                Val::Map(map) => Ok(Val::Bool(map.has(name))),
                other => Err(no_field(other, name, span)),
            },
            other => Err(no_field(&other, name, span)),
        }
    }

    fn index(&mut self, parts: &'v [Node; 2], span: Span, optional: bool) -> Outcome<Val<'v>> {
        let operand = self.evaluate(&parts[0])?;
        let key = self.evaluate(&parts[1])?;
        let (operand, chained) = match operand {
            Val::Optional(None) => return Ok(Val::Optional(None)),
            Val::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match (&operand, &key) {
            (Val::List(list), key) => match Key::from_val(key) {
                Some(Key::Integer(at)) => usize::try_from(at).ok().and_then(|at| list.get(at)),
                _ => return Err(no_overload(span, "[]")),
            },
            (Val::Map(_), Val::List(_) | Val::Map(_) | Val::Bytes(_) | Val::Null) => {
                return Err(no_overload(span, "[]"));
            }
            (Val::Map(map), Val::Text(name)) if optional || chained => map.field(name).filter(|_| map.has(name)),
            // A literal name is looked up like `.name`.
            (Val::Map(map), Val::Text(name)) if !optional && matches!(parts[1], Node::Literal(_)) => map.field(name),
            (Val::Map(map), key) => {
                within_budget(span, self.budget.charge_scan(key.scan_len()))?;
                map.get(key)
            }
            _ => return Err(no_overload(span, "[]")),
        };
        if optional || chained {
            self.charge_bytes(span, OPTIONAL_LEN)?;
            return Ok(Val::Optional(found.map(Rc::new)));
        }
        found.ok_or_else(|| match (&operand, &parts[1]) {
            (Val::List(_), _) => Failure::value(span, "a list index is out of range"),
            (_, Node::Literal(Literal::Text(name))) => Failure::missing(span, name),
            _ => Failure::value(span, "a map key is missing"),
        })
    }

    /// `&&` and `||`: a deciding operand absorbs failures of the others ("CEL language definition", Logical Operators).
    fn junction(&mut self, operands: &'v [Node], decides: bool, span: Span) -> Outcome<Val<'v>> {
        let mut failure = None;
        for operand in operands {
            match self.evaluate(operand) {
                Ok(Val::Bool(truth)) if truth == decides => return Ok(Val::Bool(decides)),
                Ok(Val::Bool(_)) => {}
                Ok(_) => drop(failure.get_or_insert_with(|| no_overload(span, if decides { "||" } else { "&&" }))),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        failure.map_or(Ok(Val::Bool(!decides)), Err)
    }

    fn order(
        &mut self,
        operator: BinaryOp,
        parts: &'v [Node; 2],
        written: &'v Written,
        span: Span,
    ) -> Outcome<Val<'v>> {
        let (left, right) = (self.evaluate(&parts[0])?, self.evaluate(&parts[1])?);
        if let (Val::Int(left), Val::Int(right)) = (&left, &right) {
            return Ok(Val::Bool(satisfies(operator, left.cmp(right))));
        }
        let (left, right) = if written.is_some() { as_written(left, right, written) } else { (left, right) };
        let order = within_budget(span, compare_within(&left, &right, self.budget))?;
        let Some(order) = order else { return Err(no_overload(span, operator.symbol())) };
        // NaN is neither less nor greater.
        let Some(order) = order else { return Ok(Val::Bool(false)) };
        Ok(Val::Bool(satisfies(operator, order)))
    }

    fn contains(&mut self, parts: &'v [Node; 2], written: &'v Written, span: Span) -> Outcome<Val<'v>> {
        let wanted = self.evaluate(&parts[0])?;
        match self.evaluate(&parts[1])? {
            Val::List(list) => {
                let is_exact = matches!(wanted, Val::Decimal(_) | Val::Int(_) | Val::UInt(_));
                for (at, item) in list.iter().enumerate() {
                    self.charge_work(span, 1)?;
                    let item = match written.as_deref().filter(|_| is_exact).and_then(|written| written.get(at)) {
                        Some(Some(written)) => Val::Decimal(Dec::Written(written)),
                        _ => item,
                    };
                    if within_budget(span, equal(&item, &wanted, self.budget))? {
                        return Ok(Val::Bool(true));
                    }
                }
                Ok(Val::Bool(false))
            }
            Val::Map(map) => {
                within_budget(span, self.budget.charge_scan(wanted.scan_len()))?;
                Ok(Val::Bool(map.get(&wanted).is_some()))
            }
            _ => Err(no_overload(span, "in")),
        }
    }

    fn map(&mut self, entries: &'v [(Node, Node, bool)], span: Span) -> Outcome<Val<'v>> {
        self.charge_work(span, 1 + entries.len() as u64)?;
        self.charge_bytes(span, OwnedMap::memory_len(entries.len()))?;
        let mut result = OwnedMap::with_capacity(entries.len());
        for (key, value, optional) in entries {
            let key = self.evaluate(key)?;
            let value = match (self.evaluate(value)?, optional) {
                (value, false) => value,
                (Val::Optional(Some(value)), true) => (*value).clone(),
                (Val::Optional(None), true) => continue,
                (_, true) => return Err(no_overload(span, "{?}")),
            };
            within_budget(span, self.budget.charge_scan(key.scan_len()))?;
            result.insert(key, value).map_err(|problem| fold::insert_failure(problem, span))?;
        }
        Ok(Val::Map(Map::Owned(Rc::new(result))))
    }
}

fn within_budget<T>(span: Span, result: Result<T, Exhausted>) -> Outcome<T> {
    result.map_err(|cause| Failure::exhausted(span, cause))
}

/// A field of an optional's value, as an optional.
fn optional_field<'v>(value: Val<'v>, name: &str, span: Span) -> Outcome<Val<'v>> {
    match value {
        Val::Optional(None) => Ok(Val::Optional(None)),
        Val::Optional(Some(inner)) => match &*inner {
            Val::Map(map) => Ok(Val::Optional(map.field(name).filter(|_| map.has(name)).map(Rc::new))),
            other => Err(no_field(other, name, span)),
        },
        other => Err(no_field(&other, name, span)),
    }
}

/// Next to a decimal or an integer, a double literal has exactly the value written in the source.
fn as_written<'v>(left: Val<'v>, right: Val<'v>, written: &'v Written) -> (Val<'v>, Val<'v>) {
    let Some(written) = written.as_deref() else { return (left, right) };
    let one = |value: &Val<'v>, beside: &Val<'v>, at: usize| match (value, beside) {
        (Val::Double(_), Val::Decimal(_) | Val::Int(_) | Val::UInt(_)) => {
            written.get(at)?.as_ref().map(|written| Val::Decimal(Dec::Written(written)))
        }
        _ => None,
    };
    match (one(&left, &right, 0), one(&right, &left, 1)) {
        (Some(left), _) => (left, right),
        (None, Some(right)) => (left, right),
        (None, None) => (left, right),
    }
}

fn satisfies(operator: BinaryOp, order: Ordering) -> bool {
    match operator {
        BinaryOp::Less => order.is_lt(),
        BinaryOp::LessEqual => order.is_le(),
        BinaryOp::Greater => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn literal_value(literal: &Literal) -> Val<'_> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(truth) => Val::Bool(*truth),
        Literal::Int(number) => Val::Int(*number),
        Literal::UInt(number) => Val::UInt(*number),
        Literal::Double(number, _) => Val::Double(*number),
        Literal::Text(text) => Val::Text(Cow::Borrowed(text)),
        Literal::Bytes(bytes) => Val::Bytes(Cow::Borrowed(bytes)),
    }
}

#[cold]
fn no_overload(span: Span, operator: &str) -> Box<Failure> {
    Failure::value(span, format!("`{operator}` does not accept operands of these types"))
}

#[cold]
fn no_field(value: &Val<'_>, name: &str, span: Span) -> Box<Failure> {
    match value {
        // A field of null is missing, like a field of a missing record.
        Val::Null => Failure::missing(span, name),
        other => Failure::value(span, format!("{} has no field `{name}`", other.kind())),
    }
}
