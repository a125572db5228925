//! State shared by all phases: the log state, the connections, the pending writes and the queued actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::claims::Claims;
use crate::injected_bug::InjectedBug;
use crate::patience::Patience;
use crate::{
    Action, Config, Epoch, InvalidWrite, Link, LogId, LogState, Membership, Message, Payload, Refusal, Request,
    ServerId, Session, Txn, Vote, Write, WriteId, Zxid,
};

/// What a phase decides after an input.
#[derive(Debug)]
pub(crate) enum Next {
    Stay,
    /// The server gives up its role and starts an election once all writes are durable.
    StepDown,
    Lead(Vote),
    Follow(Vote),
    /// The input belongs to an earlier session or connection.
    Stale,
    /// The input violates the protocol.
    Impossible(&'static str),
    Stop(crate::Fatal),
}

/// State shared by all phases.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Base {
    pub(crate) config: Config,
    /// The result of all writes, including pending ones.
    pub(crate) log_state: LogState,
    /// The open connections.
    pub(crate) links: BTreeMap<ServerId, Link>,
    /// The logs of the connected servers.
    pub(crate) logs: BTreeMap<ServerId, LogId>,
    /// The time of the clock, in milliseconds since the Unix epoch.
    pub(crate) now: u64,
    /// This server applies transactions more slowly than they are committed.
    pub(crate) is_behind: bool,
    /// The election round.
    pub(crate) round: u64,
    /// Epochs claimed by peers.
    pub(crate) claims: Claims,
    /// How long to wait for a silent leader.
    pub(crate) patience: Patience,
    /// The leader that this server has left because it is silent, and for how long it is.
    pub(crate) silent_leader: Option<(ServerId, u32)>,
    /// The last leader named this server as its successor.
    pub(crate) preferred: bool,
    /// Histories of connected voters that were later than this server's own when they accepted its epoch.
    pub(crate) later: BTreeMap<ServerId, (Epoch, Zxid)>,
    /// The last delivered transaction.
    pub(crate) delivered: Zxid,
    pub(crate) out: Vec<Action>,
    issued: WriteId,
    written: WriteId,
    /// Appended transactions that are not part of a write yet, and the zxid before them.
    appended: Vec<Txn>,
    appended_after: Zxid,
    /// The message that their write unlocks.
    unlocks: Option<(Link, Message)>,
    sessions: u64,
}

impl Base {
    pub(crate) fn new(config: Config, log_state: LogState, delivered: Zxid) -> Self {
        Self {
            config,
            log_state,
            links: BTreeMap::new(),
            logs: BTreeMap::new(),
            now: 0,
            is_behind: false,
            round: 0,
            claims: Claims::default(),
            patience: Patience::default(),
            silent_leader: None,
            preferred: false,
            later: BTreeMap::new(),
            delivered,
            out: Vec::new(),
            issued: WriteId(0),
            written: WriteId(0),
            appended: Vec::new(),
            appended_after: Zxid::ZERO,
            unlocks: None,
            sessions: 0,
        }
    }

    /// Counts a tick for the leader that was left. After the longest timeout, it counts as lost.
    pub(crate) fn count_silence(&mut self) {
        let limit = self.config.sync_ticks;
        self.silent_leader =
            self.silent_leader.map(|(leader, ticks)| (leader, ticks + 1)).filter(|(_, ticks)| *ticks <= limit);
    }

    /// Whether this is the leader that was left because it is silent.
    pub(crate) fn is_silent(&self, peer: ServerId) -> bool {
        self.silent_leader.is_some_and(|(leader, _)| leader == peer)
    }

    /// Handles a sign of life. If the peer is the leader that this server left, it was only slow: the next silence of a
    /// leader may be as long.
    pub(crate) fn heard(&mut self, peer: ServerId) {
        if let Some((_, silence)) = self.silent_leader.take_if(|(leader, _)| *leader == peer) {
            self.patience.observe(silence, &self.config);
        }
    }

    pub(crate) fn send(&mut self, link: Link, message: Message) {
        self.out.push(Action::Send { link, message });
    }

    /// Sends a message to all connected servers. Those that are no voters here may be voters by a later membership, and
    /// know its leader.
    pub(crate) fn send_to_all(&mut self, message: &Message) {
        self.out.extend(self.links.values().map(|link| Action::Send { link: *link, message: message.clone() }));
    }

    pub(crate) fn refuse(&mut self, request: Request, refusal: Refusal) {
        self.out.push(Action::Refused { request, refusal });
    }

    /// Answers a local request for a transaction.
    pub(crate) fn answer(&mut self, request: Request, proposed: Result<Zxid, Refusal>) {
        match proposed {
            Ok(zxid) => self.out.push(Action::Proposed { request, zxid }),
            Err(refusal) => self.refuse(request, refusal),
        }
    }

    pub(crate) fn next_session(&mut self) -> Session {
        self.sessions += 1;
        Session(self.sessions)
    }

    /// Whether all writes are durable.
    pub(crate) fn is_drained(&self) -> bool {
        self.issued == self.written && self.appended.is_empty()
    }

    /// Records that all writes through `id` are durable.
    pub(crate) fn note_written(&mut self, id: WriteId) {
        self.written = self.written.max(id);
    }

    /// Starts a write that unlocks messages. With `bug` injected, sends them without waiting for the write.
    pub(crate) fn write_then_send(
        &mut self,
        broken: InjectedBug,
        write: Write,
        then: Vec<(Link, Message)>,
    ) -> Result<WriteId, InvalidWrite> {
        if !self.config.has_bug(broken) {
            return self.write(write, then);
        }
        let id = self.write(write, Vec::new())?;
        for (link, message) in then {
            self.send(link, message);
        }
        Ok(id)
    }

    /// Starts a write; `then` is sent once it is durable.
    pub(crate) fn write(&mut self, write: Write, then: Vec<(Link, Message)>) -> Result<WriteId, InvalidWrite> {
        self.write_appended();
        self.log_state.apply(&write)?;
        Ok(self.persist(write, then))
    }

    fn persist(&mut self, write: Write, then: Vec<(Link, Message)>) -> WriteId {
        self.issued.0 += 1;
        self.out.push(Action::Persist { id: self.issued, write, then });
        self.issued
    }

    /// Appends transactions. Those that arrive together share one write, which unlocks the last `then`.
    pub(crate) fn append(
        &mut self,
        after: Zxid,
        txns: Vec<Txn>,
        then: Option<(Link, Message)>,
    ) -> Result<(), InvalidWrite> {
        let write = Write::Append { after, txns };
        self.log_state.apply(&write)?;
        if self.appended.is_empty() {
            self.appended_after = after;
        }
        if let Write::Append { txns, .. } = write {
            self.appended.extend(txns);
        }
        self.unlocks = then;
        Ok(())
    }

    /// Appends a transaction of this leader. Those that are proposed together share one write.
    pub(crate) fn append_own(&mut self, zxid: Zxid, payload: Payload) -> Result<(), InvalidWrite> {
        let after = self.log_state.end().zxid;
        let txn = self.log_state.append_next(zxid, self.now, payload)?;
        if self.appended.is_empty() {
            self.appended_after = after;
        }
        self.appended.push(txn);
        Ok(())
    }

    /// Appended transactions that are not part of a write yet, and the zxid before them.
    pub(crate) fn appended(&self) -> (Zxid, &[Txn]) {
        (self.appended_after, &self.appended)
    }

    /// Starts the write of the appended transactions and returns its id, or `None` if there are none.
    pub(crate) fn write_appended(&mut self) -> Option<WriteId> {
        if self.appended.is_empty() {
            return None;
        }
        let write = Write::Append { after: self.appended_after, txns: std::mem::take(&mut self.appended) };
        let then = self.unlocks.take().into_iter().collect();
        Some(self.persist(write, then))
    }

    /// Delivers all transactions through `through`, which must be committed.
    pub(crate) fn deliver(&mut self, through: Zxid) {
        let history = self.log_state.history();
        debug_assert!(through <= history.last(), "{through} is committed, but the history ends at {}", history.last());
        if self.delivered < history.floor() {
            self.out.push(Action::Restore(history.snapshot()));
            self.delivered = history.snapshot();
        }
        if through > self.delivered {
            self.out.extend(history.between(self.delivered, through).cloned().map(Action::Deliver));
            self.delivered = through;
        }
    }

    /// The membership in effect.
    pub(crate) fn membership(&self) -> Option<&Arc<Membership>> {
        self.log_state.membership()
    }

    /// The size of a quorum. Without a membership, none is large enough.
    pub(crate) fn quorum(&self) -> usize {
        self.membership().map_or(usize::MAX, |membership| membership.quorum())
    }

    /// Whether a connected server is a voter, with its recorded log.
    pub(crate) fn is_voter(&self, peer: ServerId) -> bool {
        let Some(membership) = self.membership() else { return false };
        if self.config.has_bug(InjectedBug::TrustUnknownLog) {
            return membership.voters.contains_key(&peer);
        }
        self.logs.get(&peer).is_some_and(|log| membership.is_voter(peer, *log))
    }

    /// Whether this server votes.
    pub(crate) fn votes(&self) -> bool {
        let Some(membership) = self.membership() else { return false };
        let is_trusted = self.config.has_bug(InjectedBug::TrustUnknownLog);
        membership.is_voter(self.config.id, self.config.log)
            || (is_trusted && membership.voters.contains_key(&self.config.id))
    }

    /// The currentEpoch and the end of the history, which a leader and its followers compare.
    pub(crate) fn history(&self) -> (Epoch, Zxid) {
        (self.log_state.current_epoch(), self.log_state.history().last())
    }

    /// This server's own vote.
    pub(crate) fn own_vote(&self) -> Vote {
        #[cfg(feature = "injected-bugs")]
        if self.config.random_elections && self.votes() {
            // A different order each round.
            let number =
                self.round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.config.id.0.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let zxid = Zxid::from_u64(number.wrapping_mul(0x94d0_49bb_1331_11eb));
            return Vote { electable: true, epoch: Epoch(0), zxid, preferred: self.preferred, server: self.config.id };
        }
        let (epoch, zxid) = self.history();
        let has_later = |peer: &ServerId| self.later.get(peer).is_some_and(|history| *history > (epoch, zxid));
        let follows = |peer: &&ServerId| self.is_voter(**peer) && !has_later(peer);
        // Without a quorum it cannot lead: any server that can is a better choice.
        let electable = self.votes() && self.links.keys().filter(follows).count() + 1 >= self.quorum();
        Vote { electable, epoch, zxid, preferred: self.preferred, server: self.config.id }
    }
}
