//! Raises the versions of machines once all instances understand them.

use std::collections::BTreeMap;

use crossdock_zab::{Input, Role, ServerId};
use prost::Message as _;

use super::Driver;
use super::requests::Waiting;
use crate::machines::{CLUSTER, MachineId};
use crate::state_machine::FIRST_VERSION;
use crate::wire::{ClusterChange, Envelope, MachineVersion};

/// The versions of machines that the others understand, and that were proposed.
#[derive(Default)]
pub(super) struct Versions {
    /// What each instance understood when it last connected.
    others: BTreeMap<ServerId, BTreeMap<MachineId, u32>>,
    /// What this instance has proposed while it leads.
    proposed: BTreeMap<MachineId, u32>,
}

impl Versions {
    pub(super) fn connected(&mut self, peer: ServerId, machines: BTreeMap<MachineId, u32>) {
        self.others.insert(peer, machines);
    }

    /// Forgets what was proposed: it may not be committed.
    pub(super) fn forget_proposed(&mut self) {
        self.proposed.clear();
    }
}

impl Driver {
    /// Proposes versions that all members of the settings and all voters understand. An instance that is away may be of an
    /// earlier release, so all must be connected.
    pub(super) fn raise_versions(&mut self, inputs: &mut Vec<Input>) {
        if !matches!(self.zab.role(), Role::Leading(_)) {
            return;
        }
        let voters = self.membership.iter().flat_map(|membership| membership.voters.keys());
        let members: Vec<ServerId> = self.settings.members.keys().chain(voters).copied().collect();
        let own_id = self.settings.id;
        let is_connected = |id: &ServerId| *id == own_id || self.links.values().any(|(peer, _)| peer == id);
        if !members.iter().all(is_connected) {
            return;
        }
        let mut raised = Vec::new();
        for (machine, own) in self.own.machines.iter() {
            let others = members.iter().filter(|id| **id != own_id);
            let understood = others.map(|id| {
                self.versions.others.get(id).and_then(|machines| machines.get(machine)).copied().unwrap_or(0)
            });
            let version = understood.fold(*own, u32::min);
            let proposed = self.versions.proposed.get(machine).copied().unwrap_or(FIRST_VERSION);
            if version > proposed && version > self.state.version(*machine) {
                raised.push((*machine, version));
            }
        }
        for (machine, version) in raised {
            self.versions.proposed.insert(machine, version);
            let raised = Some(MachineVersion { machine: machine.0, version });
            let change = ClusterChange { raised, ..ClusterChange::default() };
            let envelope =
                Envelope { machine: CLUSTER.0, payload: change.encode_to_vec().into(), ..Envelope::default() };
            self.propose_own(Waiting::Version, &envelope, inputs);
        }
    }
}
