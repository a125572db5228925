//! Rounds of faults under clients.

use std::time::{Duration, Instant};

use super::clients::Judged;
use super::{Clients, Instance, Ways, leader, wait_until_all_follow};
use crate::until_within;

/// For writes to succeed again after a fault; longer than any of them may take.
const RECOVERY: Duration = Duration::from_secs(20);
/// Writes in each round before its fault.
const WRITES: usize = 150;

/// What is done to the instances in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader is killed.
    KillLeader,
    /// The leader is frozen for longer than every wait, and then goes on as one that thinks that it leads.
    FreezeLeader,
    /// A follower is killed.
    KillFollower,
    /// No message reaches or leaves the leader.
    CutLeader,
    /// The leader hears all, and nobody hears it.
    MuteLeader,
    /// All hear the leader, and it hears nobody.
    DeafLeader,
    /// The leader and one follower do not hear one another.
    CutPair,
    /// The leader and one follower are apart from all others.
    CutMinority,
    /// What the leader sends crawls.
    SlowLeader,
    /// The leader and one follower are killed at once.
    KillTwo,
    /// A follower is killed, loses its log, and comes back without.
    LoseLog,
    /// All are killed at once, and started again.
    KillAll,
    /// The clock of the leader's day jumps ahead by an hour, and back by a day.
    ClockJump,
}

impl Fault {
    /// Whether another has to lead while it lasts.
    fn dethrones(self) -> bool {
        matches!(self, Self::FreezeLeader | Self::CutLeader | Self::MuteLeader | Self::DeafLeader | Self::CutMinority)
    }

    /// What of the instances it kills.
    fn kills(self, leads: usize, count: usize) -> Vec<usize> {
        match self {
            Self::KillLeader => vec![leads],
            Self::KillFollower | Self::LoseLog => vec![(leads + 1) % count],
            Self::KillTwo => vec![leads, (leads + 1) % count],
            Self::KillAll => (0..count).collect(),
            _ => Vec::new(),
        }
    }
}

/// Instances, the ways between them, and the clock that a fault sets.
pub struct Rounds<'a> {
    /// The instances; they run.
    pub instances: &'a mut [Instance],
    /// What is between them.
    pub ways: &'a dyn Ways,
    /// Sets the clock of an instance, by so many seconds from what it is.
    pub set_clock: Option<&'a dyn Fn(usize, i64)>,
}

/// What rounds came to.
#[derive(Debug)]
pub struct Report {
    /// How long after each fault a write that began later was acknowledged.
    pub recoveries: Vec<(Fault, Duration)>,
    /// What clients saw.
    pub judged: Judged,
}

impl Rounds<'_> {
    /// Makes as many rounds, with these faults in turn, and judges what clients saw.
    ///
    /// # Panics
    /// When something acknowledged is lost, no order explains what was seen, or the instances do not find together again.
    #[must_use]
    pub fn run(&mut self, faults: &[Fault], rounds: usize) -> Report {
        let addresses: Vec<_> = self.instances.iter().map(|instance| instance.clients).collect();
        wait_until_all_follow(self.instances);
        let clients = Clients::start(&addresses);
        let mut recoveries = Vec::new();
        for round in 0..rounds {
            until_within(RECOVERY, "some writes", || clients.writes() >= WRITES * (round + 1));
            let fault = faults[round % faults.len()];
            recoveries.push((fault, self.round(fault, &clients)));
        }
        let judged = clients.judge();
        assert!(judged.set > 10, "{} of {} calls set the register", judged.set, judged.register_calls);
        assert!(judged.acknowledged > 100 * rounds, "hardly anything was written: {}", judged.acknowledged);
        Report { recoveries, judged }
    }

    fn round(&mut self, fault: Fault, clients: &Clients) -> Duration {
        let leads = leader(self.instances);
        let count = self.instances.len();
        let down = fault.kills(leads, count);
        for index in down.iter().copied() {
            self.instances[index].kill();
        }
        match fault {
            Fault::FreezeLeader => self.instances[leads].signal("STOP"),
            Fault::ClockJump => self.set_clock.expect("a clock that can be set")(leads, 3600),
            _ => self.ways.set(leads, fault),
        }
        let begun = Instant::now();
        if fault == Fault::KillAll {
            self.instances.iter_mut().for_each(Instance::start);
        }
        let mut took = None;
        until_within(RECOVERY, "writes to succeed again", || {
            took = clients.recovered(begun);
            took.is_some()
        });
        if fault.dethrones() {
            until_within(RECOVERY, "another to lead", || {
                (0..count).any(|index| index != leads && self.instances[index].role() == "leading")
            });
        }
        match fault {
            Fault::FreezeLeader => self.instances[leads].signal("CONT"),
            Fault::ClockJump => {
                self.set_clock.expect("a clock that can be set")(leads, -86_400);
                let since = Instant::now();
                until_within(RECOVERY, "writes to go on", || clients.recovered(since).is_some());
                assert_eq!(leader(self.instances), leads, "the clock of the day changes nothing");
            }
            _ => self.ways.heal(),
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
        took.unwrap_or_default()
    }
}

impl Report {
    /// Prints it.
    pub fn print(&self) {
        let judged = &self.judged;
        println!(
            "{} rounds, {} calls, {} writes acknowledged, lost 0; {} calls of a register, of which {} set it: one order explains them",
            self.recoveries.len(),
            judged.calls,
            judged.acknowledged,
            judged.register_calls,
            judged.set
        );
        let mut faults: Vec<Fault> = self.recoveries.iter().map(|(fault, _)| *fault).collect();
        faults.sort_unstable();
        faults.dedup();
        for fault in faults {
            let times = self.times(&[fault]);
            let (middle, late, most) = (of_hundred(&times, 50), of_hundred(&times, 99), of_hundred(&times, 100));
            println!("{fault:?}: {} times, p50 {middle:.1?}, p99 {late:.1?}, most {most:.1?}", times.len());
        }
    }

    /// How long it took until writes succeeded again, in half of the rounds with these faults.
    #[must_use]
    pub fn median(&self, faults: &[Fault]) -> Duration {
        of_hundred(&self.times(faults), 50)
    }

    fn times(&self, faults: &[Fault]) -> Vec<Duration> {
        let of = self.recoveries.iter().filter(|(fault, _)| faults.contains(fault));
        let mut times: Vec<Duration> = of.map(|(_, took)| *took).collect();
        times.sort_unstable();
        times
    }
}

fn of_hundred(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).copied().unwrap_or_default()
}
