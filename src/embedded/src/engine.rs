//! The engine of an instance.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossdock_cluster::{Proposal, Replica, RequestError};
use crossdock_coordination::answer::Spent;
use crossdock_coordination::command::{Break, Revoke, Spend};
use crossdock_coordination::{Answer, Command, Operation, Outcome, Rate, Refusal};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::CommandError;
use crate::generations::Generations;
use crate::machine::{Machine, State};
use crate::outside::{KeepAlives, Watches};
use crate::queues::Queues;
use crate::releases::Releases;
use crate::requests::Requests;
use crate::sequences::Sequences;
use crate::session::Sessions;
use crate::{expiry, follow};

/// How long a command that was refused for a while is sent again.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two attempts.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Options of an engine.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time to live of the session of this instance: what it holds is lost this long after it was last connected to
    /// the cluster.
    pub ttl: Duration,
    /// Who the session belongs to, for operators.
    pub label: String,
}

pub(crate) struct Shared {
    pub(crate) replica: Replica<Machine>,
    pub(crate) requests: Requests,
    pub(crate) releases: Releases,
    pub(crate) sessions: Sessions,
    pub(crate) sequences: Sequences,
    pub(crate) queues: Queues,
    pub(crate) generations: Generations,
    pub(crate) watches: Watches,
    pub(crate) keep_alives: KeepAlives,
    /// Distinguishes calls about the same request of a client; random at first, so that instances do not use the same numbers.
    pub(crate) attempts: AtomicU64,
    /// That of the engine's thread: those of callers may end sooner.
    pub(crate) runtime: Handle,
}

/// A handle for coordination on this instance. Clones use the same engine.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Shared>);

/// The thread of an engine. When this is dropped, it ends, and what the instance holds counts as lost; its session expires.
pub struct Running {
    shared: Arc<Shared>,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.sessions.end();
        self.shared.requests.end_all();
        self.shared.queues.end_all();
        self.shared.watches.miss();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Starts an engine. It has a thread of its own, so that nothing else delays what keeps its session alive.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(replica: Replica<Machine>, options: Options) -> io::Result<(Self, Running)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let shared = Arc::new(Shared {
            runtime: runtime.handle().clone(),
            replica,
            requests: Requests::default(),
            releases: Releases::default(),
            sessions: Sessions::new(options),
            sequences: Sequences::default(),
            queues: Queues::default(),
            generations: Generations::default(),
            watches: Watches::default(),
            keep_alives: KeepAlives::default(),
            attempts: AtomicU64::new(RandomState::new().hash_one(Instant::now()) >> 1),
        });
        let (stop, stopped) = oneshot::channel();
        let running = run(Arc::clone(&shared), stopped);
        let thread = thread::Builder::new().name("coordination".to_owned()).spawn(move || runtime.block_on(running))?;
        let running = Running { shared: Arc::clone(&shared), stop: Some(stop), thread: Some(thread) };
        Ok((Self(shared), running))
    }

    /// The state of this instance, however old that is.
    #[must_use]
    pub fn view(&self) -> Arc<State> {
        self.0.replica.view()
    }

    /// A state that includes everything that was acknowledged before this call, by any instance.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn read(&self) -> Result<Arc<State>, RequestError> {
        self.0.replica.read().await
    }

    /// Like [`Engine::read`], and waits for a leader if there is none.
    ///
    /// # Errors
    /// The last error within this time; [`RequestError::Unknown`] if there was no answer.
    pub async fn read_within(&self, time: Duration) -> Result<Arc<State>, RequestError> {
        let mut last = RequestError::Unknown;
        let reading = async {
            loop {
                match self.read().await {
                    Err(error) if is_passing(error) => last = error,
                    read => return read,
                }
                sleep(RETRY_INTERVAL).await;
            }
        };
        match timeout_at(Instant::now() + time, reading).await {
            Ok(read) => read,
            Err(_) => Err(last),
        }
    }

    /// Takes a lock from its holders, for a reason that they and operators see. Returns how many there were.
    ///
    /// # Errors
    /// See [`CommandError`]. It is not repeated: that could take the lock from its next holder.
    pub async fn break_lock(&self, lock: &str, reason: &str) -> Result<u64, CommandError> {
        let command = Break { lock: lock.to_owned(), reason: reason.to_owned() };
        holders(&self.0.execute(Operation::Break(command)).await?)
    }

    /// Asks the holders of a lock to release it, for a reason that they see. Returns how many were asked.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn revoke_lock(&self, lock: &str, reason: &str) -> Result<u64, CommandError> {
        let command = Revoke { lock: lock.to_owned(), reason: reason.to_owned() };
        holders(&self.0.execute(Operation::Revoke(command)).await?)
    }

    /// The next number of a sequence, which is higher than all numbers that were returned before this call, on any instance.
    /// Numbers may be left out.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn next_number(&self, sequence: &str) -> Result<u64, CommandError> {
        self.next_numbers(sequence, 1).await
    }

    /// The first of consecutive numbers of a sequence, up to a million of them; otherwise like [`Engine::next_number`].
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn next_numbers(&self, sequence: &str, count: u64) -> Result<u64, CommandError> {
        crate::sequences::next(&self.0, sequence, count).await
    }

    /// Takes units of a budget that all instances share: as many as there are, up to a number. Those of a call that fails may be
    /// taken.
    ///
    /// # Errors
    /// See [`CommandError`]; it can always be called again.
    pub async fn spend(&self, budget: &str, rate: Rate, up_to: u64) -> Result<Spent, CommandError> {
        let Rate { count, per_ms, burst } = rate;
        let spend = Spend { budget: budget.to_owned(), count, per_ms, burst, up_to };
        match self.0.execute_by(Operation::Spend(spend), Instant::now() + COMMAND_TIMEOUT).await? {
            Outcome::Spent(spent) => Ok(spent),
            _ => Err(CommandError::Unreadable),
        }
    }

    /// The number of requests of this instance that hold or wait.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.0.requests.len()
    }

    /// Whether this instance has a session.
    #[must_use]
    pub fn has_session(&self) -> bool {
        self.0.sessions.is_open()
    }

    /// The number of sessions that this instance has lost.
    #[must_use]
    pub fn sessions_lost(&self) -> u64 {
        self.0.sessions.lost()
    }

    /// Ends the session of this instance, so that what it holds is free at once. Waits for the cluster for a limited time.
    pub async fn close(&self) {
        crate::session::close(&self.0).await;
    }
}

/// Runs the tasks of an engine until it is stopped.
async fn run(shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let subscription = shared.replica.subscribe();
    let mut tasks = JoinSet::new();
    tasks.spawn(follow::follow(Arc::clone(&shared), subscription));
    tasks.spawn(crate::session::keep(Arc::clone(&shared)));
    tasks.spawn(crate::releases::release(Arc::clone(&shared)));
    tasks.spawn(expiry::expire(shared.replica.clone()));
    let _ = stopped.await;
}

fn holders(outcome: &Outcome) -> Result<u64, CommandError> {
    match outcome {
        Outcome::Holders(count) => Ok(*count),
        _ => Err(CommandError::Unreadable),
    }
}

impl Shared {
    /// Executes a command once.
    pub(crate) async fn execute(&self, operation: Operation) -> Result<Outcome, CommandError> {
        self.propose(proposal(operation)).await
    }

    async fn propose(&self, proposal: Proposal) -> Result<Outcome, CommandError> {
        outcome(self.replica.propose_as(proposal).await.map(|(_, answer)| answer))
    }

    /// Executes a command that may be executed more than once, until its outcome is known or this time.
    pub(crate) async fn execute_by(&self, operation: Operation, deadline: Instant) -> Result<Outcome, CommandError> {
        self.propose_by(proposal(operation), deadline).await
    }

    /// Like [`Shared::execute_by`], ahead of what waits for room.
    pub(crate) async fn execute_first_by(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<Outcome, CommandError> {
        self.propose_by(proposal(operation).reserved(), deadline).await
    }

    async fn propose_by(&self, proposal: Proposal, deadline: Instant) -> Result<Outcome, CommandError> {
        let mut last = CommandError::TimedOut;
        let attempts = async {
            loop {
                match self.propose(proposal.clone()).await {
                    Err(CommandError::Cluster(error)) if is_passing(error) => last = error.into(),
                    outcome => return outcome,
                }
                sleep(RETRY_INTERVAL).await;
            }
        };
        match timeout_at(deadline, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(last),
        }
    }
}

/// Whether a command can be sent again, if it may be executed more than once.
pub(crate) fn is_passing(error: RequestError) -> bool {
    use crossdock_zab::Refusal::{Busy, NoLeader, TransferringLeadership};
    matches!(
        error,
        RequestError::Refused(NoLeader | Busy | TransferringLeadership) | RequestError::Lost | RequestError::Unknown
    )
}

pub(crate) fn proposal(operation: Operation) -> Proposal {
    Proposal::new(Command { guards: Vec::new(), operation: Some(operation) }.encode_to_vec().into())
}

pub(crate) fn outcome(answer: Result<bytes::Bytes, RequestError>) -> Result<Outcome, CommandError> {
    match Answer::decode(answer?).map(|answer| answer.outcome) {
        Ok(Some(Outcome::Refused(refused))) => Err(match Refusal::try_from(refused.reason) {
            Ok(refusal) => CommandError::Refused(refusal),
            Err(_) => CommandError::Unreadable,
        }),
        Ok(Some(outcome)) => Ok(outcome),
        _ => Err(CommandError::Unreadable),
    }
}
