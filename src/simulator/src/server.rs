//! A simulated server: its process, disk and clock.

use std::collections::{BTreeMap, VecDeque};

use crossdock_zab::{Input, Link, LogState, Message, Request, Write, WriteId, Zab, Zxid};
use rand_chacha::ChaCha8Rng;

use crate::checks::Applied;
use crate::faults::Micros;

/// A pending write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) id: WriteId,
    pub(crate) write: Write,
    pub(crate) then: Vec<(Link, Message)>,
}

/// What survives a crash.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The state after all durable writes.
    pub(crate) log_state: LogState,
    pub(crate) snapshots: BTreeMap<Zxid, Applied>,
    /// Pending writes, in order.
    pub(crate) pending: VecDeque<Pending>,
    /// The number of pending writes in the current sync.
    pub(crate) at: usize,
    pub(crate) slow_until: Micros,
    pub(crate) fails: bool,
}

impl Disk {
    /// Makes the first pending write durable.
    pub(crate) fn settle(&mut self, blobs: &[Applied]) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        if let Write::Install { zxid, blob } = &pending.write {
            let index = usize::try_from(blob.0).expect("a number of a snapshot");
            self.snapshots.insert(*zxid, blobs[index]);
        }
        self.log_state.apply(&pending.write).expect("a valid write");
        Some(pending)
    }

    /// The state that a process starts with.
    pub(crate) fn state(&self) -> Applied {
        let snapshot = self.log_state.history().snapshot();
        if snapshot == Zxid::ZERO { Applied::default() } else { self.snapshots[&snapshot] }
    }
}

/// A pending client request.
#[derive(Debug)]
pub(crate) struct PendingRequest {
    /// The last transaction acknowledged before the request.
    pub(crate) acknowledged_before: Zxid,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) rng: ChaCha8Rng,
    /// `None` while the process is down.
    pub(crate) zab: Option<Zab>,
    /// Incremented at each start and stop.
    pub(crate) incarnation: u64,
    pub(crate) disk: Disk,
    /// The number of writes in all incarnations.
    pub(crate) writes: u32,
    pub(crate) applied: Applied,
    pub(crate) tick: Micros,
    pub(crate) paused_until: Micros,
    /// It sends bogus numbers until then.
    pub(crate) lies_until: Micros,
    /// Inputs that wait to be handled together.
    pub(crate) inbox: Vec<Input>,
    pub(crate) requests: BTreeMap<Request, PendingRequest>,
    /// Local proposals that have a zxid.
    pub(crate) proposed: BTreeMap<Zxid, Request>,
    /// Reads that can be answered once that transaction is applied.
    pub(crate) ready: Vec<(Zxid, Request)>,
}
