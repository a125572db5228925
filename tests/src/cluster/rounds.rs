//! Rounds of fault injection under client load.

use std::time::{Duration, Instant};

use super::clients::Summary;
use super::{Clients, Instance, Links, leader, wait_until_all_follow};
use crate::until_within;

/// Time limit for writes to succeed again after a fault; longer than any recovery may take.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(20);
/// Acknowledged writes in each round before the fault.
const WRITES: usize = 150;

/// A fault that is injected in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader is killed.
    KillLeader,
    /// The leader is frozen for longer than every timeout, then continues in the belief that it leads.
    FreezeLeader,
    /// A follower is killed.
    KillFollower,
    /// The leader is isolated.
    CutLeader,
    /// The leader receives messages; none of its own arrive.
    MuteLeader,
    /// The leader's messages arrive; it receives none.
    DeafLeader,
    /// The leader and one follower are disconnected from each other.
    CutPair,
    /// The leader and one follower are partitioned from all others.
    CutMinority,
    /// The leader sends at a low rate.
    SlowLeader,
    /// The leader and one follower are killed at the same time.
    KillTwo,
    /// A follower is killed and restarted without its log.
    LoseLog,
    /// All instances are killed at the same time and restarted.
    KillAll,
    /// The leader's wall clock jumps ahead by an hour, then back by a day.
    ClockJump,
}

impl Fault {
    /// Whether another instance must become leader while the fault lasts.
    fn deposes_leader(self) -> bool {
        matches!(self, Self::FreezeLeader | Self::CutLeader | Self::MuteLeader | Self::DeafLeader | Self::CutMinority)
    }

    /// The indexes of the instances that it kills.
    fn killed(self, leader: usize, count: usize) -> Vec<usize> {
        match self {
            Self::KillLeader => vec![leader],
            Self::KillFollower | Self::LoseLog => vec![(leader + 1) % count],
            Self::KillTwo => vec![leader, (leader + 1) % count],
            Self::KillAll => (0..count).collect(),
            _ => Vec::new(),
        }
    }
}

/// The instances and links that faults are injected into.
pub struct Rounds<'a> {
    /// The running instances.
    pub instances: &'a mut [Instance],
    /// The links between them.
    pub links: &'a dyn Links,
    /// Sets the wall clock of an instance to an offset in seconds from real time.
    pub set_clock: Option<&'a dyn Fn(usize, i64)>,
    /// How long nothing else happens before each fault, and before it ends.
    pub calm: Duration,
}

/// The result of all rounds.
#[derive(Debug)]
pub struct Report {
    /// The time from each fault to the first acknowledgement of a write that began after it.
    pub recoveries: Vec<(Fault, Duration)>,
    /// What the clients observed.
    pub summary: Summary,
}

impl Rounds<'_> {
    /// Runs rounds with these faults in turn, then verifies the clients' histories.
    ///
    /// # Panics
    /// If an acknowledged write is lost, a history is not linearizable, or the instances do not recover from a fault.
    #[must_use]
    pub fn run(&mut self, faults: &[Fault], rounds: usize) -> Report {
        let addresses: Vec<_> = self.instances.iter().map(|instance| instance.clients).collect();
        wait_until_all_follow(self.instances);
        let clients = Clients::start(&addresses);
        let mut recoveries = Vec::new();
        for round in 0..rounds {
            until_within(RECOVERY_TIME_MAX, "some writes", || clients.writes() >= WRITES * (round + 1));
            self.wait();
            let fault = faults[round % faults.len()];
            recoveries.push((fault, self.run_round(fault, &clients)));
        }
        let summary = clients.stop_and_verify();
        assert!(summary.set > 10, "{} of {} calls set the register", summary.set, summary.register_calls);
        assert!(summary.acknowledged > 100 * rounds, "too few writes were acknowledged: {}", summary.acknowledged);
        Report { recoveries, summary }
    }

    fn wait(&self) {
        let since = Instant::now();
        until_within(self.calm + RECOVERY_TIME_MAX, "the calm to end", || since.elapsed() >= self.calm);
    }

    fn run_round(&mut self, fault: Fault, clients: &Clients) -> Duration {
        let leader_index = leader(self.instances);
        let count = self.instances.len();
        let down = fault.killed(leader_index, count);
        for index in down.iter().copied() {
            self.instances[index].kill();
        }
        match fault {
            Fault::FreezeLeader => self.instances[leader_index].signal("STOP"),
            Fault::ClockJump => self.set_clock.expect("a clock that can be set")(leader_index, 3600),
            _ => self.links.inject(leader_index, fault),
        }
        let begun = Instant::now();
        if fault == Fault::KillAll {
            self.instances.iter_mut().for_each(Instance::start);
        }
        let mut recovery = None;
        until_within(RECOVERY_TIME_MAX, "writes to succeed again", || {
            recovery = clients.recovery_time(begun);
            recovery.is_some()
        });
        if fault.deposes_leader() {
            until_within(RECOVERY_TIME_MAX, "another leader", || {
                (0..count).any(|index| index != leader_index && self.instances[index].role() == "leading")
            });
        }
        self.wait();
        match fault {
            Fault::FreezeLeader => self.instances[leader_index].signal("CONT"),
            Fault::ClockJump => {
                self.set_clock.expect("a clock that can be set")(leader_index, -86_400);
                let since = Instant::now();
                until_within(RECOVERY_TIME_MAX, "writes to continue", || clients.recovery_time(since).is_some());
                assert_eq!(leader(self.instances), leader_index, "a wall clock jump does not change the leader");
            }
            _ => self.links.heal(),
        }
        if fault != Fault::KillAll {
            for index in down {
                if fault == Fault::LoseLog {
                    self.instances[index].lose_log();
                }
                self.instances[index].start();
            }
        }
        wait_until_all_follow(self.instances);
        recovery.unwrap_or_default()
    }
}

impl Report {
    /// Prints the report.
    pub fn print(&self) {
        let summary = &self.summary;
        println!(
            "{} rounds, {} calls, {} writes acknowledged, lost 0; {} calls of a register, of which {} set it: linearizable",
            self.recoveries.len(),
            summary.calls,
            summary.acknowledged,
            summary.register_calls,
            summary.set
        );
        let mut faults: Vec<Fault> = self.recoveries.iter().map(|(fault, _)| *fault).collect();
        faults.sort_unstable();
        faults.dedup();
        for fault in faults {
            let times = self.times(&[fault]);
            let (p50, p99, max) = (percentile(&times, 50), percentile(&times, 99), percentile(&times, 100));
            println!("{fault:?}: {} times, p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}", times.len());
        }
    }

    /// The median recovery time of the rounds with these faults.
    #[must_use]
    pub fn median(&self, faults: &[Fault]) -> Duration {
        percentile(&self.times(faults), 50)
    }

    fn times(&self, faults: &[Fault]) -> Vec<Duration> {
        let matching = self.recoveries.iter().filter(|(fault, _)| faults.contains(fault));
        let mut times: Vec<Duration> = matching.map(|(_, recovery)| *recovery).collect();
        times.sort_unstable();
        times
    }
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}
