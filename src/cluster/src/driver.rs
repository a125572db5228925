//! The one loop that drives Zab: takes all that has come, asks the core what to do, sends, and hands what is to be written to the log.
//!
//! What must not be sent before a write is durable the log sends behind it; all else goes out at once, so that a leader's disk and those of
//! its followers work at the same time.

mod snapshots;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossdock_zab::{
    Action, Blob, Input, Ledger, Link, Message, Request, Role, ServerId, ToFollower, Txn, Write, Zab, Zxid,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::latency::Latencies;
use crate::log::{Batch, Log, Written};
use crate::machine::Machine;
use crate::node::{AskError, Peer, StartError, Status, Stopped};
use crate::settings::Settings;
use crate::transport::{Incoming, Outgoing};
use crate::wal::{self, Wal};

/// What is taken in one round.
const ROUND: usize = 1024;

type Answer<T> = oneshot::Sender<Result<T, AskError>>;

/// What somebody here wants.
#[derive(Debug)]
pub(crate) enum Ask {
    Propose { payload: Bytes, done: Answer<(Zxid, Bytes)> },
    Read { question: Bytes, done: Answer<Bytes> },
    ReadStale { question: Bytes, done: oneshot::Sender<Bytes> },
    HandOver(Option<ServerId>),
}

/// A request of somebody here that is not answered.
enum Waiting {
    Propose(Instant, Answer<(Zxid, Bytes)>),
    Read(Bytes, Answer<Bytes>),
}

/// A read that has its place and waits until that is applied.
type Ready = (Zxid, Bytes, Answer<Bytes>);

pub(crate) struct Driver {
    zab: Zab,
    log: Log,
    machine: Box<dyn Machine>,
    settings: Settings,
    incoming: mpsc::Receiver<Incoming>,
    asked: mpsc::Receiver<Ask>,
    /// Snapshots that became durable.
    kept: (mpsc::Sender<Zxid>, mpsc::Receiver<Zxid>),
    status: watch::Sender<Status>,
    links: BTreeMap<Link, (ServerId, mpsc::Sender<Outgoing>)>,
    requests: u64,
    waiting: HashMap<Request, Waiting>,
    placed: BTreeMap<Zxid, (Instant, Answer<(Zxid, Bytes)>)>,
    ready: Vec<Ready>,
    /// Snapshots that came from others, until they are installed.
    blobs: BTreeMap<Blob, PathBuf>,
    applied: Zxid,
    /// Transactions since the last snapshot, and their bytes.
    since_snapshot: (u64, usize),
    snapshotting: bool,
    taken: Option<snapshots::Taken>,
    stopped: Option<Stopped>,
    latencies: Arc<Latencies>,
    peers: Vec<Peer>,
}

impl Driver {
    /// Reads what the log says, or makes one.
    pub(crate) fn open(
        settings: &Settings,
        mut machine: Box<dyn Machine>,
        incoming: mpsc::Receiver<Incoming>,
        asked: mpsc::Receiver<Ask>,
    ) -> Result<(Self, watch::Receiver<Status>, Arc<Latencies>), StartError> {
        let identity = settings.identity();
        let (log, ledger, state) = match Wal::open(&settings.data, identity, settings.log) {
            Ok((log, recovered)) => (log, recovered.ledger, recovered.snapshot),
            Err(wal::Error::Missing(_)) if settings.create => {
                (Wal::create(&settings.data, identity, settings.log)?, Ledger::default(), None)
            }
            Err(problem) => return Err(problem.into()),
        };
        let applied = state.as_ref().map_or(Zxid::ZERO, |(snapshot, _)| snapshot.zxid);
        let state = state.map(|(_, state)| state);
        machine.restore(state.as_deref()).map_err(StartError::State)?;
        let zab = Zab::new(settings.zab(), ledger, applied);
        let (status, watching) = watch::channel(Status {
            id: settings.id,
            role: Role::Looking,
            phase: zab.phase(),
            last: zab.ledger().history().last(),
            applied,
            peers: Vec::new(),
            syncs: 0,
            stopped: None,
        });
        let latencies: Arc<Latencies> = Arc::default();
        let log = Log::start(log, Arc::clone(&latencies)).map_err(StartError::Thread)?;
        let this = Self {
            zab,
            log,
            machine,
            settings: settings.clone(),
            incoming,
            asked,
            kept: mpsc::channel(4),
            status,
            links: BTreeMap::new(),
            requests: 0,
            waiting: HashMap::new(),
            placed: BTreeMap::new(),
            ready: Vec::new(),
            blobs: BTreeMap::new(),
            applied,
            since_snapshot: (0, 0),
            snapshotting: false,
            taken: None,
            stopped: None,
            latencies: Arc::clone(&latencies),
            peers: Vec::new(),
        };
        Ok((this, watching, latencies))
    }

    /// Nothing goes on any more, and whoever waits is told so.
    pub(crate) fn end(mut self, ended: std::io::Result<()>) {
        let stopped = ended.map_or_else(|problem| Stopped::Log(problem.to_string()), |()| Stopped::Asked);
        self.stopped.get_or_insert(stopped);
        self.abandon(AskError::Ended);
        self.tell();
    }

    /// Drives until it must stop, or nobody asks any more. Cancelled, it can only be ended.
    pub(crate) async fn drive(&mut self) {
        let mut ticks = tokio::time::interval(self.settings.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut incoming, mut asked) = (Vec::new(), Vec::new());
        while self.stopped.is_none() {
            let mut inputs = Vec::new();
            if self.log.is_full() {
                // Behind a disk that is this far behind, nothing new is taken.
                let written = self.log.written().await;
                self.written(written, &mut inputs);
            } else {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => inputs.push(Input::Tick),
                    written = self.log.written() => self.written(written, &mut inputs),
                    Some(zxid) = self.kept.1.recv() => self.snapshot_kept(zxid, &mut inputs),
                    count = self.incoming.recv_many(&mut incoming, ROUND) => if count == 0 { self.stopped = Some(Stopped::Asked) },
                    count = self.asked.recv_many(&mut asked, ROUND) => if count == 0 { self.stopped = Some(Stopped::Asked) },
                }
                self.take_more(&mut incoming, &mut asked);
            }
            while let Some(written) = self.log.try_written() {
                self.written(Some(written), &mut inputs);
            }
            for one in incoming.drain(..) {
                self.came(one, &mut inputs);
            }
            for one in asked.drain(..) {
                self.was_asked(one, &mut inputs);
            }
            let news = |input: &Input| matches!(input, Input::Tick | Input::LinkUp { .. } | Input::LinkDown { .. });
            let has_news = inputs.iter().any(news);
            self.round(inputs);
            if has_news {
                self.look_at_peers();
            }
            self.tell();
        }
    }

    /// Takes what has come as well: all that is there goes together.
    fn take_more(&mut self, incoming: &mut Vec<Incoming>, asked: &mut Vec<Ask>) {
        while incoming.len() < ROUND
            && let Ok(one) = self.incoming.try_recv()
        {
            incoming.push(one);
        }
        while asked.len() < ROUND
            && let Ok(one) = self.asked.try_recv()
        {
            asked.push(one);
        }
    }

    /// Has the core answer, and does what it says, until nothing is left to do at once.
    fn round(&mut self, mut inputs: Vec<Input>) {
        let mut actions = Vec::new();
        while !inputs.is_empty() && self.stopped.is_none() {
            self.zab.handle(inputs.drain(..), &mut actions);
            let mut writes = Batch::default();
            // What is refused is known to be so, even where the role changes at the same time.
            let is_refusal = |action: &mut Action| matches!(action, Action::Refused { .. });
            for refused in actions.extract_if(.., is_refusal).collect::<Vec<_>>() {
                self.act(refused, &mut writes, &mut inputs);
            }
            for action in actions.drain(..) {
                self.act(action, &mut writes, &mut inputs);
            }
            if self.stopped.is_none() {
                self.log.begin(writes);
            }
            // Snapshots that came, and that nobody wants any more.
            for (_, path) in std::mem::take(&mut self.blobs) {
                let _ = std::fs::remove_file(path);
            }
            self.answer_reads();
            self.snapshot();
        }
    }

    fn came(&mut self, one: Incoming, inputs: &mut Vec<Input>) {
        match one {
            Incoming::Up { peer, link, sender } => {
                // An earlier connection ends with its sender.
                self.links.retain(|_, (other, _)| *other != peer);
                self.links.insert(link, (peer, sender));
                inputs.push(Input::LinkUp { peer, link });
            }
            Incoming::Down { peer, link } => {
                self.links.remove(&link);
                inputs.push(Input::LinkDown { peer, link });
            }
            Incoming::Progress { peer, link } => inputs.push(Input::Progress { peer, link }),
            Incoming::Message { peer, link, message, room } => {
                inputs.push(Input::Received { peer, link, message });
                drop(room);
            }
            Incoming::Snapshot { peer, link, session, zxid, path } => {
                let blob = Blob(self.requests);
                self.requests += 1;
                self.blobs.insert(blob, path);
                let message = Message::ToFollower(session, ToFollower::Snapshot { zxid, blob });
                inputs.push(Input::Received { peer, link, message });
            }
        }
    }

    fn was_asked(&mut self, ask: Ask, inputs: &mut Vec<Input>) {
        let request = Request(self.requests);
        self.requests += 1;
        match ask {
            Ask::Propose { payload, done } => {
                self.waiting.insert(request, Waiting::Propose(Instant::now(), done));
                inputs.push(Input::Propose { request, payload });
            }
            Ask::Read { question, done } => {
                self.waiting.insert(request, Waiting::Read(question, done));
                inputs.push(Input::Read { request });
            }
            Ask::ReadStale { question, done } => {
                let _ = done.send(self.machine.query(&question));
            }
            Ask::HandOver(to) => inputs.push(Input::HandOver(to)),
        }
    }

    fn act(&mut self, action: Action, writes: &mut Batch, inputs: &mut Vec<Input>) {
        match action {
            Action::Send { link, message } => self.send(link, Outgoing::Message(message), inputs),
            Action::SendSnapshot { link, session, zxid } => {
                let path = wal::snapshot_path(&self.settings.data, zxid);
                self.send(link, Outgoing::Snapshot { session, zxid, path }, inputs);
            }
            Action::Persist { io, write, then } => {
                if let Write::Install { zxid, blob } = &write {
                    self.adopt(*zxid, *blob);
                }
                writes.add(io, write);
                for (link, message) in then {
                    if let Some((_, sender)) = self.links.get(&link) {
                        writes.then(link, sender, message);
                    }
                }
            }
            Action::Deliver(txn) => self.deliver(&txn),
            Action::Restore(zxid) => self.restore(zxid),
            Action::Proposed { request, zxid } => {
                if let Some(Waiting::Propose(begun, done)) = self.waiting.remove(&request) {
                    self.placed.insert(zxid, (begun, done));
                }
            }
            Action::Refused { request, refusal } => match self.waiting.remove(&request) {
                Some(Waiting::Propose(_, done)) => drop(done.send(Err(refusal.into()))),
                Some(Waiting::Read(_, done)) => drop(done.send(Err(refusal.into()))),
                None => {}
            },
            Action::ReadReady { request, zxid } => {
                if let Some(Waiting::Read(question, done)) = self.waiting.remove(&request) {
                    self.ready.push((zxid, question, done));
                }
            }
            Action::Became(role) => {
                tracing::info!(?role, "the cluster role has changed");
                if role == Role::Looking {
                    self.abandon(AskError::Unknown);
                }
            }
            Action::Close { link, problem } => {
                if let Some((peer, _)) = self.links.remove(&link) {
                    tracing::warn!(%peer, problem, "a connection with another instance is ended");
                    inputs.push(Input::LinkDown { peer, link });
                }
            }
            Action::Stop(fatal) => {
                tracing::error!(problem = %fatal, "this instance stops for good");
                self.stopped = Some(Stopped::Protocol(fatal));
            }
        }
    }

    fn send(&mut self, link: Link, outgoing: Outgoing, inputs: &mut Vec<Input>) {
        let Some((_, sender)) = self.links.get(&link) else { return };
        if sender.try_send(outgoing).is_err() {
            self.give_up(link, inputs);
        }
    }

    /// Ends a connection that takes its messages too slowly, or not at all.
    fn give_up(&mut self, link: Link, inputs: &mut Vec<Input>) {
        if let Some((peer, _)) = self.links.remove(&link) {
            inputs.push(Input::LinkDown { peer, link });
        }
    }

    fn written(&mut self, written: Option<Written>, inputs: &mut Vec<Input>) {
        let Some(written) = written else {
            tracing::error!("the log's thread has ended; this instance stops for good");
            self.stopped.get_or_insert(Stopped::Log("the log's thread has ended".to_owned()));
            return;
        };
        for link in written.full {
            self.give_up(link, inputs);
        }
        match written.through {
            Ok(last) => inputs.push(Input::Written(last)),
            Err(problem) => {
                // What of it is durable is not known: nothing that depends on it may be said.
                tracing::error!(%problem, "the log cannot be written; this instance stops for good");
                self.stopped = Some(Stopped::Log(problem));
            }
        }
    }

    fn deliver(&mut self, txn: &Txn) {
        let answer = self.machine.apply(txn);
        self.applied = txn.zxid;
        self.since_snapshot.0 += 1;
        self.since_snapshot.1 = self.since_snapshot.1.saturating_add(txn.payload.len());
        if let Some((begun, done)) = self.placed.remove(&txn.zxid) {
            self.latencies.commit.note(begun.elapsed());
            let _ = done.send(Ok((txn.zxid, answer)));
        }
    }

    fn answer_reads(&mut self) {
        let applied = self.applied;
        for (_, question, done) in self.ready.extract_if(.., |(zxid, ..)| *zxid <= applied) {
            let _ = done.send(Ok(self.machine.query(&question)));
        }
    }

    /// Nobody knows any more what becomes of what was asked.
    fn abandon(&mut self, error: AskError) {
        for (_, waiting) in self.waiting.drain() {
            match waiting {
                Waiting::Propose(_, done) => drop(done.send(Err(error))),
                Waiting::Read(_, done) => drop(done.send(Err(error))),
            }
        }
        for (_, (_, done)) in std::mem::take(&mut self.placed) {
            let _ = done.send(Err(error));
        }
        for (_, _, done) in self.ready.drain(..) {
            let _ = done.send(Err(error));
        }
    }

    fn look_at_peers(&mut self) {
        let followed = self.zab.followed();
        let others = self.settings.members.iter().filter(|(id, _)| **id != self.settings.id);
        let seen = others.map(|(id, member)| {
            let followed = followed.iter().find(|followed| followed.server == *id && followed.is_active);
            Peer {
                id: *id,
                votes: member.votes,
                is_connected: self.links.values().any(|(peer, _)| peer == id),
                follows: followed.is_some(),
                lag: followed.and_then(|followed| followed.lag),
            }
        });
        self.peers = seen.collect();
    }

    fn tell(&mut self) {
        let now = Status {
            id: self.settings.id,
            // Whatever it was, it is not any more.
            role: if self.stopped.is_some() { Role::Looking } else { self.zab.role() },
            phase: if self.stopped.is_some() { "stopped" } else { self.zab.phase() },
            last: self.zab.ledger().history().last(),
            applied: self.applied,
            peers: self.peers.clone(),
            syncs: self.log.state().syncs,
            stopped: self.stopped.clone(),
        };
        self.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}
