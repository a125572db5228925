//! The table of all functions: how each is called, what it gives, what it costs, and examples, which are tests.

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
use crate::number::{Dec, NoResult};
use crate::problem::Span;
use crate::types::Signature;
use crate::value::{List, Val};
pub(crate) use list::order_or_equal;
pub(crate) use text::compile_regex;

/// A function of the language.
pub struct Function {
    /// Its name; of one in a namespace, with that before it.
    pub name: &'static str,
    /// The part of the reference that it stands in.
    pub group: &'static str,
    /// How it is called, and what it gives: `string.contains(string) -> bool`.
    pub signatures: &'static [&'static str],
    /// What it gives, in a sentence.
    pub meaning: &'static str,
    /// What it costs.
    pub cost: &'static str,
    /// Expressions with their values as expressions.
    pub examples: &'static [(&'static str, &'static str)],
    pub(crate) run: Run,
}

impl Function {
    /// How it is called, as it is written: `size(string) -> int`, `string.size() -> int`.
    #[must_use]
    pub fn forms(&self, is_method: bool) -> Vec<String> {
        let of_kind = |signature: &&&str| signature.starts_with('(') != is_method;
        let form = |signature: &&str| match signature.strip_prefix('(') {
            Some(_) => format!("`{}{signature}`", self.name),
            None => {
                // The receiver's type may have parentheses of its own.
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

/// What carries a function out, with the value that a method is called on as the first argument.
pub(crate) type Run = for<'v> fn(&Call<'_>, &mut [Val<'v>]) -> Outcome<Val<'v>>;

/// What a function sees besides its arguments.
pub(crate) struct Call<'c> {
    pub(crate) span: Span,
    pub(crate) name: &'static str,
    pub(crate) budget: &'c Budget,
    pub(crate) host: &'c dyn Host,
    pub(crate) time: &'c OnceCell<Time>,
}

/// What is outside of an expression and its data.
pub trait Host: Sync {
    /// The time now. One evaluation asks once.
    fn now(&self) -> Time;
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// A host whose time stands still, and whose random bits count up: for tests.
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
        Err(Failure::value(self.span, format!("`{}` does not take values of these kinds", self.name)))
    }

    pub(crate) fn no_result(&self, problem: NoResult) -> Box<Failure> {
        no_result(self.span, problem)
    }

    /// Counts looking through so many bytes.
    pub(crate) fn scan(&self, len: usize) -> Outcome<()> {
        self.budget.scan(len).map_err(|spent| Failure::spent(self.span, spent))
    }

    pub(crate) fn work(&self, units: usize) -> Outcome<()> {
        self.budget.work(units as u64).map_err(|spent| Failure::spent(self.span, spent))
    }

    /// Counts a text or bytes that are made: the memory, and the work of writing them.
    pub(crate) fn make(&self, len: usize) -> Outcome<()> {
        self.scan(len)?;
        self.budget.bytes(len).map_err(|spent| Failure::spent(self.span, spent))
    }

    /// Counts an optional that is made.
    pub(crate) fn make_optional(&self) -> Outcome<()> {
        self.budget.bytes(crate::value::OPTIONAL_LEN).map_err(|spent| Failure::spent(self.span, spent))
    }

    /// Counts a list that is made.
    pub(crate) fn make_list(&self, items: usize) -> Outcome<()> {
        self.work(items)?;
        self.budget.bytes(List::copy_len(items)).map_err(|spent| Failure::spent(self.span, spent))
    }

    pub(crate) fn equal(&self, left: &Val<'_>, right: &Val<'_>) -> Outcome<bool> {
        self.work(1)?;
        crate::value::equal(left, right, self.budget).map_err(|spent| Failure::spent(self.span, spent))
    }

    /// The order of two values that order.
    pub(crate) fn order(&self, left: &Val<'_>, right: &Val<'_>) -> Outcome<std::cmp::Ordering> {
        self.work(1)?;
        let order = crate::value::compare_within(left, right, self.budget);
        match order.map_err(|spent| Failure::spent(self.span, spent))? {
            Some(Some(order)) => Ok(order),
            Some(None) => Err(self.fail("a value is no number")),
            None => Err(self.fail("values of these kinds have no order")),
        }
    }
}

#[cold]
pub(crate) fn no_result(span: Span, problem: NoResult) -> Box<Failure> {
    Failure::value(
        span,
        match problem {
            NoResult::Overflow => "a number has too many digits",
            NoResult::DivisionByZero => "a division by zero",
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
        // A whole number is one, whether the data says 5 or 5.0.
        Some(Val::Decimal(number)) => match number.truncated().and_then(|whole| i64::try_from(whole).ok()) {
            Some(whole) if number.is_whole() => Ok(whole),
            _ => Err(call.fail("a whole number is needed")),
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

/// A number as a decimal; a double as it is written.
pub(crate) fn decimal_of<'v>(value: &Val<'v>) -> Option<Dec<'v>> {
    match value {
        Val::Int(number) => Some(Dec::whole(i128::from(*number))),
        Val::UInt(number) => Some(Dec::whole(i128::from(*number))),
        Val::Decimal(number) => Some(number.clone()),
        Val::Double(number) => Dec::of_double(*number),
        _ => None,
    }
}

/// All functions by name, with their signatures.
static TABLE: LazyLock<HashMap<&'static str, (&'static Function, Vec<Signature>)>> = LazyLock::new(|| {
    let read = |function: &'static Function| {
        let signatures: Vec<_> = function.signatures.iter().filter_map(|text| Signature::read(text)).collect();
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
