//! The faults of a run and their frequency. Each run draws its own mix of faults (swarm testing, Groce et al., ISSTA
//! 2012).

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A time or duration in microseconds.
pub(crate) type Micros = u64;

pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// A kind of fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Crash,
    PowerLoss,
    Pause,
    Cut,
    Partition,
    SlowDisk,
    FailingDisk,
    /// A server loses its log and returns with a new one.
    LoseDisk,
    /// A server has an old log again, which it had lost.
    FindDisk,
    /// Not a fault: a client adds or removes a voter.
    ChangeMembers,
    /// Not a fault: a leader is asked to transfer leadership.
    TransferLeadership,
    /// Not a fault: a server takes a snapshot.
    Snapshot,
    /// A server sends bogus numbers for a while, except about its own disk.
    Lies,
}

/// The mean time between faults of each kind (`None` if there are none), and properties of the world.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    crash: Option<Micros>,
    power_loss: Option<Micros>,
    pause: Option<Micros>,
    pub(crate) cut: Option<Micros>,
    pub(crate) partition: Option<Micros>,
    slow_disk: Option<Micros>,
    failing_disk: Option<Micros>,
    lose_disk: Option<Micros>,
    transfer_leadership: Option<Micros>,
    snapshot: Option<Micros>,
    /// The share of writes, in per mille, that are interrupted by a crash, followed by an immediate restart.
    pub(crate) crash_in_write: u32,
    /// The share of inputs, in percent, that are delayed and handled together.
    pub(crate) together: u32,
    /// The maximum delay between sending the messages that a write unlocks and reporting the write.
    pub(crate) late: Micros,
    /// The maximum latency of a message.
    pub(crate) latency_max: Micros,
    /// Bandwidth of a connection in bytes per second; unlimited if `None`.
    pub(crate) bandwidth: Option<u64>,
    /// The size of a snapshot in bytes.
    pub(crate) snapshot_len: u64,
    /// The maximum length of a command in bytes.
    pub(crate) payload_max: usize,
    /// The maximum duration of a write, unless the disk is slow.
    pub(crate) disk_max: Micros,
    /// The mean time between client requests.
    pub(crate) request: Micros,
}

impl Faults {
    pub(crate) fn draw(rng: &mut ChaCha8Rng) -> Self {
        let mut some = |least: Micros, most: Micros| rng.random_bool(0.5).then(|| rng.random_range(least..most));
        let (crash, power_loss) = (some(300 * MILLI, 4 * SECOND), some(2 * SECOND, 8 * SECOND));
        let (pause, cut) = (some(300 * MILLI, 4 * SECOND), some(100 * MILLI, 3 * SECOND));
        let (partition, slow_disk) = (some(500 * MILLI, 5 * SECOND), some(300 * MILLI, 4 * SECOND));
        let (failing_disk, transfer_leadership) = (some(2 * SECOND, 8 * SECOND), some(500 * MILLI, 5 * SECOND));
        let lose_disk = some(SECOND, 8 * SECOND);
        let (snapshot, bandwidth) = (some(20 * MILLI, SECOND), some(100_000, 10_000_000));
        // Transferring a snapshot may take longer than the heartbeat timeout.
        let snapshot_len = bandwidth.unwrap_or_default() * rng.random_range(0..3_000) / 1_000;
        Self {
            crash,
            power_loss,
            pause,
            cut,
            partition,
            slow_disk,
            failing_disk,
            lose_disk,
            transfer_leadership,
            snapshot,
            crash_in_write: if rng.random_bool(0.3) { rng.random_range(1..100) } else { 0 },
            together: if rng.random_bool(0.5) { rng.random_range(1..90) } else { 0 },
            late: if rng.random_bool(0.4) { rng.random_range(100..20 * MILLI) } else { 0 },
            latency_max: if rng.random_bool(0.7) { 2 * MILLI } else { rng.random_range(2 * MILLI..60 * MILLI) },
            bandwidth,
            snapshot_len,
            payload_max: if rng.random_bool(0.5) { 8 } else { rng.random_range(8..4_000) },
            disk_max: if rng.random_bool(0.7) { 3 * MILLI } else { rng.random_range(3 * MILLI..40 * MILLI) },
            request: rng.random_range(2 * MILLI..60 * MILLI),
        }
    }

    /// The mean time between two faults of each kind.
    pub(crate) fn means(&self) -> [(Fault, Option<Micros>); 10] {
        [
            (Fault::Crash, self.crash),
            (Fault::PowerLoss, self.power_loss),
            (Fault::Pause, self.pause),
            (Fault::Cut, self.cut),
            (Fault::Partition, self.partition),
            (Fault::SlowDisk, self.slow_disk),
            (Fault::FailingDisk, self.failing_disk),
            (Fault::LoseDisk, self.lose_disk),
            (Fault::TransferLeadership, self.transfer_leadership),
            (Fault::Snapshot, self.snapshot),
        ]
    }
}
