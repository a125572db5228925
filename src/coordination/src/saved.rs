//! The state in snapshots: a sequence of messages.

mod generations;
mod results;

use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::Epoch;
use prost::{Message, Oneof};

pub use self::generations::{SavedFile, SavedGeneration, SavedProblem, SavedProposal};
use self::generations::{generations_of, read_generation, read_proposal};
pub use self::results::SavedResult;
use self::results::{read_result, result_of};
use crate::answer::Enqueued;
use crate::budgets::{Budget, Rate};
use crate::clock::Clock;
use crate::command;
use crate::context::Context;
use crate::coordination::View;
use crate::ids::{RequestId, SessionId, Token};
use crate::locks::{Broken, Claim, Finished, Mode, Request, RequestState};
use crate::queues::{self, DeadLetter, Due, Place, Queue, Remembered, Slot, Use};
use crate::sessions::Session;

/// Why a part of a state cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the saved state has {0}")]
pub struct Invalid(&'static str);

/// A part of the state.
#[derive(Clone, PartialEq, Message)]
pub struct Saved {
    /// Which one.
    #[prost(oneof = "Part", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub part: Option<Part>,
}

/// A part of the state. The clock comes first.
#[derive(Clone, PartialEq, Oneof)]
pub enum Part {
    /// The clock.
    #[prost(message, tag = "1")]
    Clock(SavedClock),
    /// A session.
    #[prost(message, tag = "2")]
    Session(SavedSession),
    /// A request.
    #[prost(message, tag = "3")]
    Request(SavedRequest),
    /// A closed lock.
    #[prost(message, tag = "4")]
    Closed(SavedNumber),
    /// A sequence.
    #[prost(message, tag = "5")]
    Sequence(SavedNumber),
    /// A lock that was taken from its holders.
    #[prost(message, tag = "6")]
    Broken(SavedBroken),
    /// The last position of a message.
    #[prost(uint64, tag = "7")]
    LastPosition(u64),
    /// What a session does with a queue.
    #[prost(message, tag = "8")]
    Use(SavedUse),
    /// A slot of a queue that is held.
    #[prost(message, tag = "9")]
    Slot(SavedSlot),
    /// A message of a queue.
    #[prost(message, tag = "10")]
    Message(SavedMessage),
    /// A dead letter of a queue.
    #[prost(message, tag = "11")]
    Dead(SavedDead),
    /// An id that a queue remembers.
    #[prost(message, tag = "12")]
    Remembered(SavedRemembered),
    /// The last number of a generation.
    #[prost(uint64, tag = "13")]
    LastGeneration(u64),
    /// The content of a file.
    #[prost(bytes = "bytes", tag = "14")]
    Content(Bytes),
    /// A generation that is or was in force.
    #[prost(message, tag = "15")]
    Generation(SavedGeneration),
    /// A generation that is being prepared, or was rejected.
    #[prost(message, tag = "16")]
    Proposal(SavedProposal),
    /// An instance that serves routes.
    #[prost(uint64, tag = "17")]
    ServesRoutes(u64),
    /// A budget.
    #[prost(message, tag = "18")]
    Budget(SavedBudget),
    /// The result of a message.
    #[prost(message, tag = "19")]
    Result(SavedResult),
    /// The generation that some instances serve.
    #[prost(message, tag = "20")]
    Staged(SavedGeneration),
}

/// A budget that is not full.
#[derive(Clone, PartialEq, Message)]
pub struct SavedBudget {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    count: u64,
    #[prost(uint64, tag = "3")]
    per_ms: u64,
    #[prost(uint64, tag = "4")]
    burst: u64,
    #[prost(uint64, tag = "5")]
    lacks: u64,
    #[prost(uint64, tag = "6")]
    at: u64,
}

/// The clock.
#[derive(Clone, PartialEq, Message)]
pub struct SavedClock {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(uint64, tag = "2")]
    leader_time: u64,
    #[prost(uint64, tag = "3")]
    now: u64,
}

/// A session.
#[derive(Clone, PartialEq, Message)]
pub struct SavedSession {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint64, tag = "2")]
    ttl_ms: u64,
    #[prost(uint64, tag = "3")]
    renewed: u64,
    #[prost(string, tag = "4")]
    label: String,
    /// The first and last number of each range of finished requests.
    #[prost(uint64, repeated, tag = "5")]
    finished: Vec<u64>,
}

/// A request.
#[derive(Clone, PartialEq, Message)]
pub struct SavedRequest {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(uint64, tag = "3")]
    zxid: u64,
    #[prost(message, repeated, tag = "4")]
    claims: Vec<command::Claim>,
    /// 0 if it waits.
    #[prost(uint64, tag = "5")]
    token: u64,
    #[prost(uint64, tag = "6")]
    since: u64,
    #[prost(uint64, optional, tag = "7")]
    until: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    hold_ms: Option<u64>,
    #[prost(uint64, tag = "9")]
    delay_ms: u64,
    #[prost(string, tag = "10")]
    owner: String,
    #[prost(bool, tag = "11")]
    reentrant: bool,
    #[prost(string, tag = "12")]
    metadata: String,
    #[prost(string, optional, tag = "13")]
    revoked: Option<String>,
    #[prost(bool, tag = "14")]
    is_downgraded: bool,
    #[prost(uint64, tag = "15")]
    attempt: u64,
}

/// A name and a number.
#[derive(Clone, PartialEq, Message)]
pub struct SavedNumber {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    number: u64,
}

/// A lock that was taken from its holders.
#[derive(Clone, PartialEq, Message)]
pub struct SavedBroken {
    #[prost(uint64, tag = "1")]
    zxid: u64,
    #[prost(string, tag = "2")]
    lock: String,
    #[prost(uint64, tag = "3")]
    time: u64,
    /// Session and number of the first ones.
    #[prost(uint64, repeated, tag = "4")]
    holders: Vec<u64>,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(uint64, tag = "6")]
    count: u64,
}

/// What a session does with a queue.
#[derive(Clone, PartialEq, Message)]
pub struct SavedUse {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(string, tag = "2")]
    queue: String,
    #[prost(bool, tag = "3")]
    is_consumer: bool,
    /// 0 if it has enqueued nothing.
    #[prost(uint64, tag = "4")]
    last_number: u64,
    #[prost(message, optional, tag = "5")]
    last_answer: Option<Enqueued>,
}

/// A slot of a queue that is held.
#[derive(Clone, PartialEq, Message)]
pub struct SavedSlot {
    #[prost(string, tag = "1")]
    queue: String,
    #[prost(uint32, tag = "2")]
    slot: u32,
    #[prost(uint64, tag = "3")]
    session: u64,
    #[prost(uint64, tag = "4")]
    token: u64,
    #[prost(bool, tag = "5")]
    is_recalled: bool,
}

/// A message of a queue.
#[derive(Clone, PartialEq, Message)]
pub struct SavedMessage {
    #[prost(string, tag = "1")]
    queue: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
    #[prost(uint64, tag = "5")]
    enqueued: u64,
    #[prost(uint64, tag = "6")]
    enqueued_as: u64,
    #[prost(uint32, tag = "7")]
    attempts: u32,
    #[prost(uint64, optional, tag = "8")]
    not_before: Option<u64>,
    /// 0 if there is none.
    #[prost(uint64, tag = "9")]
    watcher: u64,
    /// When it takes its place, if it is delayed.
    #[prost(uint64, optional, tag = "10")]
    delayed_until: Option<u64>,
    #[prost(uint32, tag = "11")]
    failures: u32,
}

/// A dead letter of a queue.
#[derive(Clone, PartialEq, Message)]
pub struct SavedDead {
    #[prost(message, optional, tag = "1")]
    message: Option<SavedMessage>,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(uint64, tag = "3")]
    since: u64,
}

/// An id that a queue remembers.
#[derive(Clone, PartialEq, Message)]
pub struct SavedRemembered {
    #[prost(string, tag = "1")]
    queue: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint64, tag = "4")]
    until: u64,
    #[prost(fixed64, tag = "5")]
    digest: u64,
}

pub(crate) fn save(view: &View) -> impl Iterator<Item = Saved> {
    let clock = [Part::Clock(clock_of(&view.clock))].into_iter();
    let finished = move |id| view.locks.finished_of(id);
    let sessions = view.sessions.iter().map(move |(id, session)| {
        let finished = finished(id).map(|of| of.ranges().flat_map(|(first, last)| [first, last]).collect());
        Part::Session(SavedSession {
            id: id.0,
            ttl_ms: session.ttl_ms,
            renewed: session.renewed,
            label: session.label.to_string(),
            finished: finished.unwrap_or_default(),
        })
    });
    let requests = view.locks.requests().map(|(id, request)| Part::Request(request_of(id, request)));
    let closed = view.locks.iter().filter(|(_, lock)| lock.closed_until() != 0);
    let closed = closed.map(|(name, lock)| Part::Closed(number_of(name, lock.closed_until())));
    let sequences = view.sequences.iter().map(|(name, last)| Part::Sequence(number_of(name, last)));
    let broken = view.locks.broken().map(|(zxid, broken)| Part::Broken(broken_of(zxid, broken)));
    let position = [Part::LastPosition(view.queues.last_position())].into_iter();
    let uses = view.queues.uses().map(|((session, queue), of)| Part::Use(use_of(*session, queue, of)));
    let queues = view.queues.iter().flat_map(|(name, queue)| queue_of(name, queue));
    let parts = clock.chain(sessions).chain(requests).chain(closed).chain(sequences).chain(broken);
    let budgets = view.budgets.iter().map(|(name, budget)| Part::Budget(budget_of(name, budget)));
    let results = view.results.iter().flat_map(|(name, group)| {
        group.iter().map(move |(key, remembered)| Part::Result(result_of(name, key, remembered)))
    });
    let parts = parts.chain(position).chain(uses).chain(queues).chain(budgets).chain(results);
    let parts = parts.chain(generations_of(&view.generations));
    parts.map(|part| Saved { part: Some(part) })
}

fn clock_of(clock: &Clock) -> SavedClock {
    let Clock { epoch, leader_time, now } = *clock;
    SavedClock { epoch: epoch.0, leader_time, now }
}

fn number_of(name: &str, number: u64) -> SavedNumber {
    SavedNumber { name: name.to_owned(), number }
}

fn budget_of(name: &str, budget: &Budget) -> SavedBudget {
    let Budget { rate: Rate { count, per_ms, burst }, lacks, at } = *budget;
    SavedBudget { name: name.to_owned(), count, per_ms, burst, lacks, at }
}

fn request_of(id: RequestId, request: &Request) -> SavedRequest {
    let (token, since, until) = match request.state {
        RequestState::Waiting { until } => (0, 0, until),
        RequestState::Held { token, since, until } => (token.0, since, until),
    };
    let claim = |claim: &Claim| command::Claim { lock: claim.lock.to_string(), mode: Some(claim.mode.to_command()) };
    SavedRequest {
        session: id.session.0,
        number: id.number,
        zxid: request.zxid,
        claims: request.claims.iter().map(claim).collect(),
        token,
        since,
        until,
        hold_ms: request.hold_ms,
        delay_ms: request.delay_ms,
        owner: request.owner.to_string(),
        reentrant: request.reentrant,
        is_downgraded: request.is_downgraded,
        metadata: request.metadata.to_string(),
        revoked: request.revoked.as_deref().map(str::to_owned),
        attempt: request.attempt,
    }
}

fn broken_of(zxid: u64, broken: &Broken) -> SavedBroken {
    SavedBroken {
        zxid,
        lock: broken.lock.to_string(),
        time: broken.time,
        holders: broken.holders.iter().flat_map(|id| [id.session.0, id.number]).collect(),
        reason: broken.reason.to_string(),
        count: broken.count,
    }
}

fn use_of(session: SessionId, queue: &str, of: &Use) -> SavedUse {
    SavedUse {
        session: session.0,
        queue: queue.to_owned(),
        is_consumer: of.is_consumer,
        last_number: of.last.as_ref().map_or(0, |(number, _)| *number),
        last_answer: of.last.as_ref().map(|(_, answer)| Enqueued::clone(answer)),
    }
}

fn queue_of<'v>(name: &'v Arc<str>, queue: &'v Queue) -> impl Iterator<Item = Part> + 'v {
    let slots = queue.slots().iter().filter_map(move |(slot, state)| {
        let (session, token) = state.holder?;
        let (session, token, is_recalled) = (session.0, token.0, state.is_recalled);
        Some(Part::Slot(SavedSlot { queue: name.to_string(), slot, session, token, is_recalled }))
    });
    let messages = queue
        .messages()
        .map(|(place, message)| Part::Message(message_of(name, &place.key, place.position, message, None)));
    let due = queue.due().filter_map(move |(time, due)| match due {
        Due::Delayed(key, message) => {
            Some(Part::Message(message_of(name, key, message.enqueued_as, message, Some(time))))
        }
        Due::Forget(id) => {
            let Remembered { position, until, digest } = queue.remembered(id)?;
            Some(Part::Remembered(SavedRemembered {
                queue: name.to_string(),
                id: id.to_string(),
                position,
                until,
                digest,
            }))
        }
        // The message says so.
        Due::Retry(_) => None,
    });
    let dead = queue.dead_letters(0).map(|(position, letter)| {
        let message = Some(message_of(name, &letter.key, position, &letter.message, None));
        Part::Dead(SavedDead { message, reason: letter.reason.to_string(), since: letter.since })
    });
    slots.chain(messages).chain(due).chain(dead)
}

fn message_of(
    queue: &str,
    key: &str,
    position: u64,
    message: &queues::Message,
    delayed_until: Option<u64>,
) -> SavedMessage {
    SavedMessage {
        queue: queue.to_owned(),
        key: key.to_owned(),
        position,
        payload: message.payload.clone(),
        enqueued: message.enqueued,
        enqueued_as: message.enqueued_as,
        attempts: message.attempts,
        not_before: message.not_before,
        watcher: message.watcher.map_or(0, |session| session.0),
        delayed_until,
        failures: message.failures,
    }
}

pub(crate) fn restore(saved: Saved, state: &mut View, context: &mut Context<'_>) -> Result<(), Invalid> {
    match saved.part.ok_or(Invalid("an unknown part"))? {
        Part::Clock(SavedClock { epoch, leader_time, now }) => {
            state.clock = Clock { epoch: Epoch(epoch), leader_time, now };
        }
        Part::Session(SavedSession { id, ttl_ms, renewed, label, finished }) => {
            let session = Session { ttl_ms, renewed, label: label.into() };
            state.sessions.put(SessionId(id), session, context);
            if !finished.is_empty() {
                state.locks.put_finished(SessionId(id), Finished::from_ranges(pairs(&finished)?));
            }
        }
        Part::Request(saved) => {
            let (id, request) = read_request(saved)?;
            state.locks.restore(id, request, context);
        }
        Part::Closed(SavedNumber { name, number }) => state.locks.restore_closed(&name.into(), number, context),
        Part::Sequence(SavedNumber { name, number }) => state.sequences.put(name.into(), number),
        Part::Broken(SavedBroken { zxid, lock, time, holders, reason, count }) => {
            let holders = pairs(&holders)?.map(|(session, number)| RequestId { session: SessionId(session), number });
            let broken = Broken { lock: lock.into(), time, count, holders: holders.collect(), reason: reason.into() };
            state.locks.put_broken(zxid, broken);
        }
        Part::LastPosition(position) => state.queues.put_last_position(position),
        Part::Use(SavedUse { session, queue, is_consumer, last_number, last_answer }) => {
            let last = last_answer.map(|answer| (last_number, Arc::new(answer)));
            state.queues.put_use(SessionId(session), queue.into(), Use { last, is_consumer }, context);
        }
        Part::Slot(SavedSlot { queue, slot, session, token, is_recalled }) => {
            let holder = Some((SessionId(session), Token(token)));
            let state_of = Slot { holder, is_recalled };
            state.queues.restore(&queue.into(), context, |queue, _| queue.slots.put(slot, state_of));
        }
        Part::Message(saved) => restore_message(saved, state, context),
        Part::Dead(SavedDead { message, reason, since }) => {
            let saved = message.ok_or(Invalid("a dead letter without its message"))?;
            let (queue, key, position, message) = read_message(saved);
            let letter = DeadLetter { key, message, reason: reason.into(), since };
            state.queues.restore(&queue, context, |queue, totals| queue.put_dead(position, letter, totals));
        }
        Part::Remembered(SavedRemembered { queue, id, position, until, digest }) => {
            let remembered = Remembered { position, digest, until };
            state.queues.restore(&queue.into(), context, |queue, totals| {
                queue.remember(id.into(), remembered, totals);
            });
        }
        Part::LastGeneration(number) => state.generations.put_last_number(number),
        Part::Content(content) => state.generations.put_content(&content),
        Part::Generation(saved) => state.generations.put_generation(read_generation(saved)?),
        Part::Staged(saved) => state.generations.put_staged(read_generation(saved)?),
        Part::Proposal(saved) => {
            let is_rejected = saved.is_rejected;
            state.generations.put_proposal(read_proposal(saved)?, is_rejected, context);
        }
        Part::ServesRoutes(session) => state.generations.put_instance(SessionId(session)),
        Part::Budget(SavedBudget { name, count, per_ms, burst, lacks, at }) => {
            let rate = Rate { count, per_ms, burst };
            if !rate.is_valid() || lacks > burst * per_ms {
                return Err(Invalid("a budget out of its limits"));
            }
            state.budgets.put(name.into(), Budget { rate, lacks, at }, context);
        }
        Part::Result(saved) => {
            let (group, key, remembered) = read_result(saved);
            state.results.restore(group, key, remembered, context);
        }
    }
    Ok(())
}

fn restore_message(saved: SavedMessage, state: &mut View, context: &mut Context<'_>) {
    let delayed_until = saved.delayed_until;
    let (queue, key, position, message) = read_message(saved);
    state.queues.restore(&queue, context, |queue, totals| match delayed_until {
        Some(due) => queue.put_delayed(due, key, Arc::new(message), totals),
        None => queue.put(Place::new(key, position), Arc::new(message), totals),
    });
}

/// The queue, the key, the position and the message.
fn read_message(saved: SavedMessage) -> (Arc<str>, Arc<str>, u64, queues::Message) {
    let message = queues::Message {
        payload: Bytes::copy_from_slice(&saved.payload),
        enqueued: saved.enqueued,
        enqueued_as: saved.enqueued_as,
        attempts: saved.attempts,
        failures: saved.failures,
        not_before: saved.not_before,
        watcher: (saved.watcher != 0).then_some(SessionId(saved.watcher)),
    };
    (saved.queue.into(), saved.key.into(), saved.position, message)
}

fn pairs(numbers: &[u64]) -> Result<impl Iterator<Item = (u64, u64)>, Invalid> {
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(Invalid("half a pair of numbers")) };
    Ok(pairs.iter().map(|[first, second]| (*first, *second)))
}

fn read_request(saved: SavedRequest) -> Result<(RequestId, Request), Invalid> {
    let claim = |claim: command::Claim| {
        let mode = Mode::read(claim.mode.as_ref()).ok_or(Invalid("an unknown mode of a lock"))?;
        Ok(Claim { lock: Arc::from(claim.lock), mode })
    };
    let SavedRequest { since, until, .. } = saved;
    let state = match saved.token {
        0 => RequestState::Waiting { until },
        token => RequestState::Held { token: Token(token), since, until },
    };
    let request = Request {
        zxid: saved.zxid,
        claims: saved.claims.into_iter().map(claim).collect::<Result<_, _>>()?,
        state,
        hold_ms: saved.hold_ms,
        delay_ms: saved.delay_ms,
        owner: saved.owner.into(),
        reentrant: saved.reentrant,
        is_downgraded: saved.is_downgraded,
        metadata: saved.metadata.into(),
        revoked: saved.revoked.map(Into::into),
        attempt: saved.attempt,
    };
    Ok((RequestId { session: SessionId(saved.session), number: saved.number }, request))
}
