//! Conversions between types.

use bytes::Bytes;
use crossdock_message::{ByteString, Time, TimeSpan};

use super::{Call, Function, decimal_of, take};
use crate::failure::Outcome;
use crate::number::Dec;
use crate::time::{duration_from_nanos, nanos_of_duration, nanos_of_time, time_from_nanos};
use crate::value::{Map, Val};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "int",
        group: "Conversions",
        signatures: &[
            "(int) -> int",
            "(uint) -> int",
            "(double) -> int",
            "(decimal) -> int",
            "(string) -> int",
            "(timestamp) -> int",
            "(bool) -> int",
        ],
        description: "The integer: truncated from a number, parsed from a string, seconds since 1970 of a timestamp.",
        cost: "1",
        examples: &[
            ("int('12')", "12"),
            ("int(-7.9)", "-7"),
            ("int(decimal('7.9'))", "7"),
            ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ],
        run: int,
    },
    Function {
        name: "uint",
        group: "Conversions",
        signatures: &["(int) -> uint", "(uint) -> uint", "(double) -> uint", "(decimal) -> uint", "(string) -> uint"],
        description: "The unsigned integer, truncated from a number or parsed from a string.",
        cost: "1",
        examples: &[("uint(7)", "7u")],
        run: uint,
    },
    Function {
        name: "double",
        group: "Conversions",
        signatures: &[
            "(int) -> double",
            "(uint) -> double",
            "(double) -> double",
            "(decimal) -> double",
            "(string) -> double",
        ],
        description: "The nearest double.",
        cost: "1",
        examples: &[("double('1.5')", "1.5"), ("double(3)", "3.0")],
        run: double,
    },
    Function {
        name: "decimal",
        group: "Conversions",
        signatures: &["(dyn) -> decimal"],
        description: "The exact decimal value of a number, a string, or the text of a single XML element.",
        cost: "the length of the string",
        examples: &[
            ("decimal('1.10') * 2", "decimal('2.20')"),
            ("decimal('0.1') + decimal('0.2') == decimal('0.3')", "true"),
        ],
        run: decimal,
    },
    Function {
        name: "string",
        group: "Conversions",
        signatures: &[
            "(int) -> string",
            "(uint) -> string",
            "(double) -> string",
            "(decimal) -> string",
            "(bool) -> string",
            "(string) -> string",
            "(bytes) -> string",
            "(timestamp) -> string",
            "(duration) -> string",
        ],
        description: "The value as a string. Bytes must be UTF-8; a timestamp is formatted as in RFC 3339.",
        cost: "the length of the string",
        examples: &[
            ("string(12)", "'12'"),
            ("string(decimal('1.10'))", "'1.10'"),
            ("string(true)", "'true'"),
            ("string(b'a')", "'a'"),
        ],
        run: string,
    },
    Function {
        name: "text",
        group: "Conversions",
        signatures: &["(dyn) -> string"],
        description: "The text of a scalar or of a single XML element.",
        cost: "the length of the string",
        examples: &[("text(12)", "'12'"), ("text([{'$text': 'a'}])", "'a'")],
        run: text,
    },
    Function {
        name: "attr",
        group: "Conversions",
        signatures: &["(dyn, string) -> string"],
        description: "An attribute of a single XML element.",
        cost: "1",
        examples: &[("attr({'@id': '7'}, 'id')", "'7'")],
        run: attribute,
    },
    Function {
        name: "bytes",
        group: "Conversions",
        signatures: &["(string) -> bytes", "(bytes) -> bytes"],
        description: "The UTF-8 bytes of a string.",
        cost: "1",
        examples: &[("bytes('a')", "b'a'")],
        run: bytes,
    },
    Function {
        name: "bool",
        group: "Conversions",
        signatures: &["(bool) -> bool", "(string) -> bool"],
        description: "True for `true`, `True`, `TRUE`, `t` and `1`; false for `false`, `False`, `FALSE`, `f` and `0`.",
        cost: "1",
        examples: &[("bool('true')", "true")],
        run: boolean,
    },
    Function {
        name: "timestamp",
        group: "Conversions",
        signatures: &["(string) -> timestamp", "(int) -> timestamp", "(timestamp) -> timestamp"],
        description: "The timestamp, parsed from RFC 3339 or from seconds since 1970.",
        cost: "1",
        examples: &[("timestamp('2024-02-29T12:00:00Z') > timestamp(0)", "true")],
        run: timestamp,
    },
    Function {
        name: "duration",
        group: "Conversions",
        signatures: &["(string) -> duration", "(duration) -> duration", "(int) -> duration"],
        description: "The duration, parsed from numbers with the units `h`, `m`, `s`, `ms`, `us` and `ns`, or from seconds.",
        cost: "1",
        examples: &[("duration('1h30m') == duration('5400s')", "true")],
        run: duration,
    },
    Function {
        name: "dyn",
        group: "Conversions",
        signatures: &["(A) -> dyn"],
        description: "The value, with type checks deferred to run time.",
        cost: "1",
        examples: &[("dyn(1) == 1.0", "true")],
        run: |_, arguments| Ok(take(arguments, 0)),
    },
    Function {
        name: "type",
        group: "Conversions",
        signatures: &["(A) -> type(A)"],
        description: "The type of the value.",
        cost: "1",
        examples: &[("type(1) == int", "true"), ("type('a') == string", "true")],
        run: |_, arguments| Ok(Val::Type(take(arguments, 0).type_name())),
    },
];

/// Bytes of a string parsed as a number.
const NUMBER_LEN_MAX: usize = 1024;
/// Bytes of a string parsed as a timestamp.
const TIME_LEN_MAX: usize = 64;

fn int<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let too_large = || call.fail("the number does not fit in 64 signed bits");
    let narrow = |number: i128| i64::try_from(number).map(Val::Int).map_err(|_| too_large());
    match take(arguments, 0) {
        value @ Val::Int(_) => Ok(value),
        Val::Bool(truth) => Ok(Val::Int(i64::from(truth))),
        Val::UInt(number) => narrow(i128::from(number)),
        Val::Double(number) => {
            // CEL excludes both bounds, since a double cannot distinguish them from their neighbours.
            let bound = 2.0_f64.powi(63);
            if number > -bound && number < bound {
                truncate(number).map_or_else(|| Err(too_large()), narrow)
            } else {
                Err(too_large())
            }
        }
        Val::Decimal(number) => number.truncated().map_or_else(|| Err(too_large()), narrow),
        Val::Text(text) if text.len() > NUMBER_LEN_MAX => Err(too_large()),
        Val::Text(text) => text.parse().map(Val::Int).map_err(|_| call.fail("the string is not a 64-bit integer")),
        Val::Time(time) => Ok(Val::Int(time.seconds)),
        _ => call.no_overload(),
    }
}

fn truncate(number: f64) -> Option<i128> {
    Dec::from_double(number.trunc())?.truncated()
}

fn uint<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let too_large = || call.fail("the number does not fit in 64 unsigned bits");
    let narrow = |number: i128| u64::try_from(number).map(Val::UInt).map_err(|_| too_large());
    match take(arguments, 0) {
        value @ Val::UInt(_) => Ok(value),
        Val::Int(number) => narrow(i128::from(number)),
        Val::Double(number) if number.is_nan() => Err(too_large()),
        Val::Double(number) => {
            if (0.0..2.0_f64.powi(64)).contains(&number) {
                truncate(number).map_or_else(|| Err(too_large()), narrow)
            } else {
                Err(too_large())
            }
        }
        Val::Decimal(number) => number.truncated().map_or_else(|| Err(too_large()), narrow),
        Val::Text(text) if text.len() > NUMBER_LEN_MAX => Err(too_large()),
        Val::Text(text) => {
            text.parse().map(Val::UInt).map_err(|_| call.fail("the string is not an unsigned 64-bit integer"))
        }
        _ => call.no_overload(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the result is the nearest double")]
fn double<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    Ok(Val::Double(match take(arguments, 0) {
        Val::Double(number) => number,
        Val::Int(number) => number as f64,
        Val::UInt(number) => number as f64,
        Val::Decimal(number) => number.to_double(),
        Val::Text(text) if text.len() <= NUMBER_LEN_MAX => match &**text {
            "NaN" | "Infinity" | "-Infinity" | "+Infinity" | "inf" | "-inf" | "Inf" | "-Inf" | "+Inf" => {
                text.to_ascii_lowercase().parse().map_err(|_| call.fail("the string is not a number"))?
            }
            other if other.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) => {
                let read: f64 = other.parse().map_err(|_| call.fail("the string is not a number"))?;
                if read.is_infinite() {
                    return Err(call.fail("the number exceeds the range of a double"));
                }
                read
            }
            _ => return Err(call.fail("the string is not a number")),
        },
        Val::Text(_) => return Err(call.fail("the string is not a number")),
        _ => return call.no_overload(),
    }))
}

fn decimal<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let value = take(arguments, 0);
    match &value {
        Val::Bool(_) => return Err(call.fail("a boolean is not a number")),
        Val::Double(number) if !number.is_finite() => return Err(call.fail("the double is not finite")),
        _ => {}
    }
    if let Some(number) = decimal_of(&value) {
        return Ok(Val::Decimal(number));
    }
    let text = scalar_text(call, &value)?;
    call.charge_scan(text.len())?;
    let readable = Some(text.trim()).filter(|text| text.len() <= NUMBER_LEN_MAX);
    readable.and_then(Dec::parse).map(Val::Decimal).ok_or_else(|| call.fail("the string is not a decimal number"))
}

fn string<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        value @ Val::Text(_) => Ok(value),
        Val::Bytes(bytes) => {
            call.charge_scan(bytes.len())?;
            match ByteString::try_from((*bytes).clone()) {
                Ok(text) => Ok(Val::text(text)),
                Err(_) => Err(call.fail("the bytes are not UTF-8")),
            }
        }
        value @ (Val::Int(_)
        | Val::UInt(_)
        | Val::Double(_)
        | Val::Decimal(_)
        | Val::Bool(_)
        | Val::Time(_)
        | Val::Duration(_)) => Ok(Val::text(plain_text(call, &value)?)),
        _ => call.no_overload(),
    }
}

/// The text of a scalar.
pub(super) fn plain_text(call: &Call<'_>, value: &Val<'_>) -> Outcome<ByteString> {
    let text = match value {
        Val::Text(text) => (**text).clone(),
        Val::Bool(truth) => ByteString::from_static(if *truth { "true" } else { "false" }),
        Val::Int(number) => number.to_string().into(),
        Val::UInt(number) => number.to_string().into(),
        Val::Double(number) => double_text(*number),
        Val::Decimal(number) => number.text(),
        Val::Time(time) => {
            time.text().map(ByteString::from).ok_or_else(|| call.fail("the timestamp is out of range"))?
        }
        Val::Duration(span) => {
            span.text().map(ByteString::from).ok_or_else(|| call.fail("the duration is out of range"))?
        }
        _ => return Err(call.fail("the value has no text representation")),
    };
    call.charge_output(text.len())?;
    Ok(text)
}

pub(super) fn double_text(number: f64) -> ByteString {
    if number.is_nan() {
        return ByteString::from_static("NaN");
    }
    if number.is_infinite() {
        return ByteString::from_static(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    if number != 0.0 && !(1e-6..1e21).contains(&number.abs()) {
        // At least two exponent digits, as in C and Go.
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}").into();
    }
    number.to_string().into()
}

/// The text of a scalar, or of a single element in the view of an XML document.
pub(super) fn scalar_text(call: &Call<'_>, value: &Val<'_>) -> Outcome<ByteString> {
    match value {
        Val::List(list) => match list.get(0).filter(|_| list.len() == 1) {
            Some(only @ (Val::Map(_) | Val::Text(_))) => scalar_text(call, &only),
            _ => Err(call.fail("expected exactly one element")),
        },
        Val::Map(map) => match map.get(&Val::text("$text")) {
            Some(text @ Val::Text(_)) => plain_text(call, &text),
            _ => Err(call.fail("the element has no text")),
        },
        other => plain_text(call, other),
    }
}

fn text<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        value @ Val::Text(_) => Ok(value),
        other => scalar_text(call, &other).map(Val::text),
    }
}

fn attribute<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let element: Map<'v> = match take(arguments, 0) {
        Val::Map(map) => map,
        Val::List(list) => match list.get(0).filter(|_| list.len() == 1) {
            Some(Val::Map(map)) => map,
            _ => return Err(call.fail("expected exactly one element")),
        },
        _ => return call.no_overload(),
    };
    let name = super::text_at(call, arguments, 1)?;
    call.charge_output(name.len() + 1)?;
    let key = format!("@{name}");
    match element.get(&Val::text(key.as_str())) {
        Some(value @ Val::Text(_)) => Ok(value),
        Some(other) => plain_text(call, &other).map(Val::text),
        None => Err(call.fail("the element has no such attribute")),
    }
}

fn bytes<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        value @ Val::Bytes(_) => Ok(value),
        Val::Text(text) => {
            let shared: Bytes = text.as_bytes().clone();
            Ok(Val::bytes(shared))
        }
        _ => call.no_overload(),
    }
}

fn boolean<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match take(arguments, 0) {
        value @ Val::Bool(_) => Ok(value),
        Val::Text(text) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
            "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
            _ => Err(call.fail("the string is not a boolean")),
        },
        _ => call.no_overload(),
    }
}

fn timestamp<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let time = match take(arguments, 0) {
        Val::Time(time) => time,
        Val::Int(seconds) => Time { seconds, nanos: 0 },
        Val::Text(text) => Some(&text)
            .filter(|text| text.len() <= TIME_LEN_MAX)
            .and_then(|text| Time::parse(text))
            .ok_or_else(|| call.fail("the string is not an RFC 3339 timestamp"))?,
        _ => return call.no_overload(),
    };
    time_from_nanos(nanos_of_time(time))
        .map(Val::Time)
        .ok_or_else(|| call.fail("the timestamp must be in the years 1 to 9999"))
}

fn duration<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let span = match take(arguments, 0) {
        Val::Duration(span) => span,
        Val::Int(seconds) => TimeSpan { seconds, nanos: 0 },
        Val::Text(text) => {
            let nanos = parse_duration(&text)
                .ok_or_else(|| call.fail("the string is not a duration such as `1h30m` or `250ms`"))?;
            return duration_from_nanos(nanos)
                .map(Val::Duration)
                .ok_or_else(|| call.fail("the duration exceeds 292 years"));
        }
        _ => return call.no_overload(),
    };
    duration_from_nanos(nanos_of_duration(span))
        .map(Val::Duration)
        .ok_or_else(|| call.fail("the duration is out of range"))
}

/// Parses a duration such as `-1.5h2m` to nanoseconds, like Go's `time.ParseDuration`.
fn parse_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let len = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let (number, after) = rest.split_at(len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let units = [
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("μs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000_i128),
        ];
        let (unit, nanos) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        if !fraction.is_empty() {
            let digits = &fraction[..fraction.len().min(18)];
            let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
            total = total.checked_add(digits.parse::<i128>().ok()? * nanos / scale)?;
        }
        rest = &after[unit.len()..];
    }
    Some(if negative { -total } else { total })
}
