//! Equality and order. Numbers of all types compare by their exact values.

use std::cmp::Ordering;

use super::{List, Map, Val};
use crate::budget::{BYTES_PER_UNIT, Budget, Exhausted};
use crate::number::Dec;
use crate::time::{nanos_of_duration, nanos_of_time};

/// Whether two values are equal. Values of different types are unequal, except numbers.
///
/// # Errors
/// [`Exhausted`] if the comparison exceeds the budget.
pub fn equal(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<bool, Exhausted> {
    Ok(match (left, right) {
        (Val::Text(left), Val::Text(right)) => {
            left.len() == right.len() && {
                scan(left.len(), budget)?;
                left == right
            }
        }
        (Val::Int(left), Val::Int(right)) => left == right,
        (Val::Bool(left), Val::Bool(right)) => left == right,
        (Val::Null, Val::Null) => true,
        (Val::Bytes(left), Val::Bytes(right)) => {
            budget.charge_scan(left.len().min(right.len()))?;
            left == right
        }
        (Val::Time(left), Val::Time(right)) => left == right,
        (Val::Duration(left), Val::Duration(right)) => left == right,
        (Val::Type(left), Val::Type(right)) => left == right,
        (Val::Optional(None), Val::Optional(None)) => true,
        (Val::Optional(Some(left)), Val::Optional(Some(right))) => equal(left, right, budget)?,
        (Val::List(left), Val::List(right)) => lists_equal(left, right, budget)?,
        (Val::Map(left), Val::Map(right)) => maps_equal(left, right, budget)?,
        _ => {
            scan_numbers(left, right, budget)?;
            compare_numbers(left, right).is_some_and(|order| order == Some(Ordering::Equal))
        }
    })
}

fn lists_equal(left: &List<'_>, right: &List<'_>, budget: &Budget) -> Result<bool, Exhausted> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right.iter()) {
        budget.charge_work(1)?;
        if !equal(&left, &right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(left: &Map<'_>, right: &Map<'_>, budget: &Budget) -> Result<bool, Exhausted> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (key, value) in left.entries() {
        budget.charge_work(1)?;
        match right.get(&key) {
            Some(other) if equal(&value, &other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two values; `None` if their types have no order, `Some(None)` if one is NaN.
#[must_use]
pub fn compare(left: &Val<'_>, right: &Val<'_>) -> Option<Option<Ordering>> {
    Some(Some(match (left, right) {
        (Val::Text(left), Val::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Val::Bytes(left), Val::Bytes(right)) => left.cmp(right),
        (Val::Bool(left), Val::Bool(right)) => left.cmp(right),
        (Val::Time(left), Val::Time(right)) => nanos_of_time(*left).cmp(&nanos_of_time(*right)),
        (Val::Duration(left), Val::Duration(right)) => nanos_of_duration(*left).cmp(&nanos_of_duration(*right)),
        _ => return compare_numbers(left, right),
    }))
}

/// As [`compare`], charged to a budget.
///
/// # Errors
/// [`Exhausted`] if the comparison exceeds the budget.
pub fn compare_within(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<Option<Option<Ordering>>, Exhausted> {
    match (left, right) {
        (Val::Text(_) | Val::Bytes(_), Val::Text(_) | Val::Bytes(_)) => {
            scan(left.scan_len().min(right.scan_len()), budget)?;
        }
        _ => scan_numbers(left, right, budget)?,
    }
    Ok(compare(left, right))
}

/// Charges a scan that is longer than what the node itself is charged for.
#[inline]
fn scan(len: usize, budget: &Budget) -> Result<(), Exhausted> {
    if len > BYTES_PER_UNIT { budget.charge_scan(len) } else { Ok(()) }
}

/// Charges comparisons of decimals, which may be long.
fn scan_numbers(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<(), Exhausted> {
    match (left, right) {
        (Val::Decimal(_), _) | (_, Val::Decimal(_)) => scan(left.scan_len() + right.scan_len(), budget),
        _ => Ok(()),
    }
}

fn integer(value: &Val<'_>) -> Option<i128> {
    match value {
        Val::Int(number) => Some(i128::from(*number)),
        Val::UInt(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// The order of two numbers; `None` if one of the values is not a number.
#[expect(clippy::option_option, reason = "the outer option means not comparable, the inner one NaN")]
fn compare_numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Option<Ordering>> {
    match (left, right) {
        (Val::Double(left), Val::Double(right)) => return Some(left.partial_cmp(right)),
        (Val::Decimal(left), Val::Decimal(right)) => return Some(Some(left.compare(right))),
        (Val::Decimal(left), Val::Double(right)) => return Some(decimal_with_double(left, *right)),
        (Val::Double(left), Val::Decimal(right)) => {
            return Some(decimal_with_double(right, *left).map(Ordering::reverse));
        }
        _ => {}
    }
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return Some(Some(left.cmp(&right)));
    }
    match (left, right) {
        (Val::Double(left), right) => Some(integer_with_double(integer(right)?, *left).map(Ordering::reverse)),
        (left, Val::Double(right)) => Some(integer_with_double(integer(left)?, *right)),
        (Val::Decimal(left), right) => Some(Some(left.compare(&Dec::from_integer(integer(right)?)))),
        (left, Val::Decimal(right)) => Some(Some(Dec::from_integer(integer(left)?).compare(right))),
        _ => None,
    }
}

/// A double has the value defined by [`Dec::from_double`].
fn decimal_with_double(decimal: &Dec<'_>, double: f64) -> Option<Ordering> {
    match Dec::from_double(double) {
        Some(number) => Some(decimal.compare(&number)),
        None if double.is_nan() => None,
        None if double > 0.0 => Some(Ordering::Less),
        None => Some(Ordering::Greater),
    }
}

/// Against an integer, a double has its exact binary value.
#[expect(clippy::cast_possible_truncation, reason = "the double is within the bounds of 128 bits")]
fn integer_with_double(integer: i128, double: f64) -> Option<Ordering> {
    const BOUND: f64 = 1e30;
    if double.is_nan() {
        return None;
    }
    if double.abs() >= BOUND {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    let order = integer.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && double > floor { Ordering::Less } else { order })
}
