//! Commands whose leader was lost before their outcome was known.
//!
//! Each carries the run of this instance and a number, so it is recognised if it is delivered later, under whatever leader.
//! Once there is a leader again, this instance proposes a marker. Zab delivers in the order of the zxids, and a new session
//! ends the one before it: what was proposed before the marker is delivered before it, or never.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use crossdock_zab::{Payload, Zxid};
use prost::Message as _;

use crate::error::RequestError;
use crate::injected_bug::{InjectedBug, is_injected};
use crate::machines::CLUSTER;
use crate::platform::Instant;
use crate::request::Reply;
use crate::wire::Envelope;

/// The request of markers, which no command has.
const MARKER: u64 = 0;

/// A command without an outcome.
struct Command {
    begun: Instant,
    undecided_since: Instant,
    reply: Reply<(Zxid, Bytes)>,
}

/// Commands without an outcome.
pub(super) struct Undecided {
    /// This run of the instance, in its commands.
    origin: u64,
    /// How long to wait for the outcome.
    timeout: Duration,
    /// By their number.
    commands: BTreeMap<u64, Command>,
    /// A marker must be proposed.
    is_marker_due: bool,
}

impl Undecided {
    pub(super) fn new(origin: u64, timeout: Duration) -> Self {
        Self { origin, timeout, commands: BTreeMap::new(), is_marker_due: false }
    }

    pub(super) fn origin(&self) -> u64 {
        self.origin
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    pub(super) fn add(&mut self, number: u64, begun: Instant, reply: Reply<(Zxid, Bytes)>) {
        self.commands.insert(number, Command { begun, undecided_since: Instant::now(), reply });
    }

    pub(super) fn leader_lost(&mut self) {
        self.is_marker_due = false;
    }

    /// There is a leader, with whose history this instance is up to date.
    pub(super) fn leader_found(&mut self) {
        if is_injected(InjectedBug::GiveUpTooEarly) {
            self.fail(RequestError::Lost);
        }
        self.is_marker_due = true;
    }

    pub(super) fn marker_refused(&mut self) {
        self.is_marker_due = true;
    }

    /// The marker to propose now, if any.
    pub(super) fn take_marker(&mut self) -> Option<Envelope> {
        if !std::mem::take(&mut self.is_marker_due) || self.commands.is_empty() {
            return None;
        }
        Some(Envelope { machine: CLUSTER.0, origin: self.origin, request: MARKER, ..Envelope::default() })
    }

    /// The command in a transaction that is being delivered, if it is one of these: when it arrived, and where the answer goes.
    pub(super) fn take(&mut self, payload: &Payload) -> Option<(Instant, Reply<(Zxid, Bytes)>)> {
        if self.commands.is_empty() {
            return None;
        }
        let Payload::Command(payload) = payload else { return None };
        // The state thread reports what cannot be decoded.
        let envelope = Envelope::decode(payload.clone()).ok().filter(|envelope| envelope.origin == self.origin)?;
        // A marker, perhaps of an earlier leadership, has the request 0, and no command does.
        self.commands.remove(&envelope.request).map(|command| (command.begun, command.reply))
    }

    /// Fails all: the marker was delivered, or nothing can be found out any more.
    pub(super) fn fail(&mut self, outcome: RequestError) {
        for command in std::mem::take(&mut self.commands).into_values() {
            command.reply.send(Err(outcome));
        }
    }

    /// Fails those that have waited too long, and forgets those that nobody waits for.
    pub(super) fn expire(&mut self) {
        let timeout = self.timeout;
        let is_over = |command: &Command| command.undecided_since.elapsed() >= timeout || command.reply.is_closed();
        for (_, command) in self.commands.extract_if(.., |_, command| is_over(command)) {
            command.reply.send(Err(RequestError::Unknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(machine: u32, origin: u64, request: u64) -> Payload {
        Payload::Command(Envelope { machine, origin, request, ..Envelope::default() }.encode_to_vec().into())
    }

    #[test]
    fn a_command_is_recognised_by_its_run_and_number_and_no_marker_is_one() {
        let mut undecided = Undecided::new(7, Duration::from_secs(10));
        let (reply, _outcome) = Reply::new(None);
        undecided.add(1, Instant::now(), reply);
        undecided.leader_found();
        let marker = undecided.take_marker().expect("it is due");
        assert!(undecided.take(&Payload::Command(marker.encode_to_vec().into())).is_none());
        assert!(undecided.take(&payload(1, 8, 1)).is_none(), "of another run");
        assert!(undecided.take(&payload(1, 7, 2)).is_none(), "another command");
        assert!(undecided.take(&payload(1, 7, 1)).is_some());
        assert!(undecided.take(&payload(1, 7, 1)).is_none(), "once");
    }

    #[test]
    fn what_nobody_waits_for_or_takes_too_long_is_given_up() {
        let mut undecided = Undecided::new(7, Duration::ZERO);
        let (reply, mut outcome) = Reply::new(None);
        undecided.add(1, Instant::now(), reply);
        undecided.expire();
        assert_eq!((outcome.try_recv(), undecided.len()), (Ok(Err(RequestError::Unknown)), 0));
        let mut undecided = Undecided::new(7, Duration::from_secs(10));
        let (reply, outcome) = Reply::new(None);
        undecided.add(1, Instant::now(), reply);
        drop(outcome);
        undecided.expire();
        assert_eq!(undecided.len(), 0);
    }
}
