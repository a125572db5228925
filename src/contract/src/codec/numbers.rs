//! Converts numbers and strings to the scalar type of a field, exactly or not at all.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crossdock_message::{Decimal, Value};

use super::error::{Outcome, Problem, fail};
use super::{BytesRef, Leaf, TextRef};
use crate::model::Scalar;

/// The maximum digits of an integer; a longer one fits no type.
const INTEGER_DIGITS_MAX: usize = 40;

/// Converts a number in the grammar of JSON.
pub(super) fn leaf_of_number(scalar: Scalar, text: &str) -> Outcome<Leaf<'_>> {
    match scalar {
        Scalar::Double => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Leaf::Double(number)),
            _ => fail(Problem::Range("double")),
        },
        Scalar::Float => match text.parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(Leaf::Float(number)),
            _ => fail(Problem::Range("float")),
        },
        Scalar::Decimal => Ok(Leaf::Number(text)),
        Scalar::Integer if !text.contains(['.', 'e', 'E']) => Ok(Leaf::Number(text)),
        Scalar::Integer => fail(Problem::Range(scalar.name())),
        // Its text is its value.
        Scalar::Lexical => Ok(Leaf::Text(TextRef { text, owner: None })),
        Scalar::Bool | Scalar::Text | Scalar::Bytes => wrong_type(scalar, "a number"),
        integer => match text.parse::<i64>() {
            Ok(number) => leaf_of_integer(integer, i128::from(number)),
            Err(_) => match parse_integer(text) {
                Some(number) => leaf_of_integer(integer, number),
                None => fail(Problem::Range(integer.name())),
            },
        },
    }
}

/// Converts an integer to an integer type.
fn leaf_of_integer(scalar: Scalar, number: i128) -> Outcome<Leaf<'static>> {
    let leaf = match scalar {
        Scalar::Int32 => i32::try_from(number).ok().map(|number| Leaf::Int(i64::from(number))),
        Scalar::Int64 => i64::try_from(number).ok().map(Leaf::Int),
        Scalar::UInt32 => u32::try_from(number).ok().map(|number| Leaf::UInt(u64::from(number))),
        Scalar::UInt64 => u64::try_from(number).ok().map(Leaf::UInt),
        _ => None,
    };
    leaf.map_or_else(|| fail(Problem::Range(scalar.name())), Ok)
}

/// The value of an integer in any notation of JSON, such as `1.0` or `12e3`; `None` if it has a fraction or is too long.
fn parse_integer(text: &str) -> Option<i128> {
    let (negative, unsigned) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let kept = digits.trim_end_matches('0');
    if kept.is_empty() {
        return Some(0);
    }
    let exponent = i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    let zeros = i64::try_from(digits.len() - kept.len()).ok()? + exponent;
    let zeros = usize::try_from(zeros).ok()?;
    if kept.len() + zeros > INTEGER_DIGITS_MAX {
        return None;
    }
    let number = format!("{kept}{}", "0".repeat(zeros)).parse::<i128>().ok()?;
    Some(if negative { -number } else { number })
}

/// Converts a string of ProtoJSON, which may contain a number, base64 or `NaN`.
pub(super) fn leaf_of_json_text<'a>(scalar: Scalar, text: TextRef<'a>, scratch: &'a mut Vec<u8>) -> Outcome<Leaf<'a>> {
    let not_finite = |number: f64| match scalar {
        Scalar::Double => Some(Leaf::Double(number)),
        #[expect(clippy::cast_possible_truncation, reason = "these three values exist in both widths")]
        Scalar::Float => Some(Leaf::Float(number as f32)),
        _ => None,
    };
    match scalar {
        Scalar::Text | Scalar::Lexical => return Ok(Leaf::Text(text)),
        Scalar::Bool => return wrong_type(scalar, "a string"),
        Scalar::Bytes => {
            decode_base64(text.text, scratch)?;
            return Ok(Leaf::Bytes(BytesRef { bytes: scratch, owner: None }));
        }
        _ => {}
    }
    let known = match text.text {
        "NaN" => not_finite(f64::NAN),
        "Infinity" => not_finite(f64::INFINITY),
        "-Infinity" => not_finite(f64::NEG_INFINITY),
        _ => None,
    };
    match known {
        Some(leaf) => Ok(leaf),
        None if Decimal::new(text.text).is_ok() => leaf_of_number(scalar, text.text),
        None => wrong_type(scalar, "a string"),
    }
}

/// Converts a string from a path, a query or the key of a map, where booleans are strings, too.
pub(crate) fn leaf_of_text<'a>(scalar: Scalar, text: TextRef<'a>, scratch: &'a mut Vec<u8>) -> Outcome<Leaf<'a>> {
    match (scalar, text.text) {
        (Scalar::Bool, "true") => Ok(Leaf::Bool(true)),
        (Scalar::Bool, "false") => Ok(Leaf::Bool(false)),
        _ => leaf_of_json_text(scalar, text, scratch),
    }
}

fn decode_base64(text: &str, out: &mut Vec<u8>) -> Outcome<()> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, CONFIG);
    out.clear();
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    match engine.decode_vec(text, out) {
        Ok(()) => Ok(()),
        Err(_) => fail(Problem::WrongType { expected: "base64".to_owned(), found: "another string" }),
    }
}

/// Converts a value.
pub(crate) fn leaf_of_value<'a>(scalar: Scalar, value: &'a Value, scratch: &'a mut Vec<u8>) -> Outcome<Leaf<'a>> {
    match (scalar, value) {
        (Scalar::Bool, Value::Bool(truth)) => Ok(Leaf::Bool(*truth)),
        (Scalar::Bytes, Value::Bytes(bytes)) => Ok(Leaf::Bytes(BytesRef { bytes, owner: Some(bytes) })),
        (Scalar::Text, Value::Time(_) | Value::Duration(_)) => fail(Problem::WrongType {
            expected: "a string".to_owned(),
            found: "a timestamp or duration; convert it with `text()`",
        }),
        (_, Value::Text(text)) => leaf_of_json_text(scalar, TextRef { text, owner: Some(text.as_bytes()) }, scratch),
        (Scalar::Double, Value::F64(number)) => Ok(Leaf::Double(*number)),
        (Scalar::Double, Value::F32(number)) => Ok(Leaf::Double(f64::from(*number))),
        (Scalar::Float, Value::F32(number)) => Ok(Leaf::Float(*number)),
        #[expect(clippy::cast_possible_truncation, reason = "the field is a `float`")]
        (Scalar::Float, Value::F64(number)) => {
            let single = *number as f32;
            if single.is_finite() || !number.is_finite() {
                Ok(Leaf::Float(single))
            } else {
                fail(Problem::Range("float"))
            }
        }
        (_, Value::Int(number)) => leaf_of_number(scalar, copied(itoa::Buffer::new().format(*number), scratch)),
        (_, Value::UInt(number)) => leaf_of_number(scalar, copied(itoa::Buffer::new().format(*number), scratch)),
        (_, Value::Decimal(number)) => leaf_of_number(scalar, number.as_str()),
        (_, Value::F32(_) | Value::F64(_)) => match value.scalar_text() {
            Some(text) => leaf_of_number(scalar, copied(&text, scratch)),
            None => fail(Problem::Range(scalar.name())),
        },
        (_, other) => wrong_type(scalar, other.kind()),
    }
}

/// Copies a string to the scratch buffer, which outlives the leaf.
fn copied<'a>(text: &str, scratch: &'a mut Vec<u8>) -> &'a str {
    scratch.clear();
    scratch.extend_from_slice(text.as_bytes());
    std::str::from_utf8(scratch).unwrap_or_default()
}

/// Converts a number to the double of a `google.protobuf.Value`.
pub(super) fn double_of(value: &Value) -> Outcome<f64> {
    let mut scratch = Vec::new();
    match leaf_of_value(Scalar::Double, value, &mut scratch)? {
        Leaf::Double(number) => Ok(number),
        _ => fail(Problem::Range("double")),
    }
}

pub(super) fn wrong_type<T>(scalar: Scalar, found: &'static str) -> Outcome<T> {
    let expected = match scalar {
        Scalar::Bool => "a boolean".to_owned(),
        Scalar::Text | Scalar::Lexical => "a string".to_owned(),
        Scalar::Bytes => "base64".to_owned(),
        number => format!("a number ({})", number.name()),
    };
    fail(Problem::WrongType { expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_in_any_notation() {
        for (text, number) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1.0", Some(1)),
            ("1.5", None),
            ("12e3", Some(12_000)),
            ("12000e-3", Some(12)),
            ("0.5e1", Some(5)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615)),
            ("1e400000000000", None),
            ("1e-400", None),
            ("0e999999", Some(0)),
            ("1e38", Some(10_i128.pow(38))),
            ("1e39", None),
        ] {
            assert_eq!(parse_integer(text), number, "{text}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_rejected() {
        let fits = |scalar, text: &str| leaf_of_number(scalar, text).is_ok();
        for (scalar, text, expected) in [
            (Scalar::Int32, "2147483647", true),
            (Scalar::Int32, "2147483648", false),
            (Scalar::Int32, "-2147483648", true),
            (Scalar::UInt32, "4294967295", true),
            (Scalar::UInt32, "-1", false),
            (Scalar::Int64, "9223372036854775807", true),
            (Scalar::Int64, "9223372036854775808", false),
            (Scalar::UInt64, "18446744073709551615", true),
            (Scalar::UInt64, "18446744073709551616", false),
            (Scalar::Int32, "1.0", true),
            (Scalar::Int32, "1.5", false),
            (Scalar::Float, "3.5e38", false),
            (Scalar::Double, "1e999", false),
            (Scalar::Text, "1", false),
        ] {
            assert_eq!(fits(scalar, text), expected, "{scalar:?} {text}");
        }
    }
}
