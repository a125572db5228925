//! A simulated server: its process, disk and clock.

use std::collections::{BTreeMap, VecDeque};

use crossdock_zab::{Input, Link, LogId, LogState, Message, Request, Summary, Write, WriteId, Zab, Zxid};
use rand_chacha::ChaCha8Rng;

use crate::checks::{Applied, Durable};
use crate::faults::Micros;

/// A pending write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    pub(crate) id: WriteId,
    pub(crate) write: Write,
    pub(crate) then: Vec<(Link, Message)>,
}

/// What survives a crash.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) log: LogId,
    /// Whether the log may found a cluster.
    pub(crate) founds: bool,
    /// The state after all durable writes.
    pub(crate) log_state: LogState,
    /// The same, with the transactions that snapshots cover.
    pub(crate) full: LogState,
    pub(crate) snapshots: BTreeMap<Zxid, (Applied, Summary)>,
    /// Pending writes, in order.
    pub(crate) pending: VecDeque<Pending>,
    /// The number of pending writes in the current sync.
    pub(crate) at: usize,
    pub(crate) slow_until: Micros,
    pub(crate) fails: bool,
}

impl Disk {
    /// A disk with an empty log.
    pub(crate) fn new(log: LogId, founds: bool) -> Self {
        Self {
            log,
            founds,
            log_state: LogState::default(),
            full: LogState::default(),
            snapshots: BTreeMap::new(),
            pending: VecDeque::new(),
            at: 0,
            slow_until: 0,
            fails: false,
        }
    }

    /// Makes the first pending write durable.
    ///
    /// # Errors
    /// The write is not valid after those on the disk, so the log could not be recovered.
    pub(crate) fn settle(&mut self, blobs: &[Applied]) -> Result<Option<Pending>, String> {
        let Some(pending) = self.pending.pop_front() else { return Ok(None) };
        if let Write::Install { summary, blob } = &pending.write {
            let index = usize::try_from(blob.0).expect("a number of a snapshot");
            self.snapshots.insert(summary.point.zxid, (blobs[index], summary.clone()));
        }
        let applied = self.log_state.apply(&pending.write);
        applied.map_err(|problem| format!("log: {:?} is not valid on disk: {problem}", pending.write))?;
        let applied = self.full.apply(&pending.write);
        applied.map_err(|problem| format!("log: {:?} is not valid on the whole log: {problem}", pending.write))?;
        Ok(Some(pending))
    }

    /// The state that a process starts with.
    pub(crate) fn state(&self) -> Applied {
        let snapshot = self.log_state.history().snapshot();
        if snapshot == Zxid::ZERO { Applied::default() } else { self.snapshots[&snapshot].0 }
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
    /// Disks that it lost, which may come back.
    pub(crate) lost: Vec<Disk>,
    /// How far its clock is ahead, in milliseconds.
    pub(crate) skew: u64,
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

impl Server {
    /// Its log, and what is durable in it.
    pub(crate) fn durable(&self) -> Durable<'_> {
        (self.disk.log, &self.disk.log_state)
    }

    /// The log state as it runs, or as it would start.
    pub(crate) fn log_state(&self) -> &LogState {
        self.zab.as_ref().map_or(&self.disk.log_state, Zab::log_state)
    }
}
