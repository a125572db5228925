//! Which faults a run has, and how often. Each run draws its own: some have many kinds, some have one (swarm testing, Groce et al.,
//! ISSTA 2012).

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A moment or a length of time, in microseconds.
pub(crate) type Micros = u64;

pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// What a run has of each kind of fault: the mean time between two; nothing where it has none.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    pub(crate) crash: Option<Micros>,
    pub(crate) power_loss: Option<Micros>,
    pub(crate) pause: Option<Micros>,
    pub(crate) cut: Option<Micros>,
    pub(crate) partition: Option<Micros>,
    pub(crate) slow_disk: Option<Micros>,
    pub(crate) failing_disk: Option<Micros>,
    pub(crate) hand_over: Option<Micros>,
    pub(crate) snapshot: Option<Micros>,
    /// How many of a thousand writes are interrupted by a crash, after which the process comes up at once.
    pub(crate) crash_in_write: u32,
    /// How many of a hundred inputs wait for others, to be taken together.
    pub(crate) together: u32,
    /// How long it takes at most until a process hears that its write is durable, after what that unlocks is on its way.
    pub(crate) late: Micros,
    /// Clocks run at their own speed, in per mille of it more or less.
    pub(crate) drift: u64,
    /// The longest that a message is under way.
    pub(crate) latency_max: Micros,
    /// The longest that a disk takes, when it is not slow.
    pub(crate) disk_max: Micros,
    /// Between two requests of clients.
    pub(crate) request: Micros,
}

impl Faults {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut some = |least: Micros, most: Micros| rng.random_bool(0.5).then(|| rng.random_range(least..most));
        Self {
            crash: some(300 * MILLI, 4 * SECOND),
            power_loss: some(2 * SECOND, 8 * SECOND),
            pause: some(300 * MILLI, 4 * SECOND),
            cut: some(100 * MILLI, 3 * SECOND),
            partition: some(500 * MILLI, 5 * SECOND),
            slow_disk: some(300 * MILLI, 4 * SECOND),
            failing_disk: some(2 * SECOND, 8 * SECOND),
            hand_over: some(500 * MILLI, 5 * SECOND),
            snapshot: some(20 * MILLI, SECOND),
            crash_in_write: if rng.random_bool(0.3) { rng.random_range(1..100) } else { 0 },
            together: if rng.random_bool(0.5) { rng.random_range(1..90) } else { 0 },
            late: if rng.random_bool(0.4) { rng.random_range(100..20 * MILLI) } else { 0 },
            drift: if rng.random_bool(0.5) { rng.random_range(1..300) } else { 0 },
            latency_max: if rng.random_bool(0.7) { 2 * MILLI } else { rng.random_range(2 * MILLI..60 * MILLI) },
            disk_max: if rng.random_bool(0.7) { 3 * MILLI } else { rng.random_range(3 * MILLI..40 * MILLI) },
            request: rng.random_range(2 * MILLI..60 * MILLI),
        }
    }
}
