//! An instance that serves routes, as a client during one session: it proposes generations and prepares them.

use crossdock_coordination::command::{Command, Prepared, Propose, RouteFile, ServeRoutes, Withdraw};
use crossdock_coordination::{Event, Operation, SessionId, View};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::client::of;

/// What was not answered is sent again after this time.
const REPEAT_MS: u64 = 700;

#[derive(Debug, Default)]
pub(super) struct Router {
    /// The generation in force.
    current: u64,
    /// The one to prepare.
    pending: Option<u64>,
    sent: Option<u64>,
    staged: Option<u64>,
}

impl Router {
    pub(super) fn act(&mut self, session: SessionId, now: u64, random: &mut ChaCha8Rng) -> Option<Command> {
        let session = session.0;
        if let Some(number) = self.pending
            && self.sent.is_none_or(|sent| now >= sent + REPEAT_MS)
            && random.random_ratio(1, 2)
        {
            self.sent = Some(now);
            // The same one whenever it is sent.
            let problem = if (session ^ number).is_multiple_of(7) { "a port is taken" } else { "" };
            return Some(of(Operation::Prepared(Prepared { session, number, problem: problem.to_owned() })));
        }
        match random.random_range(0..20) {
            0 | 1 => Some(of(Operation::ServeRoutes(ServeRoutes { session }))),
            2 => {
                let base = if random.random_ratio(1, 3) { self.current.saturating_sub(1) } else { self.current };
                let file = |name: &str, random: &mut ChaCha8Rng| RouteFile {
                    path: format!("routes/{name}.yaml"),
                    content: vec![random.random_range(0..3); 3].into(),
                };
                let files = vec![file("a", random), file("b", random)];
                let stage = if random.random_ratio(1, 3) { vec!["simulated".to_owned()] } else { Vec::new() };
                let timeout_ms = [400, 6_000][random.random_range(0..2)];
                let comment = random.random_range(0..100).to_string();
                let author = "simulated".to_owned();
                Some(of(Operation::Propose(Propose { session, base, files, author, comment, timeout_ms, stage })))
            }
            3 => self.staged.map(|number| of(Operation::Withdraw(Withdraw { number }))),
            _ => None,
        }
    }

    /// The state may be newer than the event, which says only that there is something new.
    pub(super) fn notified(&mut self, event: &Event, view: &View) {
        if let Event::GenerationProposed(_)
        | Event::GenerationInForce(_)
        | Event::GenerationRejected(_)
        | Event::GenerationStaged(_)
        | Event::GenerationWithdrawn(_) = event
        {
            self.resync(view);
        }
    }

    /// Compares with a state, as after missed notices.
    pub(super) fn resync(&mut self, view: &View) {
        (self.current, self.staged) = (current(view), staged(view));
        let pending = pending(view);
        if pending != self.pending {
            (self.pending, self.sent) = (pending, None);
        }
    }

    /// What it takes to be in force and is not, in a state that its instance has applied.
    pub(super) fn mistake(&self, view: &View) -> Option<String> {
        let known = (self.current, self.pending, self.staged);
        let is = (current(view), pending(view), staged(view));
        (known != is).then(|| format!("a client knows the generations {known:?} instead of {is:?}"))
    }
}

fn current(view: &View) -> u64 {
    view.generations.current().map_or(0, |current| current.number)
}

fn pending(view: &View) -> Option<u64> {
    view.generations.proposal().map(|proposal| proposal.generation.number)
}

fn staged(view: &View) -> Option<u64> {
    view.generations.staged().map(|staged| staged.number)
}
