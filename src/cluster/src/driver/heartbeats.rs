//! How long heartbeats of this leader take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crossdock_zab::ServerId;

use crate::platform::Instant;

/// Heartbeats whose answers are measured; earlier ones took too long to matter.
const LEN_MAX: usize = 16;

/// The last heartbeats, and the round trips to other instances.
#[derive(Debug, Default)]
pub(super) struct Heartbeats {
    /// When they were first sent, by number.
    sent: VecDeque<(u64, Instant)>,
    round_trips: BTreeMap<ServerId, Duration>,
}

impl Heartbeats {
    pub(super) fn sent(&mut self, number: u64) {
        // The same heartbeat goes to all followers.
        if self.sent.back().is_some_and(|(last, _)| *last == number) {
            return;
        }
        if self.sent.len() == LEN_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((number, Instant::now()));
    }

    pub(super) fn answered(&mut self, by: ServerId, number: u64) {
        if let Some((_, sent)) = self.sent.iter().find(|(sent, _)| *sent == number) {
            self.round_trips.insert(by, sent.elapsed());
        }
    }

    /// Forgets what was sent: each leadership numbers its heartbeats from one.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
    }

    /// The round trip of the last heartbeat that the instance has answered.
    pub(super) fn round_trip(&self, server: ServerId) -> Option<Duration> {
        self.round_trips.get(&server).copied()
    }
}
