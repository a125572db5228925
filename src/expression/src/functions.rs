//! The table of all functions: signatures, description, cost, and examples, which are tests.

mod aggregate;
mod codec;
mod convert;
mod list;
mod math;
mod optional;
mod set;
mod text;
mod time;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use crossdock_message::{ByteString, Time};

use crate::budget::Budget;
use crate::failure::{Failure, Outcome};
use crate::number::{ArithmeticError, Dec};
use crate::problem::Span;
use crate::types::Signature;
use crate::value::{List, Val};
pub(crate) use list::order_or_equal;
pub(crate) use text::compile_regex;

/// A function of the language.
pub struct Function {
    /// Its name, including the namespace.
    pub name: &'static str,
    /// Its section of the reference.
    pub group: &'static str,
    /// Its overloads: `string.contains(string) -> bool`.
    pub signatures: &'static [&'static str],
    /// Its result, in a sentence.
    pub description: &'static str,
    /// What its work is proportional to.
    pub cost: &'static str,
    /// Expressions, and their results as expressions.
    pub examples: &'static [(&'static str, &'static str)],
    pub(crate) run: Run,
}

impl Function {
    /// Its overloads with its name, in backticks: `size(string) -> int`, `string.size() -> int`.
    #[must_use]
    pub fn forms(&self, is_method: bool) -> Vec<String> {
        let of_kind = |signature: &&&str| signature.starts_with('(') != is_method;
        let form = |signature: &&str| match signature.strip_prefix('(') {
            Some(_) => format!("`{}{signature}`", self.name),
            None => {
                // The type of the receiver may contain parentheses.
                let at = signature.rfind(").").map_or_else(|| signature.find('.'), |at| Some(at + 1));
                let (receiver, call) = signature.split_at(at.unwrap_or(0));
                let arguments = call.find('(').map_or("", |open| &call[open..]);
                format!("`{receiver}.{}{arguments}`", self.name)
            }
        };
        self.signatures.iter().filter(of_kind).map(form).collect()
    }
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The implementation of a function. The receiver of a method is the first argument.
pub(crate) type Run = for<'v> fn(&Call<'_>, &mut [Val<'v>]) -> Outcome<Val<'v>>;

/// The context of a function call.
pub(crate) struct Call<'c> {
    pub(crate) span: Span,
    pub(crate) name: &'static str,
    pub(crate) budget: &'c Budget,
    pub(crate) host: &'c dyn Host,
    pub(crate) time: &'c OnceCell<Time>,
}

/// Access to the clock and to random bits.
pub trait Host: Sync {
    /// The current time. Called at most once per evaluation.
    fn now(&self) -> Time;
    /// 128 random bits.
    fn random(&self) -> u128;
    /// The next number of a sequence. `None` if there is none now, which ends the evaluation ([`FailureKind::NoNumber`](crate::FailureKind)).
    fn number(&self, sequence: &str) -> Option<i64> {
        let _ = sequence;
        None
    }
}

/// A host with a fixed time and counting random bits, for tests.
#[derive(Debug, Default)]
pub struct FixedHost {
    /// The time.
    pub time: Time,
    /// The next random bits.
    pub next: AtomicU64,
}

impl Host for FixedHost {
    fn now(&self) -> Time {
        self.time
    }

    fn random(&self) -> u128 {
        u128::from(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn number(&self, _: &str) -> Option<i64> {
        i64::try_from(self.next.fetch_add(1, Ordering::Relaxed)).ok()?.checked_add(1)
    }
}

impl Call<'_> {
    /// The time of this evaluation.
    pub(crate) fn now(&self) -> Time {
        *self.time.get_or_init(|| self.host.now())
    }

    #[cold]
    pub(crate) fn fail(&self, problem: impl Into<Cow<'static, str>>) -> Box<Failure> {
        let problem: Cow<'static, str> = problem.into();
        Failure::value(self.span, format!("{}: {problem}", self.name))
    }

    #[cold]
    pub(crate) fn no_overload<T>(&self) -> Outcome<T> {
        Err(Failure::value(self.span, format!("`{}` does not accept arguments of these types", self.name)))
    }

    pub(crate) fn arithmetic_failure(&self, problem: ArithmeticError) -> Box<Failure> {
        arithmetic_failure(self.span, problem)
    }

    /// Charges a scan of `len` bytes.
    pub(crate) fn charge_scan(&self, len: usize) -> Outcome<()> {
        self.budget.charge_scan(len).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    pub(crate) fn charge_work(&self, units: usize) -> Outcome<()> {
        self.budget.charge_work(units as u64).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    /// Charges a string or bytes to be created: the memory, and the work of writing them.
    pub(crate) fn charge_output(&self, len: usize) -> Outcome<()> {
        self.charge_scan(len)?;
        self.budget.charge_bytes(len).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    /// Charges an optional to be created.
    pub(crate) fn charge_optional(&self) -> Outcome<()> {
        self.budget.charge_bytes(crate::value::OPTIONAL_LEN).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    /// Charges a list to be created.
    pub(crate) fn charge_list(&self, items: usize) -> Outcome<()> {
        self.charge_work(items)?;
        self.budget.charge_bytes(List::copy_len(items)).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    pub(crate) fn equal(&self, left: &Val<'_>, right: &Val<'_>) -> Outcome<bool> {
        self.charge_work(1)?;
        crate::value::equal(left, right, self.budget).map_err(|cause| Failure::exhausted(self.span, cause))
    }

    /// The order of two values; fails if they have none.
    pub(crate) fn order(&self, left: &Val<'_>, right: &Val<'_>) -> Outcome<std::cmp::Ordering> {
        self.charge_work(1)?;
        let order = crate::value::compare_within(left, right, self.budget);
        match order.map_err(|cause| Failure::exhausted(self.span, cause))? {
            Some(Some(order)) => Ok(order),
            Some(None) => Err(self.fail("a value is NaN")),
            None => Err(self.fail("values of these types cannot be ordered")),
        }
    }
}

#[cold]
pub(crate) fn arithmetic_failure(span: Span, problem: ArithmeticError) -> Box<Failure> {
    Failure::value(
        span,
        match problem {
            ArithmeticError::Overflow => "the number has too many digits",
            ArithmeticError::DivisionByZero => "division by zero",
        },
    )
}

pub(crate) fn take<'v>(arguments: &mut [Val<'v>], at: usize) -> Val<'v> {
    arguments.get_mut(at).map_or(Val::Null, |value| std::mem::replace(value, Val::Null))
}

pub(crate) fn text_at<'a>(call: &Call<'_>, arguments: &'a [Val<'_>], at: usize) -> Outcome<&'a ByteString> {
    match arguments.get(at) {
        Some(Val::Text(text)) => Ok(text),
        _ => call.no_overload(),
    }
}

pub(crate) fn bytes_at<'a>(call: &Call<'_>, arguments: &'a [Val<'_>], at: usize) -> Outcome<&'a Bytes> {
    match arguments.get(at) {
        Some(Val::Bytes(bytes)) => Ok(bytes),
        _ => call.no_overload(),
    }
}

pub(crate) fn int_at(call: &Call<'_>, arguments: &[Val<'_>], at: usize) -> Outcome<i64> {
    match arguments.get(at) {
        Some(Val::Int(number)) => Ok(*number),
        // The data may say 5 or 5.0.
        Some(Val::Decimal(number)) => match number.truncated().and_then(|whole| i64::try_from(whole).ok()) {
            Some(whole) if number.is_integer() => Ok(whole),
            _ => Err(call.fail("the argument must be an integer")),
        },
        _ => call.no_overload(),
    }
}

pub(crate) fn list_at<'a, 'v>(call: &Call<'_>, arguments: &'a [Val<'v>], at: usize) -> Outcome<&'a List<'v>> {
    match arguments.get(at) {
        Some(Val::List(list)) => Ok(list),
        _ => call.no_overload(),
    }
}

/// A number as a decimal; a double as by [`Dec::from_double`].
pub(crate) fn decimal_of<'v>(value: &Val<'v>) -> Option<Dec<'v>> {
    match value {
        Val::Int(number) => Some(Dec::from_integer(i128::from(*number))),
        Val::UInt(number) => Some(Dec::from_integer(i128::from(*number))),
        Val::Decimal(number) => Some(number.clone()),
        Val::Double(number) => Dec::from_double(*number),
        _ => None,
    }
}

/// All functions by name, with parsed signatures.
static TABLE: LazyLock<HashMap<&'static str, (&'static Function, Vec<Signature>)>> = LazyLock::new(|| {
    let read = |function: &'static Function| {
        let signatures: Vec<_> = function.signatures.iter().filter_map(|text| Signature::parse(text)).collect();
        debug_assert_eq!(signatures.len(), function.signatures.len(), "{}", function.name);
        (function.name, (function, signatures))
    };
    all().map(read).collect()
});

/// All functions, in the order of the reference.
pub fn all() -> impl Iterator<Item = &'static Function> {
    let parts: [&'static [Function]; 9] = [
        convert::FUNCTIONS,
        text::FUNCTIONS,
        math::FUNCTIONS,
        aggregate::FUNCTIONS,
        list::FUNCTIONS,
        set::FUNCTIONS,
        time::FUNCTIONS,
        optional::FUNCTIONS,
        codec::FUNCTIONS,
    ];
    parts.into_iter().flatten()
}

pub(crate) fn find(name: &str) -> Option<(&'static Function, &'static [Signature])> {
    TABLE.get(name).map(|(function, signatures)| (*function, signatures.as_slice()))
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|function| function.name)
}
