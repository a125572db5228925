//! A client, with what it believes to hold.

use std::collections::BTreeMap;

use crossdock_coordination::command::{
    Acquire, Claim, CloseSession, Command, Downgrade, Guard, KeepAlive, OpenSession, Release, Remember, Spend,
    TakeNumbers,
};
use crossdock_coordination::{Event, Mode, Operation, Outcome, RequestId, SessionId, Token, View};
use crossdock_zab::Zxid;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::router::Router;
use super::worker::Worker;

/// The names of the locks. The semaphore comes last.
pub(super) const LOCKS: [&str; 4] = ["a", "b", "c", "permits"];
const PERMITS: u32 = 3;

/// What a client has sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    Open,
    Acquire(u64),
    Settle(u64),
    Other,
}

/// A request of the client that it has not released.
#[derive(Debug, Clone)]
struct Open {
    acquire: Acquire,
    token: Option<Token>,
    /// When it is released, by real time.
    until: u64,
}

#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) session: Option<SessionId>,
    ttl_ms: u64,
    /// When its answer is given up, or it sends something again.
    waits_until: u64,
    next_number: u64,
    open: BTreeMap<u64, Open>,
    renewed: u64,
    /// It does nothing before that.
    pub(super) paused_until: u64,
    /// A released request, which is sent once more.
    echo: Option<Acquire>,
    pub(super) worker: Worker,
    router: Router,
}

impl Client {
    /// What it does now, if anything.
    pub(super) fn act(&mut self, now: u64, random: &mut ChaCha8Rng) -> Option<(Command, Sent)> {
        if now < self.paused_until {
            return None;
        }
        let Some(session) = self.session else {
            if now < self.waits_until {
                return None;
            }
            self.waits_until = now + 3_000;
            self.ttl_ms = [1_000, 3_000, 10_000][random.random_range(0..3)];
            *self = Self { waits_until: self.waits_until, ttl_ms: self.ttl_ms, ..Self::default() };
            let open = OpenSession { ttl_ms: self.ttl_ms, label: "simulated".to_owned() };
            return Some((of(Operation::OpenSession(open)), Sent::Open));
        };
        if now >= self.renewed + self.ttl_ms / 3 {
            self.renewed = now;
            let keep_alive = KeepAlive { sessions: vec![session.0] };
            return Some((of(Operation::KeepAlive(keep_alive)), Sent::Other));
        }
        if random.random_ratio(1, 300) {
            self.lose_session();
            return Some((of(Operation::CloseSession(CloseSession { session: session.0 })), Sent::Other));
        }
        match random.random_range(0..4) {
            0 | 1 => return self.worker.act(session, now, random),
            2 => return self.router.act(session, now, random).map(|command| (command, Sent::Other)),
            _ => {}
        }
        if let Some(acquire) = self.echo.take() {
            let number = acquire.number;
            return Some((of(Operation::Acquire(acquire)), Sent::Acquire(number)));
        }
        if let Some(number) = self.open.iter().find(|(_, open)| now >= open.until).map(|(number, _)| *number) {
            let released = self.open.remove(&number);
            self.echo = released.map(|open| open.acquire).filter(|_| random.random_ratio(1, 4));
            let release = Release { session: session.0, number, attempt: 0 };
            return Some((of(Operation::Release(release)), Sent::Other));
        }
        match random.random_range(0..12) {
            0..=3 if self.open.len() < 4 => Some(self.acquire(session, now, random)),
            4 => {
                let open = self.some_open(random)?.acquire.clone();
                let number = open.number;
                Some((of(Operation::Acquire(open)), Sent::Acquire(number)))
            }
            5 => {
                let number = self.some_open(random).filter(|open| open.token.is_some())?.acquire.number;
                let downgrade = Downgrade { session: session.0, number };
                Some((of(Operation::Downgrade(downgrade)), Sent::Other))
            }
            6..=8 => {
                let open = self.some_open(random)?;
                let guards = vec![Guard { lock: open.acquire.claims.first()?.lock.clone(), token: open.token?.0 }];
                let sequence = format!("of {}", guards[0].lock);
                let take = TakeNumbers { sequence, count: random.random_range(1..4) };
                Some((Command { guards, operation: Some(Operation::TakeNumbers(take)) }, Sent::Other))
            }
            9 => {
                // One is exhausted most of the time, the other is full now and then.
                let (name, count, per_ms, burst) =
                    [("mails", 7, 1_300, 11), ("calls", 30, 1_000, 20)][random.random_range(0..2)];
                let up_to = random.random_range(1..8);
                let spend = Spend { budget: name.to_owned(), count, per_ms, burst, up_to };
                Some((of(Operation::Spend(spend)), Sent::Other))
            }
            11 => {
                // A caller of the same request that has left: the one that is known came later.
                let open = &self.some_open(random)?.acquire;
                let (number, attempt) = (open.number, open.attempt + 1);
                Some((of(Operation::Release(Release { session: session.0, number, attempt })), Sent::Other))
            }
            10 => {
                let request = self.some_open(random).filter(|open| open.token.is_some())?.acquire.number;
                let key = ["x", "y", "z"][random.random_range(0..3)].to_owned();
                let window_ms = [300, 2_000, 60_000][random.random_range(0..3)];
                let keys_max = random.random_range(2..5);
                let (digest, result) = (random.random(), format!("{session} {request}").into());
                let (session, group) = (session.0, "orders".to_owned());
                let command = Remember { session, number: request, group, key, digest, window_ms, keys_max, result };
                Some((of(Operation::Remember(command)), Sent::Other))
            }
            _ => None,
        }
    }

    fn some_open(&self, random: &mut ChaCha8Rng) -> Option<&Open> {
        let at = random.random_range(0..self.open.len().max(1));
        self.open.values().nth(at)
    }

    fn acquire(&mut self, session: SessionId, now: u64, random: &mut ChaCha8Rng) -> (Command, Sent) {
        let mut names: Vec<_> = LOCKS.iter().filter(|_| random.random_ratio(1, 3)).collect();
        if names.is_empty() {
            names.push(&LOCKS[random.random_range(0..LOCKS.len())]);
        }
        let claims = names.into_iter().map(|name| {
            let mode = match *name {
                "permits" => Mode::Permit { of: PERMITS },
                _ if random.random_ratio(1, 3) => Mode::Shared,
                _ => Mode::Exclusive,
            };
            Claim { lock: (*name).to_owned(), mode: Some(mode.to_command()) }
        });
        let claims: Vec<_> = claims.collect();
        self.next_number += 1;
        let reentrant = claims.len() == 1 && claims[0].lock != "permits" && random.random_ratio(1, 3);
        let acquire = Acquire {
            session: session.0,
            number: self.next_number,
            claims,
            wait_ms: [Some(0), Some(500), Some(3_000), None][random.random_range(0..4)],
            hold_ms: [Some(400), Some(2_000), None][random.random_range(0..3)],
            delay_ms: [0, 700][random.random_range(0..2)],
            owner: ["one", "two"][random.random_range(0..2)].to_owned(),
            reentrant,
            steal: random.random_ratio(1, 40).then(|| "simulated".to_owned()),
            attempt: random.random_range(1..4),
            ..Acquire::default()
        };
        let until = now + random.random_range(50..4_000);
        self.open.insert(self.next_number, Open { acquire: acquire.clone(), token: None, until });
        (of(Operation::Acquire(acquire)), Sent::Acquire(self.next_number))
    }

    pub(super) fn answered(&mut self, zxid: Zxid, sent: Sent, outcome: &Outcome, view: &View) {
        match (sent, outcome) {
            (Sent::Open, Outcome::Done(_)) if self.session.is_none() => {
                self.session = Some(SessionId(zxid.to_u64()));
                self.router.resync(view);
            }
            (Sent::Acquire(number), Outcome::Refused(_)) => {
                // It may be that of another acquire with this number, which is still open.
                let is_sent_again = self.open.get(&number).is_some_and(|open| open.token.is_some());
                if !is_sent_again {
                    self.open.remove(&number);
                }
            }
            (Sent::Settle(number), outcome) => self.worker.settled(number, outcome),
            _ => {}
        }
    }

    fn lose_session(&mut self) {
        self.session = None;
        self.open.clear();
        (self.worker, self.router) = (Worker::default(), Router::default());
    }

    pub(super) fn notified(&mut self, event: &Event, view: &View) {
        let (Event::Granted(id, _) | Event::Ended(id, _) | Event::Revoked(id, _)) = event else {
            if let Event::SessionEnded(session) = event
                && Some(*session) == self.session
            {
                self.waits_until = 0;
                self.lose_session();
            } else if let Some(session) = self.session {
                self.worker.notified(session, event, view);
                self.router.notified(event, view);
            }
            return;
        };
        if Some(id.session) != self.session {
            return;
        }
        match event {
            Event::Granted(_, token) => {
                if let Some(open) = self.open.get_mut(&id.number) {
                    open.token = Some(*token);
                }
            }
            Event::Ended(..) => {
                self.open.remove(&id.number);
            }
            _ => {}
        }
    }

    /// Compares with a state, as after missed notices.
    pub(super) fn resync(&mut self, view: &View) {
        let Some(session) = self.session else { return };
        if view.sessions.get(session).is_none() {
            self.waits_until = 0;
            self.lose_session();
            return;
        }
        self.worker.resync(session, view);
        self.router.resync(view);
        self.open.retain(|number, open| {
            let id = RequestId { session, number: *number };
            open.token = view.locks.request(id).and_then(crossdock_coordination::Request::token);
            !view.locks.is_finished(id)
        });
    }

    /// What it believes to hold and does not hold, in a state that its instance has applied.
    pub(super) fn mistake(&self, view: &View) -> Option<String> {
        let session = self.session?;
        if view.sessions.get(session).is_none() {
            return Some(format!("session {session} has ended, and its client was not told"));
        }
        if let Some(mistake) = self.worker.mistake(session, view).or_else(|| self.router.mistake(view)) {
            return Some(mistake);
        }
        self.open.iter().find_map(|(number, open)| {
            let id = RequestId { session, number: *number };
            let held = view.locks.request(id).and_then(crossdock_coordination::Request::token);
            (open.token != held).then(|| format!("request {id} has {held:?}, and its client believes {:?}", open.token))
        })
    }
}

/// A command without guards.
pub(super) fn of(operation: Operation) -> Command {
    Command { guards: Vec::new(), operation: Some(operation) }
}
