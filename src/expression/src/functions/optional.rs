//! Optionals.

use std::rc::Rc;

use super::{Function, take};
use crate::value::Val;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "optional.of",
        group: "Optionals",
        signatures: &["(A) -> optional(A)"],
        meaning: "An optional with that value.",
        cost: "1",
        examples: &[("optional.of(1).orValue(2)", "1")],
        run: |call, arguments| {
            call.make_optional()?;
            Ok(Val::some(take(arguments, 0)))
        },
    },
    Function {
        name: "optional.none",
        group: "Optionals",
        signatures: &["() -> optional(A)"],
        meaning: "An optional without a value.",
        cost: "1",
        examples: &[("optional.none().orValue(2)", "2")],
        run: |_, _| Ok(Val::Optional(None)),
    },
    Function {
        name: "optional.ofNonZeroValue",
        group: "Optionals",
        signatures: &["(A) -> optional(A)"],
        meaning: "An optional with that value, or without one where it is zero, empty, false or null.",
        cost: "1",
        examples: &[("optional.ofNonZeroValue('').hasValue()", "false")],
        run: |call, arguments| {
            call.make_optional()?;
            let value = take(arguments, 0);
            Ok(if value.is_zero() { Val::Optional(None) } else { Val::some(value) })
        },
    },
    Function {
        name: "hasValue",
        group: "Optionals",
        signatures: &["optional(A).hasValue() -> bool"],
        meaning: "Whether it has a value.",
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
        meaning: "Its value; fails where it has none. `x.orValue(y)` is `y` there, and `x.or(y)` the optional `y`.",
        cost: "1",
        examples: &[("optional.of(1).value()", "1"), ("{'a': 1}.?b.or(optional.of(2)).value()", "2")],
        run: |call, arguments| match take(arguments, 0) {
            Val::Optional(Some(inner)) => Ok((*inner).clone()),
            Val::Optional(None) => Err(call.fail("the optional has no value")),
            _ => call.no_overload(),
        },
    },
    Function {
        name: "optional.unwrap",
        group: "Optionals",
        signatures: &["(list(optional(A))) -> list(A)"],
        meaning: "The values of those that have one.",
        cost: "the length of the list",
        examples: &[("optional.unwrap([optional.of(1), optional.none()])", "[1]")],
        run: unwrap,
    },
    Function {
        name: "unwrapOpt",
        group: "Optionals",
        signatures: &["list(optional(A)).unwrapOpt() -> list(A)"],
        meaning: "The values of those that have one.",
        cost: "the length of the list",
        examples: &[("[optional.of(1), optional.none()].unwrapOpt()", "[1]")],
        run: unwrap,
    },
    Function {
        name: "first",
        group: "Optionals",
        signatures: &["list(A).first() -> optional(A)"],
        meaning: "The first element, where there is one.",
        cost: "1",
        examples: &[("[1, 2].first().value()", "1")],
        run: |call, arguments| match take(arguments, 0) {
            Val::List(list) => {
                call.make_optional()?;
                Ok(Val::Optional(list.get(0).map(Rc::new)))
            }
            _ => call.no_overload(),
        },
    },
    Function {
        name: "last",
        group: "Optionals",
        signatures: &["list(A).last() -> optional(A)"],
        meaning: "The last element, where there is one.",
        cost: "1",
        examples: &[("[1, 2].last().value()", "2")],
        run: |call, arguments| match take(arguments, 0) {
            Val::List(list) => {
                call.make_optional()?;
                Ok(Val::Optional(list.len().checked_sub(1).and_then(|at| list.get(at)).map(Rc::new)))
            }
            _ => call.no_overload(),
        },
    },
];

fn unwrap<'v>(call: &super::Call<'_>, arguments: &mut [Val<'v>]) -> crate::failure::Outcome<Val<'v>> {
    let list = super::list_at(call, arguments, 0)?;
    call.make_list(list.len())?;
    let mut made = Vec::with_capacity(list.len());
    for item in list.iter() {
        match item {
            Val::Optional(Some(inner)) => made.push((*inner).clone()),
            Val::Optional(None) => {}
            _ => return call.no_overload(),
        }
    }
    Ok(Val::list(made))
}
