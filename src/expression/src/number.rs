//! Exact decimals: arithmetic after the "General Decimal Arithmetic Specification" 1.70. Only quotients are rounded.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::rc::Rc;

use crossdock_message::{ByteString, Decimal};
use num_bigint::BigInt;

/// Significant digits of an inexact quotient: those of decimal128 (IEEE 754-2008).
const QUOTIENT_DIGITS: u64 = 34;
/// Digits of a result.
const DIGITS_MAX: u64 = 1000;
/// The largest absolute exponent of a result.
const EXPONENT_MAX: i32 = 6144;

/// Length of the text of a 128-bit number.
const SHORT_LEN: usize = 48;

/// A decimal number: digits times a power of ten.
#[derive(Debug, Clone)]
pub enum Dec<'v> {
    /// Borrowed from the message or the expression, as written there.
    Written(&'v Decimal),
    /// A result of up to 38 digits: the high and low half of a signed 128-bit coefficient, and the exponent.
    Small(i64, u64, i32),
    /// A longer result: coefficient and exponent.
    Big(Rc<(BigInt, i32)>),
}

/// Why an operation has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticError {
    /// Too many digits, or an exponent out of range.
    Overflow,
    /// A division by zero.
    DivisionByZero,
}

#[derive(Debug, Clone)]
enum Digits {
    Small(i128),
    Big(BigInt),
}

type Parts = (Digits, i32);

impl Digits {
    fn big(&self) -> BigInt {
        match self {
            Self::Small(digits) => BigInt::from(*digits),
            Self::Big(digits) => digits.clone(),
        }
    }

    fn is_zero(&self) -> bool {
        match self {
            Self::Small(digits) => *digits == 0,
            Self::Big(digits) => digits.sign() == num_bigint::Sign::NoSign,
        }
    }

    /// The number of digits, overestimated by at most one.
    fn count(&self) -> u64 {
        match self {
            Self::Small(digits) => u64::from(digits.unsigned_abs().checked_ilog10().unwrap_or(0)) + 1,
            Self::Big(digits) => digits.bits() * 30103 / 100_000 + 1,
        }
    }

    fn scaled(&self, powers: u32) -> Self {
        if let Self::Small(digits) = self
            && let Some(scaled) = 10_i128.checked_pow(powers).and_then(|factor| digits.checked_mul(factor))
        {
            return Self::Small(scaled);
        }
        Self::Big(self.big() * BigInt::from(10).pow(powers))
    }
}

fn power_of_ten(powers: u32) -> BigInt {
    BigInt::from(10).pow(powers)
}

impl<'v> Dec<'v> {
    fn from_parts(digits: Digits, exponent: i32) -> Result<Self, ArithmeticError> {
        if !(-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent) {
            return Err(ArithmeticError::Overflow);
        }
        match digits {
            Digits::Small(digits) => Ok(Self::small(digits, exponent)),
            Digits::Big(digits) => match i128::try_from(&digits) {
                Ok(small) => Ok(Self::small(small, exponent)),
                Err(_) if Digits::Big(digits.clone()).count() > DIGITS_MAX + 1 => Err(ArithmeticError::Overflow),
                Err(_) => Ok(Self::Big(Rc::new((digits, exponent)))),
            },
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the two halves of the number")]
    fn small(digits: i128, exponent: i32) -> Self {
        Self::Small((digits >> 64) as i64, digits as u64, exponent)
    }

    /// An integer.
    #[must_use]
    pub fn from_integer(number: i128) -> Self {
        Self::small(number, 0)
    }

    /// The value of a double: exact for an integral double, otherwise its shortest decimal text. This preserves the order of doubles, so
    /// that numbers of all types have one total order. `None` if the double is not finite.
    #[must_use]
    pub fn from_double(number: f64) -> Option<Self> {
        if !number.is_finite() {
            return None;
        }
        if number.fract() == 0.0 {
            return Self::from_parts(integer_digits(number), 0).ok();
        }
        // The shortest text that reads back as this double.
        let text = format!("{number:e}");
        let (digits, exponent) = parse_parts(&text)?;
        Self::from_parts(digits, exponent).ok()
    }

    /// Parses a number in JSON syntax.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let checked = Decimal::new(text).ok()?;
        let (digits, exponent) = parse_parts(checked.as_str())?;
        Self::from_parts(digits, exponent).ok()
    }

    /// Digits and exponent if both are small: the common case.
    #[inline]
    fn short(&self) -> Option<(i128, i32)> {
        match self {
            Self::Small(high, low, exponent) => Some(((i128::from(*high) << 64) | i128::from(*low), *exponent)),
            Self::Written(decimal) => short(decimal.as_str()),
            Self::Big(_) => None,
        }
    }

    fn parts(&self) -> Result<Parts, ArithmeticError> {
        match self {
            Self::Written(decimal) => parse_parts(decimal.as_str()).ok_or(ArithmeticError::Overflow),
            Self::Small(high, low, exponent) => {
                Ok((Digits::Small((i128::from(*high) << 64) | i128::from(*low)), *exponent))
            }
            Self::Big(big) => Ok((Digits::Big(big.0.clone()), big.1)),
        }
    }

    /// Bytes on the heap, or the bytes that arithmetic on it has to process.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Written(decimal) => decimal.as_str().len(),
            Self::Small(..) => 0,
            Self::Big(big) => usize::try_from(big.0.bits() / 8).unwrap_or(usize::MAX),
        }
    }

    /// Its text in JSON syntax (General Decimal Arithmetic, to-scientific-string).
    #[must_use]
    pub fn text(&self) -> ByteString {
        let (digits, exponent) = match self {
            Self::Written(decimal) => return decimal.as_str().into(),
            other => match other.parts() {
                Ok(parts) => parts,
                Err(_) => return ByteString::from_static("0"),
            },
        };
        let all = match &digits {
            Digits::Small(digits) => digits.to_string(),
            Digits::Big(digits) => digits.to_string(),
        };
        let (sign, digits) = match all.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", &*all),
        };
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX);
        let adjusted = i64::from(exponent) + count - 1;
        if exponent <= 0 && adjusted >= -6 {
            let fraction = usize::try_from(-exponent).unwrap_or(0);
            if fraction == 0 {
                return format!("{sign}{digits}").into();
            }
            let padded = format!("{digits:0>width$}", width = fraction + 1);
            let (whole, fraction) = padded.split_at(padded.len() - fraction);
            return format!("{sign}{whole}.{fraction}").into();
        }
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        format!("{sign}{first}{point}{rest}e{adjusted:+}").into()
    }

    /// Its text with `places` fraction digits, rounded half to even, without an exponent.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`] if the text has more than 1,000 digits.
    pub fn fixed(&self, places: u32) -> Result<String, ArithmeticError> {
        let rounded = self.round(i32::try_from(places).map_err(|_| ArithmeticError::Overflow)?)?;
        let (digits, exponent) = rounded.parts()?;
        let powers =
            u32::try_from(exponent + i32::try_from(places).unwrap_or(0)).map_err(|_| ArithmeticError::Overflow)?;
        if digits.count() + u64::from(powers) > DIGITS_MAX {
            return Err(ArithmeticError::Overflow);
        }
        let all = match digits.scaled(powers) {
            Digits::Small(digits) => digits.to_string(),
            Digits::Big(digits) => digits.to_string(),
        };
        let (sign, all) = all.strip_prefix('-').map_or(("", &*all), |digits| ("-", digits));
        let places = places as usize;
        let padded = format!("{all:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        Ok(if places == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
    }

    /// As a decimal of a message.
    #[must_use]
    pub fn to_decimal(&self) -> Decimal {
        match self {
            Self::Written(decimal) => (*decimal).clone(),
            other => Decimal::new(other.text()).unwrap_or_else(|_| Decimal::from(0_i64)),
        }
    }

    /// The nearest double.
    #[must_use]
    pub fn to_double(&self) -> f64 {
        self.text().parse().unwrap_or(f64::NAN)
    }

    /// The integer part, if it fits in 128 bits.
    #[must_use]
    pub fn truncated(&self) -> Option<i128> {
        let Ok((digits, exponent)) = self.parts() else {
            // With an exponent out of range, only zero fits in 128 bits.
            return (self
                .text()
                .bytes()
                .take_while(|byte| !matches!(byte, b'e' | b'E'))
                .all(|byte| !(b'1'..=b'9').contains(&byte)))
            .then_some(0);
        };
        if digits.is_zero() {
            return Some(0);
        }
        if exponent >= 0 {
            let powers = u32::try_from(exponent).ok().filter(|powers| *powers < 40)?;
            return match digits.scaled(powers) {
                Digits::Small(digits) => Some(digits),
                Digits::Big(_) => None,
            };
        }
        let powers = exponent.unsigned_abs();
        if u64::from(powers) > digits.count() {
            return Some(0);
        }
        match &digits {
            Digits::Small(digits) => Some(10_i128.checked_pow(powers).map_or(0, |power| digits / power)),
            Digits::Big(digits) => i128::try_from(digits / power_of_ten(powers)).ok(),
        }
    }

    /// Whether it has no fraction.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        self.truncated().is_some_and(|whole| self.compare(&Dec::from_integer(whole)).is_eq())
    }

    /// Compares the exact values.
    #[must_use]
    pub fn compare(&self, other: &Dec<'_>) -> Ordering {
        // Long numbers are compared by their texts.
        if self.weight().max(other.weight()) > SHORT_LEN {
            return self.to_decimal().compare(&other.to_decimal());
        }
        if let (Ok((Digits::Small(left), left_exponent)), Ok((Digits::Small(right), right_exponent))) =
            (self.parts(), other.parts())
        {
            if left_exponent == right_exponent {
                return left.cmp(&right);
            }
            let powers = left_exponent.abs_diff(right_exponent);
            let factor = 10_i128.checked_pow(powers);
            let scaled = |digits: i128| factor.and_then(|factor| digits.checked_mul(factor));
            if left_exponent > right_exponent {
                if let Some(left) = scaled(left) {
                    return left.cmp(&right);
                }
            } else if let Some(right) = scaled(right) {
                return left.cmp(&right);
            }
        }
        self.to_decimal().compare(&other.to_decimal())
    }

    fn aligned(&self, other: &Dec<'_>) -> Result<(Digits, Digits, i32), ArithmeticError> {
        let ((left, left_exponent), (right, right_exponent)) = (self.parts()?, other.parts()?);
        let exponent = left_exponent.min(right_exponent);
        let scale = |digits: Digits, own: i32| {
            let powers = own.abs_diff(exponent);
            if powers == 0 || digits.is_zero() {
                return Ok(digits);
            }
            if digits.count() + u64::from(powers) > DIGITS_MAX {
                Err(ArithmeticError::Overflow)
            } else {
                Ok(digits.scaled(powers))
            }
        };
        Ok((scale(left, left_exponent)?, scale(right, right_exponent)?, exponent))
    }

    /// The sum.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`].
    pub fn add(&self, other: &Dec<'_>) -> Result<Dec<'v>, ArithmeticError> {
        if let (Some((left, left_exponent)), Some((right, right_exponent))) = (self.short(), other.short())
            && left_exponent == right_exponent
            && left_exponent.abs() <= EXPONENT_MAX
            && let Some(sum) = left.checked_add(right)
        {
            return Ok(Dec::small(sum, left_exponent));
        }
        let (left, right, exponent) = self.aligned(other)?;
        if let (Digits::Small(left), Digits::Small(right)) = (&left, &right)
            && let Some(sum) = left.checked_add(*right)
        {
            return Dec::from_parts(Digits::Small(sum), exponent);
        }
        Dec::from_parts(Digits::Big(left.big() + right.big()), exponent)
    }

    /// The difference.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`].
    pub fn subtract(&self, other: &Dec<'_>) -> Result<Dec<'v>, ArithmeticError> {
        self.add(&other.negate()?)
    }

    /// The number with the other sign.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`].
    pub fn negate<'r>(&self) -> Result<Dec<'r>, ArithmeticError> {
        let (digits, exponent) = self.parts()?;
        let digits = match digits {
            Digits::Small(digits) => {
                digits.checked_neg().map_or_else(|| Digits::Big(-BigInt::from(digits)), Digits::Small)
            }
            Digits::Big(digits) => Digits::Big(-digits),
        };
        Dec::from_parts(digits, exponent)
    }

    /// The product.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`].
    pub fn multiply(&self, other: &Dec<'_>) -> Result<Dec<'v>, ArithmeticError> {
        if let (Some((left, left_exponent)), Some((right, right_exponent))) = (self.short(), other.short())
            && (left_exponent + right_exponent).abs() <= EXPONENT_MAX
            && let Some(product) = left.checked_mul(right)
        {
            return Ok(Dec::small(product, left_exponent + right_exponent));
        }
        let ((left, left_exponent), (right, right_exponent)) = (self.parts()?, other.parts()?);
        let exponent = left_exponent + right_exponent;
        if let (Digits::Small(left), Digits::Small(right)) = (&left, &right)
            && let Some(product) = left.checked_mul(*right)
        {
            return Dec::from_parts(Digits::Small(product), exponent);
        }
        if left.count() + right.count() > DIGITS_MAX {
            return Err(ArithmeticError::Overflow);
        }
        Dec::from_parts(Digits::Big(left.big() * right.big()), exponent)
    }

    /// The quotient: exact if it has at most 34 digits, otherwise rounded to 34 digits, half to even.
    ///
    /// # Errors
    /// [`ArithmeticError::DivisionByZero`], [`ArithmeticError::Overflow`].
    pub fn divide(&self, other: &Dec<'_>) -> Result<Dec<'v>, ArithmeticError> {
        let ((left, left_exponent), (right, right_exponent)) = (self.parts()?, other.parts()?);
        if right.is_zero() {
            return Err(ArithmeticError::DivisionByZero);
        }
        let ideal = left_exponent - right_exponent;
        if left.is_zero() {
            return Dec::from_parts(Digits::Small(0), ideal.clamp(-EXPONENT_MAX, EXPONENT_MAX));
        }
        // Scale so that the quotient has at least one digit more than it keeps.
        let wanted = QUOTIENT_DIGITS + 2 + right.count();
        let powers = u32::try_from(wanted.saturating_sub(left.count())).unwrap_or(0);
        let (dividend, divisor) = (left.scaled(powers).big(), right.big());
        let (mut quotient, rest) = (&dividend / &divisor, &dividend % &divisor);
        let mut exponent = ideal - i32::try_from(powers).unwrap_or(i32::MAX);
        let is_exact = rest.sign() == num_bigint::Sign::NoSign;
        let digits = quotient.magnitude().to_string().len() as u64;
        if digits > QUOTIENT_DIGITS {
            let over = u32::try_from(digits - QUOTIENT_DIGITS).unwrap_or(u32::MAX);
            quotient = rounded(&quotient, over, is_exact);
            exponent += i32::try_from(over).unwrap_or(i32::MAX);
        }
        // Strip trailing zeros down to the ideal exponent.
        let ten = BigInt::from(10);
        while exponent < ideal && (&quotient % &ten).sign() == num_bigint::Sign::NoSign {
            quotient /= &ten;
            exponent += 1;
        }
        Dec::from_parts(Digits::Big(quotient), exponent)
    }

    /// The remainder of integer division, with the sign of the dividend.
    ///
    /// # Errors
    /// [`ArithmeticError::DivisionByZero`], [`ArithmeticError::Overflow`].
    pub fn remainder(&self, other: &Dec<'_>) -> Result<Dec<'v>, ArithmeticError> {
        let (left, right, exponent) = self.aligned(other)?;
        if right.is_zero() {
            return Err(ArithmeticError::DivisionByZero);
        }
        if let (Digits::Small(left), Digits::Small(right)) = (&left, &right) {
            return Dec::from_parts(Digits::Small(left.checked_rem(*right).unwrap_or(0)), exponent);
        }
        Dec::from_parts(Digits::Big(left.big() % right.big()), exponent)
    }

    /// Rounds to at most `places` fraction digits, half to even.
    ///
    /// # Errors
    /// [`ArithmeticError::Overflow`].
    pub fn round(&self, places: i32) -> Result<Dec<'v>, ArithmeticError> {
        let (digits, exponent) = self.parts()?;
        if exponent >= -places {
            return Dec::from_parts(digits, exponent);
        }
        let over = exponent.abs_diff(-places);
        if u64::from(over) > digits.count() + 1 {
            return Dec::from_parts(Digits::Small(0), -places);
        }
        Dec::from_parts(Digits::Big(rounded(&digits.big(), over, true)), -places)
    }
}

/// The digits of an integral double.
#[expect(clippy::cast_possible_truncation, reason = "the double is within the bounds of 128 bits")]
fn integer_digits(number: f64) -> Digits {
    const FRACTION_BITS: u32 = 52;
    const BIAS: u64 = 1023;
    if number.abs() < 1e38 {
        return Digits::Small(number as i128);
    }
    let bits = number.to_bits();
    let power = ((bits >> FRACTION_BITS) & 0x7ff).saturating_sub(BIAS + u64::from(FRACTION_BITS));
    let fraction = (bits & ((1 << FRACTION_BITS) - 1)) | (1 << FRACTION_BITS);
    let digits = BigInt::from(fraction) << power;
    Digits::Big(if number < 0.0 { -digits } else { digits })
}

/// Drops the last `digits` digits, rounding half to even.
fn rounded(number: &BigInt, digits: u32, is_exact: bool) -> BigInt {
    let power = power_of_ten(digits);
    let (mut kept, rest) = (number / &power, number % &power);
    let twice: BigInt = BigInt::from(rest.magnitude().clone()) * 2;
    let is_odd = kept.bit(0);
    let up = match twice.cmp(&power) {
        Ordering::Greater => true,
        Ordering::Equal => !is_exact || is_odd,
        Ordering::Less => false,
    };
    if up {
        kept += if number.sign() == num_bigint::Sign::Minus { -1 } else { 1 };
    }
    kept
}

/// Digits and exponent of a text of up to 18 digits without an exponent.
fn short(text: &str) -> Option<(i128, i32)> {
    let (mut digits, mut places, mut negative, mut point) = (0_i64, 0, false, false);
    if text.len() > 19 {
        return None;
    }
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + i64::from(byte - b'0');
                places += i32::from(point);
            }
            b'.' => point = true,
            b'-' => negative = true,
            _ => return None,
        }
    }
    (places + 1 < 19 && text.len() < 19).then_some((i128::from(if negative { -digits } else { digits }), -places))
}

/// Digits and exponent of a text in JSON syntax; `None` if the exponent is out of range.
fn parse_parts(text: &str) -> Option<Parts> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (
            &text[..at],
            text[at + 1..].parse::<i32>().ok().filter(|exponent| (-EXPONENT_MAX..=EXPONENT_MAX).contains(exponent))?,
        ),
        None => (text, 0),
    };
    let mut small: i128 = 0;
    let mut fraction: i32 = 0;
    let mut after_point = false;
    let mut fits = true;
    for byte in mantissa.bytes() {
        match byte {
            b'.' => after_point = true,
            b'-' => {}
            digit => {
                fraction += i32::from(after_point);
                match small.checked_mul(10).and_then(|small| small.checked_add(i128::from(digit - b'0'))) {
                    Some(next) => small = next,
                    None => fits = false,
                }
            }
        }
    }
    let negative = mantissa.starts_with('-');
    let digits = if fits {
        Digits::Small(if negative { -small } else { small })
    } else {
        let all: String = mantissa.chars().filter(|character| *character != '.').collect();
        Digits::Big(all.parse().ok()?)
    };
    Some((digits, exponent - fraction))
}
