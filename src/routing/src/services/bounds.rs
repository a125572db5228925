//! Times and counts within their bounds.

use std::time::Duration as StdDuration;

use crossdock_settings::{Duration, Reader, Spanned};

const TIME_MAX: StdDuration = StdDuration::from_secs(3600);

/// The time that is given, or the default; `None` if an error was reported.
pub(super) fn bounded_time(
    given: Option<&Spanned<Duration>>,
    name: &str,
    default: StdDuration,
    min: StdDuration,
    reader: &mut Reader<'_>,
) -> Option<StdDuration> {
    let Some(given) = given else { return Some(default) };
    if (min..=TIME_MAX).contains(&given.value.0) {
        return Some(given.value.0);
    }
    reader.error("duration", given.span, format!("`{name}` must be between {min:?} and 1h"), "");
    None
}

/// The count that is given, or the default; `None` if an error was reported.
pub(super) fn bounded_count(
    given: Option<&Spanned<u32>>,
    name: &str,
    default: u32,
    max: u32,
    reader: &mut Reader<'_>,
) -> Option<u32> {
    let Some(given) = given else { return Some(default) };
    if (1..=max).contains(&given.value) {
        return Some(given.value);
    }
    reader.error("number", given.span, format!("`{name}` must be between 1 and {max}"), "");
    None
}
