//! Timestamps and durations, with time zones of the IANA database.

use crossdock_message::{Time, TimeSpan, date_from_days};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::{Call, Function, take, text_at};
use crate::failure::Outcome;
use crate::time::{nanos_of_duration, time_from_nanos};
use crate::value::Val;

const OF_TIME: &[&str] = &["timestamp.get() -> int", "timestamp.get(string) -> int"];
const OF_BOTH: &[&str] = &["timestamp.get() -> int", "timestamp.get(string) -> int", "duration.get() -> int"];

const fn part(
    name: &'static str,
    signatures: &'static [&'static str],
    description: &'static str,
    examples: &'static [(&'static str, &'static str)],
    run: super::Run,
) -> Function {
    Function { name, group: "Time", signatures, description, cost: "1", examples, run }
}

pub(super) const FUNCTIONS: &[Function] = &[
    part(
        "getFullYear",
        OF_TIME,
        "The year, in UTC or in a time zone such as `Europe/Berlin` or `+02:00`.",
        &[("timestamp('2024-12-31T23:30:00Z').getFullYear('Europe/Berlin')", "2025")],
        |call, arguments| civil(call, arguments, |at| at.year),
    ),
    part(
        "getMonth",
        OF_TIME,
        "The month, from 0.",
        &[("timestamp('2024-02-29T00:00:00Z').getMonth()", "1")],
        |call, arguments| civil(call, arguments, |at| at.month - 1),
    ),
    part(
        "getDate",
        OF_TIME,
        "The day of the month, from 1.",
        &[("timestamp('2024-02-29T00:00:00Z').getDate()", "29")],
        |call, arguments| civil(call, arguments, |at| at.day),
    ),
    part(
        "getDayOfMonth",
        OF_TIME,
        "The day of the month, from 0.",
        &[("timestamp('2024-02-29T00:00:00Z').getDayOfMonth()", "28")],
        |call, arguments| civil(call, arguments, |at| at.day - 1),
    ),
    part(
        "getDayOfWeek",
        OF_TIME,
        "The day of the week; 0 is Sunday.",
        &[("timestamp('2024-02-29T00:00:00Z').getDayOfWeek()", "4")],
        |call, arguments| civil(call, arguments, Civil::day_of_week),
    ),
    part(
        "getDayOfYear",
        OF_TIME,
        "The day of the year, from 0.",
        &[("timestamp('2024-02-29T00:00:00Z').getDayOfYear()", "59")],
        |call, arguments| civil(call, arguments, Civil::day_of_year),
    ),
    part(
        "getHours",
        OF_BOTH,
        "The hour of the day; for a duration, its total hours.",
        &[("duration('90m').getHours()", "1")],
        |call, arguments| part_of(call, arguments, |at| at.second / 3600, 3_600_000_000_000),
    ),
    part(
        "getMinutes",
        OF_BOTH,
        "The minute of the hour; for a duration, its total minutes.",
        &[("duration('90m').getMinutes()", "90")],
        |call, arguments| part_of(call, arguments, |at| at.second / 60 % 60, 60_000_000_000),
    ),
    part(
        "getSeconds",
        OF_BOTH,
        "The second of the minute; for a duration, its total seconds.",
        &[("duration('90s').getSeconds()", "90")],
        |call, arguments| part_of(call, arguments, |at| at.second % 60, 1_000_000_000),
    ),
    part(
        "getMilliseconds",
        OF_BOTH,
        "The milliseconds of the second.",
        &[("duration('1.234s').getMilliseconds()", "234")],
        milliseconds,
    ),
    part(
        "now",
        &["() -> timestamp"],
        "The current time; the same throughout an expression.",
        &[("now() > timestamp('2020-01-01T00:00:00Z')", "true")],
        |call, _| Ok(Val::Time(call.now())),
    ),
    Function {
        name: "formatTime",
        group: "Time",
        signatures: &["(timestamp, string) -> string", "(timestamp, string, string) -> string"],
        description: "The timestamp in a `strftime` format such as `%Y-%m-%d`, in UTC or in a time zone.",
        cost: "the length of the format",
        examples: &[("formatTime(timestamp('2024-02-29T12:00:00Z'), '%d.%m.%Y')", "'29.02.2024'")],
        run: format_time,
    },
    Function {
        name: "parseTime",
        group: "Time",
        signatures: &["(string, string) -> timestamp", "(string, string, string) -> timestamp"],
        description: "The timestamp parsed with a `strptime` format; without an offset, in UTC or in the time zone.",
        cost: "the length of the string",
        examples: &[
            ("parseTime('29.02.2024', '%d.%m.%Y')", "timestamp('2024-02-29T00:00:00Z')"),
            ("parseTime('2024-07-01 12:00', '%Y-%m-%d %H:%M', 'Europe/Berlin')", "timestamp('2024-07-01T10:00:00Z')"),
        ],
        run: parse_time,
    },
];

/// Bytes of a format, or of a string to parse.
const FORMAT_LEN_MAX: usize = 256;

fn zone(call: &Call<'_>, name: &str) -> Outcome<TimeZone> {
    if name.is_empty() || name == "UTC" || name == "Z" {
        return Ok(TimeZone::UTC);
    }
    if name.len() > 64 {
        return Err(call.fail("the name of a time zone must have at most 64 bytes"));
    }
    let unknown = || call.fail("unknown time zone; write `Europe/Berlin` or `+02:00`");
    let (sign, rest) = match name.as_bytes()[0] {
        b'-' => (-1, &name[1..]),
        b'+' => (1, &name[1..]),
        b'0'..=b'9' => (1, name),
        _ => return TimeZone::get(name).map_err(|_| unknown()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(unknown)?;
    let number = |text: &str, below: i32| text.parse::<i32>().ok().filter(|number| (0..below).contains(number));
    let (hours, minutes) = number(hours, 26).zip(number(minutes, 60)).ok_or_else(unknown)?;
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map(TimeZone::fixed).map_err(|_| unknown())
}

fn in_zone(call: &Call<'_>, time: Time, arguments: &[Val<'_>], at: usize) -> Outcome<Zoned> {
    let zone = match arguments.get(at) {
        Some(_) => zone(call, text_at(call, arguments, at)?)?,
        None => TimeZone::UTC,
    };
    let timestamp = Timestamp::new(time.seconds, time.nanos);
    timestamp.map(|timestamp| timestamp.to_zoned(zone)).map_err(|_| call.fail("the timestamp is out of range"))
}

/// Civil date and time in the proleptic Gregorian calendar, also beyond the range of the library.
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Days since 1970-01-01.
    days: i64,
    /// The second of the day.
    second: i64,
    millisecond: i64,
}

impl Civil {
    /// 1970-01-01 was a Thursday; 0 is Sunday.
    fn day_of_week(&self) -> i64 {
        (self.days + 4).rem_euclid(7)
    }

    fn day_of_year(&self) -> i64 {
        let is_leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let month = usize::try_from(self.month - 1).unwrap_or(0);
        before.get(month).copied().unwrap_or(0) + self.day - 1 + i64::from(is_leap && self.month > 2)
    }
}

fn civil<'v>(call: &Call<'_>, arguments: &mut [Val<'v>], part: impl FnOnce(&Civil) -> i64) -> Outcome<Val<'v>> {
    const SECONDS_A_DAY: i64 = 86_400;
    let Val::Time(time) = take(arguments, 0) else { return call.no_overload() };
    let offset = match arguments.get(1) {
        Some(_) => {
            let zone = zone(call, text_at(call, arguments, 1)?)?;
            // Beyond the range of the library, the rules at its bounds apply.
            let seconds = time.seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
            let at = Timestamp::from_second(seconds).map_err(|_| call.fail("the timestamp is out of range"))?;
            i64::from(zone.to_offset(at).seconds())
        }
        None => 0,
    };
    let local = time.seconds + offset;
    let days = local.div_euclid(SECONDS_A_DAY);
    let (year, month, day) = date_from_days(days);
    let (second, millisecond) = (local.rem_euclid(SECONDS_A_DAY), i64::from(time.nanos / 1_000_000));
    Ok(Val::Int(part(&Civil { year, month, day, days, second, millisecond })))
}

fn part_of<'v>(
    call: &Call<'_>,
    arguments: &mut [Val<'v>],
    part: impl FnOnce(&Civil) -> i64,
    nanos: i128,
) -> Outcome<Val<'v>> {
    match arguments.first() {
        Some(Val::Duration(span)) if arguments.len() == 1 => integer(call, nanos_of_duration(*span) / nanos),
        _ => civil(call, arguments, part),
    }
}

fn integer<'v>(call: &Call<'_>, number: i128) -> Outcome<Val<'v>> {
    i64::try_from(number).map(Val::Int).map_err(|_| call.fail("integer overflow"))
}

fn milliseconds<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    match arguments.first() {
        Some(Val::Duration(TimeSpan { nanos, .. })) if arguments.len() == 1 => {
            Ok(Val::Int(i64::from(nanos / 1_000_000)))
        }
        _ => civil(call, arguments, |at| at.millisecond),
    }
}

fn format_time<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let Val::Time(time) = take(arguments, 0) else { return call.no_overload() };
    let zoned = in_zone(call, time, arguments, 2)?;
    let format = text_at(call, arguments, 1)?;
    if format.len() > FORMAT_LEN_MAX {
        return Err(call.fail("the format must have at most 256 bytes"));
    }
    // A conversion specifier yields at most the name of a day or a zone.
    call.charge_output(32 * format.len())?;
    jiff::fmt::strtime::format(&**format, &zoned).map(Val::text).map_err(|_| call.fail("invalid format"))
}

fn parse_time<'v>(call: &Call<'_>, arguments: &mut [Val<'v>]) -> Outcome<Val<'v>> {
    let (text, format) = (text_at(call, arguments, 0)?, text_at(call, arguments, 1)?);
    if text.len() > FORMAT_LEN_MAX || format.len() > FORMAT_LEN_MAX {
        return Err(call.fail("string and format must have at most 256 bytes"));
    }
    call.charge_scan(16 * (text.len() + format.len()))?;
    let malformed = || call.fail("the string does not match the format");
    let parsed = jiff::fmt::strtime::parse(&**format, &**text).map_err(|_| malformed())?;
    let timestamp = match parsed.to_timestamp() {
        Ok(found) => found,
        Err(_) => {
            let zone = match arguments.get(2) {
                Some(_) => zone(call, text_at(call, arguments, 2)?)?,
                None => TimeZone::UTC,
            };
            let at = parsed.to_datetime().or_else(|_| parsed.to_date().map(|date| date.at(0, 0, 0, 0)));
            let zoned = at.and_then(|at| zone.to_ambiguous_zoned(at).compatible());
            zoned.map_err(|_| malformed())?.timestamp()
        }
    };
    time_from_nanos(timestamp.as_nanosecond()).map(Val::Time).ok_or_else(|| call.fail("the timestamp is out of range"))
}
