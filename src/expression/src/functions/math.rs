//! Numbers (CEL extension `math`).

use std::cmp::Ordering;

use super::{Call, Function, int_at, take};
use crate::failure::Outcome;
use crate::number::Dec;
use crate::value::Val;

macro_rules! function {
    ($name:literal, $signatures:expr, $description:literal, $example:literal => $value:literal, $run:expr) => {
        Function {
            name: $name,
            group: "Numbers",
            signatures: $signatures,
            description: $description,
            cost: "1",
            examples: &[($example, $value)],
            run: $run,
        }
    };
}

const SAME: &[&str] = &["(int) -> int", "(uint) -> uint", "(double) -> double", "(decimal) -> decimal"];
const ROUNDED: &[&str] = &["(double) -> double", "(decimal) -> decimal"];
const PREDICATE: &[&str] = &["(double) -> bool"];
const BITS: &[&str] = &["(int, int) -> int", "(uint, uint) -> uint"];
const SHIFTS: &[&str] = &["(int, int) -> int", "(uint, int) -> uint"];

pub(super) const FUNCTIONS: &[Function] = &[
    function!("math.greatest", &["(list(A)) -> A", "(A...) -> A", "(dyn...) -> dyn"], "The largest number.", "math.greatest(1, 3, 2)" => "3", |call, arguments| extreme(call, arguments, Ordering::Greater)),
    function!("math.least", &["(list(A)) -> A", "(A...) -> A", "(dyn...) -> dyn"], "The smallest number.", "math.least(2, 1)" => "1", |call, arguments| extreme(call, arguments, Ordering::Less)),
    function!("math.abs", SAME, "The absolute value.", "math.abs(-3)" => "3", absolute),
    function!("math.sign", SAME, "The sign: -1, 0 or 1.", "math.sign(-3)" => "-1", sign),
    function!("math.ceil", ROUNDED, "The number, rounded up to an integer.", "math.ceil(1.2)" => "2.0", |call, arguments| rounded(call, arguments, Rounding::Up)),
    function!("math.floor", ROUNDED, "The number, rounded down to an integer.", "math.floor(1.8)" => "1.0", |call, arguments| rounded(call, arguments, Rounding::Down)),
    function!("math.round", ROUNDED, "The number, rounded to the nearest integer, half away from zero.", "math.round(1.5)" => "2.0", |call, arguments| rounded(call, arguments, Rounding::Nearest)),
    function!("math.trunc", ROUNDED, "The number, rounded toward zero to an integer.", "math.trunc(-1.8)" => "-1.0", |call, arguments| rounded(call, arguments, Rounding::Truncate)),
    function!("math.sqrt", &["(int) -> double", "(uint) -> double", "(double) -> double"], "The square root, as a double.", "math.sqrt(49)" => "7.0", root),
    function!("math.isInf", PREDICATE, "Whether the number is infinite.", "math.isInf(1.0 / 0.0)" => "true", |call, arguments| predicate(call, arguments, f64::is_infinite)),
    function!("math.isNaN", PREDICATE, "Whether the value is NaN.", "math.isNaN(0.0 / 0.0)" => "true", |call, arguments| predicate(call, arguments, f64::is_nan)),
    function!("math.isFinite", PREDICATE, "Whether the number is finite.", "math.isFinite(1.0)" => "true", |call, arguments| predicate(call, arguments, f64::is_finite)),
    function!("math.bitAnd", BITS, "The bitwise AND.", "math.bitAnd(6, 3)" => "2", |call, arguments| bitwise(call, arguments, |left, right| left & right)),
    function!("math.bitOr", BITS, "The bitwise OR.", "math.bitOr(4, 3)" => "7", |call, arguments| bitwise(call, arguments, |left, right| left | right)),
    function!("math.bitXor", BITS, "The bitwise XOR.", "math.bitXor(6, 3)" => "5", |call, arguments| bitwise(call, arguments, |left, right| left ^ right)),
    function!("math.bitNot", &["(int) -> int", "(uint) -> uint"], "The bitwise complement.", "math.bitNot(1)" => "-2", |call, arguments| match take(arguments, 0) {
        Val::Int(number) => Ok(Val::Int(!number)),
        Val::UInt(number) => Ok(Val::UInt(!number)),
        _ => call.no_overload(),
    }),
    function!("math.bitShiftLeft", SHIFTS, "The bits, shifted left.", "math.bitShiftLeft(1, 4)" => "16", |call, arguments| shifted(call, arguments, u64::checked_shl)),
    function!("math.bitShiftRight", SHIFTS, "The bits, shifted right and filled with zeros.", "math.bitShiftRight(16, 4)" => "1", |call, arguments| shifted(call, arguments, u64::checked_shr)),
];

fn is_number(value: &Val<'_>) -> bool {
    matches!(value, Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Decimal(_))
}

fn extreme<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], wanted: Ordering) -> Outcome<Val<'v>> {
    let of_list: Vec<Val<'v>>;
    let values: &[Val<'v>] = match arguments {
        [Val::List(list)] => {
            call.charge_list(list.len())?;
            of_list = list.iter().collect();
            &of_list
        }
        other => other,
    };
    let Some(first) = values.first() else { return Err(call.fail("the list is empty")) };
    if !values.iter().all(is_number) {
        return call.no_overload();
    }
    let mut found = first;
    for value in &values[1..] {
        if call.order(value, found)? == wanted {
            found = value;
        }
    }
    Ok(found.clone())
}

fn absolute<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Int(number) => number.checked_abs().map(Val::Int).ok_or_else(|| call.fail("integer overflow")),
        value @ Val::UInt(_) => Ok(value),
        Val::Double(number) => Ok(Val::Double(number.abs())),
        Val::Decimal(number) if number.compare(&Dec::from_integer(0)).is_lt() => {
            number.negate().map(Val::Decimal).map_err(|problem| call.arithmetic_failure(problem))
        }
        value @ Val::Decimal(_) => Ok(value),
        _ => call.no_overload(),
    }
}

fn sign<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Int(number) => Ok(Val::Int(number.signum())),
        Val::UInt(number) => Ok(Val::UInt(number.min(1))),
        Val::Double(number) if number.is_nan() => Ok(Val::Double(number)),
        Val::Double(0.0) => Ok(Val::Double(0.0)),
        Val::Double(number) => Ok(Val::Double(number.signum())),
        Val::Decimal(number) => Ok(Val::Decimal(Dec::from_integer(match number.compare(&Dec::from_integer(0)) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }))),
        _ => call.no_overload(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    Up,
    Down,
    Nearest,
    Truncate,
}

fn rounded<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], rounding: Rounding) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Double(number) => Ok(Val::Double(match rounding {
            Rounding::Up => number.ceil(),
            Rounding::Down => number.floor(),
            Rounding::Nearest => number.round(),
            Rounding::Truncate => number.trunc(),
        })),
        // The data may say 5 or 5.0.
        value @ (Val::Int(_) | Val::UInt(_)) => Ok(value),
        Val::Decimal(number) => decimal_rounded(&number, rounding)
            .map(Val::Decimal)
            .ok_or_else(|| call.fail("the number has too many digits")),
        _ => call.no_overload(),
    }
}

fn decimal_rounded<'v>(number: &Dec<'v>, rounding: Rounding) -> Option<Dec<'v>> {
    let is_negative = number.compare(&Dec::from_integer(0)).is_lt();
    let half = match (rounding, is_negative) {
        (Rounding::Nearest, false) => Dec::parse("0.5")?,
        (Rounding::Nearest, true) => Dec::parse("-0.5")?,
        _ => Dec::from_integer(0),
    };
    let shifted = number.add(&half).ok()?;
    let cut = Dec::from_integer(shifted.truncated()?);
    let step = match rounding {
        Rounding::Up if cut.compare(number).is_lt() => 1,
        Rounding::Down if cut.compare(number).is_gt() => -1,
        _ => return Some(cut),
    };
    cut.add(&Dec::from_integer(step)).ok()
}

#[expect(clippy::cast_precision_loss, reason = "the result is a double")]
fn root<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let number = match take(arguments, 0) {
        Val::Int(number) => number as f64,
        Val::UInt(number) => number as f64,
        Val::Double(number) => number,
        _ => return call.no_overload(),
    };
    Ok(Val::Double(number.sqrt()))
}

fn predicate<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], test: fn(f64) -> bool) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Double(number) => Ok(Val::Bool(test(number))),
        _ => call.no_overload(),
    }
}

fn bitwise<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], combine: fn(u64, u64) -> u64) -> Outcome<Val<'v>> {
    match (take(arguments, 0), take(arguments, 1)) {
        (Val::Int(left), Val::Int(right)) => {
            Ok(Val::Int(combine(left.cast_unsigned(), right.cast_unsigned()).cast_signed()))
        }
        (Val::UInt(left), Val::UInt(right)) => Ok(Val::UInt(combine(left, right))),
        _ => call.no_overload(),
    }
}

fn shifted<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], shift: fn(u64, u32) -> Option<u64>) -> Outcome<Val<'v>> {
    let by = int_at(call, arguments, 1)?;
    if by < 0 {
        return Err(call.fail("the shift must not be negative"));
    }
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    match take(arguments, 0) {
        Val::Int(number) => Ok(Val::Int(shift(number.cast_unsigned(), by).unwrap_or(0).cast_signed())),
        Val::UInt(number) => Ok(Val::UInt(shift(number, by).unwrap_or(0))),
        _ => call.no_overload(),
    }
}
