//! The log thread: makes all queued writes durable together, sends the messages they unlock, and reports them.
//!
//! A slow disk delays only what depends on it. Heartbeats continue, and what is durable on a quorum of other servers is
//! committed.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_zab::{Link, Message, Write, WriteId, Zxid};
use tokio::sync::{Notify, mpsc};

use crate::injected_bug::{InjectedBug, is_injected};
use crate::latency::Latencies;
use crate::platform::{self, Instant, Thread};
use crate::transport::{NotQueued, Outbox, Outgoing, WeakOutbox};
use crate::wal::{Space, Wal};

/// Bookkeeping bytes per write, and per transaction.
const OVERHEAD_BYTES: usize = 64;
/// How long an ending instance waits for the disk.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Reports that the driver has not received yet.
const RESULTS_LEN_MAX: usize = 16;

/// Writes that become durable together, and the messages they unlock.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    writes: Vec<Write>,
    /// Weak: a dropped connection must not stay open for these messages.
    then: Vec<(Link, WeakOutbox, Message)>,
    /// The id of the last write.
    last: Option<WriteId>,
    bytes: usize,
    /// The number of transactions.
    txns: usize,
}

impl Batch {
    /// Appends a write.
    pub(crate) fn add(&mut self, id: WriteId, write: Write) {
        self.bytes += OVERHEAD_BYTES;
        if let Write::Append { txns, .. } = &write {
            self.bytes += txns.iter().map(|txn| txn.payload.len() + OVERHEAD_BYTES).sum::<usize>();
            self.txns += txns.len();
        }
        self.writes.push(write);
        self.last = Some(id);
    }

    /// Adds a message that is sent once the whole batch is durable.
    pub(crate) fn then(&mut self, link: Link, outbox: &Outbox, message: Message) {
        self.then.push((link, outbox.downgrade(), message));
    }

    fn append(&mut self, more: Self) {
        self.writes.extend(more.writes);
        self.then.extend(more.then);
        self.last = more.last.or(self.last);
        self.bytes += more.bytes;
        self.txns += more.txns;
    }
}

/// Writes that are durable, or the failure of the log.
#[derive(Debug)]
pub(crate) struct Written {
    bytes: usize,
    /// All writes through this one are durable. After an error it is unknown which writes are durable, and nothing more
    /// is written.
    pub(crate) through: Result<WriteId, String>,
    /// Connections whose queue had no room for the unlocked messages.
    pub(crate) full_links: Vec<Link>,
    status: LogStatus,
}

/// The status of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogStatus {
    /// The end of the durable history; `None` while a synchronisation is open.
    pub(crate) end: Option<Zxid>,
    /// The number of syncs.
    pub(crate) syncs: u64,
    /// The number of the current segment.
    pub(crate) segment: u64,
}

impl LogStatus {
    fn of(wal: &Wal) -> Self {
        Self { end: wal.end(), syncs: wal.syncs(), segment: wal.segment() }
    }
}

/// Writes that wait for the log thread.
#[derive(Debug, Default)]
struct Queued {
    batch: Batch,
    /// No more writes will arrive.
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    queued: Mutex<Queued>,
    ready: Notify,
}

impl Queue {
    fn queued(&self) -> MutexGuard<'_, Queued> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batch: Batch) {
        self.queued().batch.append(batch);
        self.ready.notify_one();
    }

    fn close(&self) {
        self.queued().is_closed = true;
        self.ready.notify_one();
    }

    /// Removes all writes, if there are any.
    fn try_take(&self) -> Option<(Batch, WriteId)> {
        let mut queued = self.queued();
        let last = queued.batch.last?;
        Some((mem::take(&mut queued.batch), last))
    }

    /// Waits for writes and removes all of them. `None` once the queue is closed and empty.
    async fn take(&self) -> Option<(Batch, WriteId)> {
        loop {
            if let Some(taken) = self.try_take() {
                return Some(taken);
            }
            if self.queued().is_closed {
                return self.try_take();
            }
            // A notification before this is not lost.
            self.ready.notified().await;
        }
    }
}

/// A log with its own thread. Dropping it waits for pending writes, unless the disk hangs.
pub(crate) struct Log {
    queue: Arc<Queue>,
    written: mpsc::Receiver<Written>,
    pending_bytes: usize,
    /// Above it, nothing new may be submitted.
    pending_bytes_max: usize,
    status: LogStatus,
    space: Arc<Space>,
    /// It ends once the log is closed.
    thread: Thread,
}

impl Log {
    pub(crate) fn start(wal: Wal, pending_bytes_max: usize, latencies: Arc<Latencies>) -> std::io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let (results, written) = mpsc::channel(RESULTS_LEN_MAX);
        let status = LogStatus::of(&wal);
        let space = wal.space();
        let log_queue = Arc::clone(&queue);
        let thread = platform::spawn_thread("log", async move {
            write_all(wal, &log_queue, &results, &latencies).await;
        })?;
        Ok(Self { queue, written, pending_bytes: 0, pending_bytes_max, status, space, thread })
    }

    pub(crate) fn status(&self) -> LogStatus {
        self.status
    }

    /// Whether the log lacks space for another segment, and why.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// Whether the limit on pending bytes is reached. Nothing may be submitted then.
    pub(crate) fn is_full(&self) -> bool {
        self.pending_bytes >= self.pending_bytes_max
    }

    /// Submits writes, to follow all earlier ones.
    pub(crate) fn submit(&mut self, batch: Batch) {
        if batch.last.is_some() {
            self.pending_bytes += batch.bytes;
            self.queue.push(batch);
        }
    }

    /// The next report, or `None` once the thread has ended. Cancel safe.
    pub(crate) async fn written(&mut self) -> Option<Written> {
        let written = self.written.recv().await?;
        Some(self.note(written))
    }

    /// The next report, if there is one already.
    pub(crate) fn try_written(&mut self) -> Option<Written> {
        let written = self.written.try_recv().ok()?;
        Some(self.note(written))
    }

    fn note(&mut self, written: Written) -> Written {
        self.pending_bytes -= written.bytes;
        self.status = written.status;
        written
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close();
        self.written.close();
        self.space.close();
        if !self.thread.has_ended_within(SHUTDOWN_TIMEOUT) {
            tracing::warn!("log disk does not respond; pending writes are abandoned to it");
        }
    }
}

/// Sends messages, and returns the connections whose queue has no room for one.
fn send_all(messages: Vec<(Link, WeakOutbox, Message)>) -> Vec<Link> {
    let mut full_links = Vec::new();
    for (link, outbox, message) in messages {
        let sent = outbox.upgrade().map(|outbox| outbox.try_send(Outgoing::Message(message)));
        if sent == Some(Err(NotQueued::Full)) {
            full_links.push(link);
        }
    }
    full_links
}

async fn write_all(mut wal: Wal, queue: &Queue, results: &mpsc::Sender<Written>, latencies: &Latencies) {
    while let Some((mut batch, mut last)) = queue.take().await {
        let begun = Instant::now();
        if batch.txns > 1 {
            // Where there is much to do, more follow at once, and share the sync.
            platform::yield_thread();
            if let Some((more, last_of_more)) = queue.try_take() {
                batch.append(more);
                last = last_of_more;
            }
        }
        let mut full_links = Vec::new();
        if is_injected(InjectedBug::SendBeforeSync) {
            full_links = send_all(mem::take(&mut batch.then));
        }
        let appended = wal.append(&batch.writes);
        latencies.log.record(begun.elapsed());
        if appended.is_ok() {
            full_links.extend(send_all(batch.then));
        }
        let has_failed = appended.is_err();
        let through = appended.map(|()| last).map_err(|problem| problem.to_string());
        let written = Written { bytes: batch.bytes, through, full_links, status: LogStatus::of(&wal) };
        // The receiver is closed once the instance ends; pending writes are still completed.
        let _ = results.send(written).await;
        if has_failed {
            return;
        }
    }
}
