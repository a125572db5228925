//! The state in snapshots: a sequence of messages.

use std::sync::Arc;

use crossdock_zab::Epoch;
use prost::{Message, Oneof};

use crate::clock::Clock;
use crate::command;
use crate::context::Context;
use crate::coordination::View;
use crate::ids::{RequestId, SessionId, Token};
use crate::locks::{Broken, Claim, Finished, Mode, Request, RequestState};
use crate::sessions::Session;

/// Why a part of a state cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the saved state has {0}")]
pub struct Invalid(&'static str);

/// A part of the state.
#[derive(Clone, PartialEq, Message)]
pub struct Saved {
    /// Which one.
    #[prost(oneof = "Part", tags = "1, 2, 3, 4, 5, 6")]
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
    let parts = clock.chain(sessions).chain(requests).chain(closed).chain(sequences).chain(broken);
    parts.map(|part| Saved { part: Some(part) })
}

fn clock_of(clock: &Clock) -> SavedClock {
    let Clock { epoch, leader_time, now } = *clock;
    SavedClock { epoch: epoch.0, leader_time, now }
}

fn number_of(name: &str, number: u64) -> SavedNumber {
    SavedNumber { name: name.to_owned(), number }
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
    }
    Ok(())
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
    };
    Ok((RequestId { session: SessionId(saved.session), number: saved.number }, request))
}
