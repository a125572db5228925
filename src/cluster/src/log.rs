//! The log's own thread: makes all that waits durable at once, sends what that unlocks, and says so.
//!
//! A disk that takes long so holds up what depends on it, and nothing else: signs of life go on, and what a majority of others has is
//! committed.

use std::mem;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_zab::{Io, Link, Message, Write, Zxid};
use tokio::sync::mpsc;

use crate::latency::Latencies;
use crate::transport::Outgoing;
use crate::wal::Wal;

/// Bytes of writes that are open. Whoever has more of them waits.
const OPEN_BYTES_MAX: usize = 128 << 20;
/// What a write weighs besides its transactions, and each of these besides its payload.
const WEIGHT: usize = 64;
/// For a disk to take what was begun, when an instance ends.
const END_TIME: Duration = Duration::from_secs(5);
/// What was written and has not been heard of.
const TOLD_MAX: usize = 16;

/// Writes that become durable together, and what they unlock.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    writes: Vec<Write>,
    /// A connection that is given up meanwhile is gone.
    then: Vec<(Link, mpsc::WeakSender<Outgoing>, Message)>,
    /// The last of the writes.
    last: Option<Io>,
    bytes: usize,
}

impl Batch {
    /// Adds a write behind the others.
    pub(crate) fn add(&mut self, io: Io, write: Write) {
        self.bytes += WEIGHT;
        if let Write::Append { txns, .. } = &write {
            self.bytes += txns.iter().map(|txn| txn.payload.len() + WEIGHT).sum::<usize>();
        }
        self.writes.push(write);
        self.last = Some(io);
    }

    /// Adds what is sent once all of it is durable.
    pub(crate) fn then(&mut self, link: Link, sender: &mpsc::Sender<Outgoing>, message: Message) {
        self.then.push((link, sender.downgrade(), message));
    }

    fn append(&mut self, more: Self) {
        self.writes.extend(more.writes);
        self.then.extend(more.then);
        self.last = more.last.or(self.last);
        self.bytes += more.bytes;
    }
}

/// Writes that are durable, or an end of the log.
#[derive(Debug)]
pub(crate) struct Written {
    bytes: usize,
    /// All writes through this one are durable; or what the disk said: what of them is durable is not known, and nothing is written any
    /// more.
    pub(crate) through: Result<Io, String>,
    /// Connections that did not take what was to be sent.
    pub(crate) full: Vec<Link>,
    state: LogState,
}

/// What the log is at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogState {
    /// The end of the durable history; nothing while a synchronisation is open.
    pub(crate) end: Option<Zxid>,
    /// How often a disk was asked to make something durable.
    pub(crate) syncs: u64,
    /// The segment that is written to.
    pub(crate) segment: u64,
}

impl LogState {
    fn of(wal: &Wal) -> Self {
        Self { end: wal.end(), syncs: wal.syncs(), segment: wal.segment() }
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Waiting {
    batch: Batch,
    /// Nothing more comes.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    comes: Condvar,
}

impl Queue {
    fn put(&self, batch: Batch) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.batch.append(batch);
        self.comes.notify_one();
    }

    fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_over = true;
        self.comes.notify_one();
    }

    /// All that waits, once something does; nothing once all is taken and nothing more comes.
    fn take(&self) -> Option<(Batch, Io)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(last) = waiting.batch.last {
                return Some((mem::take(&mut waiting.batch), last));
            }
            if waiting.is_over {
                return None;
            }
            waiting = self.comes.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A log with a thread of its own. Its end waits for what was begun, unless the disk does not answer.
pub(crate) struct Log {
    queue: Arc<Queue>,
    written: mpsc::Receiver<Written>,
    open_bytes: usize,
    state: LogState,
    /// Is over once the thread is, and the log with it.
    ended: std::sync::mpsc::Receiver<()>,
}

impl Log {
    pub(crate) fn start(wal: Wal, latencies: Arc<Latencies>) -> std::io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let (told, written) = mpsc::channel(TOLD_MAX);
        let state = LogState::of(&wal);
        let taken = Arc::clone(&queue);
        let (ends, ended) = std::sync::mpsc::sync_channel(1);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _ends = ends;
            write_all(wal, &taken, &told, &latencies);
        })?;
        Ok(Self { queue, written, open_bytes: 0, state, ended })
    }

    pub(crate) fn state(&self) -> LogState {
        self.state
    }

    /// Whether as much is open as may be: nothing must be begun before some of it is written.
    pub(crate) fn is_full(&self) -> bool {
        self.open_bytes >= OPEN_BYTES_MAX
    }

    /// Begins writes, behind all that were begun before. Those that wait become durable together.
    pub(crate) fn begin(&mut self, batch: Batch) {
        if batch.last.is_some() {
            self.open_bytes += batch.bytes;
            self.queue.put(batch);
        }
    }

    /// The next that is written; nothing once the thread has ended. Cancelled, it loses nothing.
    pub(crate) async fn written(&mut self) -> Option<Written> {
        let written = self.written.recv().await?;
        Some(self.note(written))
    }

    /// The next that is written already.
    pub(crate) fn try_written(&mut self) -> Option<Written> {
        let written = self.written.try_recv().ok()?;
        Some(self.note(written))
    }

    fn note(&mut self, written: Written) -> Written {
        self.open_bytes -= written.bytes;
        self.state = written.state;
        written
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.end();
        self.written.close();
        if self.ended.recv_timeout(END_TIME) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the disk of the log does not answer; what it was to write is left to it");
        }
    }
}

fn write_all(mut wal: Wal, queue: &Queue, told: &mpsc::Sender<Written>, latencies: &Latencies) {
    while let Some((batch, last)) = queue.take() {
        let begun = Instant::now();
        let appended = wal.append(&batch.writes);
        latencies.log.note(begun.elapsed());
        let mut full = Vec::new();
        if appended.is_ok() {
            for (link, sender, message) in batch.then {
                let sent = sender.upgrade().map(|sender| sender.try_send(Outgoing::Message(message)));
                if let Some(Err(mpsc::error::TrySendError::Full(_))) = sent {
                    full.push(link);
                }
            }
        }
        let has_failed = appended.is_err();
        let through = appended.map(|()| last).map_err(|problem| problem.to_string());
        let written = Written { bytes: batch.bytes, through, full, state: LogState::of(&wal) };
        // Nobody listens any more once the instance ends; what it has begun is written all the same.
        let _ = told.blocking_send(written);
        if has_failed {
            return;
        }
    }
}
