//! Timestamps and durations in nanoseconds, without a calendar library. Their text is RFC 3339 as restricted by ProtoJSON.

/// A timestamp in UTC: seconds since 1970-01-01T00:00:00Z, and nanoseconds within that second.
///
/// The fields may be out of range, as received in a message; [`Time::text`] checks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanos: i32,
}

/// A duration: seconds and nanoseconds of the same sign.
///
/// The fields may be out of range, as received in a message; [`TimeSpan::text`] checks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeSpan {
    /// Whole seconds.
    pub seconds: i64,
    /// −999 999 999 to 999 999 999, with the sign of the seconds.
    pub nanos: i32,
}

const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_SECOND: i32 = 1_000_000_000;
/// 0001-01-01T00:00:00Z.
const TIME_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const TIME_MAX: i64 = 253_402_300_799;
/// About 10 000 years (`google/protobuf/duration.proto`).
const SPAN_MAX: i64 = 315_576_000_000;

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    // Years start in March, so that the leap day is the last day of a year.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day in the proleptic Gregorian calendar, from days since 1970-01-01.
#[must_use]
pub fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Takes a number of exactly `len` digits from the front.
fn take_digits(text: &mut &[u8], len: usize) -> Option<i64> {
    let (number, rest) = text.split_at_checked(len)?;
    if !number.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *text = rest;
    Some(number.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

fn take_byte(text: &mut &[u8], expected: u8) -> Option<()> {
    let (first, rest) = text.split_first()?;
    *text = rest;
    (*first == expected).then_some(())
}

/// Takes an optional `.` with one to nine digits from the front; returns nanoseconds.
fn take_fraction(text: &mut &[u8]) -> Option<i32> {
    let Some(rest) = text.strip_prefix(b".") else { return Some(0) };
    let len = rest.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if !(1..=9).contains(&len) {
        return None;
    }
    let mut rest = rest;
    let number = take_digits(&mut rest, len)?;
    *text = rest;
    let scale = 10_i64.pow(9 - u32::try_from(len).ok()?);
    i32::try_from(number * scale).ok()
}

/// Appends nothing, or a point and 3, 6 or 9 digits: as few as needed.
fn append_fraction(out: &mut String, nanos: u32) {
    if nanos == 0 {
        return;
    }
    let (number, width) = match nanos {
        whole if whole % 1_000_000 == 0 => (whole / 1_000_000, 3),
        whole if whole % 1_000 == 0 => (whole / 1_000, 6),
        whole => (whole, 9),
    };
    out.push_str(&format!(".{number:0width$}"));
}

impl Time {
    /// Parses RFC 3339 with upper-case `T` and `Z` or an offset, and up to nine fractional digits; years 0001 to 9999.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        let year = take_digits(&mut rest, 4)?;
        take_byte(&mut rest, b'-')?;
        let month = take_digits(&mut rest, 2)?;
        take_byte(&mut rest, b'-')?;
        let day = take_digits(&mut rest, 2)?;
        take_byte(&mut rest, b'T')?;
        let hour = take_digits(&mut rest, 2)?;
        take_byte(&mut rest, b':')?;
        let minute = take_digits(&mut rest, 2)?;
        take_byte(&mut rest, b':')?;
        let second = take_digits(&mut rest, 2)?;
        let nanos = take_fraction(&mut rest)?;
        let offset = match rest.split_first()? {
            (b'Z', []) => 0,
            (sign @ (b'+' | b'-'), mut rest) => {
                let hours = take_digits(&mut rest, 2)?;
                take_byte(&mut rest, b':')?;
                let minutes = take_digits(&mut rest, 2)?;
                if !rest.is_empty() || hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = hours * 3_600 + minutes * 60;
                if *sign == b'-' { -offset } else { offset }
            }
            _ => return None,
        };
        let is_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !is_date || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = days_from_date(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second - offset;
        (TIME_MIN..=TIME_MAX).contains(&seconds).then_some(Self { seconds, nanos })
    }

    /// RFC 3339 in UTC with 0, 3, 6 or 9 fractional digits; `None` outside the years 0001 to 9999, or if `nanos` is out of range.
    #[must_use]
    pub fn text(self) -> Option<String> {
        let nanos = u32::try_from(self.nanos).ok().filter(|_| self.nanos < NANOS_PER_SECOND)?;
        if !(TIME_MIN..=TIME_MAX).contains(&self.seconds) {
            return None;
        }
        let (year, month, day) = date_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let mut out = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        append_fraction(&mut out, nanos);
        out.push('Z');
        Some(out)
    }
}

impl TimeSpan {
    /// Parses seconds with up to nine fractional digits and the unit: `1.5s`, `-0.001s`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_suffix('s')?;
        let (negative, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let mut rest = rest.as_bytes();
        let len = rest.iter().take_while(|digit| digit.is_ascii_digit()).count();
        if !(1..=12).contains(&len) {
            return None;
        }
        let seconds = take_digits(&mut rest, len)?;
        let nanos = take_fraction(&mut rest)?;
        if !rest.is_empty() || seconds > SPAN_MAX {
            return None;
        }
        Some(if negative { Self { seconds: -seconds, nanos: -nanos } } else { Self { seconds, nanos } })
    }

    /// Seconds with 0, 3, 6 or 9 fractional digits and the unit; `None` above about 10 000 years, if `nanos` is out of range, or if the signs differ.
    #[must_use]
    pub fn text(self) -> Option<String> {
        let signs_differ = (self.seconds > 0 && self.nanos < 0) || (self.seconds < 0 && self.nanos > 0);
        let nanos = self.nanos.unsigned_abs();
        if signs_differ
            || nanos >= NANOS_PER_SECOND.unsigned_abs()
            || self.seconds.unsigned_abs() > SPAN_MAX.unsigned_abs()
        {
            return None;
        }
        let mut out = String::new();
        if self.seconds < 0 || self.nanos < 0 {
            out.push('-');
        }
        out.push_str(&self.seconds.unsigned_abs().to_string());
        append_fraction(&mut out, nanos);
        out.push('s');
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_timestamps_round_trip() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, 0, "1970-01-01T00:00:00Z"),
            ("0001-01-01T00:00:00Z", TIME_MIN, 0, "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999999Z", TIME_MAX, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
            ("2000-02-29T12:00:00.5Z", 951_825_600, 500_000_000, "2000-02-29T12:00:00.500Z"),
            ("1969-12-31T23:59:59.000001Z", -1, 1_000, "1969-12-31T23:59:59.000001Z"),
            ("2026-11-24T10:00:00+02:00", 1_795_507_200, 0, "2026-11-24T08:00:00Z"),
        ];
        for (text, seconds, nanos, written) in cases {
            let time = Time::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((time.seconds, time.nanos), (seconds, nanos), "{text}");
            assert_eq!(time.text().as_deref(), Some(written));
        }
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "0000-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00+0200",
            "0001-01-01T00:00:00+01:00",
            "1970-01-01T00:00:00Zx",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
        assert_eq!(Time { seconds: TIME_MAX + 1, nanos: 0 }.text(), None);
        assert_eq!(Time { seconds: 0, nanos: -1 }.text(), None);
        assert_eq!(Time { seconds: 0, nanos: NANOS_PER_SECOND }.text(), None);
    }

    #[test]
    fn days_and_dates_map_one_to_one() {
        let mut before = date_from_days(-719_163 - 1);
        for days in -719_162..2_932_897 {
            let date = date_from_days(days);
            assert!(date > before, "{date:?} comes after {before:?}");
            assert_eq!(days_from_date(date.0, date.1, date.2), days);
            before = date;
        }
    }

    #[test]
    fn durations_round_trip() {
        for (text, seconds, nanos, written) in [
            ("0s", 0, 0, "0s"),
            ("1.5s", 1, 500_000_000, "1.500s"),
            ("-0.001s", 0, -1_000_000, "-0.001s"),
            ("-1.000000001s", -1, -1, "-1.000000001s"),
            ("315576000000s", SPAN_MAX, 0, "315576000000s"),
        ] {
            let span = TimeSpan::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((span.seconds, span.nanos), (seconds, nanos), "{text}");
            assert_eq!(span.text().as_deref(), Some(written));
        }
        for text in ["", "s", "1", "1.s", ".5s", "1.0000000000s", "+1s", "1e3s", "315576000001s", "1 s", "--1s"] {
            assert_eq!(TimeSpan::parse(text), None, "{text}");
        }
        assert_eq!(TimeSpan { seconds: 1, nanos: -1 }.text(), None);
    }
}
