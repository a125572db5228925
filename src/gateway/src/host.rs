//! The clock and random numbers for expressions.

use crossdock_message::Time;
use crossdock_routing::expression::Host;

/// The system clock and random number generator.
#[derive(Debug)]
pub struct SystemHost;

impl Host for SystemHost {
    #[expect(clippy::disallowed_methods, reason = "expressions get the time of the system from here only")]
    fn now(&self) -> Time {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        Time { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0) }
    }

    fn random(&self) -> u128 {
        rand::random()
    }
}
