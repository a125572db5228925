//! `string.format(list)`.

use super::super::convert::{double_text, plain_text};
use super::super::{Call, decimal_of, list_at, text_at};
use crate::failure::Outcome;
use crate::value::Val;

/// Default and maximum number of fraction digits.
const PRECISION: usize = 6;
const PRECISION_MAX: usize = 100;

pub(super) fn format<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (pattern, values) = (text_at(call, arguments, 0)?, list_at(call, arguments, 1)?);
    call.charge_output(pattern.len())?;
    let mut out = String::with_capacity(pattern.len());
    let mut rest: &str = pattern;
    let mut next = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let len = after.bytes().take_while(u8::is_ascii_digit).count();
            let digits = after[..len].parse::<usize>().ok().filter(|digits| *digits <= PRECISION_MAX);
            precision = Some(digits.ok_or_else(|| call.fail("the precision must be at most 100"))?);
            rest = &after[len..];
        }
        let Some(verb) = rest.chars().next() else { return Err(call.fail("the format ends after `%`")) };
        rest = &rest[verb.len_utf8()..];
        let value = values.get(next).ok_or_else(|| call.fail("the list has too few values for the format"))?;
        next += 1;
        let before = out.len();
        match verb {
            's' => write(call, &mut out, &value, 0)?,
            'd' => integer(call, &mut out, &value)?,
            'f' => out.push_str(&fixed(call, &value, precision.unwrap_or(PRECISION))?),
            'e' => out.push_str(&scientific(call, &value, precision.unwrap_or(PRECISION))?),
            'b' => binary(call, &mut out, &value)?,
            'o' => radix(call, &mut out, &value, 'o')?,
            'x' | 'X' => hexadecimal(call, &mut out, &value, verb == 'X')?,
            _ => return Err(call.fail("the format has an unknown `%` verb")),
        }
        call.charge_output(out.len() - before)?;
    }
    out.push_str(rest);
    Ok(Val::text(out))
}

/// Maximum nesting of lists and maps.
const DEPTH_MAX: usize = 64;

fn write(call: &Call<'_>, out: &mut String, value: &Val<'_>, depth: usize) -> Outcome<()> {
    if depth > DEPTH_MAX {
        return Err(call.fail("the value is nested too deeply"));
    }
    call.charge_output(8)?;
    match value {
        Val::Null => out.push_str("null"),
        Val::Double(number) => out.push_str(&double_text(*number)),
        Val::Bytes(bytes) => {
            call.charge_output(bytes.len())?;
            out.push_str(&String::from_utf8_lossy(bytes));
        }
        Val::List(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write(call, out, &item, depth + 1)?;
            }
            out.push(']');
        }
        Val::Map(map) => {
            // Sorted by key, so that equal maps have equal texts.
            call.charge_list(2 * map.len())?;
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.entries() {
                entries.push((plain_text(call, &key)?, value));
            }
            entries.sort_by(|(left, _), (right, _)| left.as_bytes().cmp(right.as_bytes()));
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                out.push_str(&key);
                out.push_str(": ");
                write(call, out, &value, depth + 1)?;
            }
            out.push('}');
        }
        Val::Type(name) => out.push_str(name.as_str()),
        Val::Optional(_) => return Err(call.fail("an optional has no text representation")),
        other => out.push_str(&plain_text(call, other)?),
    }
    Ok(())
}

fn integer(call: &Call<'_>, out: &mut String, value: &Val<'_>) -> Outcome<()> {
    match value {
        Val::Int(number) => out.push_str(&number.to_string()),
        Val::UInt(number) => out.push_str(&number.to_string()),
        Val::Double(number) if number.is_nan() || number.is_infinite() => out.push_str(&double_text(*number)),
        Val::Double(number) if number.fract() == 0.0 => out.push_str(&double_text(*number)),
        Val::Decimal(number) if number.is_integer() => {
            out.push_str(&number.fixed(0).map_err(|problem| call.arithmetic_failure(problem))?);
        }
        _ => return Err(call.fail("`%d` requires an integer")),
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the number is formatted as a double")]
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
        call.charge_scan(16 * number.weight())?;
        return number.fixed(u32::try_from(precision).unwrap_or(0)).map_err(|problem| call.arithmetic_failure(problem));
    }
    match as_double(value) {
        Some(number) if number.is_finite() => Ok(format!("{number:.precision$}")),
        Some(number) => Ok(double_text(number).to_string()),
        None => Err(call.fail("`%f` requires a number")),
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
        None => Err(call.fail("`%e` requires a number")),
    }
}

fn binary(call: &Call<'_>, out: &mut String, value: &Val<'_>) -> Outcome<()> {
    if let Val::Bool(truth) = value {
        out.push(if *truth { '1' } else { '0' });
        return Ok(());
    }
    radix(call, out, value, 'b')
}

fn radix(call: &Call<'_>, out: &mut String, value: &Val<'_>, letter: char) -> Outcome<()> {
    let (sign, number) = match value {
        Val::Int(number) => (if *number < 0 { "-" } else { "" }, number.unsigned_abs()),
        Val::UInt(number) => ("", *number),
        _ => return Err(call.fail("the value must be an integer")),
    };
    out.push_str(sign);
    out.push_str(&match letter {
        'b' => format!("{number:b}"),
        'o' => format!("{number:o}"),
        'X' => format!("{number:X}"),
        _ => format!("{number:x}"),
    });
    Ok(())
}

fn hexadecimal(call: &Call<'_>, out: &mut String, value: &Val<'_>, upper: bool) -> Outcome<()> {
    let bytes: &[u8] = match value {
        Val::Text(text) => text.as_bytes(),
        Val::Bytes(bytes) => bytes,
        other => return radix(call, out, other, if upper { 'X' } else { 'x' }),
    };
    call.charge_output(2 * bytes.len())?;
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    for byte in bytes {
        out.push(char::from(digits[usize::from(byte >> 4)]));
        out.push(char::from(digits[usize::from(byte & 15)]));
    }
    Ok(())
}
