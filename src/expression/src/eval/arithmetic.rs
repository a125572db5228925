//! `+ - * / %`.

use std::rc::Rc;

use super::{Machine, no_overload, spent};
use crate::failure::{Failure, Outcome};
use crate::functions::no_result;
use crate::moments::{length, moment, span_of_nanos, time_of_nanos};
use crate::node::Arithmetic;
use crate::number::{Dec, NoResult};
use crate::problem::Span;
use crate::syntax::BinaryOp;
use crate::value::{List, Val};

/// Units of work of a quotient with all its digits.
const DIVISION_WORK: u64 = 6;

#[cold]
fn overflow(span: Span) -> Box<Failure> {
    Failure::value(span, "a number does not fit in 64 bits")
}

#[cold]
fn by_zero(span: Span) -> Box<Failure> {
    Failure::value(span, "a division by zero")
}

pub(super) fn negate(value: Val<'_>, span: Span) -> Outcome<Val<'_>> {
    match value {
        Val::Int(number) => number.checked_neg().map(Val::Int).ok_or_else(|| overflow(span)),
        Val::Double(number) => Ok(Val::Double(-number)),
        Val::Decimal(number) => number.negate().map(Val::Decimal).map_err(|problem| no_result(span, problem)),
        Val::Duration(by) => span_of_nanos(-length(by))
            .map(Val::Duration)
            .ok_or_else(|| Failure::value(span, "a length of time is out of range")),
        _ => Err(no_overload(span, "-")),
    }
}

impl<'v> Machine<'v, '_> {
    pub(super) fn arithmetic(&self, node: &'v Arithmetic, left: Val<'v>, right: Val<'v>) -> Outcome<Val<'v>> {
        let Arithmetic { operator, written, is_exact, span, .. } = node;
        // By reference: what was written a moment ago is not moved.
        match (&left, &right) {
            (Val::Int(left), Val::Int(right)) => return ints(*operator, *left, *right, *is_exact, *span),
            (Val::Decimal(left), Val::Decimal(right)) => return decimals(*operator, left, right, *span, self),
            (Val::Decimal(left), Val::Int(right)) => {
                return decimals(*operator, left, &Dec::whole(i128::from(*right)), *span, self);
            }
            _ => {}
        }
        match (left, right) {
            (Val::Int(left), Val::Int(right)) => ints(*operator, left, right, *is_exact, *span),
            (Val::UInt(left), Val::UInt(right)) => {
                let result = match operator {
                    BinaryOp::Add => left.checked_add(right),
                    BinaryOp::Subtract => left.checked_sub(right),
                    BinaryOp::Multiply => left.checked_mul(right),
                    _ if right == 0 => return Err(by_zero(*span)),
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
                self.bytes(*span, left.len() + right.len())?;
                spent(*span, self.budget.scan(left.len() + right.len()))?;
                let mut sum = String::with_capacity(left.len() + right.len());
                sum.push_str(&left);
                sum.push_str(&right);
                Ok(Val::text(sum))
            }
            (Val::Bytes(left), Val::Bytes(right)) if *operator == BinaryOp::Add => {
                self.bytes(*span, left.len() + right.len())?;
                spent(*span, self.budget.scan(left.len() + right.len()))?;
                Ok(Val::bytes([&left[..], &right[..]].concat()))
            }
            (Val::List(left), Val::List(right)) if *operator == BinaryOp::Add => self.joined(left, &right, *span),
            (left @ (Val::Time(_) | Val::Duration(_)), right @ (Val::Time(_) | Val::Duration(_))) => {
                times(*operator, &left, &right, *span)
            }
            (left, right) => {
                let decimal = |value: &Val<'v>, at: usize| match value {
                    Val::Int(number) => Some(Dec::whole(i128::from(*number))),
                    Val::UInt(number) => Some(Dec::whole(i128::from(*number))),
                    Val::Decimal(number) => Some(number.clone()),
                    // A double in the source beside a number of the data is the number as it is written.
                    Val::Double(_) => written.as_deref()?.get(at)?.as_ref().map(Dec::Written),
                    _ => None,
                };
                // Two whole numbers of different kinds do not mix, unless one is a decimal or the source's.
                // Data has whole numbers of one kind, of which the largest are unsigned.
                let is_mixed =
                    !is_exact && matches!((&left, &right), (Val::Int(_), Val::UInt(_)) | (Val::UInt(_), Val::Int(_)));
                match (decimal(&left, 0), decimal(&right, 1)) {
                    (Some(left), Some(right)) if !is_mixed => decimals(*operator, &left, &right, *span, self),
                    _ => Err(no_overload(*span, operator.symbol())),
                }
            }
        }
    }

    fn joined(&self, left: List<'v>, right: &List<'v>, span: Span) -> Outcome<Val<'v>> {
        let count = left.len() + right.len();
        self.work(span, count as u64)?;
        self.bytes(span, List::copy_len(count))?;
        let mut items = match left {
            List::Made(items) => Rc::try_unwrap(items).unwrap_or_else(|items| (*items).clone()),
            data @ List::Data(..) => data.iter().collect(),
        };
        items.extend(right.iter());
        Ok(Val::list(items))
    }
}

fn ints<'v>(operator: BinaryOp, left: i64, right: i64, is_exact: bool, span: Span) -> Outcome<Val<'v>> {
    let result = match operator {
        BinaryOp::Add => left.checked_add(right),
        BinaryOp::Subtract => left.checked_sub(right),
        BinaryOp::Multiply => left.checked_mul(right),
        _ if right == 0 => return Err(by_zero(span)),
        // Data that says 5 means what data that says 5.0 does.
        BinaryOp::Divide if is_exact && left.checked_rem(right).is_some_and(|rest| rest != 0) => {
            let (left, right) = (Dec::whole(i128::from(left)), Dec::whole(i128::from(right)));
            return left.divide(&right).map(Val::Decimal).map_err(|problem| no_result(span, problem));
        }
        BinaryOp::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    result.map(Val::Int).ok_or_else(|| overflow(span))
}

fn decimals<'v>(
    operator: BinaryOp,
    left: &Dec<'v>,
    right: &Dec<'v>,
    span: Span,
    machine: &Machine<'v, '_>,
) -> Outcome<Val<'v>> {
    let weight = left.weight() + right.weight();
    if weight > 64 {
        // Long numbers: multiplication and division grow with the square of their length, which is bounded.
        machine.work(span, (weight / 8) as u64)?;
        machine.bytes(span, 2 * weight)?;
    }
    if operator == BinaryOp::Divide {
        machine.work(span, DIVISION_WORK)?;
    }
    let result: Result<Dec<'v>, NoResult> = match operator {
        BinaryOp::Add => left.add(right),
        BinaryOp::Subtract => left.subtract(right),
        BinaryOp::Multiply => left.multiply(right),
        BinaryOp::Divide => left.divide(right),
        _ => left.remainder(right),
    };
    result.map(Val::Decimal).map_err(|problem| no_result(span, problem))
}

fn times<'v>(operator: BinaryOp, left: &Val<'v>, right: &Val<'v>, span: Span) -> Outcome<Val<'v>> {
    #[cold]
    fn out_of_range(span: Span) -> Box<Failure> {
        Failure::value(span, "a moment or a length of time is out of range")
    }
    let time = |nanos: i128| time_of_nanos(nanos).map(Val::Time).ok_or_else(|| out_of_range(span));
    let duration = |nanos: i128| span_of_nanos(nanos).map(Val::Duration).ok_or_else(|| out_of_range(span));
    match (operator, left, right) {
        (BinaryOp::Add, Val::Time(time_of), Val::Duration(by))
        | (BinaryOp::Add, Val::Duration(by), Val::Time(time_of)) => time(moment(*time_of) + length(*by)),
        (BinaryOp::Subtract, Val::Time(time_of), Val::Duration(by)) => time(moment(*time_of) - length(*by)),
        (BinaryOp::Subtract, Val::Time(left), Val::Time(right)) => duration(moment(*left) - moment(*right)),
        (BinaryOp::Add, Val::Duration(left), Val::Duration(right)) => duration(length(*left) + length(*right)),
        (BinaryOp::Subtract, Val::Duration(left), Val::Duration(right)) => duration(length(*left) - length(*right)),
        _ => Err(no_overload(span, operator.symbol())),
    }
}
