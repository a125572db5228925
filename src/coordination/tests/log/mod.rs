//! A log to which tests append commands.

#![allow(dead_code, reason = "not every test needs everything")]

use crossdock_coordination::command::{Acquire, Command, OpenSession, Release, Tick};
use crossdock_coordination::{Answer, Coordination, Operation, Outcome, limits};
use crossdock_zab::{Epoch, Zxid};
use prost::Message as _;

/// A state whose log has one leader.
pub(crate) struct Log {
    pub(crate) state: Coordination,
    pub(crate) counter: u32,
    pub(crate) time: u64,
}

impl Log {
    pub(crate) fn new() -> Self {
        let mut state = Coordination::default();
        state.observe(true);
        Self { state, counter: 0, time: 1_000_000 }
    }

    pub(crate) fn run(&mut self, command: &Command) -> Outcome {
        self.counter += 1;
        let zxid = Zxid::new(Epoch(1), self.counter);
        let Answer { outcome } = self.state.apply(zxid, self.time, command.encode_to_vec().into());
        outcome.expect("an outcome")
    }

    pub(crate) fn execute(&mut self, operation: Operation) -> Outcome {
        self.run(&Command { guards: Vec::new(), operation: Some(operation) })
    }

    /// Lets time pass, in steps that the clock follows.
    pub(crate) fn pass(&mut self, millis: u64) {
        let mut left = millis;
        while left > 0 {
            let step = left.min(limits::CLOCK_STEP_MS_MAX);
            self.time += step;
            left -= step;
            assert_eq!(self.execute(Operation::Tick(Tick { epoch: 1 })), done());
        }
    }

    pub(crate) fn session(&mut self, ttl_ms: u64) -> u64 {
        let opened = self.execute(Operation::OpenSession(OpenSession { ttl_ms, label: "test".to_owned() }));
        assert_eq!(opened, done());
        self.last()
    }

    pub(crate) fn acquire(&mut self, acquire: Acquire) -> Outcome {
        self.execute(Operation::Acquire(acquire))
    }

    pub(crate) fn release(&mut self, session: u64, number: u64) {
        assert_eq!(self.execute(Operation::Release(Release { session, number, attempt: 0 })), done());
    }

    /// The zxid of the last command.
    pub(crate) fn last(&self) -> u64 {
        Zxid::new(Epoch(1), self.counter).to_u64()
    }

    /// Whether the last outcome is a grant by the last command.
    pub(crate) fn is_grant(&self, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Granted(granted) if granted.token == self.last())
    }
}

pub(crate) fn done() -> Outcome {
    Outcome::Done(crossdock_coordination::answer::Done {})
}
