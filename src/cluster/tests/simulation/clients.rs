//! Clients of the instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossdock_cluster::{Proposal, Replica, RequestError};
use crossdock_zab::{Role, Zxid};
use tokio::task::JoinSet;

use crate::journal::{Journal, command, decode_answer};
use crate::servers::Servers;

/// How long a client waits for a transaction that another instance has applied.
const READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Clients of instances, until they are stopped.
pub(crate) struct Clients {
    tasks: JoinSet<()>,
    is_over: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
}

/// Commands are numbered across all clients.
#[derive(Clone, Default)]
struct Numbers(Arc<AtomicU64>);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Clients {
    pub(crate) fn start(servers: &Servers) -> Self {
        let (mut tasks, is_over, numbers) = (JoinSet::new(), Arc::<AtomicBool>::default(), Numbers::default());
        let is_slow = Arc::<AtomicBool>::default();
        let world = &servers.world;
        let pause = [5, 20, 60][usize::try_from(world.below(3)).unwrap_or(0)];
        let client = || Client {
            servers: servers.clone(),
            numbers: numbers.clone(),
            pause,
            is_slow: Arc::clone(&is_slow),
            seen: BTreeMap::new(),
        };
        for _ in 0..2 + world.below(4) {
            tasks.spawn(client().run(Arc::clone(&is_over)));
        }
        for _ in 0..world.below(3) {
            tasks.spawn(client().run_numbered(Arc::clone(&is_over)));
        }
        Self { tasks, is_over, is_slow }
    }

    /// Lets them send a fiftieth of what they sent.
    pub(crate) fn slow_down(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// Waits until all have got the answers to their last requests.
    pub(crate) async fn stop(mut self, servers: &Servers) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(60), ended).await.is_err() {
            servers.world.violation("a request is never answered");
        }
    }
}

/// A run of an instance that a request goes to.
struct Used {
    id: u64,
    run: u64,
    replica: Replica<Journal>,
}

struct Client {
    servers: Servers,
    numbers: Numbers,
    /// Maximum milliseconds between two requests.
    pause: u64,
    is_slow: Arc<AtomicBool>,
    /// The number of commands last seen in each run of an instance.
    seen: BTreeMap<u64, usize>,
}

impl Client {
    async fn pause(&self) {
        let factor = if self.is_slow.load(Ordering::Relaxed) { 50 } else { 1 };
        tokio::time::sleep(Duration::from_millis(factor * (1 + self.servers.world.below(self.pause)))).await;
    }

    async fn run(mut self, is_over: Arc<AtomicBool>) {
        while !is_over.load(Ordering::Relaxed) {
            self.pause().await;
            match self.servers.world.below(20) {
                0..9 => self.write().await,
                9 => self.write_many().await,
                10..15 => self.read().await,
                15 => self.read_at().await,
                16 => self.write_too_much().await,
                _ => self.look(),
            }
        }
    }

    fn proposal(&self, number: u64) -> Proposal {
        let world = &self.servers.world;
        let padding = usize::try_from(world.below(self.servers.plan.padding)).unwrap_or(0);
        let proposal = Proposal::new(command(number, padding));
        if world.below(8) == 0 { proposal.reserved() } else { proposal }
    }

    /// An instance that runs must answer.
    fn check_end<T>(&self, used: &Used, outcome: &Result<T, RequestError>) {
        let has_ended = self.servers.world.run_of(used.id) != Some(used.run)
            || self.servers.replica(used.id).is_none()
            || used.replica.status().stopped.is_some();
        if matches!(outcome, Err(RequestError::Ended)) && !has_ended {
            self.servers.world.violation(&format!("instance {} drops a request", used.id));
        }
    }

    /// Notes the outcome of a command.
    fn note(&self, used: &Used, number: u64, outcome: Result<(Zxid, bytes::Bytes), RequestError>) {
        let record = &self.servers.record;
        self.check_end(used, &outcome);
        match outcome {
            Ok((zxid, answer)) => match decode_answer(answer) {
                Some(answer) => record.answered(number, zxid, answer),
                None => self.servers.world.violation(&format!("command {number} has no answer")),
            },
            Err(RequestError::Refused(_) | RequestError::ReadOnly | RequestError::Lost) => record.refused(number),
            Err(RequestError::Unknown | RequestError::Ended | RequestError::Client(_)) => {}
        }
    }

    /// An instance to use.
    fn draw(&self) -> Option<Used> {
        let (id, replica) = self.servers.draw()?;
        Some(Used { id, run: self.servers.world.run_of(id)?, replica })
    }

    async fn write(&self) {
        let Some(used) = self.draw() else { return };
        let number = self.numbers.next();
        let mut proposal = self.proposal(number);
        if self.servers.world.below(8) == 0
            && let Role::Leading(epoch) = used.replica.status().role
        {
            proposal = proposal.in_epoch(epoch);
        }
        let outcome = used.replica.propose_as(proposal).await;
        self.note(&used, number, outcome);
    }

    async fn write_many(&self) {
        let Some(used) = self.draw() else { return };
        let count = 2 + self.servers.world.below(8);
        let numbers: Vec<u64> = (0..count).map(|_| self.numbers.next()).collect();
        let proposals = numbers.iter().map(|number| self.proposal(*number)).collect();
        let outcomes = used.replica.propose_many(proposals).await;
        let places: Vec<usize> = outcomes
            .iter()
            .filter_map(|outcome| decode_answer(outcome.as_ref().ok()?.1.clone()).map(|(_, place)| place))
            .collect();
        if !places.is_sorted() {
            self.servers.world.violation(&format!("commands {numbers:?} are executed in another order"));
        }
        for (number, outcome) in numbers.into_iter().zip(outcomes) {
            self.note(&used, number, outcome);
        }
    }

    /// A command that exceeds the limit is refused.
    async fn write_too_much(&self) {
        let Some(used) = self.draw() else { return };
        let number = self.numbers.next();
        let len = usize::try_from(2 * self.servers.plan.segment_len).unwrap_or(usize::MAX);
        let outcome = used.replica.propose(command(number, len)).await;
        if outcome.is_ok() {
            self.servers.world.violation(&format!("command {number} is too long, and is executed"));
        }
        self.note(&used, number, outcome);
    }

    async fn read(&self) {
        let Some(used) = self.draw() else { return };
        let record = &self.servers.record;
        let least = record.least();
        let outcome = used.replica.read().await;
        self.check_end(&used, &outcome);
        if let Ok(view) = outcome {
            record.read(view.all.len(), least);
        }
    }

    /// Reads what another instance has shown.
    async fn read_at(&self) {
        let (Some(shown), Some(used)) = (self.draw(), self.draw()) else { return };
        // The view is at least as late as what is applied.
        let zxid = shown.replica.status().applied;
        let least = self.servers.record.count_through(zxid);
        let outcome = used.replica.read_at(zxid);
        // What it waits for may come late.
        let Ok(outcome) = tokio::time::timeout(READ_TIMEOUT, outcome).await else { return };
        self.check_end(&used, &outcome);
        if outcome.is_ok_and(|view| view.all.len() < least) {
            self.servers.world.violation(&format!("a read at {zxid} finds too little"));
        }
    }

    /// What one run of an instance shows never goes back.
    fn look(&mut self) {
        let Some(Used { id, run, replica }) = self.draw() else { return };
        let len = replica.view().all.len();
        let seen = self.seen.insert(run, len).unwrap_or(0);
        if len < seen {
            self.servers.world.violation(&format!("instance {id} shows {len} commands, after {seen}"));
        }
    }

    /// Sends each command until it is executed, through whatever instance.
    async fn run_numbered(self, is_over: Arc<AtomicBool>) {
        let world = &self.servers.world;
        while !is_over.load(Ordering::Relaxed) {
            self.pause().await;
            let Some((_, replica)) = self.servers.draw() else { continue };
            let Ok(client) = replica.open_client().await else { continue };
            let mut number = 1;
            let mut id = self.numbers.next();
            while !is_over.load(Ordering::Relaxed) {
                self.pause().await;
                let Some(used) = self.draw() else { continue };
                let outcome = used.replica.propose_as(self.proposal(id).numbered(client, number)).await;
                self.check_end(&used, &outcome);
                match outcome {
                    Ok((zxid, answer)) => {
                        self.note(&used, id, Ok((zxid, answer)));
                        number += 1;
                        id = self.numbers.next();
                        if world.below(20) == 0 {
                            let _ = used.replica.close_client(client).await;
                            break;
                        }
                    }
                    // Sent again with the same number, it is executed at most once.
                    Err(RequestError::Client(problem)) => {
                        world.violation(&format!("number {number} of client {client}: {problem}"));
                    }
                    Err(_) => {}
                }
            }
        }
    }
}
