//! One server: its process, its disk, its clock.

use std::collections::{BTreeMap, VecDeque};

use crossdock_zab::{Input, Link, LogState, Message, Request, Write, WriteId, Zab, Zxid};
use rand_chacha::ChaCha8Rng;

use crate::checks::Applied;
use crate::faults::Micros;

/// A write that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) id: WriteId,
    pub(crate) write: Write,
    pub(crate) then: Vec<(Link, Message)>,
}

/// What outlives the process.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// What the durable writes come to.
    pub(crate) log_state: LogState,
    pub(crate) snapshots: BTreeMap<Zxid, Applied>,
    /// Writes that are not durable yet, in their order.
    pub(crate) pending: VecDeque<Pending>,
    /// How many of them the disk is at.
    pub(crate) at: usize,
    pub(crate) slow_until: Micros,
    pub(crate) fails: bool,
}

impl Disk {
    /// The first of what is pending becomes durable.
    pub(crate) fn settle(&mut self, blobs: &[Applied]) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        if let Write::Install { zxid, blob } = &pending.write {
            let index = usize::try_from(blob.0).expect("a number of a snapshot");
            self.snapshots.insert(*zxid, blobs[index]);
        }
        self.log_state.apply(&pending.write).expect("what a server writes can be written");
        Some(pending)
    }

    /// The state that a process begins with.
    pub(crate) fn state(&self) -> Applied {
        let snapshot = self.log_state.history().snapshot();
        if snapshot == Zxid::ZERO { Applied::default() } else { self.snapshots[&snapshot] }
    }
}

/// A request of a client that waits.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The last transaction that was done before it.
    pub(crate) done_before: Zxid,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) rng: ChaCha8Rng,
    /// Nothing while it is down.
    pub(crate) zab: Option<Zab>,
    /// Rises with each start.
    pub(crate) incarnation: u64,
    pub(crate) disk: Disk,
    /// Writes that it has begun in all its lives.
    pub(crate) writes: u32,
    pub(crate) applied: Applied,
    pub(crate) tick: Micros,
    pub(crate) paused_until: Micros,
    /// Until then it sends bogus numbers.
    pub(crate) lies_until: Micros,
    /// What waits to be taken together.
    pub(crate) inbox: Vec<Input>,
    pub(crate) asked: BTreeMap<Request, Asked>,
    /// Proposals that have a place, by it.
    pub(crate) placed: BTreeMap<Zxid, Request>,
    /// Reads that may be answered once that is applied.
    pub(crate) ready: Vec<(Zxid, Request)>,
}
