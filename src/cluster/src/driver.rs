//! The event loop that drives Zab: collects inputs, calls the core, sends messages and submits writes to the log.
//!
//! Messages that depend on a write are sent by the log thread once the write is durable. All others are sent at once,
//! so that the disks of a leader and its followers work in parallel.

mod heartbeats;
mod log_reads;
mod observe;
mod requests;
mod snapshots;
mod time;
mod undecided;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crossdock_zab::{
    Action, Blob, Input, Link, LogState, Membership, Message, Request, Role, ServerId, ToFollower, ToLeader, Txn,
    Write, Zab, Zxid,
};
use tokio::sync::{mpsc, watch};

use self::heartbeats::Heartbeats;
use self::requests::{Pending, Waiting};
use self::time::Time;
use self::undecided::Undecided;
use crate::activity::Activity;
use crate::backup::BackupFile;
use crate::error::{RequestError, StartError};
use crate::injected_bug::log_taken_for;
use crate::latency::Latencies;
use crate::log::{Batch, Log, Written};
use crate::machines::Machines;
use crate::platform::{self, Instant, files};
use crate::request::{ClientRequest, Reply, Saved};
use crate::settings::Settings;
use crate::state::{self, Entry, Event, Purpose, State};
use crate::status::{Disk, Peer, Status, Stopped};
use crate::transport::{Incoming, NotQueued, Outbox, Outgoing, Own};
use crate::wal::{self, Wal};

/// Inputs of one kind that are handled in one round.
const ROUND_LEN_MAX: usize = 1024;

pub(crate) struct Driver {
    zab: Zab,
    own: Own,
    log: Log,
    state: State,
    settings: Settings,
    incoming: mpsc::Receiver<Incoming>,
    requests: mpsc::Receiver<ClientRequest>,
    status: watch::Sender<Status>,
    links: BTreeMap<Link, (ServerId, Outbox)>,
    next_id: u64,
    pending: BTreeMap<Request, Pending>,
    proposed: BTreeMap<Zxid, Waiting>,
    undecided: Undecided,
    /// Reads that were requested in this round.
    barriers: Vec<Reply<Zxid>>,
    /// Reads that wait until a transaction is delivered.
    ready_reads: Vec<(Zxid, Vec<Reply<Zxid>>)>,
    log_reads: log_reads::LogReads,
    /// Received snapshots that are not installed yet.
    blobs: BTreeMap<Blob, PathBuf>,
    /// The received snapshot that was moved into the data folder last.
    adopted: Option<Zxid>,
    /// The last transaction that was delivered.
    delivered: Zxid,
    /// Delivered transactions that were not given to the state thread yet.
    deliveries: Vec<Entry>,
    /// The state thread is far behind.
    is_behind: bool,
    /// Bytes of its backlog at which nothing more is accepted.
    backlog_max: usize,
    snapshots: snapshots::Snapshots,
    versions: versions::Versions,
    /// The file of a backup that is being taken.
    backup: Option<(BackupFile, Reply<Saved>)>,
    stopped: Option<Stopped>,
    peers: Vec<Peer>,
    /// The membership that is in effect.
    membership: Option<Arc<Membership>>,
    activity: Activity,
    /// The number of segments on disk, as last counted, and the number of the current one then.
    segments: (u64, u64),
    heartbeats: Heartbeats,
    /// When this leader last tried to hand over, as its log lacks space.
    handed_over: Option<Instant>,
    time: Time,
}

impl Driver {
    /// This run of the instance, in its commands.
    pub(crate) fn origin(&self) -> u64 {
        self.undecided.origin()
    }

    /// What this instance says about itself to others.
    pub(crate) fn own(&self) -> Own {
        self.own.clone()
    }

    /// Opens the log, or creates it if the settings say so.
    pub(crate) fn open(
        settings: &Settings,
        mut machines: Machines,
        incoming: mpsc::Receiver<Incoming>,
        requests: mpsc::Receiver<ClientRequest>,
    ) -> Result<(Self, watch::Receiver<Status>, Arc<Latencies>), StartError> {
        let identity = settings.identity();
        let (log, founds, log_state, snapshot) = match Wal::open(&settings.data, identity, settings.log) {
            Ok((log, recovered)) => (log, recovered.founds, recovered.log_state, recovered.snapshot),
            Err(wal::Error::Missing(_)) if settings.create => {
                (Wal::create(&settings.data, identity, settings.log, true)?, true, LogState::default(), None)
            }
            Err(problem) => return Err(problem.into()),
        };
        let own = Own { log: log.id(), cluster: Arc::default(), machines: Arc::new(machines.versions_max()) };
        let (applied, state_len) =
            snapshot.as_ref().map_or((Zxid::ZERO, 0), |opened| (opened.summary.point.zxid, opened.state_len));
        log.space().set_sizes(settings.log.segment_len, state_len);
        let mut state = snapshot.map(|opened| opened.state);
        machines.restore(applied, state.as_mut().map(|state| state as _)).map_err(StartError::State)?;
        let zab = Zab::new(settings.zab(own.log, founds), log_state, applied);
        let limits = (zab.config().sync_batch, zab.config().sync_batch_bytes);
        let (status, watching) = watch::channel(Status {
            id: settings.id,
            role: Role::Looking,
            phase: zab.phase(),
            history_epoch: zab.log_state().current_epoch(),
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
        let log = Log::start(log, settings.limits.log, Arc::clone(&latencies)).map_err(StartError::Thread)?;
        let state = State::start(machines, applied, settings.data.clone(), Arc::clone(&latencies));
        let mut this = Self {
            zab,
            own,
            log,
            state: state.map_err(StartError::Thread)?,
            settings: settings.clone(),
            incoming,
            requests,
            status,
            links: BTreeMap::new(),
            next_id: 0,
            pending: BTreeMap::new(),
            proposed: BTreeMap::new(),
            undecided: Undecided::new(platform::random(), settings.outcome_timeout),
            barriers: Vec::new(),
            ready_reads: Vec::new(),
            log_reads: log_reads::LogReads::new(settings.data.clone(), limits),
            blobs: BTreeMap::new(),
            adopted: None,
            delivered: applied,
            deliveries: Vec::new(),
            is_behind: false,
            backlog_max: settings.limits.behind_max,
            snapshots: snapshots::Snapshots::new(state_len),
            versions: versions::Versions::default(),
            backup: None,
            stopped: None,
            peers: Vec::new(),
            membership: None,
            activity: Activity::default(),
            segments,
            heartbeats: Heartbeats::default(),
            handed_over: None,
            time: Time::new(),
        };
        this.note_membership();
        this.publish_status();
        Ok((this, watching, latencies))
    }

    /// Lets the state thread apply everything that was delivered, and sends the last replies. Waits for a limited time.
    pub(crate) async fn end_state(&mut self) {
        self.apply_delivered();
        self.state.end().await;
    }

    /// Ends the instance: fails all pending requests and publishes the final status.
    pub(crate) fn finish(mut self, ended: std::io::Result<()>) {
        let stopped = ended.map_or_else(|problem| Stopped::Log(problem.to_string()), |()| Stopped::Requested);
        self.stopped.get_or_insert(stopped);
        self.fail_requests();
        self.publish_status();
    }

    /// Runs until the instance must stop or all clients are gone. Once cancelled, it can only be finished.
    pub(crate) async fn drive(&mut self) {
        let mut ticks = tokio::time::interval(self.settings.tick);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut incoming, mut requests) = (Vec::new(), Vec::new());
        let mut last_tick = Instant::now();
        while self.stopped.is_none() {
            let mut inputs = Vec::new();
            let mut is_tick = false;
            if self.log.is_full() {
                // Back-pressure: accept nothing new until the disk catches up.
                tokio::select! {
                    biased;
                    written = self.log.written() => self.written(written, &mut inputs),
                    event = self.state.event() => self.handle_state(event),
                }
            } else if self.state.backlog() >= self.backlog_max {
                // Back-pressure: accept nothing new until the state machines catch up.
                tokio::select! {
                    biased;
                    event = self.state.event() => self.handle_state(event),
                    _ = ticks.tick() => {}
                }
            } else {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => is_tick = true,
                    written = self.log.written() => self.written(written, &mut inputs),
                    Some(read) = self.log_reads.ended() => inputs.push(read),
                    Some(step) = self.snapshots.step() => self.snapshot_step(step, &mut inputs),
                    event = self.state.event() => self.handle_state(event),
                    count = self.incoming.recv_many(&mut incoming, ROUND_LEN_MAX) => if count == 0 { self.stopped = Some(Stopped::Requested) },
                    count = self.requests.recv_many(&mut requests, ROUND_LEN_MAX) => if count == 0 { self.stopped = Some(Stopped::Requested) },
                }
                if is_tick && last_tick.elapsed() >= 2 * self.settings.tick {
                    // This thread was held up. What has arrived meanwhile must be read before anyone is taken for silent.
                    tokio::task::yield_now().await;
                }
                if incoming.len() + requests.len() > 1 {
                    // Where there is much to do, connections receive more now. Larger rounds need fewer messages and syncs.
                    tokio::task::yield_now().await;
                }
                self.drain_queues(&mut incoming, &mut requests);
                self.take_rarer(&mut inputs);
            }
            while let Some(written) = self.log.try_written() {
                self.written(Some(written), &mut inputs);
            }
            for one in incoming.drain(..) {
                self.receive(one, &mut inputs);
            }
            self.note_backlog(&mut inputs);
            for one in requests.drain(..) {
                self.handle_request(one, &mut inputs);
            }
            self.start_reads(&mut inputs);
            if is_tick {
                last_tick = Instant::now();
                // After everything that was received before.
                inputs.push(Input::Tick);
                self.hand_over(&mut inputs);
                self.undecided.expire();
                self.forget_reads();
                self.raise_versions(&mut inputs);
                self.propose_marker(&mut inputs);
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

    /// Takes one of each of what is rarer than messages and requests, which may never leave this thread idle.
    fn take_rarer(&mut self, inputs: &mut Vec<Input>) {
        inputs.extend(self.log_reads.try_ended());
        if let Some(step) = self.snapshots.try_step() {
            self.snapshot_step(step, inputs);
        }
        if let Some(event) = self.state.try_event() {
            self.handle_state(event);
        }
    }

    /// Calls the core and executes its actions until no input is left.
    fn process(&mut self, mut inputs: Vec<Input>) {
        let mut actions = Vec::new();
        let now = Input::Now(self.time.now(self.zab.log_state().history().end().time));
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
            self.apply_delivered();
        }
        self.answer_reads();
        self.snapshot();
        self.note_membership();
    }

    fn receive(&mut self, one: Incoming, inputs: &mut Vec<Input>) {
        match one {
            Incoming::Up { peer, link, log, machines, outbox } => {
                let of_voter = self.membership.as_ref().and_then(|membership| membership.voters.get(&peer));
                let log = log_taken_for(peer, log, of_voter.copied());
                self.versions.connected(peer, machines);
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
                if let Message::ToLeader(session, ToLeader::Left) = message {
                    self.send(link, Outgoing::NoSnapshot(session), inputs);
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
                    let _ = files::remove(&path);
                }
            }
            Action::Deliver(txn) => self.deliver(txn),
            Action::Restore(zxid) => {
                self.apply_delivered();
                self.state.restore(zxid);
                self.delivered = zxid;
                // The snapshot may contain them.
                self.undecided.fail(RequestError::Unknown);
            }
            Action::Proposed { request, zxid } => {
                if let Some(Pending::Transaction(waiting)) = self.pending.remove(&request) {
                    self.proposed.insert(zxid, waiting);
                }
            }
            Action::Refused { request, refusal } => self.refused(request, refusal),
            Action::ReadReady { request, zxid } => {
                if let Some(Pending::Barrier(replies)) = self.pending.remove(&request) {
                    self.ready_reads.push((zxid, replies));
                }
            }
            Action::Became(role) => {
                tracing::info!(?role, "cluster role changed");
                if matches!(role, Role::Leading(_)) {
                    self.time.lead();
                }
                self.apply_delivered();
                self.state.became(role);
                self.versions.forget_proposed();
                if role == Role::Looking {
                    self.log_reads.clear();
                    self.heartbeats.clear();
                    self.leader_lost();
                } else {
                    // The history before this is in memory in any case.
                    self.backlog_max = self.state.backlog().saturating_add(self.settings.limits.behind_max);
                    self.undecided.leader_found();
                    self.propose_marker(inputs);
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
            let messages = self.settings.limits.messages;
            tracing::warn!(%peer, messages, bytes, "queue for another instance is full; its connection is reopened");
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

    fn deliver(&mut self, txn: Txn) {
        self.delivered = txn.zxid;
        self.snapshots.count(txn.payload.len());
        let reply = match self.proposed.remove(&txn.zxid) {
            Some(Waiting::Command(begun, _, reply) | Waiting::Change(begun, reply)) => Some((begun, reply)),
            Some(Waiting::Marker) => {
                self.undecided.fail(RequestError::Lost);
                None
            }
            Some(Waiting::Version) => None,
            None => self.undecided.take(&txn.payload),
        };
        self.deliveries.push(Entry { txn, reply });
    }

    /// Gives the delivered transactions to the state thread.
    fn apply_delivered(&mut self) {
        if !self.deliveries.is_empty() {
            self.state.apply(std::mem::take(&mut self.deliveries));
        }
    }

    fn handle_state(&mut self, event: Event) {
        match event {
            Event::Replies(replies) => state::send_all(replies),
            Event::Frozen(summary, frozen, Purpose::Snapshot) => self.frozen(summary, frozen),
            Event::Frozen(summary, frozen, Purpose::Backup) => self.write_backup(summary, frozen),
            Event::Failed(problem) => {
                tracing::error!(%problem, "the state cannot be kept; instance stopped for good");
                self.stopped.get_or_insert(Stopped::State(problem));
            }
        }
    }

    /// Tells the core whether this instance is too far behind to lead further commands.
    fn note_backlog(&mut self, inputs: &mut Vec<Input>) {
        let limit = self.settings.limits.behind / if self.is_behind { 2 } else { 1 };
        let is_behind = self.state.backlog() >= limit;
        if is_behind != self.is_behind {
            tracing::warn!(is_behind, "the state machine of this instance is slower than the cluster");
            self.is_behind = is_behind;
            inputs.push(Input::Behind(is_behind));
        }
    }

    fn propose_marker(&mut self, inputs: &mut Vec<Input>) {
        if let Some(marker) = self.undecided.take_marker() {
            self.propose_own(Waiting::Marker, &marker, inputs);
        }
    }
}
