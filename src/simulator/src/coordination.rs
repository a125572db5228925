//! Simulates the state of coordination under unreliable clients and changing leaders.
//!
//! The log is ideal: it has one order, which `zab` is simulated for on its own. Everything around it is not. Commands are delayed,
//! repeated, reordered and lost, answers as well; leaders change, pause, and have wall clocks of their own; instances apply the
//! log late, restart from snapshots, and lose notices; clients pause for longer than their sessions live. Each seed is one run.

mod budget_checks;
mod checks;
mod client;
mod generation_checks;
mod queue_checks;
mod replica;
mod result_checks;
mod router;
mod worker;
mod world;

pub use crossdock_coordination::InjectedBug;

use self::world::World;

/// What happened in runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Commands in the log.
    pub commands: u64,
    /// Requests that were granted at once, and after they had waited.
    pub granted: (u64, u64),
    /// Requests that ended by a timer, or with their session.
    pub expired: u64,
    /// Requests that were released or cancelled.
    pub released: u64,
    /// Acquires that arrived after their release, or once more.
    pub late: u64,
    /// Sessions that expired.
    pub sessions: u64,
    /// Commands whose guards did not hold.
    pub fenced: u64,
    /// Changes of the leader.
    pub leaders: u64,
    /// Instances that were restored from a snapshot.
    pub restored: u64,
    /// Messages that were enqueued, and duplicates of them.
    pub enqueued: u64,
    /// See [`Self::enqueued`].
    pub duplicates: u64,
    /// Messages that a service received, and those that it rejected because of an old token.
    pub delivered: u64,
    /// See [`Self::delivered`].
    pub rejected: u64,
    /// Messages that were processed, that were to be delivered again, and that became dead letters.
    pub settled: u64,
    /// See [`Self::settled`].
    pub retried: u64,
    /// See [`Self::settled`].
    pub dead: u64,
    /// Settlements without effect.
    pub unheard: u64,
    /// Slots of queues that were granted.
    pub slots: u64,
    /// Generations of the routes that were put into force, and that were rejected.
    pub generations: u64,
    /// See [`Self::generations`].
    pub generations_rejected: u64,
    /// Generations of the routes that were staged.
    pub staged: u64,
    /// Units of budgets that were taken.
    pub spent: u64,
    /// Results that were stored.
    pub remembered: u64,
}

impl Report {
    /// Adds what happened in another run.
    pub fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.granted = (self.granted.0 + other.granted.0, self.granted.1 + other.granted.1);
        self.expired += other.expired;
        self.released += other.released;
        self.late += other.late;
        self.sessions += other.sessions;
        self.fenced += other.fenced;
        self.leaders += other.leaders;
        self.restored += other.restored;
        self.enqueued += other.enqueued;
        self.duplicates += other.duplicates;
        self.delivered += other.delivered;
        self.rejected += other.rejected;
        self.settled += other.settled;
        self.retried += other.retried;
        self.dead += other.dead;
        self.unheard += other.unheard;
        self.slots += other.slots;
        self.generations += other.generations;
        self.generations_rejected += other.generations_rejected;
        self.staged += other.staged;
        self.spent += other.spent;
        self.remembered += other.remembered;
    }
}

/// Executes a run. The same seed always produces the same run.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64, bug: Option<InjectedBug>) -> Result<Report, String> {
    World::new(seed, bug).run()
}
