//! Numbers and texts to the scalar that a contract asks for: exact, or refused.

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use crossdock_message::{Decimal, Value};

use super::error::{Done, Problem, fail};
use super::{BytesRef, Leaf, TextRef};
use crate::model::Scalar;

/// Digits of a whole number that are looked at; a longer one fits nowhere.
const WHOLE_DIGITS_MAX: usize = 40;

/// A number in JSON's grammar as a scalar.
pub(super) fn leaf_of_number(scalar: Scalar, text: &str) -> Done<Leaf<'_>> {
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
        // Its text is all that is known about it.
        Scalar::Lexical => Ok(Leaf::Text(TextRef { text, owner: None })),
        Scalar::Bool | Scalar::Text | Scalar::Bytes => wrong_kind(scalar, "a number"),
        whole => match text.parse::<i64>() {
            Ok(number) => leaf_of_whole(whole, i128::from(number)),
            Err(_) => match whole_number(text) {
                Some(number) => leaf_of_whole(whole, number),
                None => fail(Problem::Range(whole.name())),
            },
        },
    }
}

/// A whole number as a scalar of a whole kind, where it fits.
fn leaf_of_whole(scalar: Scalar, number: i128) -> Done<Leaf<'static>> {
    let leaf = match scalar {
        Scalar::Int32 => i32::try_from(number).ok().map(|number| Leaf::Int(i64::from(number))),
        Scalar::Int64 => i64::try_from(number).ok().map(Leaf::Int),
        Scalar::UInt32 => u32::try_from(number).ok().map(|number| Leaf::UInt(u64::from(number))),
        Scalar::UInt64 => u64::try_from(number).ok().map(Leaf::UInt),
        _ => None,
    };
    leaf.map_or_else(|| fail(Problem::Range(scalar.name())), Ok)
}

/// The value of a number in JSON's grammar that is whole, however it is written: `1.0`, `12e3`.
fn whole_number(text: &str) -> Option<i128> {
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
    if kept.len() + zeros > WHOLE_DIGITS_MAX {
        return None;
    }
    let number = format!("{kept}{}", "0".repeat(zeros)).parse::<i128>().ok()?;
    Some(if negative { -number } else { number })
}

/// A text as a scalar, as ProtoJSON reads texts: a number in quotes, base64, `NaN`.
pub(super) fn leaf_of_json_text<'a>(scalar: Scalar, text: TextRef<'a>, scratch: &'a mut Vec<u8>) -> Done<Leaf<'a>> {
    let not_finite = |number: f64| match scalar {
        Scalar::Double => Some(Leaf::Double(number)),
        #[expect(clippy::cast_possible_truncation, reason = "these three are the same in both widths")]
        Scalar::Float => Some(Leaf::Float(number as f32)),
        _ => None,
    };
    match scalar {
        Scalar::Text | Scalar::Lexical => return Ok(Leaf::Text(text)),
        Scalar::Bool => return wrong_kind(scalar, "text"),
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
        None => wrong_kind(scalar, "text"),
    }
}

/// A text as a scalar where only texts can be, as in a path, a query or the key of a map: booleans as well.
pub(crate) fn leaf_of_text<'a>(scalar: Scalar, text: TextRef<'a>, scratch: &'a mut Vec<u8>) -> Done<Leaf<'a>> {
    match (scalar, text.text) {
        (Scalar::Bool, "true") => Ok(Leaf::Bool(true)),
        (Scalar::Bool, "false") => Ok(Leaf::Bool(false)),
        _ => leaf_of_json_text(scalar, text, scratch),
    }
}

fn decode_base64(text: &str, out: &mut Vec<u8>) -> Done<()> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, CONFIG);
    out.clear();
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    match engine.decode_vec(text, out) {
        Ok(()) => Ok(()),
        Err(_) => fail(Problem::Kind { expected: "base64".to_owned(), found: "another text" }),
    }
}

/// A canonical value as a scalar.
pub(super) fn leaf_of_value<'a>(scalar: Scalar, value: &'a Value, scratch: &'a mut Vec<u8>) -> Done<Leaf<'a>> {
    match (scalar, value) {
        (Scalar::Bool, Value::Bool(truth)) => Ok(Leaf::Bool(*truth)),
        (Scalar::Bytes, Value::Bytes(bytes)) => Ok(Leaf::Bytes(BytesRef { bytes, owner: Some(bytes) })),
        (Scalar::Text, Value::Time(_) | Value::Duration(_)) => fail(Problem::Kind {
            expected: "text".to_owned(),
            found: "a moment or a length of time; `text()` makes a text of it",
        }),
        (_, Value::Text(text)) => leaf_of_json_text(scalar, TextRef { text, owner: Some(text.as_bytes()) }, scratch),
        (Scalar::Double, Value::F64(number)) => Ok(Leaf::Double(*number)),
        (Scalar::Double, Value::F32(number)) => Ok(Leaf::Double(f64::from(*number))),
        (Scalar::Float, Value::F32(number)) => Ok(Leaf::Float(*number)),
        #[expect(clippy::cast_possible_truncation, reason = "the contract says that the number is a single")]
        (Scalar::Float, Value::F64(number)) => {
            let single = *number as f32;
            if single.is_finite() || !number.is_finite() {
                Ok(Leaf::Float(single))
            } else {
                fail(Problem::Range("float"))
            }
        }
        (_, Value::Int(number)) => leaf_of_number(scalar, kept(itoa::Buffer::new().format(*number), scratch)),
        (_, Value::UInt(number)) => leaf_of_number(scalar, kept(itoa::Buffer::new().format(*number), scratch)),
        (_, Value::Decimal(number)) => leaf_of_number(scalar, number.as_str()),
        (_, Value::F32(_) | Value::F64(_)) => match value.scalar_text() {
            Some(text) => leaf_of_number(scalar, kept(&text, scratch)),
            None => fail(Problem::Range(scalar.name())),
        },
        (_, other) => wrong_kind(scalar, other.kind()),
    }
}

/// A copy of a text that lives as long as the leaf.
fn kept<'a>(text: &str, scratch: &'a mut Vec<u8>) -> &'a str {
    scratch.clear();
    scratch.extend_from_slice(text.as_bytes());
    std::str::from_utf8(scratch).unwrap_or_default()
}

/// A number as the double that a `google.protobuf.Value` holds.
pub(super) fn double_of(value: &Value) -> Done<f64> {
    let mut scratch = Vec::new();
    match leaf_of_value(Scalar::Double, value, &mut scratch)? {
        Leaf::Double(number) => Ok(number),
        _ => fail(Problem::Range("double")),
    }
}

pub(super) fn wrong_kind<T>(scalar: Scalar, found: &'static str) -> Done<T> {
    let expected = match scalar {
        Scalar::Bool => "true or false".to_owned(),
        Scalar::Text | Scalar::Lexical => "text".to_owned(),
        Scalar::Bytes => "base64".to_owned(),
        number => format!("a number ({})", number.name()),
    };
    fail(Problem::Kind { expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_however_they_are_written() {
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
            assert_eq!(whole_number(text), number, "{text}");
        }
    }

    #[test]
    fn a_number_fits_or_is_refused() {
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
