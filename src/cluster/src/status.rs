//! The status of an instance and its peers.

use std::sync::Arc;
use std::time::Duration;

use crossdock_zab::{Epoch, Fatal, LogId, Membership, Role, ServerId, Zxid};

use crate::activity::Activity;

/// The current status of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This instance.
    pub id: ServerId,
    /// Its role.
    pub role: Role,
    /// The phase of Zab that it is in.
    pub phase: &'static str,
    /// The epoch of its history. Of two histories, the one of the later epoch is the later one, then the longer one.
    pub history_epoch: Epoch,
    /// The end of its log.
    pub last: Zxid,
    /// The last transaction applied.
    pub applied: Zxid,
    /// Its log.
    pub log: LogId,
    /// The voters and their logs; `None` until the cluster is formed, as far as this instance knows.
    pub membership: Option<Arc<Membership>>,
    /// The other instances, as this one sees them; updated with each tick.
    pub peers: Vec<Peer>,
    /// The number of syncs of its log.
    pub syncs: u64,
    /// The disk of its log.
    pub disk: Disk,
    /// What it has done and is doing.
    pub activity: Activity,
    /// Why it accepts no commands: its log lacks disk space or file descriptors. Ends by itself once there are some.
    pub log_problem: Option<String>,
    /// Why it has stopped for good.
    pub stopped: Option<Stopped>,
}

/// The disk of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    /// Free bytes; `None` until they are known.
    pub free: Option<u64>,
    /// They are below [`Disk::low_mark`]: the log will soon lack space.
    pub is_low: bool,
    /// The bytes below which the space is low: eight segments and two snapshots.
    pub low_mark: u64,
}

/// Another instance, as this one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other instance.
    pub id: ServerId,
    /// It votes, according to the membership.
    pub votes: bool,
    /// It is connected.
    pub is_connected: bool,
    /// It follows this instance, has its history, and gets all new transactions.
    pub follows: bool,
    /// The number of transactions not known to be durable there. `None` if this instance does not lead, or the peer is
    /// too far behind.
    pub lag: Option<usize>,
    /// The time from the last heartbeat to its answer; `None` if this instance does not lead.
    pub round_trip: Option<Duration>,
}

/// Why an instance stopped for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// Continuing would violate the protocol.
    Protocol(Fatal),
    /// Its log cannot be written.
    Log(String),
    /// A committed command cannot be applied, or a snapshot not restored.
    State(String),
    /// It was asked to stop.
    Requested,
}
