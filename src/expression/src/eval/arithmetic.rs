//! Arithmetic operators: `+ - * / %`.

use std::rc::Rc;

use super::{Evaluator, no_overload, within_budget};
use crate::failure::{Failure, Outcome};
use crate::functions::arithmetic_failure;
use crate::node::Arithmetic;
use crate::number::{ArithmeticError, Dec};
use crate::problem::Span;
use crate::syntax::BinaryOp;
use crate::time::{duration_from_nanos, nanos_of_duration, nanos_of_time, time_from_nanos};
use crate::value::{List, Val};

/// Units of work of a division with a full-length quotient.
const DIVISION_WORK: u64 = 6;

#[cold]
fn overflow(span: Span) -> Box<Failure> {
    Failure::value(span, "integer overflow")
}

#[cold]
fn division_by_zero(span: Span) -> Box<Failure> {
    Failure::value(span, "division by zero")
}

pub(super) fn negate(value: Val<'_>, span: Span) -> Outcome<Val<'_>> {
    match value {
        Val::Int(number) => number.checked_neg().map(Val::Int).ok_or_else(|| overflow(span)),
        Val::Double(number) => Ok(Val::Double(-number)),
        Val::Decimal(number) => number.negate().map(Val::Decimal).map_err(|problem| arithmetic_failure(span, problem)),
        Val::Duration(by) => duration_from_nanos(-nanos_of_duration(by))
            .map(Val::Duration)
            .ok_or_else(|| Failure::value(span, "the duration is out of range")),
        _ => Err(no_overload(span, "-")),
    }
}

impl<'v> Evaluator<'v, '_> {
    pub(super) fn arithmetic(&self, node: &'v Arithmetic, left: Val<'v>, right: Val<'v>) -> Outcome<Val<'v>> {
        let Arithmetic { operator, written, is_exact, span, .. } = node;
        // By reference, to avoid moving the operands in the common cases.
        match (&left, &right) {
            (Val::Int(left), Val::Int(right)) => return int_arithmetic(*operator, *left, *right, *is_exact, *span),
            (Val::Decimal(left), Val::Decimal(right)) => {
                return decimal_arithmetic(*operator, left, right, *span, self);
            }
            (Val::Decimal(left), Val::Int(right)) => {
                return decimal_arithmetic(*operator, left, &Dec::from_integer(i128::from(*right)), *span, self);
            }
            _ => {}
        }
        match (left, right) {
            (Val::Int(left), Val::Int(right)) => int_arithmetic(*operator, left, right, *is_exact, *span),
            (Val::UInt(left), Val::UInt(right)) => {
                let result = match operator {
                    BinaryOp::Add => left.checked_add(right),
                    BinaryOp::Subtract => left.checked_sub(right),
                    BinaryOp::Multiply => left.checked_mul(right),
                    _ if right == 0 => return Err(division_by_zero(*span)),
                    BinaryOp::Divide => Some(left / right),
                    _ => Some(left % right),
                };
                result.map(Val::UInt).ok_or_else(|| overflow(*span))
            }
            (Val::Double(left), Val::Double(right)) => match operator {
                BinaryOp::Add => Ok(Val::Double(left + right)),
                BinaryOp::Subtract => Ok(Val::Double(left - right)),
                BinaryOp::Multiply => Ok(Val::Double(left * right)),
                BinaryOp::Divide => Ok(Val::Double(left / right)),
                _ => Err(no_overload(*span, "%")),
            },
            (Val::Text(left), Val::Text(right)) if *operator == BinaryOp::Add => {
                self.charge_bytes(*span, left.len() + right.len())?;
                within_budget(*span, self.budget.charge_scan(left.len() + right.len()))?;
                let mut sum = String::with_capacity(left.len() + right.len());
                sum.push_str(&left);
                sum.push_str(&right);
                Ok(Val::text(sum))
            }
            (Val::Bytes(left), Val::Bytes(right)) if *operator == BinaryOp::Add => {
                self.charge_bytes(*span, left.len() + right.len())?;
                within_budget(*span, self.budget.charge_scan(left.len() + right.len()))?;
                Ok(Val::bytes([&left[..], &right[..]].concat()))
            }
            (Val::List(left), Val::List(right)) if *operator == BinaryOp::Add => self.concat_lists(left, &right, *span),
            (left @ (Val::Time(_) | Val::Duration(_)), right @ (Val::Time(_) | Val::Duration(_))) => {
                time_arithmetic(*operator, &left, &right, *span)
            }
            (left, right) => {
                let decimal = |value: &Val<'v>, at: usize| match value {
                    Val::Int(number) => Some(Dec::from_integer(i128::from(*number))),
                    Val::UInt(number) => Some(Dec::from_integer(i128::from(*number))),
                    Val::Decimal(number) => Some(number.clone()),
                    // A double literal has exactly the value written in the source.
                    Val::Double(_) => written.as_deref()?.get(at)?.as_ref().map(Dec::Written),
                    _ => None,
                };
                // `int` and `uint` do not mix if the types are known. Untyped data has integers of a single type,
                // of which only the largest are unsigned.
                let is_mixed =
                    !is_exact && matches!((&left, &right), (Val::Int(_), Val::UInt(_)) | (Val::UInt(_), Val::Int(_)));
                match (decimal(&left, 0), decimal(&right, 1)) {
                    (Some(left), Some(right)) if !is_mixed => decimal_arithmetic(*operator, &left, &right, *span, self),
                    _ => Err(no_overload(*span, operator.symbol())),
                }
            }
        }
    }

    fn concat_lists(&self, left: List<'v>, right: &List<'v>, span: Span) -> Outcome<Val<'v>> {
        let count = left.len() + right.len();
        self.charge_work(span, count as u64)?;
        self.charge_bytes(span, List::copy_len(count))?;
        let mut items = match left {
            List::Owned(items) => Rc::try_unwrap(items).unwrap_or_else(|items| (*items).clone()),
            data @ List::Data(..) => data.iter().collect(),
        };
        items.extend(right.iter());
        Ok(Val::list(items))
    }
}

fn int_arithmetic<'v>(operator: BinaryOp, left: i64, right: i64, is_exact: bool, span: Span) -> Outcome<Val<'v>> {
    let result = match operator {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        _ if right == 0 => return Err(division_by_zero(span)),
        // The data may say 5 or 5.0.
        BinaryOp::Divide if is_exact && left.checked_rem(right).is_some_and(|rest| rest != 0) => {
            let (left, right) = (Dec::from_integer(i128::from(left)), Dec::from_integer(i128::from(right)));
            return left.divide(&right).map(Val::Decimal).map_err(|problem| arithmetic_failure(span, problem));
        }
        BinaryOp::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.map(Val::Int).ok_or_else(|| overflow(span))
}

fn decimal_arithmetic<'v>(
    operator: BinaryOp,
    left: &Dec<'v>,
    right: &Dec<'v>,
    span: Span,
    evaluator: &Evaluator<'v, '_>,
) -> Outcome<Val<'v>> {
    let weight = left.weight() + right.weight();
    if weight > 64 {
        // Multiplication and division are quadratic in the length, which is bounded.
        evaluator.charge_work(span, (weight / 8) as u64)?;
        evaluator.charge_bytes(span, 2 * weight)?;
    }
    if operator == BinaryOp::Divide {
        evaluator.charge_work(span, DIVISION_WORK)?;
    }
    let result: Result<Dec<'v>, ArithmeticError> = match operator {
        BinaryOp::Add => left.add(right),
        BinaryOp::Subtract => left.subtract(right),
        BinaryOp::Multiply => left.multiply(right),
        BinaryOp::Divide => left.divide(right),
        _ => left.remainder(right),
    };
    result.map(Val::Decimal).map_err(|problem| arithmetic_failure(span, problem))
}

fn time_arithmetic<'v>(operator: BinaryOp, left: &Val<'v>, right: &Val<'v>, span: Span) -> Outcome<Val<'v>> {
    #[cold]
    fn out_of_range(span: Span) -> Box<Failure> {
        Failure::value(span, "the timestamp or duration is out of range")
    }
    let time = |nanos: i128| time_from_nanos(nanos).map(Val::Time).ok_or_else(|| out_of_range(span));
    let duration = |nanos: i128| duration_from_nanos(nanos).map(Val::Duration).ok_or_else(|| out_of_range(span));
    match (operator, left, right) {
        (BinaryOp::Add, Val::Time(time_of), Val::Duration(by))
        | (BinaryOp::Add, Val::Duration(by), Val::Time(time_of)) => {
            time(nanos_of_time(*time_of) + nanos_of_duration(*by))
        }
        (BinaryOp::Subtract, Val::Time(time_of), Val::Duration(by)) => {
            time(nanos_of_time(*time_of) - nanos_of_duration(*by))
        }
        (BinaryOp::Subtract, Val::Time(left), Val::Time(right)) => {
            duration(nanos_of_time(*left) - nanos_of_time(*right))
        }
        (BinaryOp::Add, Val::Duration(left), Val::Duration(right)) => {
            duration(nanos_of_duration(*left) + nanos_of_duration(*right))
        }
        (BinaryOp::Subtract, Val::Duration(left), Val::Duration(right)) => {
            duration(nanos_of_duration(*left) - nanos_of_duration(*right))
        }
        _ => Err(no_overload(span, operator.symbol())),
    }
}
