//! The invariants of results: who holds the lock of a key sees the result that was stored last within its window, and nobody else
//! stores one.

use std::collections::BTreeMap;

use crossdock_coordination::command::Remember;
use crossdock_coordination::{Operation, Outcome, Refusal, RequestId, RequestState, SessionId, View};

use super::Report;
use super::checks::Applied;

/// A result that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    key: String,
    result: Vec<u8>,
    digest: u64,
    until: u64,
    by: RequestId,
}

/// The results of each group, in the order in which they were stored.
#[derive(Debug, Default)]
pub(super) struct ResultChecks(BTreeMap<String, Vec<Known>>);

/// Whether a request holds its locks when a command is applied.
fn holds(view: &View, id: RequestId, now: u64) -> bool {
    let held = view.locks.request(id).map(|request| request.state);
    matches!(held, Some(RequestState::Held { until, .. }) if until.is_none_or(|until| now < until))
}

impl ResultChecks {
    pub(super) fn check(&mut self, applied: &Applied<'_>, report: &mut Report) -> Result<(), String> {
        if let Some(Operation::Remember(command)) = &applied.command.operation {
            let expected = self.expected(command, applied);
            if *applied.outcome != expected {
                return Err(format!("{command:?} is answered by {:?} instead of {expected:?}", applied.outcome));
            }
            report.remembered += u64::from(matches!(expected, Outcome::Done(_)));
        }
        let now = applied.after.clock.now();
        for (group, known) in &mut self.0 {
            known.retain(|known| now < known.until);
            for known in known {
                let found = applied.after.results.get(group, &known.key, now);
                let is_same =
                    found.is_some_and(|found| (&found.result[..], found.digest) == (&known.result[..], known.digest));
                if !is_same {
                    return Err(format!("{group} has {found:?} instead of {known:?}"));
                }
            }
        }
        for (group, results) in applied.after.results.iter() {
            let known = self.0.get(group).map_or(0, Vec::len);
            let valid = results.iter().filter(|(_, result)| now < result.until).count();
            if valid != known {
                return Err(format!("{group} has {valid} results instead of {known}"));
            }
        }
        Ok(())
    }

    /// The outcome of a command, which changes the model.
    fn expected(&mut self, command: &Remember, applied: &Applied<'_>) -> Outcome {
        let id = RequestId { session: SessionId(command.session), number: command.number };
        let now = applied.after.clock.now();
        if applied.before.sessions.get(id.session).is_none() {
            return Refusal::NoSession.into();
        }
        let known = self.0.entry(command.group.clone()).or_default();
        if !holds(applied.before, id, now) {
            // Until the next tick, a repeated command finds what is forgotten then.
            let stored = applied.before.results.iter().find(|(group, _)| *group == command.group);
            let is_repeated =
                stored.is_some_and(|(_, of)| of.iter().any(|(key, result)| key == command.key && result.by == id));
            return if is_repeated { done() } else { Refusal::NotHeld.into() };
        }
        known.retain(|known| known.key != command.key && now < known.until);
        while known.len() as u64 >= command.keys_max {
            let oldest = known.iter().enumerate().min_by_key(|(at, known)| (known.until, *at)).map(|(at, _)| at);
            known.remove(oldest.unwrap_or_default());
        }
        let (key, result) = (command.key.clone(), command.result.to_vec());
        known.push(Known { key, result, digest: command.digest, until: now + command.window_ms, by: id });
        done()
    }
}

fn done() -> Outcome {
    Outcome::Done(crossdock_coordination::answer::Done {})
}
