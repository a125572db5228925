//! The event loop that drives Zab: collects inputs, calls the core, sends messages and submits writes to the log.
//!
//! Messages that depend on a write are sent by the log thread once the write is durable. All others are sent at once,
//! so that the disks of a leader and its followers work in parallel.

mod heartbeats;
mod log_reads;
mod observe;
mod requests;
mod snapshots;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crossdock_zab::{
    Action, Blob, Input, Link, LogState, Membership, Message, Payload, Request, Role, ServerId, ToFollower, ToLeader,
    Txn, Write, Zab, Zxid,
};
use tokio::sync::{mpsc, watch};

use self::heartbeats::Heartbeats;
pub(crate) use self::requests::ClientRequest;
use self::requests::{Pending, Ready, Reply};
use crate::activity::Activity;
use crate::error::{RequestError, StartError};
use crate::latency::Latencies;
use crate::log::{Batch, Log, Written};
use crate::settings::Settings;
use crate::state_machine::StateMachine;
use crate::status::{Disk, Peer, Status, Stopped};
use crate::transport::{Incoming, NotQueued, Outbox, Outgoing, Own};
use crate::wal::{self, Wal};

/// Inputs of one kind that are handled in one round.
const ROUND_LEN_MAX: usize = 1024;

pub(crate) struct Driver {
    zab: Zab,
    own: Own,
    log: Log,
    state_machine: Box<dyn StateMachine>,
    settings: Settings,
    incoming: mpsc::Receiver<Incoming>,
    requests: mpsc::Receiver<ClientRequest>,
    /// Reports of saved snapshots.
    saved: (mpsc::Sender<snapshots::Saved>, mpsc::Receiver<snapshots::Saved>),
    status: watch::Sender<Status>,
    links: BTreeMap<Link, (ServerId, Outbox)>,
    next_id: u64,
    pending: HashMap<Request, Pending>,
    proposed: BTreeMap<Zxid, (Instant, Reply<(Zxid, Bytes)>)>,
    ready_reads: Vec<Ready>,
    log_reads: log_reads::LogReads,
    /// Received snapshots that are not installed yet.
    blobs: BTreeMap<Blob, PathBuf>,
    /// The received snapshot that was moved into the data folder last.
    adopted: Option<Zxid>,
    applied: Zxid,
    /// Transactions since the last snapshot, and their bytes.
    since_snapshot: (u64, usize),
    snapshotting: bool,
    unsaved: Option<snapshots::Encoding>,
    stopped: Option<Stopped>,
    latencies: Arc<Latencies>,
    peers: Vec<Peer>,
    /// The membership that is in effect.
    membership: Option<Arc<Membership>>,
    activity: Activity,
    /// The number of segments on disk, as last counted, and the number of the current one then.
    segments: (u64, u64),
    heartbeats: Heartbeats,
    /// When this leader last tried to hand over, as its log lacks space.
    handed_over: Option<Instant>,
}

/// The time in milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "a leader stamps its transactions with the time of the system")]
fn wall_clock_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Driver {
    /// What this instance says about itself to others.
    pub(crate) fn own(&self) -> Own {
        self.own.clone()
    }

    /// Opens the log, or creates it if the settings say so.
    pub(crate) fn open(
        settings: &Settings,
        mut state_machine: Box<dyn StateMachine>,
        incoming: mpsc::Receiver<Incoming>,
        requests: mpsc::Receiver<ClientRequest>,
    ) -> Result<(Self, watch::Receiver<Status>, Arc<Latencies>), StartError> {
        let identity = settings.identity();
        let (log, founds, log_state, state) = match Wal::open(&settings.data, identity, settings.log) {
            Ok((log, recovered)) => (log, recovered.founds, recovered.log_state, recovered.snapshot),
            Err(wal::Error::Missing(_)) if settings.create => {
                (Wal::create(&settings.data, identity, settings.log, true)?, true, LogState::default(), None)
            }
            Err(problem) => return Err(problem.into()),
        };
        let own = Own { log: log.id(), cluster: Arc::default() };
        let applied = state.as_ref().map_or(Zxid::ZERO, |(snapshot, _)| snapshot.zxid);
        let state = state.map(|(_, state)| state);
        let state_len = state.as_ref().map_or(0, |state| u64::try_from(state.len()).unwrap_or(u64::MAX));
        log.space().set_sizes(settings.log.segment_len, state_len);
        state_machine.restore(state.as_deref()).map_err(StartError::State)?;
        let zab = Zab::new(settings.zab(own.log, founds), log_state, applied);
        let limits = (zab.config().sync_batch, zab.config().sync_batch_bytes);
        let (status, watching) = watch::channel(Status {
            id: settings.id,
            role: Role::Looking,
            phase: zab.phase(),
            last: zab.log_state().history().last(),
            applied,
            log: own.log,
            membership: None,
            peers: Vec::new(),
            syncs: 0,
            disk: Disk::default(),
            activity: Activity::default(),
            log_problem: None,
            stopped: None,
        });
        let latencies: Arc<Latencies> = Arc::default();
        let segments = (Wal::count_segments(&settings.data)?, log.segment());
        let log = Log::start(log, Arc::clone(&latencies)).map_err(StartError::Thread)?;
        let mut this = Self {
            zab,
            own,
            log,
            state_machine,
            settings: settings.clone(),
            incoming,
            requests,
            saved: mpsc::channel(4),
            status,
            links: BTreeMap::new(),
            next_id: 0,
            pending: HashMap::new(),
            proposed: BTreeMap::new(),
            ready_reads: Vec::new(),
            log_reads: log_reads::LogReads::new(settings.data.clone(), limits),
            blobs: BTreeMap::new(),
            adopted: None,
            applied,
            since_snapshot: (0, 0),
            snapshotting: false,
            unsaved: None,
            stopped: None,
            latencies: Arc::clone(&latencies),
            peers: Vec::new(),
            membership: None,
            activity: Activity::default(),
            segments,
            heartbeats: Heartbeats::default(),
            handed_over: None,
        };
        this.note_membership();
        this.publish_status();
        Ok((this, watching, latencies))
    }

    /// Ends the instance: fails all pending requests and publishes the final status.
    pub(crate) fn finish(mut self, ended: std::io::Result<()>) {
        let stopped = ended.map_or_else(|problem| Stopped::Log(problem.to_string()), |()| Stopped::Requested);
        self.stopped.get_or_insert(stopped);
        self.fail_pending(RequestError::Ended);
        self.publish_status();
    }

    /// Runs until the instance must stop or all clients are gone. Once cancelled, it can only be finished.
    pub(crate) async fn drive(&mut self) {
        let mut ticks = tokio::time::interval(self.settings.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut incoming, mut requests) = (Vec::new(), Vec::new());
        while self.stopped.is_none() {
            let mut inputs = Vec::new();
            if self.log.is_full() {
                // Back-pressure: accept nothing new until the disk catches up.
                let written = self.log.written().await;
                self.written(written, &mut inputs);
            } else {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => inputs.push(Input::Tick),
                    written = self.log.written() => self.written(written, &mut inputs),
                    Some(read) = self.log_reads.ended() => inputs.push(read),
                    Some(saved) = self.saved.1.recv() => self.snapshot_saved(saved, &mut inputs),
                    count = self.incoming.recv_many(&mut incoming, ROUND_LEN_MAX) => if count == 0 { self.stopped = Some(Stopped::Requested) },
                    count = self.requests.recv_many(&mut requests, ROUND_LEN_MAX) => if count == 0 { self.stopped = Some(Stopped::Requested) },
                }
                self.drain_queues(&mut incoming, &mut requests);
            }
            while let Some(written) = self.log.try_written() {
                self.written(Some(written), &mut inputs);
            }
            for one in incoming.drain(..) {
                self.receive(one, &mut inputs);
            }
            for one in requests.drain(..) {
                self.handle_request(one, &mut inputs);
            }
            if inputs.contains(&Input::Tick) {
                self.hand_over(&mut inputs);
            }
            let changes_peers =
                |input: &Input| matches!(input, Input::Tick | Input::LinkUp { .. } | Input::LinkDown { .. });
            let is_peer_update_due = inputs.iter().any(changes_peers);
            self.process(inputs);
            if is_peer_update_due {
                self.update_peers();
            }
            self.publish_status();
        }
    }

    /// Collects everything else that is queued, to handle it in the same round.
    fn drain_queues(&mut self, incoming: &mut Vec<Incoming>, requests: &mut Vec<ClientRequest>) {
        while incoming.len() < ROUND_LEN_MAX
            && let Ok(one) = self.incoming.try_recv()
        {
            incoming.push(one);
        }
        while requests.len() < ROUND_LEN_MAX
            && let Ok(one) = self.requests.try_recv()
        {
            requests.push(one);
        }
    }

    /// Calls the core and executes its actions until no input is left.
    fn process(&mut self, mut inputs: Vec<Input>) {
        let mut actions = Vec::new();
        let now = Input::Now(wall_clock_millis());
        while !inputs.is_empty() && self.stopped.is_none() {
            let phase = self.zab.phase();
            self.zab.handle([now.clone()].into_iter().chain(inputs.drain(..)), &mut actions);
            self.activity.elections += u64::from(self.zab.phase() == "election" && phase != "election");
            let mut writes = Batch::default();
            // A refusal is a definite outcome, even if the role changes in the same round.
            let is_refusal = |action: &mut Action| matches!(action, Action::Refused { .. });
            for refused in actions.extract_if(.., is_refusal).collect::<Vec<_>>() {
                self.execute(refused, &mut writes, &mut inputs);
            }
            for action in actions.drain(..) {
                self.execute(action, &mut writes, &mut inputs);
            }
            if self.stopped.is_none() {
                self.log.submit(writes);
            }
            self.answer_reads();
            self.snapshot();
        }
        self.note_membership();
    }

    fn receive(&mut self, one: Incoming, inputs: &mut Vec<Input>) {
        match one {
            Incoming::Up { peer, link, log, outbox } => {
                // Dropping its queue ends the earlier connection.
                self.links.retain(|_, (other, _)| *other != peer);
                self.links.insert(link, (peer, outbox));
                inputs.push(Input::LinkUp { peer, link, log });
            }
            Incoming::Down { peer, link } => {
                if self.links.remove(&link).is_some() {
                    self.activity.links.broken += 1;
                }
                self.log_reads.forget(link);
                inputs.push(Input::LinkDown { peer, link });
            }
            Incoming::Progress { peer, link } => inputs.push(Input::Progress { peer, link }),
            Incoming::Message { peer, link, message, room } => {
                if let Message::ToLeader(_, ToLeader::Pong { number, .. }) = &message {
                    self.heartbeats.answered(peer, *number);
                }
                inputs.push(Input::Received { peer, link, message });
                drop(room);
            }
            Incoming::Snapshot { peer, link, session, summary, file } => {
                let blob = Blob(self.next_id);
                self.next_id += 1;
                self.blobs.insert(blob, file.keep());
                let message = Message::ToFollower(session, ToFollower::Snapshot { summary, blob });
                inputs.push(Input::Received { peer, link, message });
            }
        }
    }

    fn execute(&mut self, action: Action, writes: &mut Batch, inputs: &mut Vec<Input>) {
        match action {
            Action::Send { link, message } => self.send(link, Outgoing::Message(message), inputs),
            Action::SendSnapshot { link, session, zxid } => {
                let path = wal::snapshot_path(&self.settings.data, zxid);
                self.send(link, Outgoing::Snapshot { session, zxid, path }, inputs);
            }
            Action::Persist { id, write, then } => {
                if let Write::Install { summary, blob } = &write {
                    self.adopt(summary.point.zxid, *blob);
                }
                writes.add(id, write);
                for (link, message) in then {
                    if let Some((_, outbox)) = self.links.get(&link) {
                        writes.then(link, outbox, message);
                    }
                }
            }
            Action::ReadLog { link, session, after } => self.log_reads.start(link, session, after),
            Action::DiscardSnapshot(blob) => {
                if let Some(path) = self.blobs.remove(&blob) {
                    let _ = std::fs::remove_file(path);
                }
            }
            Action::Deliver(txn) => self.deliver(&txn),
            Action::Restore(zxid) => self.restore(zxid),
            Action::Proposed { request, zxid } => {
                if let Some(Pending::Propose(begun, reply)) = self.pending.remove(&request) {
                    self.proposed.insert(zxid, (begun, reply));
                }
            }
            Action::Refused { request, refusal } => match self.pending.remove(&request) {
                Some(Pending::Propose(_, reply)) => drop(reply.send(Err(refusal.into()))),
                Some(Pending::Read(_, reply)) => drop(reply.send(Err(refusal.into()))),
                None => {}
            },
            Action::ReadReady { request, zxid } => {
                if let Some(Pending::Read(query, reply)) = self.pending.remove(&request) {
                    self.ready_reads.push((zxid, query, reply));
                }
            }
            Action::Became(role) => {
                tracing::info!(?role, "cluster role changed");
                if role == Role::Looking {
                    self.log_reads.clear();
                    self.heartbeats.clear();
                    self.fail_pending(RequestError::Unknown);
                }
            }
            Action::Close { link, problem } => {
                if let Some((peer, _)) = self.links.remove(&link) {
                    self.activity.links.closed += 1;
                    tracing::warn!(%peer, problem, "connection to another instance closed");
                    inputs.push(Input::LinkDown { peer, link });
                }
            }
            Action::Stop(fatal) => {
                tracing::error!(problem = %fatal, "instance stopped for good");
                self.stopped = Some(Stopped::Protocol(fatal));
            }
        }
    }

    fn send(&mut self, link: Link, outgoing: Outgoing, inputs: &mut Vec<Input>) {
        if let Outgoing::Message(Message::ToFollower(_, ToFollower::Ping { number })) = &outgoing {
            self.heartbeats.sent(*number);
        }
        // The rest is in memory.
        if let Outgoing::Message(Message::ToFollower(_, ToFollower::NewLeader(_))) = &outgoing {
            self.log_reads.forget(link);
        }
        let Some((_, outbox)) = self.links.get(&link) else { return };
        if let Err(problem) = outbox.try_send(outgoing) {
            self.drop_link(link, problem, inputs);
        }
    }

    /// Drops a connection that takes messages too slowly, or not at all.
    fn drop_link(&mut self, link: Link, problem: NotQueued, inputs: &mut Vec<Input>) {
        let Some((peer, _)) = self.links.remove(&link) else { return };
        // A connection that has ended has logged why.
        if problem == NotQueued::Full {
            let bytes = self.settings.queue_bytes();
            tracing::warn!(%peer, bytes, "queue for another instance is full; its connection is reopened");
            self.activity.links.queue_full += 1;
        } else {
            self.activity.links.broken += 1;
        }
        inputs.push(Input::LinkDown { peer, link });
    }

    fn written(&mut self, written: Option<Written>, inputs: &mut Vec<Input>) {
        let Some(written) = written else {
            tracing::error!("log thread ended; instance stopped for good");
            self.stopped.get_or_insert(Stopped::Log("the log thread has ended".to_owned()));
            return;
        };
        for link in written.full_links {
            self.drop_link(link, NotQueued::Full, inputs);
        }
        match written.through {
            Ok(last) => inputs.push(Input::Written(last)),
            Err(problem) => {
                // It is unknown what became durable, so nothing that depends on it may be sent.
                tracing::error!(%problem, "log write failed; instance stopped for good");
                self.stopped = Some(Stopped::Log(problem));
            }
        }
    }

    fn deliver(&mut self, txn: &Txn) {
        let response = match &txn.payload {
            Payload::Command(command) => self.state_machine.apply(txn.zxid, txn.time, command),
            Payload::Membership(_) => Bytes::new(),
        };
        self.applied = txn.zxid;
        self.since_snapshot.0 += 1;
        self.since_snapshot.1 = self.since_snapshot.1.saturating_add(txn.payload.len());
        if let Some((begun, reply)) = self.proposed.remove(&txn.zxid) {
            self.latencies.commit.record(begun.elapsed());
            let _ = reply.send(Ok((txn.zxid, response)));
        }
    }
}
