//! Processes records in transactions, many at a time.
//!
//! All partitions of a listener share one transactional producer. Admitted records join the open batch, are processed like any others, and are settled
//! together by its commit. If some of them fail, the transaction is aborted; those are processed again alone, and the others in new transactions.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_delivery::{Settlement, failpoint, settle};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};

use super::assignment::{PartitionId, RecordId};
use super::handler::{Handler, entry};
use super::lanes::Lanes;
use super::member::Delivery;
use super::{ListenerContext, ROUTES_INTERVAL, retry_backoff};
use crate::transaction::{Participant, Transaction, TransactionError, TransactionalProducer};

/// The most records of a batch. The number starts low, and adapts to the time that batches take.
const BATCH_COUNT_MAX: usize = 1_000;
const BATCH_COUNT_FIRST: usize = 64;
/// A batch that takes longer is followed by a smaller one: the brokers end a transaction after half a minute.
const SLOW_TIME: Duration = Duration::from_secs(2);
/// A batch that takes less is followed by a larger one.
const FAST_TIME: Duration = Duration::from_millis(500);
/// A commit or abort that takes longer is reported.
const STALL_TIME: Duration = Duration::from_secs(15);
/// How long records join a batch.
const BATCH_TIME: Duration = Duration::from_millis(50);

/// The transactions of a listener.
pub(super) struct Batches {
    context: Rc<ListenerContext>,
    batch: RefCell<Option<Batch>>,
    producer: RefCell<Option<Arc<TransactionalProducer>>>,
    /// The most records of the next batch.
    count_max: Cell<usize>,
    /// Records are sent one by one, as a batch of them was too large.
    is_unbatched: Cell<bool>,
    /// A record joined or was processed.
    changed: Notify,
}

/// A transaction and the records that belong to it.
struct Batch {
    transaction: Arc<Transaction>,
    /// In the order of their admission, which is that of their offsets in each partition.
    joined: Vec<(Rc<Delivery>, State)>,
    pending: usize,
    first_joined: Option<Instant>,
    is_closed: bool,
}

/// What became of a record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is waiting or being processed.
    Pending,
    /// It takes effect with the transaction.
    Processed,
    /// It did not start: it is left to the next owner of its partition.
    Left,
    /// The transaction must be aborted.
    Failed,
}

/// The place of a record in the open batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place(usize);

impl Batches {
    /// Opens batches until it is dropped.
    pub(super) fn open(lanes: &Rc<Lanes>) -> Rc<Self> {
        let batches = Rc::new(Self {
            context: Rc::clone(&lanes.context),
            batch: RefCell::default(),
            producer: RefCell::default(),
            count_max: Cell::new(BATCH_COUNT_FIRST),
            is_unbatched: Cell::new(false),
            changed: Notify::new(),
        });
        tokio::task::spawn_local(Rc::clone(&batches).run(Rc::clone(lanes)));
        batches
    }

    /// Whether a record can join the open batch.
    pub(super) fn has_room(&self) -> bool {
        let batch = self.batch.borrow();
        batch.as_ref().is_some_and(|batch| !batch.is_closed && batch.joined.len() < self.count_max.get())
    }

    /// Adds an admitted record to the open batch, which has room.
    pub(super) fn join(&self, delivery: &Rc<Delivery>) -> Option<Place> {
        let mut open = self.batch.borrow_mut();
        let batch = open.as_mut()?;
        batch.joined.push((Rc::clone(delivery), State::Pending));
        batch.pending += 1;
        if batch.first_joined.is_none() {
            batch.first_joined = Some(Instant::now());
            self.changed.notify_one();
        }
        Some(Place(batch.joined.len() - 1))
    }

    /// Processes a record of the open batch; returns whether those behind it in its lane may be processed.
    pub(super) async fn process(&self, lanes: &Lanes, delivery: &Delivery, place: Place) -> bool {
        let transaction = self.batch.borrow().as_ref().map(|batch| Arc::clone(&batch.transaction));
        let Some(transaction) = transaction else { return false };
        let processing = AssertUnwindSafe(process(lanes, delivery, &transaction));
        let state = processing.catch_unwind().await.unwrap_or(State::Failed);
        self.finish(place, state);
        state == State::Processed
    }

    /// A record of the open batch is not processed, as one before it in its lane was not.
    pub(super) fn leave(&self, place: Place) {
        self.finish(place, State::Left);
    }

    fn finish(&self, Place(index): Place, state: State) {
        if let Some(batch) = self.batch.borrow_mut().as_mut()
            && let Some(joined) = batch.joined.get_mut(index)
        {
            joined.1 = state;
            batch.pending -= 1;
            if batch.pending == 0 {
                self.changed.notify_one();
            }
        }
    }

    /// Opens one batch after another.
    async fn run(self: Rc<Self>, lanes: Rc<Lanes>) {
        loop {
            let transaction = self.begin().await;
            let batch = Batch { transaction, joined: Vec::new(), pending: 0, first_joined: None, is_closed: false };
            self.batch.borrow_mut().replace(batch);
            lanes.advance_all();
            self.completed().await;
            let Some(batch) = self.batch.borrow_mut().take() else { continue };
            batch.transaction.close();
            self.adapt(&batch);
            failpoint("kafka.batch");
            let settled = match offsets(&batch.transaction, &batch.joined) {
                Some(offsets) => self.commit(offsets, &processed(&batch.joined)).await,
                None => {
                    self.abort().await;
                    Err("a record failed".to_owned())
                }
            };
            match settled {
                Ok(()) => {
                    for (delivery, state) in &batch.joined {
                        lanes.end_in_transaction(delivery, *state == State::Processed);
                    }
                }
                Err(problem) => {
                    let group = &self.context.name;
                    tracing::warn!(listener = %group, records = batch.joined.len(), problem, "transaction aborted; its records are processed again");
                    self.repeat(&lanes, batch).await;
                }
            }
        }
    }

    /// Chooses the size of the next batch.
    fn adapt(&self, batch: &Batch) {
        let (count, took) = (self.count_max.get(), batch.first_joined.map_or(Duration::ZERO, |first| first.elapsed()));
        if took > SLOW_TIME {
            self.count_max.set((count / 4).max(1));
        } else if took < FAST_TIME && batch.joined.len() == count {
            self.count_max.set((count * 2).min(BATCH_COUNT_MAX));
        }
    }

    /// Waits until the open batch is closed and all its records are processed.
    async fn completed(&self) {
        loop {
            let until = {
                let mut open = self.batch.borrow_mut();
                let Some(batch) = open.as_mut() else { return };
                match batch.first_joined {
                    Some(_) if batch.pending == 0 => return,
                    Some(first) if first.elapsed() >= BATCH_TIME => {
                        batch.is_closed = true;
                        None
                    }
                    Some(first) if !batch.is_closed => Some(first + BATCH_TIME),
                    _ => None,
                }
            };
            let changed = self.changed.notified();
            match until {
                Some(until) => {
                    let _ = tokio::time::timeout_at(until.into(), changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Begins a transaction; opens a producer first if there is none.
    async fn begin(&self) -> Arc<Transaction> {
        let mut backoff = retry_backoff();
        loop {
            let producer = self.producer.borrow().clone();
            let problem = match producer {
                Some(producer) => match producer.begin() {
                    Ok(transaction) => return transaction,
                    Err(error) => {
                        self.producer.borrow_mut().take();
                        error.to_string()
                    }
                },
                None => match self.open_producer().await {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
            };
            tracing::warn!(listener = %self.context.name, problem, "no transaction can be opened; retrying");
            backoff.wait(std::future::pending()).await;
        }
    }

    async fn open_producer(&self) -> Result<(), String> {
        let (cluster, id, monitor) =
            (self.context.cluster.clone(), self.context.transactional_id.clone(), Arc::clone(&self.context.monitor));
        let is_batched = !self.is_unbatched.get();
        let opened =
            tokio::task::spawn_blocking(move || TransactionalProducer::open(&cluster, &id, &monitor, is_batched));
        let producer = opened.await.unwrap_or_else(|_| Err("the client failed".to_owned()))?;
        self.producer.borrow_mut().replace(Arc::new(producer));
        Ok(())
    }

    /// Commits the open transaction with the offsets to continue at.
    ///
    /// # Errors
    /// It did not take effect, and is aborted.
    async fn commit(&self, offsets: BTreeMap<PartitionId, i64>, records: &[RecordId]) -> Result<(), String> {
        if offsets.is_empty() {
            self.abort().await;
            return Ok(());
        }
        let Some(producer) = self.producer.borrow().clone() else { return Err("there is no producer".to_owned()) };
        let (member, sent, records) = (Arc::clone(&self.context.member), offsets.clone(), records.to_vec());
        let begun = Instant::now();
        let committing = tokio::task::spawn_blocking(move || member.commit_in_transaction(&producer, &sent, &records));
        let committed = self.watched(committing).await;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.context.member.events().commit_micros.add(took);
        match committed.unwrap_or_else(|_| Err(TransactionError::Fatal("the client failed".to_owned()))) {
            Ok(()) => {
                self.context.member.events().committed_transactions.add(1);
                Ok(())
            }
            Err(TransactionError::Abort(problem)) => {
                self.abort().await;
                Err(problem)
            }
            // Perhaps only the answer of the brokers was lost.
            Err(TransactionError::Fatal(problem)) => {
                if self.is_committed(offsets).await {
                    Ok(())
                } else {
                    Err(problem)
                }
            }
        }
    }

    /// Whether a transaction whose producer failed was committed: its offsets tell, as they are part of it.
    async fn is_committed(&self, offsets: BTreeMap<PartitionId, i64>) -> bool {
        self.producer.borrow_mut().take();
        let mut backoff = retry_backoff();
        loop {
            // Ends the transaction one way or the other.
            let problem = match self.open_producer().await {
                Ok(()) => {
                    let (member, sent) = (Arc::clone(&self.context.member), offsets.clone());
                    let asking = tokio::task::spawn_blocking(move || member.are_committed(&sent));
                    match asking.await {
                        Ok(Ok(is_committed)) => return is_committed,
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => "the client failed".to_owned(),
                    }
                }
                Err(problem) => problem,
            };
            tracing::warn!(listener = %self.context.name, problem, "outcome of a transaction unknown; asking again");
            if self.context.member.assignment().is_stopping() {
                // The next owner continues at what is committed.
                return false;
            }
            backoff.wait(std::future::pending()).await;
        }
    }

    async fn abort(&self) {
        self.context.member.events().aborted_transactions.add(1);
        let Some(producer) = self.producer.borrow().clone() else { return };
        let aborted = self.watched(tokio::task::spawn_blocking(move || producer.abort())).await;
        if !matches!(aborted, Ok(Ok(()))) {
            // Its successor ends the transaction.
            self.producer.borrow_mut().take();
        }
    }

    /// Waits for the end of a transaction, during which nothing else is processed. If it takes long, the listener is down meanwhile.
    async fn watched<T>(&self, mut ending: JoinHandle<T>) -> Result<T, JoinError> {
        if let Ok(ended) = tokio::time::timeout(STALL_TIME, &mut ending).await {
            return ended;
        }
        tracing::warn!(listener = %self.context.name, "the brokers do not end a transaction; still waiting");
        self.context.member.set_stalled(true);
        let ended = ending.await;
        self.context.member.set_stalled(false);
        ended
    }

    /// Processes the records of an aborted batch again: those that failed alone, and those between them in transactions of their own.
    async fn repeat(&self, lanes: &Rc<Lanes>, batch: Batch) {
        let mut parts = VecDeque::from(split(batch.joined));
        // Partitions of which a record was left to the next owner, and with it all behind it.
        let mut left = HashSet::new();
        let mut backoff = retry_backoff();
        while let Some(part) = parts.pop_front() {
            let (part, skipped): (Vec<_>, Vec<_>) =
                part.into_iter().partition(|delivery| !left.contains(&delivery.id.assignment));
            for delivery in &skipped {
                lanes.end_in_transaction(delivery, false);
            }
            if let [delivery] = &*part {
                let is_settled = self.process_alone(lanes, delivery).await;
                if !is_settled {
                    left.insert(delivery.id.assignment);
                }
                lanes.end_in_transaction(delivery, is_settled);
                continue;
            }
            let Some(first) = part.first() else { continue };
            let stop = first.stop.clone();
            let transaction = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                transaction = self.begin() => Some(transaction),
            };
            let Some(transaction) = transaction else {
                left.insert(first.id.assignment);
                parts.push_front(part);
                continue;
            };
            let joined = process_part(lanes, part, &transaction).await;
            transaction.close();
            match offsets(&transaction, &joined) {
                Some(offsets) => match self.commit(offsets, &processed(&joined)).await {
                    Ok(()) => {
                        for (delivery, state) in joined {
                            let is_settled = state == State::Processed;
                            if !is_settled {
                                left.insert(delivery.id.assignment);
                            }
                            lanes.end_in_transaction(&delivery, is_settled);
                        }
                        continue;
                    }
                    Err(problem) => {
                        tracing::warn!(listener = %self.context.name, problem, "transaction aborted; retrying");
                    }
                },
                None => self.abort().await,
            }
            // There is no time for another attempt.
            let stopped = joined.iter().filter(|(delivery, _)| delivery.stop.is_cancelled());
            left.extend(stopped.map(|(delivery, _)| delivery.id.assignment));
            let is_attributed = joined.iter().any(|(_, state)| *state == State::Failed);
            for part in split(joined).into_iter().rev() {
                parts.push_front(part);
            }
            // Otherwise the brokers failed, rather than a record.
            if !is_attributed {
                backoff.wait(stop.cancelled()).await;
            }
        }
    }

    /// Processes a record in a transaction of its own until it is settled; `false` if it is left to the next owner of its partition.
    async fn process_alone(&self, lanes: &Lanes, delivery: &Delivery) -> bool {
        let Some(handler) = Handler::begin(&lanes.context, delivery).await else { return false };
        let offsets = BTreeMap::from([(delivery.id.partition.clone(), delivery.id.offset + 1)]);
        let records = [delivery.id.clone()];
        let (mut counted_attempts, mut attempts) = (0, 0);
        let mut backoff = retry_backoff();
        let _batched_again = BatchedOnDrop(self);
        loop {
            let mut transaction = tokio::select! {
                biased;
                () = delivery.stop.cancelled() => return false,
                transaction = self.begin() => transaction,
            };
            handler.participant.replace(Some(Arc::new(Participant::new(&transaction))));
            let outcome = handler.dispatch(None).await;
            if transaction.is_too_large() && !self.is_unbatched.replace(true) {
                transaction.close();
                self.abort().await;
                self.producer.borrow_mut().take();
                continue;
            }
            let Ok(outcome) = outcome else {
                transaction.close();
                self.abort().await;
                // The route may come back before its partitions are revoked.
                if !handler.sleep(ROUTES_INTERVAL).await {
                    return false;
                }
                continue;
            };
            attempts += 1;
            let spec = handler.current_spec();
            let Some(entry) = entry(&*spec) else { return false };
            let is_ready = match settle(outcome, &entry.retry, counted_attempts + 1, attempts) {
                Settlement::Acknowledge => !transaction.is_failed(),
                Settlement::Reject(fault) => {
                    // What the route has sent before it failed does not take effect.
                    transaction.close();
                    self.abort().await;
                    transaction = tokio::select! {
                        biased;
                        () = delivery.stop.cancelled() => return false,
                        transaction = self.begin() => transaction,
                    };
                    handler.participant.replace(Some(Arc::new(Participant::new(&transaction))));
                    handler.reject(&fault, &entry.reject_policy, counted_attempts + 1).await && !transaction.is_failed()
                }
                Settlement::Retry { delay, counts, .. } => {
                    transaction.close();
                    self.abort().await;
                    counted_attempts += u32::from(counts);
                    if !handler.sleep(delay).await {
                        return false;
                    }
                    continue;
                }
            };
            transaction.close();
            if is_ready {
                match self.commit(offsets.clone(), &records).await {
                    Ok(()) => return true,
                    Err(problem) => {
                        tracing::warn!(topic = %delivery.record.topic, problem, "transaction aborted; retrying");
                    }
                }
            } else {
                self.abort().await;
            }
            if !backoff.wait(delivery.stop.cancelled()).await {
                return false;
            }
        }
    }
}

/// The offsets to continue at in each partition; `None` if the transaction must be aborted.
fn offsets(transaction: &Transaction, joined: &[(Rc<Delivery>, State)]) -> Option<BTreeMap<PartitionId, i64>> {
    if transaction.is_failed() {
        return None;
    }
    let (mut offsets, mut left) = (BTreeMap::new(), HashSet::new());
    for (delivery, state) in joined {
        match state {
            // An offset behind a record that was left would skip it.
            State::Processed if left.contains(&delivery.id.assignment) => return None,
            State::Processed => {
                offsets.insert(delivery.id.partition.clone(), delivery.id.offset + 1);
            }
            State::Left => {
                left.insert(delivery.id.assignment);
            }
            State::Pending | State::Failed => return None,
        }
    }
    Some(offsets)
}

/// The records that take effect with the transaction.
fn processed(joined: &[(Rc<Delivery>, State)]) -> Vec<RecordId> {
    let processed = joined.iter().filter(|(_, state)| *state == State::Processed);
    processed.map(|(delivery, _)| delivery.id.clone()).collect()
}

/// Lets records be sent in batches again when dropped.
struct BatchedOnDrop<'b>(&'b Batches);

impl Drop for BatchedOnDrop<'_> {
    fn drop(&mut self) {
        if self.0.is_unbatched.replace(false) {
            self.0.producer.borrow_mut().take();
        }
    }
}

/// Splits records so that each one that failed is alone.
fn split(joined: Vec<(Rc<Delivery>, State)>) -> Vec<Vec<Rc<Delivery>>> {
    let mut parts = vec![Vec::new()];
    for (delivery, state) in joined {
        if state == State::Failed {
            parts.push(vec![delivery]);
            parts.push(Vec::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(delivery);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Processes records in their lanes, once, in a transaction.
async fn process_part(
    lanes: &Lanes,
    part: Vec<Rc<Delivery>>,
    transaction: &Arc<Transaction>,
) -> Vec<(Rc<Delivery>, State)> {
    // In the order of their first records, in which they arrived.
    let (mut by_lane, mut numbers) = (Vec::<Vec<usize>>::new(), HashMap::new());
    for (index, delivery) in part.iter().enumerate() {
        // Records without a lane are concurrent.
        let lane = (delivery.id.assignment, lanes.lane_of(delivery).ok_or(index));
        let number = *numbers.entry(lane).or_insert(by_lane.len());
        match by_lane.get_mut(number) {
            Some(indices) => indices.push(index),
            None => by_lane.push(vec![index]),
        }
    }
    let states = RefCell::new(vec![State::Left; part.len()]);
    let process_lane = |indices: Vec<usize>| {
        let (part, states) = (&part, &states);
        async move {
            for index in indices {
                let processing = AssertUnwindSafe(process(lanes, &part[index], transaction));
                let state = processing.catch_unwind().await.unwrap_or(State::Failed);
                states.borrow_mut()[index] = state;
                if state != State::Processed {
                    break;
                }
            }
        }
    };
    let mut processing: FuturesUnordered<_> = by_lane.into_iter().map(process_lane).collect();
    while processing.next().await.is_some() {}
    drop(processing);
    part.into_iter().zip(states.into_inner()).collect()
}

/// Processes a record of a batch, once.
async fn process(lanes: &Lanes, delivery: &Delivery, transaction: &Arc<Transaction>) -> State {
    let Some(handler) = Handler::begin(&lanes.context, delivery).await else { return State::Left };
    let participant = Arc::new(Participant::new(transaction));
    handler.participant.replace(Some(Arc::clone(&participant)));
    let Ok(outcome) = handler.dispatch(None).await else { return State::Failed };
    let spec = handler.current_spec();
    let Some(entry) = entry(&*spec) else { return State::Failed };
    match settle(outcome, &entry.retry, 1, 1) {
        Settlement::Acknowledge => State::Processed,
        // Otherwise what it has sent must not take effect.
        Settlement::Reject(fault)
            if participant.is_empty() && handler.reject(&fault, &entry.reject_policy, 1).await =>
        {
            State::Processed
        }
        Settlement::Reject(_) | Settlement::Retry { .. } => State::Failed,
    }
}
