//! Optionals.

use std::rc::Rc;

use super::{Function, take};
use crate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "optional.of",
        group: "Optionals",
        signatures: &["(A) -> optional(A)"],
        description: "An optional with the value.",
        cost: "1",
        examples: &[("optional.of(1).orValue(2)", "1")],
        run: |call, arguments| {
            call.charge_optional()?;
            Ok(Val::some(take(arguments, 0)))
        },
    },
    Function {
        name: "optional.none",
        group: "Optionals",
        signatures: &["() -> optional(A)"],
        description: "An empty optional.",
        cost: "1",
        examples: &[("optional.none().orValue(2)", "2")],
        run: |_, _| Ok(Val::Optional(None)),
    },
    Function {
        name: "optional.ofNonZeroValue",
        group: "Optionals",
        signatures: &["(A) -> optional(A)"],
        description: "An optional with the value, or an empty one if the value is zero, empty, false or null.",
        cost: "1",
        examples: &[("optional.ofNonZeroValue('').hasValue()", "false")],
        run: |call, arguments| {
            call.charge_optional()?;
            let value = take(arguments, 0);
            Ok(if value.is_zero() { Val::Optional(None) } else { Val::some(value) })
        },
    },
    Function {
        name: "hasValue",
        group: "Optionals",
        signatures: &["optional(A).hasValue() -> bool"],
        description: "Whether the optional has a value.",
        cost: "1",
        examples: &[("optional.of(1).hasValue()", "true")],
        run: |call, arguments| match take(arguments, 0) {
            Val::Optional(inner) => Ok(Val::Bool(inner.is_some())),
            _ => call.no_overload(),
        },
    },
    Function {
        name: "value",
        group: "Optionals",
        signatures: &["optional(A).value() -> A"],
        description: "The value; fails if there is none. `x.orValue(y)` returns `y` instead, and `x.or(y)` the optional `y`.",
        cost: "1",
        examples: &[("optional.of(1).value()", "1"), ("{'a': 1}.?b.or(optional.of(2)).value()", "2")],
        run: |call, arguments| match take(arguments, 0) {
            Val::Optional(Some(inner)) => Ok((*inner).clone()),
            Val::Optional(None) => Err(call.fail("the optional is empty")),
            _ => call.no_overload(),
        },
    },
    Function {
        name: "optional.unwrap",
        group: "Optionals",
        signatures: &["(list(optional(A))) -> list(A)"],
        description: "The values of the non-empty optionals.",
        cost: "the length of the list",
        examples: &[("optional.unwrap([optional.of(1), optional.none()])", "[1]")],
        run: unwrap,
    },
    Function {
        name: "unwrapOpt",
        group: "Optionals",
        signatures: &["list(optional(A)).unwrapOpt() -> list(A)"],
        description: "The values of the non-empty optionals.",
        cost: "the length of the list",
        examples: &[("[optional.of(1), optional.none()].unwrapOpt()", "[1]")],
        run: unwrap,
    },
    Function {
        name: "first",
        group: "Optionals",
        signatures: &["list(A).first() -> optional(A)"],
        description: "The first element, if any.",
        cost: "1",
        examples: &[("[1, 2].first().value()", "1")],
        run: |call, arguments| match take(arguments, 0) {
            Val::List(list) => {
                call.charge_optional()?;
                Ok(Val::Optional(list.get(0).map(Rc::new)))
            }
            _ => call.no_overload(),
        },
    },
    Function {
        name: "last",
        group: "Optionals",
        signatures: &["list(A).last() -> optional(A)"],
        description: "The last element, if any.",
        cost: "1",
        examples: &[("[1, 2].last().value()", "2")],
        run: |call, arguments| match take(arguments, 0) {
            Val::List(list) => {
                call.charge_optional()?;
                Ok(Val::Optional(list.len().checked_sub(1).and_then(|at| list.get(at)).map(Rc::new)))
            }
            _ => call.no_overload(),
        },
    },
];

fn unwrap<'v>(call: &super::Call<'_>, arguments: &mut [Val<'v>]) -> crate::failure::Outcome<Val<'v>> {
    let list = super::list_at(call, arguments, 0)?;
    call.charge_list(list.len())?;
    let mut result = Vec::with_capacity(list.len());
    for item in list.iter() {
        match item {
            Val::Optional(Some(inner)) => result.push((*inner).clone()),
            Val::Optional(None) => {}
            _ => return call.no_overload(),
        }
    }
    Ok(Val::list(result))
}
