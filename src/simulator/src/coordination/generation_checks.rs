//! The invariants of generations of the routes.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_coordination::{Event, Operation, Outcome, Refusal, SessionId, View, hash_of};

use super::Report;
use super::checks::Applied;

/// What was observed of generations so far.
#[derive(Debug, Default)]
pub(super) struct GenerationChecks {
    instances: BTreeSet<SessionId>,
    current: u64,
    pending: Option<u64>,
    /// Whether instances have prepared the one that is pending.
    answers: BTreeMap<SessionId, bool>,
}

impl GenerationChecks {
    pub(super) fn check(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        let has_session = |session: u64| applied.before.sessions.get(SessionId(session)).is_some();
        let mut is_time_over = false;
        match &applied.command.operation {
            Some(Operation::ServeRoutes(serve)) if has_session(serve.session) => {
                self.instances.insert(SessionId(serve.session));
            }
            Some(Operation::Prepared(prepared))
                if has_session(prepared.session) && self.pending == Some(prepared.number) =>
            {
                let session = SessionId(prepared.session);
                if self.instances.contains(&session) {
                    self.answers.entry(session).or_insert(prepared.problem.is_empty());
                }
            }
            Some(Operation::Propose(propose)) if has_session(propose.session) => {
                let is_new = applied.events.iter().any(|event| matches!(event, Event::GenerationProposed(_)));
                if is_new && (propose.base != self.current || self.pending.is_some()) {
                    let known = (self.current, self.pending);
                    return Err(format!("a generation based on {} is proposed, and known are {known:?}", propose.base));
                }
                let is_refused = *applied.outcome == Outcome::from(Refusal::OtherBase);
                if is_refused && propose.base == self.current {
                    return Err("a generation with the right base is refused".to_owned());
                }
            }
            Some(Operation::Tick(_)) => is_time_over = true,
            _ => {}
        }
        for event in applied.events {
            match event {
                Event::SessionEnded(session) => {
                    self.instances.remove(session);
                    // One that cannot prepare it still counts.
                    self.answers.retain(|of, is_prepared| of != session || !*is_prepared);
                }
                Event::GenerationProposed(number) => {
                    if *number <= self.current || self.pending.is_some() {
                        return Err(format!("generation {number} is proposed while {:?} is pending", self.pending));
                    }
                    (self.pending, self.answers) = (Some(*number), BTreeMap::new());
                }
                Event::GenerationInForce(number) => {
                    if self.pending.take() != Some(*number) {
                        return Err(format!("generation {number} is in force without being prepared"));
                    }
                    let refused = self.answers.iter().find(|(_, is_prepared)| !**is_prepared);
                    let missing = self.instances.iter().find(|session| !self.answers.contains_key(session));
                    if let Some(session) = refused.map(|(session, _)| session).or(missing) {
                        return Err(format!("generation {number} is in force, and {session} has not prepared it"));
                    }
                    self.current = *number;
                    report.generations += 1;
                }
                Event::GenerationRejected(number) => {
                    let has_problem = self.answers.values().any(|is_prepared| !is_prepared);
                    if self.pending.take() != Some(*number) || !has_problem && !is_time_over {
                        return Err(format!("generation {number} is rejected without a reason"));
                    }
                    report.generations_rejected += 1;
                }
                _ => {}
            }
        }
        self.compare(applied.after)
    }

    fn compare(&self, view: &View) -> Result<(), String> {
        let current = view.generations.current().map_or(0, |current| current.number);
        let pending = view.generations.proposal().map(|proposal| proposal.generation.number);
        if (current, pending) != (self.current, self.pending) {
            return Err(format!("the generations are {current} and {pending:?}, instead of {self:?}"));
        }
        let needed =
            view.generations.in_force().chain(view.generations.proposal().map(|proposal| &proposal.generation));
        for hash in needed.flat_map(|generation| generation.files.values()) {
            if view.generations.content(hash).is_none_or(|content| hash_of(content) != *hash) {
                return Err("the content of a file is missing".to_owned());
            }
        }
        Ok(())
    }
}
