//! Aggregates: sums, averages and extremes.

use std::cmp::Ordering;

use super::{Call, Function, decimal_of, list_at, take};
use crate::failure::Outcome;
use crate::number::Dec;
use crate::value::{List, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sum",
        group: "Aggregates",
        signatures: &[
            "(list(int)) -> int",
            "(list(uint)) -> uint",
            "(list(double)) -> double",
            "(list(decimal)) -> decimal",
            "(list(dyn)) -> dyn",
        ],
        description: "The exact sum of the numbers; 0 for an empty list.",
        cost: "the length of the list",
        examples: &[
            ("sum([1, 2])", "3"),
            ("sum([decimal('0.1'), decimal('0.2')])", "decimal('0.3')"),
            ("sum([])", "0"),
        ],
        run: sum,
    },
    Function {
        name: "avg",
        group: "Aggregates",
        signatures: &["(list(double)) -> double", "(list(dyn)) -> decimal"],
        description: "The average: a decimal, or a double for doubles. Fails on an empty list.",
        cost: "the length of the list",
        examples: &[("avg([1, 2])", "decimal('1.5')"), ("avg([1.0, 2.0])", "1.5")],
        run: average,
    },
    Function {
        name: "min",
        group: "Aggregates",
        signatures: &["(list(A)) -> A"],
        description: "The smallest element, the first of equal ones. Fails on an empty list.",
        cost: "the length of the list",
        examples: &[("min([2, 1])", "1"), ("min(['b', 'a'])", "'a'")],
        run: |call, arguments| extreme(call, arguments, Ordering::Less),
    },
    Function {
        name: "max",
        group: "Aggregates",
        signatures: &["(list(A)) -> A"],
        description: "The largest element, the first of equal ones. Fails on an empty list.",
        cost: "the length of the list",
        examples: &[("max([2, 1])", "2")],
        run: |call, arguments| extreme(call, arguments, Ordering::Greater),
    },
    Function {
        name: "round",
        group: "Aggregates",
        signatures: &["(dyn, int) -> decimal"],
        description: "The number, rounded half to even to at most that many fraction digits; a negative number rounds to tens, hundreds and so on.",
        cost: "1",
        examples: &[
            ("round(decimal('2.345'), 2)", "decimal('2.34')"),
            ("round(decimal('2.355'), 2)", "decimal('2.36')"),
        ],
        run: round,
    },
];

fn sum<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let list = list_at(call, arguments, 0)?;
    call.charge_work(list.len())?;
    total(call, list)
}

fn total<'v>(call: &Call<'_>, list: &List<'v>) -> Outcome<Val<'v>> {
    // Computed decimals are added by reference.
    if let List::Owned(items) = list
        && let Some((Val::Decimal(first), rest)) = items.split_first()
    {
        let mut total = first.clone();
        for item in rest {
            let Val::Decimal(number) = item else {
                return total_of(call, Val::Decimal(first.clone()), list.iter().skip(1));
            };
            call.charge_scan(16 * (total.weight() + number.weight()))?;
            total = total.add(number).map_err(|problem| call.arithmetic_failure(problem))?;
        }
        return Ok(Val::Decimal(total));
    }
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Val::Int(0)) };
    total_of(call, first, items)
}

fn total_of<'v>(call: &Call<'_>, first: Val<'v>, items: impl Iterator<Item = Val<'v>>) -> Outcome<Val<'v>> {
    let mut total = first;
    if decimal_of(&total).is_none() && !matches!(total, Val::Double(_)) {
        return call.no_overload();
    }
    for item in items {
        total = add(call, &total, &item)?;
    }
    Ok(total)
}

fn add<'v>(call: &Call<'_>, left: &Val<'v>, right: &Val<'v>) -> Outcome<Val<'v>> {
    let overflow = || call.fail("integer overflow");
    match (left, right) {
        (Val::Int(left), Val::Int(right)) => return left.checked_add(*right).map(Val::Int).ok_or_else(overflow),
        (Val::UInt(left), Val::UInt(right)) => return left.checked_add(*right).map(Val::UInt).ok_or_else(overflow),
        (Val::Double(left), Val::Double(right)) => return Ok(Val::Double(left + right)),
        (Val::Double(_), _) | (_, Val::Double(_)) => {
            return Err(call.fail("doubles and other numbers cannot be mixed; convert one of them"));
        }
        _ => {}
    }
    match (decimal_of(left), decimal_of(right)) {
        (Some(left), Some(right)) => {
            call.charge_scan(16 * (left.weight() + right.weight()))?;
            left.add(&right).map(Val::Decimal).map_err(|problem| call.arithmetic_failure(problem))
        }
        _ => call.no_overload(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "lists are short enough")]
fn average<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let count = list_at(call, arguments, 0)?.len();
    if count == 0 {
        return Err(call.fail("the list is empty"));
    }
    let list = list_at(call, arguments, 0)?;
    call.charge_work(list.len())?;
    if let Some(Val::Double(_)) = list.get(0) {
        return match total(call, list)? {
            Val::Double(total) => Ok(Val::Double(total / count as f64)),
            _ => call.no_overload(),
        };
    }
    // Summed as decimals to avoid overflow.
    let mut sum = Dec::from_integer(0);
    for item in list.iter() {
        let Some(number) = decimal_of(&item).filter(|_| !matches!(item, Val::Double(_))) else {
            return call.no_overload();
        };
        call.charge_scan(16 * (sum.weight() + number.weight()))?;
        sum = sum.add(&number).map_err(|problem| call.arithmetic_failure(problem))?;
    }
    let count = Dec::from_integer(i128::try_from(count).unwrap_or(i128::MAX));
    sum.divide(&count).map(Val::Decimal).map_err(|problem| call.arithmetic_failure(problem))
}

fn extreme<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], wanted: Ordering) -> Outcome<Val<'v>> {
    let list = list_at(call, arguments, 0)?;
    let mut items = list.iter();
    let Some(mut found) = items.next() else { return Err(call.fail("the list is empty")) };
    if list.len() == 1 {
        // A single element must have an order, too.
        call.order(&found, &found)?;
    }
    for item in items {
        if call.order(&item, &found)? == wanted {
            found = item;
        }
    }
    Ok(found)
}

fn round<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let places = super::int_at(call, arguments, 1)?;
    let value = take(arguments, 0);
    let places = i32::try_from(places).ok().filter(|places| places.abs() <= 1000);
    let places = places.ok_or_else(|| call.fail("the number of digits must be between -1000 and 1000"))?;
    match decimal_of(&value) {
        Some(number) => {
            call.charge_work(4)?;
            call.charge_scan(16 * number.weight())?;
            number.round(places).map(Val::Decimal).map_err(|problem| call.arithmetic_failure(problem))
        }
        None => call.no_overload(),
    }
}
