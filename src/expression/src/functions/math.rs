//! Numbers (CEL's extension `math`).

use std::cmp::Ordering;

use super::{Call, Function, int_at, take};
use crate::failure::Outcome;
use crate::number::Dec;
use crate::value::Val;

macro_rules! function {
    ($name:literal, $signatures:expr, $meaning:literal, $example:literal => $value:literal, $run:expr) => {
        Function {
            name: $name,
            group: "Numbers",
            signatures: $signatures,
            meaning: $meaning,
            cost: "1",
            examples: &[($example, $value)],
            run: $run,
        }
    };
}

const SAME: &[&str] = &["(int) -> int", "(uint) -> uint", "(double) -> double", "(decimal) -> decimal"];
const ROUNDED: &[&str] = &["(double) -> double", "(decimal) -> decimal"];
const ASKED: &[&str] = &["(double) -> bool"];
const BITS: &[&str] = &["(int, int) -> int", "(uint, uint) -> uint"];
const SHIFTS: &[&str] = &["(int, int) -> int", "(uint, int) -> uint"];

pub(super) const FUNCTIONS: &[Function] = &[
    function!("math.greatest", &["(list(A)) -> A", "(A...) -> A", "(dyn...) -> dyn"], "The greatest of the numbers.", "math.greatest(1, 3, 2)" => "3", |call, arguments| extreme(call, arguments, Ordering::Greater)),
    function!("math.least", &["(list(A)) -> A", "(A...) -> A", "(dyn...) -> dyn"], "The least of the numbers.", "math.least(2, 1)" => "1", |call, arguments| extreme(call, arguments, Ordering::Less)),
    function!("math.abs", SAME, "The number without its sign.", "math.abs(-3)" => "3", absolute),
    function!("math.sign", SAME, "-1, 0 or 1.", "math.sign(-3)" => "-1", sign),
    function!("math.ceil", ROUNDED, "The next whole number above.", "math.ceil(1.2)" => "2.0", |call, arguments| rounded(call, arguments, Rounding::Up)),
    function!("math.floor", ROUNDED, "The next whole number below.", "math.floor(1.8)" => "1.0", |call, arguments| rounded(call, arguments, Rounding::Down)),
    function!("math.round", ROUNDED, "The nearest whole number, half away from zero.", "math.round(1.5)" => "2.0", |call, arguments| rounded(call, arguments, Rounding::Nearest)),
    function!("math.trunc", ROUNDED, "The whole number without the fraction.", "math.trunc(-1.8)" => "-1.0", |call, arguments| rounded(call, arguments, Rounding::Cut)),
    function!("math.sqrt", &["(int) -> double", "(uint) -> double", "(double) -> double"], "The square root, as a double.", "math.sqrt(49)" => "7.0", root),
    function!("math.isInf", ASKED, "Whether it is infinite.", "math.isInf(1.0 / 0.0)" => "true", |call, arguments| asked(call, arguments, f64::is_infinite)),
    function!("math.isNaN", ASKED, "Whether it is no number.", "math.isNaN(0.0 / 0.0)" => "true", |call, arguments| asked(call, arguments, f64::is_nan)),
    function!("math.isFinite", ASKED, "Whether it is a finite number.", "math.isFinite(1.0)" => "true", |call, arguments| asked(call, arguments, f64::is_finite)),
    function!("math.bitAnd", BITS, "The bits that both have.", "math.bitAnd(6, 3)" => "2", |call, arguments| bits(call, arguments, |left, right| left & right)),
    function!("math.bitOr", BITS, "The bits that one of them has.", "math.bitOr(4, 3)" => "7", |call, arguments| bits(call, arguments, |left, right| left | right)),
    function!("math.bitXor", BITS, "The bits that exactly one of them has.", "math.bitXor(6, 3)" => "5", |call, arguments| bits(call, arguments, |left, right| left ^ right)),
    function!("math.bitNot", &["(int) -> int", "(uint) -> uint"], "The bits that it does not have.", "math.bitNot(1)" => "-2", |call, arguments| match take(arguments, 0) {
        Val::Int(number) => Ok(Val::Int(!number)),
        Val::UInt(number) => Ok(Val::UInt(!number)),
        _ => call.no_overload(),
    }),
    function!("math.bitShiftLeft", SHIFTS, "The bits so many places to the left.", "math.bitShiftLeft(1, 4)" => "16", |call, arguments| shifted(call, arguments, u64::checked_shl)),
    function!("math.bitShiftRight", SHIFTS, "The bits so many places to the right, with zeros from the left.", "math.bitShiftRight(16, 4)" => "1", |call, arguments| shifted(call, arguments, u64::checked_shr)),
];

fn is_number(value: &Val<'_>) -> bool {
    matches!(value, Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Decimal(_))
}

fn extreme<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], wanted: Ordering) -> Outcome<Val<'v>> {
    let of_list: Vec<Val<'v>>;
    let values: &[Val<'v>] = match arguments {
        [Val::List(list)] => {
            call.make_list(list.len())?;
            of_list = list.iter().collect();
            &of_list
        }
        other => other,
    };
    let Some(first) = values.first() else { return Err(call.fail("an empty list has none")) };
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
        Val::Int(number) => {
            number.checked_abs().map(Val::Int).ok_or_else(|| call.fail("the number does not fit in 64 bits"))
        }
        value @ Val::UInt(_) => Ok(value),
        Val::Double(number) => Ok(Val::Double(number.abs())),
        Val::Decimal(number) if number.compare(&Dec::whole(0)).is_lt() => {
            number.negate().map(Val::Decimal).map_err(|problem| call.no_result(problem))
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
        Val::Decimal(number) => Ok(Val::Decimal(Dec::whole(match number.compare(&Dec::whole(0)) {
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
    Cut,
}

fn rounded<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], rounding: Rounding) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Double(number) => Ok(Val::Double(match rounding {
            Rounding::Up => number.ceil(),
            Rounding::Down => number.floor(),
            Rounding::Nearest => number.round(),
            Rounding::Cut => number.trunc(),
        })),
        // Whether the data says 5 or 5.0.
        value @ (Val::Int(_) | Val::UInt(_)) => Ok(value),
        Val::Decimal(number) => decimal_rounded(&number, rounding)
            .map(Val::Decimal)
            .ok_or_else(|| call.fail("the number has too many digits")),
        _ => call.no_overload(),
    }
}

fn decimal_rounded<'v>(number: &Dec<'v>, rounding: Rounding) -> Option<Dec<'v>> {
    let is_negative = number.compare(&Dec::whole(0)).is_lt();
    let half = match (rounding, is_negative) {
        (Rounding::Nearest, false) => Dec::parse("0.5")?,
        (Rounding::Nearest, true) => Dec::parse("-0.5")?,
        _ => Dec::whole(0),
    };
    let shifted = number.add(&half).ok()?;
    let cut = Dec::whole(shifted.truncated()?);
    let step = match rounding {
        Rounding::Up if cut.compare(number).is_lt() => 1,
        Rounding::Down if cut.compare(number).is_gt() => -1,
        _ => return Some(cut),
    };
    cut.add(&Dec::whole(step)).ok()
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

fn asked<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], ask: fn(f64) -> bool) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        Val::Double(number) => Ok(Val::Bool(ask(number))),
        _ => call.no_overload(),
    }
}

fn bits<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], join: fn(u64, u64) -> u64) -> Outcome<Val<'v>> {
    match (take(arguments, 0), take(arguments, 1)) {
        (Val::Int(left), Val::Int(right)) => {
            Ok(Val::Int(join(left.cast_unsigned(), right.cast_unsigned()).cast_signed()))
        }
        (Val::UInt(left), Val::UInt(right)) => Ok(Val::UInt(join(left, right))),
        _ => call.no_overload(),
    }
}

fn shifted<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], shift: fn(u64, u32) -> Option<u64>) -> Outcome<Val<'v>> {
    let by = int_at(call, arguments, 1)?;
    if by < 0 {
        return Err(call.fail("the number of places is negative"));
    }
    let by = u32::try_from(by).unwrap_or(u32::MAX);
    match take(arguments, 0) {
        Val::Int(number) => Ok(Val::Int(shift(number.cast_unsigned(), by).unwrap_or(0).cast_signed())),
        Val::UInt(number) => Ok(Val::UInt(shift(number, by).unwrap_or(0))),
        _ => call.no_overload(),
    }
}
