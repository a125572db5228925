//! Timestamps and durations in nanoseconds, within the ranges of CEL.

use crossdock_message::{Time, TimeSpan};

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIME_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: i128 = 1_000_000_000;

/// A timestamp from nanoseconds since 1970; `None` outside the years 1 to 9999.
pub(crate) fn time_from_nanos(nanos: i128) -> Option<Time> {
    let seconds = i64::try_from(nanos.div_euclid(NANOS)).ok().filter(|seconds| TIME_SECONDS.contains(seconds))?;
    Some(Time { seconds, nanos: i32::try_from(nanos.rem_euclid(NANOS)).unwrap_or(0) })
}

/// A duration from nanoseconds; `None` if they exceed 64 bits, as in CEL.
pub(crate) fn duration_from_nanos(nanos: i128) -> Option<TimeSpan> {
    i64::try_from(nanos).ok()?;
    let seconds = i64::try_from(nanos / NANOS).ok()?;
    Some(TimeSpan { seconds, nanos: i32::try_from(nanos % NANOS).unwrap_or(0) })
}

/// Nanoseconds since 1970.
pub(crate) fn nanos_of_time(time: Time) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}

/// Nanoseconds.
pub(crate) fn nanos_of_duration(span: TimeSpan) -> i128 {
    i128::from(span.seconds) * 1_000_000_000 + i128::from(span.nanos)
}
