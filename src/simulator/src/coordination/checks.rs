//! The invariants, checked after each command. They are written without the code that they check.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_coordination::command::Command;
use crossdock_coordination::{
    EndReason, Event, Lock, Mode, Operation, Outcome, Refusal, Request, RequestId, RequestState, SessionId, Token, View,
};

use super::Report;
use super::budget_checks::BudgetChecks;
use super::generation_checks::GenerationChecks;
use super::queue_checks::QueueChecks;
use super::result_checks::ResultChecks;

/// What is known of a session.
#[derive(Debug, Clone, Copy)]
struct Life {
    ttl_ms: u64,
    /// When it last had its full time, by real time.
    renewed: u64,
}

/// What was observed so far.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Requests that must never hold or wait again.
    ended: BTreeSet<RequestId>,
    /// The highest token of each lock.
    tokens: BTreeMap<String, Token>,
    /// By the state's clock.
    closed: BTreeMap<String, u64>,
    sessions: BTreeMap<SessionId, Life>,
    sequences: BTreeMap<String, u64>,
    epoch: u32,
    pub(super) queues: QueueChecks,
    generations: GenerationChecks,
    budgets: BudgetChecks,
    results: ResultChecks,
}

/// A command and its effects.
pub(super) struct Applied<'a> {
    /// Real time.
    pub(super) now: u64,
    pub(super) epoch: u32,
    pub(super) zxid: u64,
    pub(super) command: &'a Command,
    pub(super) outcome: &'a Outcome,
    pub(super) events: &'a [Event],
    pub(super) before: &'a View,
    pub(super) after: &'a View,
}

/// Whether a lock can be held in all of these modes at once.
fn fit(modes: &[Mode]) -> bool {
    if modes.contains(&Mode::Exclusive) {
        return modes.len() == 1;
    }
    let permits: Vec<_> =
        modes.iter().filter_map(|mode| if let Mode::Permit { of } = mode { Some(*of) } else { None }).collect();
    permits.is_empty() || permits.len() == modes.len() && permits.iter().all(|of| permits.len() <= *of as usize)
}

/// The modes of the holders, those of one owner that has entered a lock again counted once.
fn held_modes(view: &View, lock: &Lock) -> Vec<Mode> {
    let mut owners = BTreeMap::new();
    let mut modes = Vec::new();
    for (id, mode) in lock.holders() {
        let Some(request) = view.locks.request(id).filter(|request| request.reentrant) else {
            modes.push(mode);
            continue;
        };
        let owned = owners.entry((id.session, request.owner.clone())).or_insert(mode);
        if mode == Mode::Exclusive {
            *owned = mode;
        }
    }
    modes.extend(owners.into_values());
    modes
}

/// The modes of those that hold a lock, and of those that wait for it since before this zxid.
fn modes_before(view: &View, name: &str, zxid: u64) -> Vec<Mode> {
    let Some(lock) = view.locks.get(name) else { return Vec::new() };
    let mut modes = held_modes(view, lock);
    let is_before = |id: RequestId| view.locks.request(id).is_some_and(|request| request.zxid < zxid);
    modes.extend(lock.waiters().filter(|(id, _)| is_before(*id)).map(|(_, mode)| mode));
    modes
}

impl Checks {
    pub(super) fn check(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        self.check_sessions(applied, report)?;
        self.check_command(applied, report)?;
        for event in applied.events {
            self.check_event(event, applied, report)?;
        }
        check_locks(applied.after)?;
        self.queues.check(applied, report)?;
        self.generations.check(applied, report)?;
        self.budgets.check(applied, report)?;
        self.results.check(applied, report)?;
        for id in applied.after.locks.requests().map(|(id, _)| id) {
            if self.ended.contains(&id) {
                return Err(format!("request {id} has ended, and is back"));
            }
            if applied.after.sessions.get(id.session).is_none() {
                return Err(format!("request {id} outlives its session"));
            }
        }
        Ok(())
    }

    fn check_command(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        let Some(operation) = &applied.command.operation else { return Ok(()) };
        let is = |refusal: Refusal| *applied.outcome == Outcome::from(refusal);
        match operation {
            Operation::Tick(tick) if tick.epoch != applied.epoch => {
                let has_effect = !is(Refusal::OtherEpoch) || !applied.events.is_empty();
                return if has_effect { Err("a tick of another epoch has an effect".to_owned()) } else { Ok(()) };
            }
            Operation::Tick(_) => {
                let now = applied.after.clock.now();
                let is_overdue = |request: &Request| {
                    let (RequestState::Waiting { until } | RequestState::Held { until, .. }) = request.state;
                    until.is_some_and(|until| until <= now)
                };
                if let Some((id, _)) = applied.after.locks.requests().find(|(_, request)| is_overdue(request)) {
                    return Err(format!("request {id} is overdue after a tick"));
                }
            }
            Operation::Release(release) => {
                let id = RequestId { session: SessionId(release.session), number: release.number };
                let before = applied.before.locks.request(id);
                if before.is_some_and(|open| release.attempt != 0 && open.attempt != release.attempt) {
                    let is_open = applied.after.locks.request(id).is_some();
                    let problem = format!("request {id} is released by a caller that another one has replaced");
                    return if is_open { Ok(()) } else { Err(problem) };
                }
                report.released += 1;
                if *applied.outcome != Outcome::from(Refusal::NoSession) {
                    self.ended.insert(id);
                }
            }
            Operation::Acquire(acquire) => {
                let id = RequestId { session: SessionId(acquire.session), number: acquire.number };
                report.late += u64::from(self.ended.contains(&id));
                if is(Refusal::NotAvailable) {
                    self.ended.insert(id);
                }
            }
            Operation::TakeNumbers(take) => {
                let now = applied.after.clock.now();
                let holds = applied.command.guards.iter().all(|guard| {
                    applied.before.locks.requests().any(|(_, request)| {
                        let RequestState::Held { token, until, .. } = request.state else { return false };
                        let has_lock = request.claims.iter().any(|claim| *claim.lock == *guard.lock);
                        has_lock && token.0 == guard.token && until.is_none_or(|until| until > now)
                    })
                });
                let last = self.sequences.entry(take.sequence.clone()).or_default();
                let expected = if holds { Outcome::FirstNumber(*last + 1) } else { Refusal::Fenced.into() };
                if *applied.outcome != expected {
                    return Err(format!("{:?} numbers instead of {expected:?}", applied.outcome));
                }
                if holds {
                    *last += take.count;
                } else {
                    report.fenced += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Follows how long sessions may live, by real time.
    fn check_sessions(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        if applied.epoch != self.epoch {
            self.epoch = applied.epoch;
            for life in self.sessions.values_mut() {
                life.renewed = applied.now;
            }
        }
        match &applied.command.operation {
            Some(Operation::OpenSession(open)) => {
                let life = Life { ttl_ms: open.ttl_ms, renewed: applied.now };
                self.sessions.insert(SessionId(applied.zxid), life);
            }
            Some(Operation::KeepAlive(keep_alive)) => {
                for id in &keep_alive.sessions {
                    if let Some(life) = self.sessions.get_mut(&SessionId(*id)) {
                        life.renewed = applied.now;
                    }
                }
            }
            _ => {}
        }
        let is_closed = matches!(applied.command.operation, Some(Operation::CloseSession(_)));
        for event in applied.events {
            let Event::SessionEnded(id) = event else { continue };
            let life = self.sessions.remove(id).ok_or_else(|| format!("session {id} ends twice"))?;
            report.sessions += u64::from(!is_closed);
            let lived = applied.now - life.renewed;
            // Times are rounded to milliseconds.
            if !is_closed && lived + 2 < life.ttl_ms {
                return Err(format!("session {id} expires {lived} ms after it was kept alive, of {}", life.ttl_ms));
            }
        }
        Ok(())
    }

    fn check_event(&mut self, event: &Event, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        match event {
            Event::Granted(id, token) => self.check_grant(*id, *token, applied, report),
            Event::Ended(id, reason) => {
                let was = applied.before.locks.request(*id);
                let is_death = matches!(reason, EndReason::HoldExpired | EndReason::SessionExpired);
                report.expired += u64::from(is_death || *reason == EndReason::TimedOut);
                if let Some(request) = was.filter(|request| is_death && request.token().is_some()) {
                    for claim in &request.claims {
                        let closed = self.closed.entry(claim.lock.to_string()).or_default();
                        *closed = (*closed).max(applied.after.clock.now() + request.delay_ms);
                    }
                }
                if self.ended.insert(*id) || *reason == EndReason::Released {
                    Ok(())
                } else {
                    Err(format!("request {id} ends twice"))
                }
            }
            _ => Ok(()),
        }
    }

    fn check_grant(
        &mut self,
        id: RequestId,
        token: Token,
        applied: &Applied<'_>,
        report: &mut Report,
    ) -> Result<(), String> {
        let now = applied.after.clock.now();
        let Some(request) = applied.after.locks.request(id) else {
            return Err(format!("request {id} is granted and does not hold"));
        };
        let waited = applied.before.locks.request(id);
        if let Some(Request { state: RequestState::Waiting { until: Some(until) }, .. }) = waited
            && *until <= now
        {
            return Err(format!("request {id} is granted although it waits no longer"));
        }
        match waited {
            Some(_) => report.granted.1 += 1,
            None => report.granted.0 += 1,
        }
        let is_reentered = token.0 != applied.zxid;
        if is_reentered && !request.reentrant {
            return Err(format!("request {id} has the token {token} of another command"));
        }
        let is_stolen = matches!(&applied.command.operation,
            Some(Operation::Acquire(acquire)) if acquire.steal.is_some() && acquire.number == id.number);
        for claim in &request.claims {
            let name = claim.lock.to_string();
            let highest = self.tokens.entry(name.clone()).or_insert(token);
            if token < *highest && !is_reentered {
                return Err(format!("request {id} has token {token}, and {name} had {highest} before"));
            }
            *highest = token.max(*highest);
            if is_stolen {
                self.closed.remove(&name);
            } else if !is_reentered && self.closed.get(&name).is_some_and(|until| now < *until) {
                return Err(format!("request {id} is granted {name}, which is closed after the death of a holder"));
            }
            let mut modes = modes_before(applied.after, &name, request.zxid);
            if is_stolen || is_reentered {
                let lock = applied.after.locks.get(&name);
                modes = lock.map(|lock| held_modes(applied.after, lock)).unwrap_or_default();
            }
            if !fit(&modes) {
                return Err(format!("request {id} overtakes another one that waits for {name}"));
            }
        }
        Ok(())
    }
}

/// Nobody holds what another one holds alone, and nobody waits for what is free.
fn check_locks(view: &View) -> Result<(), String> {
    for (name, lock) in view.locks.iter() {
        let modes = held_modes(view, lock);
        if !fit(&modes) {
            return Err(format!("{name} is held in the modes {modes:?} at once"));
        }
    }
    for (id, request) in view.locks.requests() {
        let RequestState::Waiting { until } = request.state else { continue };
        let is_overdue = until.is_some_and(|until| until <= view.clock.now());
        let is_free = request.claims.iter().all(|claim| {
            let is_closed = view.locks.get(&claim.lock).is_some_and(|lock| lock.closed_until() != 0);
            let mut modes = modes_before(view, &claim.lock, request.zxid);
            modes.push(claim.mode);
            fit(&modes) && !is_closed
        });
        if is_free && !is_overdue {
            return Err(format!("request {id} waits for what is free"));
        }
    }
    Ok(())
}
