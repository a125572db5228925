//! What the driver tells others: the status, and the membership that it notices.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossdock_zab::{Input, Role};

use super::Driver;
use crate::platform::Instant;
use crate::status::{Disk, Peer};

/// Minimum interval between attempts to hand over; others may lack space as well.
const HAND_OVER_INTERVAL: Duration = Duration::from_secs(30);

/// Sets fields, and notes whether one of them has changed.
struct Changes<'c>(&'c mut bool);

impl Changes<'_> {
    fn set<T: PartialEq>(&mut self, field: &mut T, value: T) {
        *self.0 |= *field != value;
        *field = value;
    }

    fn set_clone<T: PartialEq + Clone>(&mut self, field: &mut T, value: &T) {
        if field != value {
            *self.0 = true;
            field.clone_from(value);
        }
    }
}

impl Driver {
    /// Notices when another membership takes effect.
    pub(super) fn note_membership(&mut self) {
        let current = self.zab.log_state().membership();
        if current.map(Arc::as_ptr) == self.membership.as_ref().map(Arc::as_ptr) {
            return;
        }
        self.membership = current.cloned();
        if let Some(membership) = &self.membership {
            self.own.cluster.store(membership.cluster.0, Ordering::Relaxed);
            let voters: Vec<u64> = membership.voters.keys().map(|server| server.0).collect();
            let replacing: Vec<u64> = membership.replacing.iter().map(|server| server.0).collect();
            tracing::info!(cluster = %membership.cluster, ?voters, ?replacing, "cluster membership");
            let listed = self.settings.members.iter().filter(|(_, member)| member.votes).map(|(id, _)| id.0);
            let listed: Vec<u64> = listed.collect();
            if replacing.is_empty() && listed != voters {
                tracing::warn!(
                    ?listed,
                    ?voters,
                    "the settings list other voters than the cluster has; the cluster decides"
                );
            }
        }
        self.update_peers();
    }

    /// Transfers leadership away if the log of this leader lacks space: it accepts no commands of its own clients, and those
    /// of others only for so long.
    pub(super) fn hand_over(&mut self, inputs: &mut Vec<Input>) {
        let is_leading = matches!(self.zab.role(), Role::Leading(_));
        let is_due = self.handed_over.is_none_or(|last| last.elapsed() >= HAND_OVER_INTERVAL);
        let has_other = self.peers.iter().any(|peer| peer.votes && peer.follows);
        if is_leading && is_due && has_other && self.log.space().is_lacking() {
            tracing::warn!("leadership is transferred, as the log lacks space");
            self.handed_over = Some(Instant::now());
            inputs.push(Input::TransferLeadership(None));
        }
    }

    pub(super) fn update_peers(&mut self) {
        let followed = self.zab.followers();
        let others = self.settings.members.iter().filter(|(id, _)| **id != self.settings.id);
        let voters = self.membership.as_ref().map(|membership| &membership.voters);
        let seen = others.map(|(id, member)| {
            let followed = followed.iter().find(|followed| followed.server == *id && followed.is_active);
            Peer {
                id: *id,
                votes: voters.map_or(member.votes, |voters| voters.contains_key(id)),
                is_connected: self.links.values().any(|(peer, _)| peer == id),
                follows: followed.is_some(),
                lag: followed.and_then(|followed| followed.lag),
                round_trip: followed.and_then(|_| self.heartbeats.round_trip(*id)),
            }
        });
        self.peers = seen.collect();
    }

    pub(super) fn publish_status(&mut self) {
        let (free, low_mark, is_low) = self.log.space().free();
        let disk = Disk { free, is_low, low_mark };
        let (outstanding, outstanding_bytes) = self.zab.outstanding();
        let activity = &mut self.activity;
        (activity.outstanding, activity.outstanding_bytes) = (outstanding, outstanding_bytes);
        activity.requests = self.pending.len() + self.proposed.len() + self.ready_reads.len() + self.undecided.len();
        activity.stale_messages = self.zab.rejected().stale;
        activity.snapshots.since = self.snapshots.since.0;
        activity.backlog_bytes = self.state.backlog();
        activity.segments = self.segments.0 + self.log.status().segment.saturating_sub(self.segments.1);
        let is_stopped = self.stopped.is_some();
        // A stopped instance has no role.
        let role = if is_stopped { Role::Looking } else { self.zab.role() };
        let phase = if is_stopped { "stopped" } else { self.zab.phase() };
        self.status.send_if_modified(|status| {
            let mut is_changed = false;
            let mut changes = Changes(&mut is_changed);
            changes.set(&mut status.role, role);
            changes.set(&mut status.phase, phase);
            changes.set(&mut status.history_epoch, self.zab.log_state().current_epoch());
            changes.set(&mut status.last, self.zab.log_state().history().last());
            changes.set(&mut status.applied, self.state.applied());
            changes.set(&mut status.syncs, self.log.status().syncs);
            changes.set(&mut status.disk, disk);
            changes.set(&mut status.activity, self.activity);
            changes.set(&mut status.log_problem, self.log.space().problem());
            // These rarely change, and are cloned only then.
            changes.set_clone(&mut status.membership, &self.membership);
            changes.set_clone(&mut status.peers, &self.peers);
            changes.set_clone(&mut status.stopped, &self.stopped);
            is_changed
        });
    }
}
