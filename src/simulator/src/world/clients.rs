//! Clients: proposals and reads.

use bytes::Bytes;
use crossdock_zab::{Input, MemberChange, Request};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{StepResult, World, id};
use crate::server::PendingRequest;

impl World {
    /// A client adds or removes a voter.
    pub(super) fn change_members(&mut self, server: usize, mut rng: ChaCha8Rng) -> StepResult {
        let other = id(rng.random_range(0..self.servers.len()));
        let change = if rng.random_bool(0.6) { MemberChange::Add(other) } else { MemberChange::Remove(other) };
        self.requests += 1;
        let request = Request(self.requests);
        let pending = PendingRequest { acknowledged_before: self.checks.acknowledged };
        if self.servers[server].zab.is_none() || self.servers[server].paused_until > self.now {
            return Ok(());
        }
        self.servers[server].requests.insert(request, pending);
        self.note(|| format!("{} is asked for {change:?}", server + 1));
        self.input(server, Input::ChangeMembers { request, change })
    }

    pub(super) fn request(&mut self, mut rng: ChaCha8Rng) -> StepResult {
        let server = rng.random_range(0..self.servers.len());
        if self.servers[server].zab.is_none() || self.servers[server].paused_until > self.now {
            return Ok(());
        }
        self.requests += 1;
        let request = Request(self.requests);
        let pending = PendingRequest { acknowledged_before: self.checks.acknowledged };
        self.servers[server].requests.insert(request, pending);
        if rng.random_bool(0.3) {
            return self.input(server, Input::Read { request });
        }
        let mut payload = self.requests.to_le_bytes().to_vec();
        payload.resize(rng.random_range(8..=self.faults.payload_max), 0);
        self.checks.record_proposal(self.requests, payload.len());
        let is_reserved = rng.random_bool(0.1);
        self.input(server, Input::Propose { request, payload: Bytes::from(payload), in_epoch: None, is_reserved })
    }
}
