//! Locks.
//!
//! A request asks for one or more locks, and holds either all of them or none. Requests that must wait are granted in the order
//! of the log; one that is granted earlier than another never delays it. A request ends exactly once, and its number is not
//! used again, so that a repeated or late command can neither hold a lock twice nor bring back what was cancelled.

mod finished;
mod granting;
mod lock;
mod request;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

pub(crate) use self::finished::Finished;
pub use self::lock::{Lock, Mode};
pub use self::request::{Claim, Request, RequestState};
use crate::answer::{Granted, Outcome, Refusal, Waiting};
use crate::command::{Acquire, Break, Guard, Revoke};
use crate::context::{Context, Timer};
use crate::event::{EndReason, Event};
use crate::ids::{RequestId, SessionId, Token};
use crate::injected_bug::InjectedBug;
use crate::limits::{
    ALL_FINISHED_RANGES_MAX, BROKEN_HOLDERS_MAX, BROKEN_MAX, GUARDS_MAX, LOCKS_MAX, NAME_BYTES_MAX, REQUESTS_BYTES_MAX,
    REQUESTS_MAX, SESSION_REQUESTS_MAX, WAITERS_MAX,
};

/// The requests of a session.
#[derive(Debug, Clone, Default)]
struct OfSession {
    open: usize,
    finished: Finished,
}

/// A lock that was taken from its holders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The lock.
    pub lock: Arc<str>,
    /// The leader's time, in milliseconds since the Unix epoch.
    pub time: u64,
    /// How many requests held it.
    pub count: u64,
    /// The first of them.
    pub holders: Vec<RequestId>,
    /// Who did it, and why.
    pub reason: Arc<str>,
}

/// All locks and requests.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    by_name: RedBlackTreeMapSync<Arc<str>, Lock>,
    requests: RedBlackTreeMapSync<RequestId, Arc<Request>>,
    sessions: HashTrieMapSync<SessionId, OfSession>,
    /// By zxid and name; the oldest are forgotten.
    broken: RedBlackTreeMapSync<(u64, Arc<str>), Arc<Broken>>,
    /// The length of all requests.
    bytes: usize,
    /// The ranges of finished numbers of all sessions.
    finished_ranges: usize,
}

/// What a request has come to.
fn outcome(request: &Request) -> Outcome {
    match request.token() {
        Some(token) => Outcome::Granted(Granted { token: token.0 }),
        None => Outcome::Waiting(Waiting {}),
    }
}

/// Locks that requests may enter now.
pub(crate) type Touched = BTreeSet<Arc<str>>;

impl Locks {
    /// A lock that is held, waited for, or closed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Lock> {
        self.by_name.get(name)
    }

    /// All locks by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Lock)> {
        self.by_name.iter()
    }

    /// The locks from this name on.
    pub fn from<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Lock)> {
        self.by_name.range::<str, _>((Bound::Included(name), Bound::Unbounded))
    }

    /// Their number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.size()
    }

    /// Whether no lock is held, waited for, or closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The number of requests that wait or hold.
    #[must_use]
    pub fn requests_len(&self) -> usize {
        self.requests.size()
    }

    /// A request that waits or holds.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(&id).map(|request| &**request)
    }

    /// All requests that wait or hold, by session and number.
    pub fn requests(&self) -> impl Iterator<Item = (RequestId, &Request)> {
        self.requests.iter().map(|(id, request)| (*id, &**request))
    }

    /// The requests of a session.
    pub fn requests_of(&self, session: SessionId) -> impl Iterator<Item = (RequestId, &Request)> {
        let range = RequestId { session, number: 0 }..=RequestId { session, number: u64::MAX };
        self.requests.range(range).map(|(id, request)| (*id, &**request))
    }

    /// Whether a request has ended, or cannot be made any more.
    #[must_use]
    pub fn is_finished(&self, id: RequestId) -> bool {
        self.sessions.get(&id.session).is_some_and(|of| of.finished.contains(id.number))
    }

    /// The locks that were last taken from their holders, oldest first.
    pub fn broken(&self) -> impl Iterator<Item = (u64, &Broken)> {
        self.broken.iter().map(|((zxid, _), broken)| (*zxid, &**broken))
    }

    /// Whether the guards of a command hold.
    pub(crate) fn permits(&self, guards: &[Guard], context: &Context<'_>) -> Result<(), Refusal> {
        if guards.len() > GUARDS_MAX {
            return Err(Refusal::Invalid);
        }
        let is_held = |guard: &Guard| {
            let Some(lock) = self.by_name.get(guard.lock.as_str()) else { return false };
            lock.holders().filter_map(|(id, _)| self.requests.get(&id)).any(|request| {
                let token = request.token() == Some(Token(guard.token)) || context.has_bug(InjectedBug::StaleGuard);
                token && !request.is_overdue(context.now)
            })
        };
        if guards.iter().all(is_held) { Ok(()) } else { Err(Refusal::Fenced) }
    }

    /// Whether a request holds its locks.
    pub(crate) fn is_held_by(&self, id: RequestId, context: &Context<'_>) -> bool {
        if context.has_bug(InjectedBug::StaleResult) {
            return true;
        }
        let held = self.requests.get(&id).filter(|request| request.token().is_some());
        held.is_some_and(|request| !request.is_overdue(context.now))
    }

    /// Acquires locks for an existing session.
    pub(crate) fn acquire(&mut self, command: &Acquire, time: u64, context: &mut Context<'_>) -> Outcome {
        let (id, request) = match Request::read(command, context.zxid, context.now) {
            Ok(read) => read,
            Err(refusal) => return refusal.into(),
        };
        if let Some(open) = self.requests.get_mut(&id) {
            if !open.is_repeated_by(&request) {
                return Refusal::Reused.into();
            }
            if open.attempt != request.attempt {
                let open = Arc::make_mut(open);
                open.attempt = request.attempt;
                // The caller that has repeated it decides how long it waits.
                if let (RequestState::Waiting { .. }, RequestState::Waiting { until }) = (open.state, request.state) {
                    open.state = request.state;
                    match until {
                        Some(until) => context.set_timer(Timer::Wait(id), until),
                        None => context.cancel_timer(&Timer::Wait(id)),
                    }
                }
            }
            return outcome(open);
        }
        if self.is_finished(id) && !context.has_bug(InjectedBug::OrphanAfterRelease) {
            return Refusal::Finished.into();
        }
        if let Err(refusal) = self.check(id.session, &request) {
            return refusal.into();
        }
        match self.reenter(id, &request, context.now) {
            Ok(None) => {}
            Ok(Some(token)) => return self.grant_new(id, request, token, context),
            Err(refusal) => return refusal.into(),
        }
        if let Some(reason) = &command.steal {
            let mut touched = Touched::new();
            for claim in &request.claims {
                self.take_away(&claim.lock, reason, time, &mut touched, context);
                self.reopen(&claim.lock, context);
                touched.insert(Arc::clone(&claim.lock));
            }
            let outcome = self.grant_new(id, request, Token(context.zxid), context);
            self.settle(touched, context);
            return outcome;
        }
        let waits_for_nobody = |lock: &Lock, mode| {
            context.has_bug(InjectedBug::Overtake) && lock.taken().and(mode).is_some()
                || context.has_bug(InjectedBug::GrantToTwo) && mode == Mode::Shared
        };
        let is_free = request.claims.iter().all(|Claim { lock, mode }| {
            let lock = self.by_name.get(&**lock);
            lock.is_none_or(|lock| lock.admits(context.zxid, *mode, context.now) || waits_for_nobody(lock, *mode))
        });
        if is_free {
            return self.grant_new(id, request, Token(context.zxid), context);
        }
        if command.wait_ms == Some(0) {
            self.finish(id);
            return Refusal::NotAvailable.into();
        }
        let is_full = |claim: &Claim| self.by_name.get(&claim.lock).is_some_and(|lock| lock.counts().1 >= WAITERS_MAX);
        if request.claims.iter().any(is_full) {
            self.finish(id);
            return Refusal::TooMany.into();
        }
        for Claim { lock, mode } in &request.claims {
            self.change(lock, |lock| lock.waiters.insert_mut(context.zxid, (id, *mode)));
        }
        self.put(id, Arc::new(request), context);
        Outcome::Waiting(Waiting {})
    }

    /// Checks limits and kinds.
    fn check(&self, session: SessionId, request: &Request) -> Result<(), Refusal> {
        let of_session = self.sessions.get(&session).map_or(0, |of| of.open);
        let new_locks = request.claims.iter().filter(|claim| !self.by_name.contains_key(&claim.lock)).count();
        if of_session >= SESSION_REQUESTS_MAX
            || self.requests.size() >= REQUESTS_MAX
            || self.bytes + request.len() > REQUESTS_BYTES_MAX
            || self.by_name.size() + new_locks > LOCKS_MAX
        {
            return Err(Refusal::TooMany);
        }
        let fits = |claim: &Claim| self.by_name.get(&claim.lock).is_none_or(|lock| lock.is_of_kind(claim.mode));
        if request.claims.iter().all(fits) { Ok(()) } else { Err(Refusal::OtherKind) }
    }

    /// The token with which the same owner holds the lock already.
    fn reenter(&self, id: RequestId, request: &Request, now: u64) -> Result<Option<Token>, Refusal> {
        if !request.reentrant {
            return Ok(None);
        }
        let Some(lock) = request.claims.first().and_then(|claim| self.by_name.get(&claim.lock)) else {
            return Ok(None);
        };
        let of_session = RequestId { session: id.session, number: 0 }..=RequestId { number: u64::MAX, ..id };
        let own = lock.holders.range(of_session).filter_map(|(id, mode)| Some((self.requests.get(id)?, *mode)));
        let own = own.filter(|(held, _)| held.reentrant && held.owner == request.owner && !held.is_overdue(now));
        // An exclusive one, if there is one: it cannot be shared.
        let Some((held, mode)) = own.max_by_key(|(_, mode)| *mode == Mode::Exclusive) else { return Ok(None) };
        if mode == Mode::Shared && request.claims.first().is_some_and(|claim| claim.mode == Mode::Exclusive) {
            return Err(Refusal::Deadlock);
        }
        Ok(held.token())
    }

    /// Releases or cancels a request of an existing session.
    pub(crate) fn release(&mut self, id: RequestId, attempt: u64, context: &mut Context<'_>) -> Outcome {
        if id.number == 0 {
            return Refusal::Invalid.into();
        }
        let is_of_other = |open: &Arc<Request>| attempt != 0 && open.attempt != attempt;
        if self.requests.get(&id).is_some_and(is_of_other) && !context.has_bug(InjectedBug::StaleCancel) {
            return Outcome::DONE;
        }
        let mut touched = Touched::new();
        let was_open = self.end(id, &EndReason::Released, &mut touched, context);
        if !was_open && !context.has_bug(InjectedBug::OrphanAfterCancel) {
            self.finish(id);
        }
        self.settle(touched, context);
        Outcome::DONE
    }

    pub(crate) fn downgrade(&mut self, id: RequestId, context: &mut Context<'_>) -> Outcome {
        let Some(mut request) = self.requests.get(&id).map(|request| Request::clone(request)) else {
            return Refusal::NotHeld.into();
        };
        if request.token().is_none() {
            return Refusal::NotHeld.into();
        }
        if request.claims.iter().any(|claim| matches!(claim.mode, Mode::Permit { .. })) {
            return Refusal::OtherKind.into();
        }
        let mut touched = Touched::new();
        request.is_downgraded = true;
        for claim in &mut request.claims {
            claim.mode = Mode::Shared;
            self.change(&claim.lock, |lock| {
                lock.remove_holder(id);
                lock.add_holder(id, Mode::Shared);
            });
            touched.insert(Arc::clone(&claim.lock));
        }
        self.requests.insert_mut(id, Arc::new(request));
        self.settle(touched, context);
        Outcome::DONE
    }

    pub(crate) fn revoke(&mut self, command: &Revoke, context: &mut Context<'_>) -> Outcome {
        if command.reason.len() > NAME_BYTES_MAX {
            return Refusal::Invalid.into();
        }
        let Some(lock) = self.by_name.get(command.lock.as_str()) else { return Outcome::Holders(0) };
        let reason: Arc<str> = command.reason.as_str().into();
        let holders: Vec<_> = lock.holders.keys().copied().collect();
        for id in &holders {
            if let Some(request) = self.requests.get_mut(id) {
                Arc::make_mut(request).revoked = Some(Arc::clone(&reason));
            }
            context.tell(Event::Revoked(*id, Arc::clone(&reason)));
        }
        Outcome::Holders(holders.len() as u64)
    }

    pub(crate) fn break_lock(&mut self, command: &Break, time: u64, context: &mut Context<'_>) -> Outcome {
        if command.reason.len() > NAME_BYTES_MAX {
            return Refusal::Invalid.into();
        }
        let mut touched = Touched::new();
        let count = self.take_away(&command.lock, &command.reason, time, &mut touched, context);
        self.settle(touched, context);
        Outcome::Holders(count)
    }

    /// Takes a lock from its holders; their number.
    fn take_away(
        &mut self,
        name: &str,
        reason: &str,
        time: u64,
        touched: &mut Touched,
        context: &mut Context<'_>,
    ) -> u64 {
        let Some((name, lock)) = self.by_name.get_key_value(name) else { return 0 };
        let (name, mut holders) = (Arc::clone(name), lock.holders.keys().copied().collect::<Vec<_>>());
        let count = holders.len() as u64;
        if count == 0 {
            return 0;
        }
        let reason: Arc<str> = reason.into();
        let ended = EndReason::Broken(Arc::clone(&reason));
        for id in &holders {
            self.end(*id, &ended, touched, context);
        }
        holders.truncate(BROKEN_HOLDERS_MAX);
        let broken = Broken { lock: Arc::clone(&name), time, count, holders, reason };
        self.put_broken(context.zxid, broken);
        count
    }

    pub(crate) fn put_broken(&mut self, zxid: u64, broken: Broken) {
        self.broken.insert_mut((zxid, Arc::clone(&broken.lock)), Arc::new(broken));
        if self.broken.size() > BROKEN_MAX
            && let Some(oldest) = self.broken.first().map(|(key, _)| key.clone())
        {
            self.broken.remove_mut(&oldest);
        }
    }

    /// Ends all requests of a session; their number.
    pub(crate) fn end_session(
        &mut self,
        session: SessionId,
        reason: &EndReason,
        touched: &mut Touched,
        context: &mut Context<'_>,
    ) -> usize {
        let open: Vec<_> = self.requests_of(session).map(|(id, _)| id).collect();
        for id in &open {
            self.end(*id, reason, touched, context);
        }
        if context.has_bug(InjectedBug::LostWakeup) {
            touched.clear();
        }
        if let Some(of_session) = self.sessions.get(&session) {
            self.finished_ranges -= of_session.finished.len();
            self.sessions.remove_mut(&session);
        }
        open.len()
    }

    /// Ends a request: it neither waits nor holds any more. Whether it did.
    pub(crate) fn end(
        &mut self,
        id: RequestId,
        reason: &EndReason,
        touched: &mut Touched,
        context: &mut Context<'_>,
    ) -> bool {
        let Some(request) = self.requests.get(&id).cloned() else { return false };
        let is_held = request.token().is_some();
        // A lock that is broken or stolen is needed at once.
        let is_closed = is_held && reason.is_sudden() && !matches!(reason, EndReason::Broken(_));
        let is_closed = is_closed && request.delay_ms > 0 && !context.has_bug(InjectedBug::NoLockDelay);
        let closed_until = if is_closed { context.now.saturating_add(request.delay_ms) } else { 0 };
        for Claim { lock: name, .. } in &request.claims {
            let mut is_closed_longer = false;
            self.change(name, |lock| {
                if is_held {
                    lock.remove_holder(id);
                } else {
                    lock.waiters.remove_mut(&request.zxid);
                }
                is_closed_longer = closed_until > lock.closed_until;
                lock.closed_until = lock.closed_until.max(closed_until);
            });
            if is_closed_longer {
                context.set_timer(Timer::Reopen(Arc::clone(name)), closed_until);
            }
            touched.insert(Arc::clone(name));
        }
        context.cancel_timer(&if is_held { Timer::Hold(id) } else { Timer::Wait(id) });
        self.requests.remove_mut(&id);
        self.bytes -= request.len();
        if let Some(of_session) = self.sessions.get_mut(&id.session) {
            of_session.open -= 1;
        }
        self.finish(id);
        let is_silent = is_held && reason.is_sudden() && context.has_bug(InjectedBug::SilentLoss);
        if !is_silent {
            context.tell(Event::Ended(id, reason.clone()));
        }
        true
    }

    /// Notes that the number of a request cannot be used any more.
    fn finish(&mut self, id: RequestId) {
        let is_full = self.finished_ranges >= ALL_FINISHED_RANGES_MAX;
        let finished = &mut self.of_session(id.session).finished;
        let before = finished.len();
        finished.insert(id.number);
        if is_full {
            finished.shrink_to(before);
        }
        let after = finished.len();
        self.finished_ranges = self.finished_ranges + after - before;
    }

    fn of_session(&mut self, session: SessionId) -> &mut OfSession {
        if !self.sessions.contains_key(&session) {
            self.sessions.insert_mut(session, OfSession::default());
        }
        self.sessions.get_mut(&session).unwrap_or_else(|| unreachable!("it was just added"))
    }

    /// Ends the time for which a lock is closed.
    pub(crate) fn reopen(&mut self, name: &str, context: &mut Context<'_>) {
        if let Some(lock) = self.by_name.get_mut(name) {
            lock.closed_until = 0;
        }
        context.cancel_timer(&Timer::Reopen(name.into()));
    }

    /// Adds a request, and sets its timer.
    pub(crate) fn put(&mut self, id: RequestId, request: Arc<Request>, context: &mut Context<'_>) {
        match request.state {
            RequestState::Waiting { until: Some(until) } => context.set_timer(Timer::Wait(id), until),
            RequestState::Held { until: Some(until), .. } => context.set_timer(Timer::Hold(id), until),
            RequestState::Waiting { until: None } | RequestState::Held { until: None, .. } => {}
        }
        self.bytes += request.len();
        self.of_session(id.session).open += 1;
        self.requests.insert_mut(id, request);
    }

    /// Changes a lock, which is added if there is none of that name.
    fn change(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Lock)) {
        if let Some(lock) = self.by_name.get_mut(name) {
            change(lock);
            return;
        }
        let mut lock = Lock::default();
        change(&mut lock);
        self.by_name.insert_mut(Arc::clone(name), lock);
    }

    /// The numbers of a session's finished requests.
    pub(crate) fn finished_of(&self, session: SessionId) -> Option<&Finished> {
        self.sessions.get(&session).map(|of| &of.finished)
    }

    pub(crate) fn put_finished(&mut self, session: SessionId, finished: Finished) {
        self.finished_ranges += finished.len();
        self.of_session(session).finished = finished;
    }

    /// Adds a request of a snapshot, to its locks as well.
    pub(crate) fn restore(&mut self, id: RequestId, request: Request, context: &mut Context<'_>) {
        let is_held = request.token().is_some();
        for Claim { lock, mode } in &request.claims {
            self.change(lock, |lock| {
                if is_held {
                    lock.add_holder(id, *mode);
                } else {
                    lock.waiters.insert_mut(request.zxid, (id, *mode));
                }
            });
        }
        self.put(id, Arc::new(request), context);
    }

    /// Closes a lock until then, as a snapshot says.
    pub(crate) fn restore_closed(&mut self, name: &Arc<str>, until: u64, context: &mut Context<'_>) {
        self.change(name, |lock| lock.closed_until = until);
        context.set_timer(Timer::Reopen(Arc::clone(name)), until);
    }
}
