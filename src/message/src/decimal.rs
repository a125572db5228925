//! Decimal numbers, kept as text because binary floats cannot represent them exactly.

use std::cmp::Ordering;
use std::fmt;

use bytestring::ByteString;

/// A decimal number as written, in the grammar of a JSON number (RFC 8259 §6). Keeps all digits, the scale and the exponent.
///
/// Equality compares the text: `1.0` and `1.00` differ in scale. Use [`Decimal::compare`] to compare the numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Decimal(ByteString);

/// The text is not a number in the grammar of RFC 8259 §6.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number (digits, an optional fraction and an optional exponent)")]
pub struct DecimalError;

impl Decimal {
    /// Checks the grammar.
    ///
    /// # Errors
    /// [`DecimalError`] for anything that is not a JSON number: a leading `+` or zero, `.5`, `NaN`, white space.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, DecimalError> {
        let text = text.into();
        if is_number(text.as_bytes()) { Ok(Self(text)) } else { Err(DecimalError) }
    }

    pub(crate) fn from_checked(text: ByteString) -> Self {
        debug_assert!(is_number(text.as_bytes()), "a decimal's text is checked by its reader");
        Self(text)
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest double. It may lose digits; use it only to compare with doubles.
    #[must_use]
    pub fn to_f64_lossy(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }

    /// Compares two numbers, exactly for any number of digits and any exponent.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let (left, right) = (Parts::parse(&self.0), Parts::parse(&other.0));
        match (left.sign(), right.sign()) {
            (a, b) if a != b => a.cmp(&b),
            (0, _) => Ordering::Equal,
            (1, _) => left.compare_magnitude(&right),
            _ => right.compare_magnitude(&left),
        }
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decimal({})", self.0)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<i64> for Decimal {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<u64> for Decimal {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

/// A number as significant digits (without zeros at either end) and a power of ten.
struct Parts {
    negative: bool,
    digits: Vec<u8>,
    /// The number is 0.d₁d₂… × 10^scale.
    scale: i128,
}

impl Parts {
    fn parse(text: &str) -> Self {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], saturating_exponent(&unsigned[at + 1..])),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = all.iter().take_while(|digit| **digit == b'0').count();
        let trailing = all[leading..].iter().rev().take_while(|digit| **digit == b'0').count();
        let digits = all[leading..all.len() - trailing].to_vec();
        Self { negative, digits, scale: whole.len() as i128 - leading as i128 + exponent }
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        self.scale.cmp(&other.scale).then_with(|| self.digits.cmp(&other.digits))
    }
}

/// Exponents saturate at 10^30, which does not change the order: no text within the limits has a mantissa that long.
fn saturating_exponent(text: &str) -> i128 {
    const CEILING: i128 = 10_i128.pow(30);
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let size = digits.parse::<i128>().unwrap_or(CEILING).min(CEILING);
    if negative { -size } else { size }
}

/// Whether the bytes are one number in the grammar of RFC 8259 §6.
fn is_number(text: &[u8]) -> bool {
    scan_number(text).is_some_and(|scan| scan.len == text.len())
}

/// The result of [`scan_number`].
pub(crate) struct NumberScan {
    /// The length of the number in bytes.
    pub len: usize,
    /// Whether it has neither fraction nor exponent.
    pub is_integer: bool,
}

/// Finds the longest number at the start of `text` (RFC 8259 §6); `None` if there is none.
pub(crate) fn scan_number(text: &[u8]) -> Option<NumberScan> {
    let digits_from = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits_from(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    let mut is_integer = true;
    if text.get(at) == Some(&b'.') {
        let fraction = digits_from(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
        is_integer = false;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits_from(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
        is_integer = false;
    }
    Some(NumberScan { len: at, is_integer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &'static str) -> Decimal {
        Decimal::new(ByteString::from_static(text)).expect(text)
    }

    #[test]
    fn keeps_every_digit_and_the_scale() {
        for text in ["12345678901234567.89", "1.10", "-0", "1e5", "1E+05", "0.000", "99999999999999999999999"] {
            assert_eq!(decimal(text).as_str(), text);
        }
    }

    #[test]
    fn rejects_text_that_is_not_a_json_number() {
        for text in ["", "+5", "05", ".5", "5.", "1e", "0x5", "NaN", " 1", "1 ", "--1", "1_000"] {
            assert_eq!(Decimal::new(text), Err(DecimalError), "{text:?}");
        }
    }

    #[test]
    fn compares_numbers_not_text() {
        let cases = [
            ("1.0", "1.00", Ordering::Equal),
            ("-0", "0.000", Ordering::Equal),
            ("0.1", "1e-1", Ordering::Equal),
            ("10", "9.99", Ordering::Greater),
            ("-10", "-9.99", Ordering::Less),
            ("12345678901234567.89", "12345678901234567.90", Ordering::Less),
            ("1e999999999999999999999", "1e5", Ordering::Greater),
            ("0.00012", "0.0001", Ordering::Greater),
        ];
        for (left, right, expected) in cases {
            assert_eq!(decimal(left).compare(&decimal(right)), expected, "{left} against {right}");
            assert_eq!(decimal(right).compare(&decimal(left)), expected.reverse(), "{right} against {left}");
        }
    }
}
