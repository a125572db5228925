//! Clients: proposals and reads.

use bytes::Bytes;
use crossdock_zab::{Input, Request};
use rand::Rng;

use super::{Event, Stepped, World};
use crate::server::Asked;

impl World {
    pub(super) fn client(&mut self) -> Stepped {
        let after = self.chance(self.faults.request);
        self.at(after, Event::Client);
        let server = self.rng.random_range(0..self.servers.len());
        if self.servers[server].zab.is_none() || self.servers[server].paused_until > self.now {
            return Ok(());
        }
        self.requests += 1;
        let request = Request(self.requests);
        let is_read = self.rng.random_bool(0.3);
        let asked = Asked { done_before: self.checks.acknowledged };
        self.servers[server].asked.insert(request, asked);
        if is_read {
            return self.input(server, Input::Read { request });
        }
        self.payloads += 1;
        self.checks.proposes(self.payloads);
        let payload = Bytes::copy_from_slice(&self.payloads.to_le_bytes());
        self.input(server, Input::Propose { request, payload })
    }
}
