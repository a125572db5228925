//! The `cel` crate alone: values are converted once, and only the evaluation is measured.

use std::collections::HashMap;
use std::sync::Arc;

use cel::common::types::{CelDouble, CelList};
use cel::common::value::CowVal;
use cel::objects::{Key, Map};
use cel::parser::Parser;
use cel::{Context, ExecutionError, FunctionContext};
use crossdock_message::Value;

use super::{Measured, Workload, before};

pub(super) fn run(workload: &Workload) -> Measured {
    let tree = Parser::default().parse(&workload.source).expect("an expression");
    let mut context = Context::default();
    let of_list: Function = Box::new(sum);
    context.add_function("sum", of_list).expect("the name is free");
    let doubles = workload.source.starts_with("sum(");
    context.add_variable_from_value("req", to_cel(&workload.message, doubles));
    let nanoseconds = workload.measure(|| cel::Value::resolve_val(&tree, &context).expect("a result"));
    let result = cel::Value::resolve_val(&tree, &context).expect("a result");
    Some((nanoseconds, before::to_value(&*result).expect("a value of messages")))
}

/// Converts a value for the crate. With `doubles`, all numbers are doubles, because it has no decimals and does not mix number types.
fn to_cel(value: &Value, doubles: bool) -> cel::Value {
    match value {
        Value::Bool(truth) => cel::Value::Bool(*truth),
        Value::Int(number) if !doubles => cel::Value::Int(*number),
        Value::Int(number) => cel::Value::Float(*number as f64),
        Value::Decimal(number) => cel::Value::Float(number.to_f64_lossy()),
        Value::Text(text) => cel::Value::String(Arc::new(text.to_string())),
        Value::List(items) => cel::Value::List(Arc::new(items.iter().map(|item| to_cel(item, doubles)).collect())),
        Value::Record(record) => {
            let field = |(name, value): (&_, &Value)| {
                let name: &crossdock_message::ByteString = name;
                (Key::String(Arc::new(name.to_string())), to_cel(value, doubles))
            };
            cel::Value::Map(Map { map: Arc::new(record.iter().map(field).collect::<HashMap<_, _>>()) })
        }
        other => panic!("no workload uses {}", other.kind()),
    }
}

type Function =
    Box<dyn for<'c, 'k> Fn(&mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> + Send + Sync>;

/// Adds doubles, which the crate does not support itself.
fn sum<'c, 'k>(call: &mut FunctionContext<'c, 'k>) -> Result<CowVal<'c, 'k>, ExecutionError> {
    let total = match call.args.first().and_then(|list| list.downcast_ref::<CelList<'_>>()) {
        Some(list) => {
            list.inner().iter().map(|item| item.downcast_ref::<CelDouble>().map(|number| *number.inner())).sum()
        }
        None => None,
    };
    let total: f64 = total.ok_or_else(|| call.error("sum requires a list of doubles"))?;
    Ok(CowVal::owned(CelDouble::from(total)))
}
