//! Functions beyond CEL's own: `text`, `attr`, `decimal`, and the string functions of CEL's extension.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use cel::common::ast::operators;
use cel::common::types::{CelBool, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, Env, ExecutionError, FunctionContext};
use crossdock_message::Decimal;

use super::values::{CelDecimal, CelItems, CelRecord, CelValue, contains, equal, order, to_value};

/// Names that may be called. CEL itself only finds an unknown one when it is evaluated.
pub(super) const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "string",
    "int",
    "uint",
    "double",
    "bytes",
    "bool",
    "type",
    "dyn",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "reverse",
    "text",
    "attr",
    "decimal",
];

/// The language: CEL's standard library and macros, with ours.
pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    let added = environment.add_extension(cel::extensions::strings);
    debug_assert!(added.is_ok(), "the names of the extension are free");
    Arc::new(environment)
});

type Function =
    Box<dyn for<'c, 'k> Fn(&mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> + Send + Sync>;

/// Functions that all evaluations share.
pub(super) static ROOT: LazyLock<Context<'static, 'static>> = LazyLock::new(|| {
    let mut root = Context::with_env(Arc::clone(&ENVIRONMENT));
    let functions: [(&str, Function); 10] = [
        ("text", Box::new(text_of)),
        ("attr", Box::new(attribute_of)),
        ("decimal", Box::new(decimal_of)),
        ("@equal", Box::new(|call| compare(call, |left, right| Some(equal(left, right))))),
        ("@differ", Box::new(|call| compare(call, |left, right| Some(!equal(left, right))))),
        ("@less", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_lt)))),
        ("@at_most", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_le)))),
        ("@more", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_gt)))),
        ("@at_least", Box::new(|call| compare(call, |left, right| order(left, right).map(Ordering::is_ge)))),
        ("@holds", Box::new(|call| compare(call, |left, right| contains(right, left)))),
    ];
    for (name, function) in functions {
        let added = root.add_function(name, function);
        debug_assert!(added.is_ok(), "`{name}` is free");
    }
    root
});

/// The functions of ours that stand for operators of CEL, whose own look at the left side only and know no decimals.
pub(super) fn comparison(operator: &str) -> Option<&'static str> {
    Some(match operator {
        operators::EQUALS => "@equal",
        operators::NOT_EQUALS => "@differ",
        operators::LESS => "@less",
        operators::LESS_EQUALS => "@at_most",
        operators::GREATER => "@more",
        operators::GREATER_EQUALS => "@at_least",
        operators::IN => "@holds",
        _ => return None,
    })
}

fn compare<'c, 'k>(
    call: &mut FunctionContext<'c, 'k>,
    holds: impl FnOnce(&dyn Val, &dyn Val) -> Option<bool>,
) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let result = holds(argument(call, 0)?, argument(call, 1)?);
    match result {
        Some(truth) => Ok(CowVal::owned(CelBool::from(truth))),
        None => Err(call.error("values of these kinds cannot be compared")),
    }
}

fn argument<'x>(call: &'x FunctionContext<'_, '_>, at: usize) -> Result<&'x (dyn Val + 'x), ExecutionError> {
    let at = match (&call.this, at) {
        (Some(this), 0) => return Ok(&**this),
        (Some(_), at) => at - 1,
        (None, at) => at,
    };
    call.args.get(at).map(|value| &**value as &dyn Val).ok_or_else(|| call.error("an argument is missing"))
}

/// `text(x)`: the text of a scalar, or of the one element that `x` is in the view of an XML document.
fn text_of<'c, 'k>(call: &mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let text = scalar_text(argument(call, 0)?).map_err(|problem| call.error(problem))?;
    Ok(CowVal::owned(CelString::from(text)))
}

fn scalar_text(value: &dyn Val) -> Result<String, &'static str> {
    if let Some(items) = value.downcast_ref::<CelItems>() {
        return items.only().map(CelValue::as_val).ok_or("there is not exactly one of it").and_then(scalar_text);
    }
    if let Some(record) = value.downcast_ref::<CelRecord>() {
        return record
            .find("$text")
            .map(CelValue::as_val)
            .ok_or("the element has no text of its own")
            .and_then(scalar_text);
    }
    let value = to_value(value).map_err(|_| "the value has no text")?;
    value.scalar_text().map(String::from).ok_or("the value has no text")
}

/// `attr(x, "name")`: an attribute of the one element that `x` is in the view of an XML document.
fn attribute_of<'c, 'k>(call: &mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let text = {
        let name = argument(call, 1)?.downcast_ref::<CelString<'_>>().map(|name| format!("@{}", name.inner()));
        let name = name.ok_or_else(|| call.error("the attribute's name has to be a text"))?;
        let element = argument(call, 0)?;
        let record = match element.downcast_ref::<CelItems>() {
            Some(items) => items.only().and_then(|item| item.as_val().downcast_ref::<CelRecord>()),
            None => element.downcast_ref::<CelRecord>(),
        };
        let record = record.ok_or_else(|| call.error("there is not exactly one such element"))?;
        let value = record.find(&name).ok_or_else(|| ExecutionError::no_such_key(&name))?;
        scalar_text(value.as_val()).map_err(|problem| call.error(problem))?
    };
    Ok(CowVal::owned(CelString::from(text)))
}

/// `decimal(x)`: a number with all its digits, from a text in the grammar of JSON numbers or from another number.
fn decimal_of<'c, 'k>(call: &mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let decimal = {
        let value = argument(call, 0)?;
        if value.downcast_ref::<CelBool>().is_some() {
            return Err(call.error("a boolean is no number"));
        }
        match CelDecimal::of_number(value) {
            Some(decimal) => decimal,
            None => {
                let text = scalar_text(value).map_err(|problem| call.error(problem))?;
                readable_decimal(text.trim()).ok_or_else(|| call.error("the text is not a decimal number"))?
            }
        }
    };
    Ok(CowVal::owned(CelDecimal(decimal)))
}

/// A decimal that a JSON reader within its limits takes back.
fn readable_decimal(text: &str) -> Option<Decimal> {
    let near = text.parse::<f64>().is_ok_and(f64::is_finite);
    (near && text.len() <= crossdock_message::Limits::default().number_len).then(|| Decimal::new(text).ok()).flatten()
}
