//! Granting locks.

use std::sync::Arc;

use super::request::{Claim, Request, RequestState};
use super::{Locks, Touched};
use crate::answer::{Granted, Outcome};
use crate::context::{Context, Timer};
use crate::event::{EndReason, Event};
use crate::ids::{RequestId, Token};
use crate::injected_bug::InjectedBug;

impl Locks {
    /// Grants a new request.
    pub(super) fn grant_new(
        &mut self,
        id: RequestId,
        mut request: Request,
        token: Token,
        context: &mut Context<'_>,
    ) -> Outcome {
        request.state = held(&request, token, context.now);
        for Claim { lock, mode } in &request.claims {
            self.change(lock, |lock| lock.add_holder(id, *mode));
        }
        self.put(id, Arc::new(request), context);
        context.tell(Event::Granted(id, token));
        Outcome::Granted(Granted { token: token.0 })
    }

    /// Grants what can be granted of these locks. It is the last step of a command: what the command takes away is gone by then,
    /// so that no lock is exclusively held twice with the token of the same command.
    pub(crate) fn settle(&mut self, mut touched: Touched, context: &mut Context<'_>) {
        while let Some(name) = touched.pop_first() {
            let Some(lock) = self.by_name.get(&name) else { continue };
            if lock.is_unused() {
                self.by_name.remove_mut(&name);
                continue;
            }
            if context.now < lock.closed_until {
                continue;
            }
            let mut taken = lock.taken();
            // What follows changes the lock, but not this copy.
            for (zxid, (id, mode)) in &lock.waiters.clone() {
                let Some(request) = self.requests.get(id).cloned() else { continue };
                if request.is_overdue(context.now) && !context.has_bug(InjectedBug::GrantAfterTimeout) {
                    self.end(*id, &EndReason::TimedOut, &mut touched, context);
                    continue;
                }
                let Some(with_it) = taken.and(*mode) else { break };
                taken = with_it;
                if self.is_admitted(&request, &name, *zxid, context.now) {
                    self.grant(*id, &request, context);
                }
            }
        }
    }

    /// Whether the other locks of a request admit it as well.
    fn is_admitted(&self, request: &Request, but: &str, zxid: u64, now: u64) -> bool {
        let others = request.claims.iter().filter(|claim| *claim.lock != *but);
        others.filter_map(|claim| Some((self.by_name.get(&claim.lock)?, claim.mode))).all(|(lock, mode)| {
            // An overdue request still counts until the next tick, which settles the lock again.
            lock.admits(zxid, mode, now)
        })
    }

    /// Grants a request that waits.
    fn grant(&mut self, id: RequestId, request: &Arc<Request>, context: &mut Context<'_>) {
        let is_wrong = context.has_bug(InjectedBug::TokenOfRequest);
        let token = Token(if is_wrong { request.zxid } else { context.zxid });
        for Claim { lock, mode } in &request.claims {
            self.change(lock, |lock| {
                lock.waiters.remove_mut(&request.zxid);
                lock.add_holder(id, *mode);
            });
        }
        let state = held(request, token, context.now);
        if let Some(request) = self.requests.get_mut(&id) {
            Arc::make_mut(request).state = state;
        }
        context.cancel_timer(&Timer::Wait(id));
        if let RequestState::Held { until: Some(until), .. } = state {
            context.set_timer(Timer::Hold(id), until);
        }
        context.tell(Event::Granted(id, token));
    }
}

/// The state of a request that is granted now.
fn held(request: &Request, token: Token, now: u64) -> RequestState {
    RequestState::Held { token, since: now, until: request.hold_ms.map(|hold| now.saturating_add(hold)) }
}
