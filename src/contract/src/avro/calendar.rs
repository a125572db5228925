//! Dates and times without a time zone, as text of ISO 8601.

use crossdock_message::{Time, date_from_days};

const DAY_SECONDS: i64 = 86_400;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// How a time is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    pub(super) fn per_second(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => NANOS_PER_SECOND,
        }
    }

    fn nanos(self) -> i64 {
        NANOS_PER_SECOND / self.per_second()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Millis => "milliseconds",
            Self::Micros => "microseconds",
            Self::Nanos => "nanoseconds",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Millis => 3,
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }

    /// The time that is this many units after 1970.
    pub(super) fn time(self, count: i64) -> Time {
        let nanos = count.rem_euclid(self.per_second()) * self.nanos();
        Time { seconds: count.div_euclid(self.per_second()), nanos: i32::try_from(nanos).unwrap_or(0) }
    }

    /// The units since 1970; `None` if that is not a whole number of them or too many.
    pub(super) fn count(self, time: Time) -> Option<i64> {
        let nanos = i64::from(time.nanos);
        // The product alone may exceed 64 bits.
        let count = i128::from(time.seconds) * i128::from(self.per_second()) + i128::from(nanos / self.nanos());
        i64::try_from(count).ok().filter(|_| nanos % self.nanos() == 0)
    }
}

/// `2026-01-31`; `None` outside of the years 1 to 9999.
pub(super) fn date_text(days: i32) -> Option<String> {
    let (year, month, day) = date_from_days(days.into());
    (1..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// The days since 1970.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let midnight = Time::parse(&format!("{text}T00:00:00Z")).filter(|_| text.len() == "2026-01-31".len())?;
    i32::try_from(midnight.seconds / DAY_SECONDS).ok().filter(|_| midnight.seconds % DAY_SECONDS == 0)
}

/// `06:00:00.000`; `None` if it is no time of a day.
pub(super) fn time_text(unit: Unit, count: i64) -> Option<String> {
    let (seconds, part) = (count.div_euclid(unit.per_second()), count.rem_euclid(unit.per_second()));
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let is_of_day = (0..DAY_SECONDS).contains(&seconds);
    is_of_day.then(|| format!("{hours:02}:{minutes:02}:{:02}.{part:0width$}", seconds % 60, width = unit.digits()))
}

/// The units since midnight; `None` if it is no time of a day, or not a whole number of them.
pub(super) fn parse_time(unit: Unit, text: &str) -> Option<i64> {
    let time = Time::parse(&format!("1970-01-01T{text}Z"))?;
    unit.count(time).filter(|_| (0..DAY_SECONDS).contains(&time.seconds))
}

/// `2026-01-31T06:00:00`; `None` outside of the years that a timestamp can have.
pub(super) fn local_text(unit: Unit, count: i64) -> Option<String> {
    unit.time(count).text().map(|text| text.trim_end_matches('Z').to_owned())
}

/// The units since 1970, as if it were a time of UTC.
pub(super) fn parse_local(unit: Unit, text: &str) -> Option<i64> {
    unit.count(Time::parse(&format!("{text}Z"))?)
}
