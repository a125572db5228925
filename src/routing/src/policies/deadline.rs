//! `deadline`: how long the exchange of a message may take.

use std::time::{Duration as StdDuration, Instant};

use crossdock_message::Message;
use crossdock_settings::{Duration, Reader, settings};

use super::{Policy, PolicyContext};

const DEFAULT: StdDuration = StdDuration::from_secs(10);
const MAX: StdDuration = StdDuration::from_secs(60);
/// Both ends decide how long a stream lasts; this bounds one that was forgotten.
const STREAM: StdDuration = StdDuration::from_secs(24 * 3600);

settings! {
    /// a deadline
    pub(crate) struct DeadlineSettings {
        /// For callers that do not set a deadline.
        pub(crate) default: Option<Duration>,
        /// The longest deadline that a caller can set.
        pub(crate) max: Option<Duration>,
    }
}

/// The deadline of a route. Every route has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlinePolicy {
    /// For callers that do not set a deadline.
    pub default: StdDuration,
    /// The longest deadline that a caller can set.
    pub max: StdDuration,
}

impl DeadlinePolicy {
    /// When the exchange of a message must end, if it starts now.
    #[must_use]
    pub fn of(&self, message: &Message, now: Instant) -> Instant {
        let latest = now + self.max;
        message.deadline.map_or(now + self.default, |deadline| deadline.instant().min(latest))
    }
}

impl Policy for DeadlinePolicy {
    type Settings = DeadlineSettings;
    type Plan = Self;

    const KEY: &'static str = "deadline";
    const SUMMARY: &'static str =
        "How long the exchange of a message may take: 10s by default and 60s at most, or 24h for streams.";

    fn check(settings: Option<DeadlineSettings>, route: &PolicyContext<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let (default, max) = if route.is_streaming() { (STREAM, STREAM) } else { (DEFAULT, MAX) };
        let max = settings.as_ref().and_then(|settings| settings.max).map_or(max, |max| max.0);
        let default = settings.as_ref().and_then(|settings| settings.default).map_or(default.min(max), |wait| wait.0);
        if default > max {
            let message = "`deadline.default` exceeds `deadline.max`";
            reader.error("deadline", route.span(Self::KEY), message, "increase `max`, or decrease `default`");
            return None;
        }
        Some(Self { default, max })
    }

    fn describe(plan: &Self) -> Option<String> {
        Some(format!("{:?}, at most {:?}", plan.default, plan.max))
    }
}
