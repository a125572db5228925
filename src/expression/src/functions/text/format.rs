//! `string.format(list)`.

use super::super::convert::{double_text, plain_text};
use super::super::{Call, decimal_of, list_at, text_at};
use crate::failure::Outcome;
use crate::value::Val;

/// Digits behind the point where none are asked for, and at most.
const PRECISION: usize = 6;
const PRECISION_MAX: usize = 100;

pub(super) fn format<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (pattern, values) = (text_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
    call.make(pattern.len())?;
    let mut made = String::with_capacity(pattern.len());
    let mut rest: &str = pattern;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        made.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            made.push('%');
            rest = behind;
            continue;
        }
        let mut precision = None;
        if let Some(behind) = rest.strip_prefix('.') {
            let len = behind.bytes().take_while(u8::is_ascii_digit).count();
            let digits = behind[..len].parse::<usize>().ok().filter(|digits| *digits <= PRECISION_MAX);
            precision = Some(digits.ok_or_else(|| call.fail("a precision is a number up to 100"))?);
            rest = &behind[len..];
        }
        let Some(verb) = rest.chars().next() else { return Err(call.fail("the pattern ends within a `%`")) };
        rest = &rest[verb.len_utf8()..];
        let value = values.get(next).ok_or_else(|| call.fail("there are fewer values than the pattern wants"))?;
        next += 1;
        let before = made.len();
        match verb {
            's' => write(call, &mut made, &value, 0)?,
            'd' => whole(call, &mut made, &value)?,
            'f' => made.push_str(&fixed(call, &value, precision.unwrap_or(PRECISION))?),
            'e' => made.push_str(&scientific(call, &value, precision.unwrap_or(PRECISION))?),
            'b' => binary(call, &mut made, &value)?,
            'o' => radix(call, &mut made, &value, 'o')?,
            'x' | 'X' => hexadecimal(call, &mut made, &value, verb == 'X')?,
            _ => return Err(call.fail("the pattern has a `%` with a letter that means nothing")),
        }
        call.make(made.len() - before)?;
    }
    made.push_str(rest);
    Ok(Val::text(made))
}

/// Levels of lists and maps that are written.
const DEPTH_MAX: usize = 64;

fn write(call: &Call<'_>, made: &mut String, value: &Val<'_>, depth: usize) -> Outcome<()> {
    if depth > DEPTH_MAX {
        return Err(call.fail("the value is nested too deep"));
    }
    call.make(8)?;
    match value {
        Val::Null => made.push_str("null"),
        Val::Double(number) => made.push_str(&double_text(*number)),
        Val::Bytes(bytes) => {
            call.make(bytes.len())?;
            made.push_str(&String::from_utf8_lossy(bytes));
        }
        Val::List(list) => {
            made.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    made.push_str(", ");
                }
                write(call, made, &item, depth + 1)?;
            }
            made.push(']');
        }
        Val::Map(map) => {
            // By the texts of their keys, so that equal maps have equal texts.
            call.make_list(2 * map.len())?;
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.entries() {
                entries.push((plain_text(call, &key)?, value));
            }
            entries.sort_by(|(left, _), (right, _)| left.as_bytes().cmp(right.as_bytes()));
            made.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    made.push_str(", ");
                }
                made.push_str(&key);
                made.push_str(": ");
                write(call, made, &value, depth + 1)?;
            }
            made.push('}');
        }
        Val::Type(name) => made.push_str(name.as_str()),
        Val::Optional(_) => return Err(call.fail("an optional has no text")),
        other => made.push_str(&plain_text(call, other)?),
    }
    Ok(())
}

fn whole(call: &Call<'_>, made: &mut String, value: &Val<'_>) -> Outcome<()> {
    match value {
        Val::Int(number) => made.push_str(&number.to_string()),
        Val::UInt(number) => made.push_str(&number.to_string()),
        Val::Double(number) if number.is_nan() || number.is_infinite() => made.push_str(&double_text(*number)),
        Val::Double(number) if number.fract() == 0.0 => made.push_str(&double_text(*number)),
        Val::Decimal(number) if number.is_whole() => {
            made.push_str(&number.fixed(0).map_err(|problem| call.no_result(problem))?);
        }
        _ => return Err(call.fail("`%d` takes a whole number")),
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a number beside doubles is written as one")]
fn as_double(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Int(number) => Some(*number as f64),
        Val::UInt(number) => Some(*number as f64),
        Val::Double(number) => Some(*number),
        Val::Decimal(number) => Some(number.to_double()),
        _ => None,
    }
}

fn fixed(call: &Call<'_>, value: &Val<'_>, precision: usize) -> Outcome<String> {
    if let (Val::Decimal(_), Some(number)) = (value, decimal_of(value)) {
        call.scan(16 * number.weight())?;
        return number.fixed(u32::try_from(precision).unwrap_or(0)).map_err(|problem| call.no_result(problem));
    }
    match as_double(value) {
        Some(number) if number.is_finite() => Ok(format!("{number:.precision$}")),
        Some(number) => Ok(double_text(number).to_string()),
        None => Err(call.fail("`%f` takes a number")),
    }
}

fn scientific(call: &Call<'_>, value: &Val<'_>, precision: usize) -> Outcome<String> {
    match as_double(value) {
        Some(number) if number.is_finite() => {
            let text = format!("{number:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            Ok(format!("{digits}e{sign}{exponent:0>2}"))
        }
        Some(number) => Ok(double_text(number).to_string()),
        None => Err(call.fail("`%e` takes a number")),
    }
}

fn binary(call: &Call<'_>, made: &mut String, value: &Val<'_>) -> Outcome<()> {
    if let Val::Bool(truth) = value {
        made.push(if *truth { '1' } else { '0' });
        return Ok(());
    }
    radix(call, made, value, 'b')
}

fn radix(call: &Call<'_>, made: &mut String, value: &Val<'_>, letter: char) -> Outcome<()> {
    let (sign, number) = match value {
        Val::Int(number) => (if *number < 0 { "-" } else { "" }, number.unsigned_abs()),
        Val::UInt(number) => ("", *number),
        _ => return Err(call.fail("a whole number is needed")),
    };
    made.push_str(sign);
    made.push_str(&match letter {
        'b' => format!("{number:b}"),
        'o' => format!("{number:o}"),
        'X' => format!("{number:X}"),
        _ => format!("{number:x}"),
    });
    Ok(())
}

fn hexadecimal(call: &Call<'_>, made: &mut String, value: &Val<'_>, upper: bool) -> Outcome<()> {
    let bytes: &[u8] = match value {
        Val::Text(text) => text.as_bytes(),
        Val::Bytes(bytes) => bytes,
        other => return radix(call, made, other, if upper { 'X' } else { 'x' }),
    };
    call.make(2 * bytes.len())?;
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    for byte in bytes {
        made.push(char::from(digits[usize::from(byte >> 4)]));
        made.push(char::from(digits[usize::from(byte & 15)]));
    }
    Ok(())
}
