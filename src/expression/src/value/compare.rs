//! Equality and order across kinds: numbers by what they are, exactly.

use std::cmp::Ordering;

use super::{List, Map, Val};
use crate::budget::{BYTES_PER_UNIT, Budget, Spent};
use crate::moments::{length, moment};
use crate::number::Dec;

/// Whether two values are equal. Values of different kinds are not, numbers apart.
///
/// # Errors
/// [`Spent`] where looking through them is over the budget.
pub fn equal(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<bool, Spent> {
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
            budget.scan(left.len().min(right.len()))?;
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
            numbers(left, right).is_some_and(|order| order == Some(Ordering::Equal))
        }
    })
}

fn lists_equal(left: &List<'_>, right: &List<'_>, budget: &Budget) -> Result<bool, Spent> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right.iter()) {
        budget.work(1)?;
        if !equal(&left, &right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn maps_equal(left: &Map<'_>, right: &Map<'_>, budget: &Budget) -> Result<bool, Spent> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (key, value) in left.entries() {
        budget.work(1)?;
        match right.get(&key) {
            Some(other) if equal(&value, &other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// How two values order; `None` where values of these kinds do not, `Some(None)` where one is no number.
#[must_use]
pub fn compare(left: &Val<'_>, right: &Val<'_>) -> Option<Option<Ordering>> {
    Some(Some(match (left, right) {
        (Val::Text(left), Val::Text(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Val::Bytes(left), Val::Bytes(right)) => left.cmp(right),
        (Val::Bool(left), Val::Bool(right)) => left.cmp(right),
        (Val::Time(left), Val::Time(right)) => moment(*left).cmp(&moment(*right)),
        (Val::Duration(left), Val::Duration(right)) => length(*left).cmp(&length(*right)),
        _ => return numbers(left, right),
    }))
}

/// As [`compare`], within a budget.
///
/// # Errors
/// [`Spent`] where looking through them is over the budget.
pub fn compare_within(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<Option<Option<Ordering>>, Spent> {
    match (left, right) {
        (Val::Text(_) | Val::Bytes(_), Val::Text(_) | Val::Bytes(_)) => {
            scan(left.scan_len().min(right.scan_len()), budget)?;
        }
        _ => scan_numbers(left, right, budget)?,
    }
    Ok(compare(left, right))
}

/// Charges looking through more than what the node itself is charged.
#[inline]
fn scan(len: usize, budget: &Budget) -> Result<(), Spent> {
    if len > BYTES_PER_UNIT { budget.scan(len) } else { Ok(()) }
}

/// Charges what is dear: long decimals.
fn scan_numbers(left: &Val<'_>, right: &Val<'_>, budget: &Budget) -> Result<(), Spent> {
    match (left, right) {
        (Val::Decimal(_), _) | (_, Val::Decimal(_)) => scan(left.scan_len() + right.scan_len(), budget),
        _ => Ok(()),
    }
}

fn whole(value: &Val<'_>) -> Option<i128> {
    match value {
        Val::Int(number) => Some(i128::from(*number)),
        Val::UInt(number) => Some(i128::from(*number)),
        _ => None,
    }
}

/// The order of two numbers; `None` where one is none.
#[expect(clippy::option_option, reason = "the outer option means not comparable, the inner one NaN")]
fn numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Option<Ordering>> {
    match (left, right) {
        (Val::Double(left), Val::Double(right)) => return Some(left.partial_cmp(right)),
        (Val::Decimal(left), Val::Decimal(right)) => return Some(Some(left.compare(right))),
        (Val::Decimal(left), Val::Double(right)) => return Some(decimal_with_double(left, *right)),
        (Val::Double(left), Val::Decimal(right)) => {
            return Some(decimal_with_double(right, *left).map(Ordering::reverse));
        }
        _ => {}
    }
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Some(Some(left.cmp(&right)));
    }
    match (left, right) {
        (Val::Double(left), right) => Some(whole_with_double(whole(right)?, *left).map(Ordering::reverse)),
        (left, Val::Double(right)) => Some(whole_with_double(whole(left)?, *right)),
        (Val::Decimal(left), right) => Some(Some(left.compare(&Dec::whole(whole(right)?)))),
        (left, Val::Decimal(right)) => Some(Some(Dec::whole(whole(left)?).compare(right))),
        _ => None,
    }
}

/// A double stands for a number as [`Dec::of_double`] says.
fn decimal_with_double(decimal: &Dec<'_>, double: f64) -> Option<Ordering> {
    match Dec::of_double(double) {
        Some(number) => Some(decimal.compare(&number)),
        None if double.is_nan() => None,
        None if double > 0.0 => Some(Ordering::Less),
        None => Some(Ordering::Greater),
    }
}

/// A double beside a whole number is what its bits say.
#[expect(clippy::cast_possible_truncation, reason = "the double is within the bounds of 128 bits")]
fn whole_with_double(whole: i128, double: f64) -> Option<Ordering> {
    const BOUND: f64 = 1e30;
    if double.is_nan() {
        return None;
    }
    if double.abs() >= BOUND {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && double > floor { Ordering::Less } else { order })
}
