//! Logs one line per fault, with the cause for operators and without data of messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossdock_message::{Fault, Origin, RequestContext};

use crate::stats::is_server_side;

/// Lines per second of the process: a flood of faults must not fill the disk or slow down other requests.
const LINES_PER_SECOND_MAX: u64 = 200;

/// Logs faults, limited to [`LINES_PER_SECOND_MAX`].
#[derive(Debug)]
pub(crate) struct FaultLog {
    started: Instant,
    /// The current second, and the lines in it.
    second: AtomicU64,
    lines: AtomicU64,
    suppressed: AtomicU64,
}

impl FaultLog {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, second: AtomicU64::new(0), lines: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Logs a fault: as a warning if the serving side failed, as information if the request was at fault.
    pub(crate) fn log(&self, place: Place<'_>, context: Option<&RequestContext>, fault: &Fault) {
        if !self.may_log(Instant::now()) {
            return;
        }
        let request = context.map_or("", |context| &*context.id);
        let peer = context.and_then(|context| context.peer).map(tracing::field::display);
        let (listener, route) = match place {
            Place::Listener(name) => (Some(name), None),
            Place::Route(name) => (None, Some(name)),
        };
        let service = match &fault.origin {
            Origin::Service(name) => Some(&**name),
            Origin::Caller | Origin::Gateway => None,
        };
        let cause = fault.cause.as_deref();
        let endpoint = cause.and_then(|cause| cause.endpoint.as_deref());
        let text = cause.and_then(|cause| cause.text.as_deref());
        let (code, reason) = (fault.code.name(), fault.reason.as_str());
        // A level must be constant.
        macro_rules! line {
            ($level:ident, $event:literal) => {
                tracing::$level!(request, listener, route, service, endpoint, code, reason, cause = text, peer, $event)
            };
        }
        if is_server_side(fault.code) {
            line!(warn, "request failed");
        } else {
            line!(info, "request refused");
        }
    }

    /// Whether another line may be logged; reports suppressed lines once a second.
    fn may_log(&self, now: Instant) -> bool {
        let second = now.saturating_duration_since(self.started).as_secs();
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
            let suppressed = self.suppressed.swap(0, Ordering::Relaxed);
            if suppressed > 0 {
                tracing::warn!(suppressed, "fault log lines suppressed: more than {LINES_PER_SECOND_MAX} per second");
            }
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND_MAX {
            return true;
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        false
    }
}

/// Where a fault occurred.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'p> {
    /// On a listener, before a route was matched.
    Listener(&'p str),
    /// In a route.
    Route(&'p str),
}

impl Default for FaultLog {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_per_second_are_limited_and_the_rest_is_counted() {
        let start = Instant::now();
        let log = FaultLog::new(start);
        let logged = (0..3 * LINES_PER_SECOND_MAX).filter(|_| log.may_log(start)).count() as u64;
        assert_eq!((logged, log.suppressed.load(Ordering::Relaxed)), (LINES_PER_SECOND_MAX, 2 * LINES_PER_SECOND_MAX));
        assert!(log.may_log(start + Duration::from_secs(1)), "the limit applies per second");
        assert_eq!(log.suppressed.load(Ordering::Relaxed), 0);
    }
}
