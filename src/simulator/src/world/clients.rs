//! Clients: proposals and reads.

use bytes::Bytes;
use crossdock_zab::{Input, Request};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{StepResult, World};
use crate::server::PendingRequest;

impl World {
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
        self.input(server, Input::Propose { request, payload: Bytes::from(payload) })
    }
}
