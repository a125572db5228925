//! The invariants of generations of the routes.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_coordination::command::RouteFile;
use crossdock_coordination::{Event, Operation, Outcome, Refusal, SessionId, View, hash_of};

use super::Report;
use super::checks::Applied;

/// What was observed of generations so far.
#[derive(Debug, Default)]
pub(super) struct GenerationChecks {
    instances: BTreeSet<SessionId>,
    current: u64,
    pending: Option<u64>,
    /// The one that is pending is for some instances only.
    is_stage: bool,
    /// The one that some instances serve, and its files.
    staged: Option<(u64, Vec<RouteFile>)>,
    proposed: Vec<RouteFile>,
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
                if is_new {
                    if self.staged.as_ref().is_some_and(|(_, files)| *files != propose.files) {
                        return Err("another generation is proposed while one is staged".to_owned());
                    }
                    (self.is_stage, self.proposed) = (!propose.stage.is_empty(), propose.files.clone());
                }
                let is_refused = *applied.outcome == Outcome::from(Refusal::OtherBase);
                if is_refused && propose.base == self.current {
                    return Err("a generation with the right base is refused".to_owned());
                }
            }
            Some(Operation::Withdraw(withdraw)) if *applied.outcome == done() => {
                let staged = self.staged.take().map(|(number, _)| number);
                if (staged, self.pending) != (Some(withdraw.number), None) {
                    return Err(format!("generation {} is withdrawn, and {staged:?} is staged", withdraw.number));
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
                Event::GenerationInForce(number) | Event::GenerationStaged(number) => {
                    let is_staged = matches!(event, Event::GenerationStaged(_));
                    if is_staged != self.is_stage {
                        return Err(format!("generation {number} is staged or not, as it should not be"));
                    }
                    if self.pending.take() != Some(*number) {
                        return Err(format!("generation {number} is in force without being prepared"));
                    }
                    let refused = self.answers.iter().find(|(_, is_prepared)| !**is_prepared);
                    let missing = self.instances.iter().find(|session| !self.answers.contains_key(session));
                    if let Some(session) = refused.map(|(session, _)| session).or(missing) {
                        return Err(format!("generation {number} is in force, and {session} has not prepared it"));
                    }
                    if is_staged {
                        self.staged = Some((*number, std::mem::take(&mut self.proposed)));
                        report.staged += 1;
                    } else {
                        (self.current, self.staged) = (*number, None);
                        report.generations += 1;
                    }
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
        let staged = view.generations.staged().map(|staged| staged.number);
        let known = (self.current, self.pending, self.staged.as_ref().map(|(number, _)| *number));
        if (current, pending, staged) != known {
            return Err(format!("the generations are {current}, {pending:?} and {staged:?}, instead of {known:?}"));
        }
        let needed =
            view.generations.in_force().chain(view.generations.proposal().map(|proposal| &proposal.generation));
        let needed = needed.chain(view.generations.staged());
        for hash in needed.flat_map(|generation| generation.files.values()) {
            if view.generations.content(hash).is_none_or(|content| hash_of(content) != *hash) {
                return Err("the content of a file is missing".to_owned());
            }
        }
        Ok(())
    }
}

fn done() -> Outcome {
    Outcome::Done(crossdock_coordination::answer::Done {})
}
