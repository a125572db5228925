//! The state thread: applies committed transactions, answers their proposers, restores and freezes the state.
//!
//! A state machine that is slow delays neither heartbeats nor commits. What waits for it is bounded by the driver, which
//! accepts no commands, and then nothing at all, while it is [behind](State::backlog).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossdock_zab::{Role, Summary, Txn, Zxid};
use tokio::sync::mpsc;

use crate::error::RequestError;
use crate::injected_bug::{InjectedBug, is_injected};
use crate::latency::Latencies;
use crate::machines::{Answer, Frozen, MachineId, Machines};
use crate::platform::{self, Instant};
use crate::request::{Reply, send_to_all};
use crate::state_machine::FIRST_VERSION;
use crate::wal;

/// Transactions that are applied together, and become visible together.
const BATCH_LEN_MAX: usize = 1024;
/// Bytes of transactions that are applied together; a single one may exceed it.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long an ending instance waits for the state machines.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Bookkeeping bytes of a transaction.
pub(crate) const TXN_OVERHEAD: usize = 128;
/// Events that the driver has not received yet, without replies: a snapshot, a backup, and the end.
const EVENTS_LEN_MAX: usize = 3;
/// Replies up to this number are sent by the state thread itself.
const OWN_REPLIES_MAX: usize = 4;
/// Batches of replies that the driver has not sent yet.
const REPLIES_LEN_MAX: usize = 16;

/// A committed transaction. If a local client proposed it: when the command arrived, and where the answer goes.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) txn: Txn,
    pub(crate) reply: Option<(Instant, Reply<(Zxid, Bytes)>)>,
}

impl Entry {
    fn len(&self) -> usize {
        self.txn.payload.len() + TXN_OVERHEAD
    }
}

/// What a captured state is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Snapshot,
    Backup,
}

/// Something to do, after everything before it.
enum Job {
    Apply(Vec<Entry>),
    /// Replace the state by the installed snapshot of this zxid.
    Restore(Zxid),
    /// Capture the state.
    Freeze(Summary, Purpose),
    /// Answer these reads: all transactions through this one are applied.
    Answer(Zxid, Vec<Reply<Zxid>>),
    Became(Role),
}

/// Replies that the driver sends.
///
/// Clients that get their replies propose their next commands at once. While the driver sends replies, these gather, and the
/// driver then handles them together: fewer writes to the log, and fewer messages.
pub(crate) type Replies = Vec<(Reply<(Zxid, Bytes)>, Answer)>;

/// What the thread tells the driver.
pub(crate) enum Event {
    Replies(Replies),
    Frozen(Summary, Frozen, Purpose),
    /// A transaction cannot be applied, or a snapshot not restored.
    Failed(String),
}

impl Event {
    /// The thread has ended without a report.
    fn ended() -> Self {
        Self::Failed("the state thread has ended".to_owned())
    }
}

/// The state thread, as the driver sees it. It ends, after everything submitted, once this is dropped.
pub(crate) struct State {
    /// `None` once it ends.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    events: mpsc::Receiver<Event>,
    replies: mpsc::Receiver<Replies>,
    backlog: Arc<AtomicUsize>,
    applied: Arc<AtomicU64>,
    /// The versions of the machines in effect.
    versions: BTreeMap<MachineId, Arc<AtomicU32>>,
}

impl State {
    /// Starts the thread. All transactions through `applied` are in the state.
    ///
    /// # Errors
    /// The thread cannot be started.
    #[expect(clippy::disallowed_methods, reason = "the driver limits the bytes: it submits nothing beyond a backlog")]
    pub(crate) fn start(
        machines: Machines,
        applied: Zxid,
        folder: PathBuf,
        latencies: Arc<Latencies>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::unbounded_channel();
        let (to_driver, events) = mpsc::channel(EVENTS_LEN_MAX);
        let (replies_to_driver, replies) = mpsc::channel(REPLIES_LEN_MAX);
        let backlog: Arc<AtomicUsize> = Arc::default();
        let applied = Arc::new(AtomicU64::new(applied.to_u64()));
        let versions = machines.versions();
        let worker = Worker {
            machines,
            batch: Batch::default(),
            folder,
            latencies,
            events: to_driver,
            replies: replies_to_driver,
            backlog: Arc::clone(&backlog),
            applied: Arc::clone(&applied),
        };
        platform::spawn_thread("state", worker.run(queue))?;
        Ok(Self { jobs: Some(jobs), events, replies, backlog, applied, versions })
    }

    fn submit(&self, job: Job) {
        // The thread only ends before this if it has reported why.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }

    pub(crate) fn apply(&self, entries: Vec<Entry>) {
        let len = entries.iter().map(Entry::len).sum();
        self.backlog.fetch_add(len, Ordering::Relaxed);
        self.submit(Job::Apply(entries));
    }

    pub(crate) fn restore(&self, zxid: Zxid) {
        self.submit(Job::Restore(zxid));
    }

    pub(crate) fn freeze(&self, summary: Summary, purpose: Purpose) {
        self.submit(Job::Freeze(summary, purpose));
    }

    /// Answers reads that need no more than what was submitted.
    pub(crate) fn answer(&self, zxid: Zxid, replies: Vec<Reply<Zxid>>) {
        if self.applied() < zxid && !is_injected(InjectedBug::ReadTooEarly) {
            return self.submit(Job::Answer(zxid, replies));
        }
        send_to_all(replies, Ok(zxid));
    }

    pub(crate) fn became(&self, role: Role) {
        self.submit(Job::Became(role));
    }

    /// Bytes of transactions that are not applied yet.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// The version of a machine in effect.
    pub(crate) fn version(&self, machine: MachineId) -> u32 {
        self.versions.get(&machine).map_or(FIRST_VERSION, |version| version.load(Ordering::Acquire))
    }

    /// All transactions through this one are applied and visible.
    pub(crate) fn applied(&self) -> Zxid {
        Zxid::from_u64(self.applied.load(Ordering::Acquire))
    }

    /// Lets the thread end after everything submitted, and sends its last replies. Waits for a limited time: a state machine
    /// may be slow.
    pub(crate) async fn end(&mut self) {
        self.jobs = None;
        let last = async {
            while let Some(replies) = self.replies.recv().await {
                send_all(replies);
            }
        };
        if tokio::time::timeout(END_TIMEOUT, last).await.is_err() {
            tracing::warn!("a state machine takes too long; the instance ends without it");
        }
    }

    /// The next event; a failure once the thread has ended. Cancel safe.
    pub(crate) async fn event(&mut self) -> Event {
        tokio::select! {
            biased;
            // These are few.
            event = self.events.recv() => {
                event.unwrap_or_else(Event::ended)
            }
            Some(replies) = self.replies.recv() => Event::Replies(replies),
        }
    }

    /// The next event, if there is one already.
    pub(crate) fn try_event(&mut self) -> Option<Event> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(mpsc::error::TryRecvError::Empty) => self.replies.try_recv().ok().map(Event::Replies),
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Event::ended()),
        }
    }
}

/// Transactions that are applied together. It is empty between batches, and keeps its memory.
#[derive(Default)]
struct Batch {
    /// Each with whether its answer is used here.
    txns: Vec<(Txn, bool)>,
    /// For the transactions of local clients: the index, when the command arrived, and where the answer goes.
    replies: Vec<(usize, Instant, Reply<(Zxid, Bytes)>)>,
    answers: Vec<Answer>,
    /// Bytes of the transactions.
    len: usize,
}

/// Sends replies to the proposers.
pub(crate) fn send_all(replies: impl IntoIterator<Item = (Reply<(Zxid, Bytes)>, Answer)>) {
    for (reply, answer) in replies {
        reply.send(answer.map_err(RequestError::from));
    }
}

struct Worker {
    machines: Machines,
    batch: Batch,
    folder: PathBuf,
    latencies: Arc<Latencies>,
    events: mpsc::Sender<Event>,
    replies: mpsc::Sender<Replies>,
    backlog: Arc<AtomicUsize>,
    applied: Arc<AtomicU64>,
}

impl Drop for Worker {
    /// Also if a machine panics.
    fn drop(&mut self) {
        self.machines.ended();
        // Nothing waits for it any more.
        self.backlog.store(0, Ordering::Relaxed);
    }
}

impl Worker {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, BATCH_LEN_MAX).await > 0 {
            if let Err(problem) = self.execute(jobs.drain(..)) {
                let _ = self.events.send(Event::Failed(problem)).await;
                return;
            }
        }
    }

    /// Executes jobs in order; consecutive transactions are applied together.
    fn execute(&mut self, jobs: impl Iterator<Item = Job>) -> Result<(), String> {
        for job in jobs {
            if let Job::Apply(entries) = job {
                for entry in entries {
                    self.add(entry);
                    if self.batch.txns.len() >= BATCH_LEN_MAX || self.batch.len >= BATCH_BYTES_MAX {
                        self.apply()?;
                    }
                }
                continue;
            }
            self.apply()?;
            match job {
                Job::Apply(_) => {}
                Job::Restore(zxid) => self.restore(zxid)?,
                Job::Freeze(summary, purpose) => {
                    let frozen = Event::Frozen(summary, self.machines.freeze(), purpose);
                    // There is room for one of each purpose, and the driver takes only one at a time.
                    let _ = self.events.try_send(frozen);
                }
                Job::Answer(zxid, replies) => send_to_all(replies, Ok(zxid)),
                Job::Became(role) => self.machines.became(role),
            }
        }
        self.apply()
    }

    fn add(&mut self, entry: Entry) {
        self.batch.len += entry.len();
        let at = self.batch.txns.len();
        self.batch.txns.push((entry.txn, entry.reply.is_some()));
        self.batch.replies.extend(entry.reply.map(|(begun, reply)| (at, begun, reply)));
    }

    fn apply(&mut self) -> Result<(), String> {
        let Batch { txns, replies, answers, len } = &mut self.batch;
        let Some(last) = txns.last().map(|(txn, _)| txn.zxid) else { return Ok(()) };
        self.machines.apply(txns, answers).map_err(|problem| problem.to_string())?;
        self.machines.publish(last);
        self.applied.store(last.to_u64(), Ordering::Release);
        txns.clear();
        if let [(first, ..), (second, ..), ..] = replies[..]
            && is_injected(InjectedBug::SwapAnswers)
        {
            answers.swap(first, second);
        }
        let is_small = replies.len() <= OWN_REPLIES_MAX;
        let replies = replies.drain(..).map(|(at, begun, reply)| {
            self.latencies.commit.record(begun.elapsed());
            (reply, std::mem::replace(&mut answers[at], Ok((Zxid::ZERO, Bytes::new()))))
        });
        if is_small {
            send_all(replies);
        } else if let Err(error) = self.replies.try_send(replies.collect()) {
            // The driver is busy, or has ended.
            send_all(error.into_inner());
        }
        self.backlog.fetch_sub(std::mem::take(len), Ordering::Relaxed);
        Ok(())
    }

    fn restore(&mut self, zxid: Zxid) -> Result<(), String> {
        let begun = Instant::now();
        let opened = wal::open_snapshot(&self.folder, zxid).map_err(|problem| problem.to_string())?;
        let mut opened = opened.ok_or_else(|| format!("the snapshot of {zxid} is damaged"))?;
        self.machines.restore(zxid, Some(&mut opened.state)).map_err(|problem| problem.to_string())?;
        self.applied.store(zxid.to_u64(), Ordering::Release);
        tracing::info!(%zxid, bytes = opened.state_len, took = ?begun.elapsed(), "state restored from a snapshot");
        Ok(())
    }
}
