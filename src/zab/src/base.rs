//! What all phases share: the ledger, the connections, the writes under way, and what is to be done.

use std::collections::BTreeMap;

use crate::claims::Claims;
use crate::planted::Planted;
use crate::{
    Action, Config, Epoch, Inconsistent, Io, Ledger, Link, Message, Refusal, Request, ServerId, Session, Txn, Vote,
    Write, Zxid,
};

/// What becomes of a server's phase.
#[derive(Debug)]
pub(crate) enum Next {
    Stay,
    /// Its role ends; it looks for a leader once all writes are durable.
    Leave,
    Lead(Vote),
    Follow(Vote),
    /// What came is of an earlier session or link.
    Stale,
    /// What came cannot be.
    Impossible(&'static str),
    Stop(crate::Fatal),
}

/// What all phases share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Base {
    pub(crate) config: Config,
    /// What all writes come to, those under way with them.
    pub(crate) ledger: Ledger,
    /// The connections that are up.
    pub(crate) links: BTreeMap<ServerId, Link>,
    /// The round of elections.
    pub(crate) round: u64,
    /// Epochs claimed by peers.
    pub(crate) claims: Claims,
    /// The last leader named this server for its successor.
    pub(crate) preferred: bool,
    /// Servers that were heard to have lost their logs, and the numbers of the new ones.
    pub(crate) returning: BTreeMap<ServerId, u64>,
    /// The last transaction that was delivered.
    pub(crate) delivered: Zxid,
    pub(crate) out: Vec<Action>,
    issued: Io,
    written: Io,
    /// Transactions of the ledger that no write has yet, and the one before them.
    appended: Vec<Txn>,
    appended_after: Zxid,
    /// What the write that they get unlocks.
    unlocks: Option<(Link, Message)>,
    sessions: u64,
}

impl Base {
    pub(crate) fn new(config: Config, ledger: Ledger, delivered: Zxid) -> Self {
        Self {
            config,
            ledger,
            links: BTreeMap::new(),
            round: 0,
            claims: Claims::default(),
            preferred: false,
            returning: BTreeMap::new(),
            delivered,
            out: Vec::new(),
            issued: Io(0),
            written: Io(0),
            appended: Vec::new(),
            appended_after: Zxid::ZERO,
            unlocks: None,
            sessions: 0,
        }
    }

    pub(crate) fn send(&mut self, link: Link, message: Message) {
        self.out.push(Action::Send { link, message });
    }

    /// Sends a message to all who vote and can be reached.
    pub(crate) fn tell_voters(&mut self, message: &Message) {
        let voters = self.links.iter().filter(|(peer, _)| self.config.voters.contains(peer));
        let send = |(_, link): (&ServerId, &Link)| Action::Send { link: *link, message: message.clone() };
        self.out.extend(voters.map(send));
    }

    pub(crate) fn refuse(&mut self, request: Request, refusal: Refusal) {
        self.out.push(Action::Refused { request, refusal });
    }

    pub(crate) fn next_session(&mut self) -> Session {
        self.sessions += 1;
        Session(self.sessions)
    }

    /// Whether all writes are durable.
    pub(crate) fn is_drained(&self) -> bool {
        self.issued == self.written && self.appended.is_empty()
    }

    /// Notes that writes are durable.
    pub(crate) fn note_written(&mut self, io: Io) {
        self.written = self.written.max(io);
    }

    /// Begins a write, and sends what it unlocks too early where that rule is broken on purpose.
    pub(crate) fn write_unless(
        &mut self,
        broken: Planted,
        write: Write,
        then: Vec<(Link, Message)>,
    ) -> Result<Io, Inconsistent> {
        if !self.config.breaks(broken) {
            return self.write(write, then);
        }
        let io = self.write(write, Vec::new())?;
        for (link, message) in then {
            self.send(link, message);
        }
        Ok(io)
    }

    /// Begins a write.
    pub(crate) fn write(&mut self, write: Write, then: Vec<(Link, Message)>) -> Result<Io, Inconsistent> {
        self.write_appended();
        self.ledger.apply(&write)?;
        Ok(self.persist(write, then))
    }

    fn persist(&mut self, write: Write, then: Vec<(Link, Message)>) -> Io {
        self.issued.0 += 1;
        self.out.push(Action::Persist { io: self.issued, write, then });
        self.issued
    }

    /// Appends transactions, which get their write with those that come at the same time. It unlocks the last `then` of them.
    pub(crate) fn append(
        &mut self,
        after: Zxid,
        txns: Vec<Txn>,
        then: Option<(Link, Message)>,
    ) -> Result<(), Inconsistent> {
        let write = Write::Append { after, txns };
        self.ledger.apply(&write)?;
        if self.appended.is_empty() {
            self.appended_after = after;
        }
        if let Write::Append { txns, .. } = write {
            self.appended.extend(txns);
        }
        self.unlocks = then;
        Ok(())
    }

    /// Transactions that no write has yet, and the one before them.
    pub(crate) fn appended(&self) -> (Zxid, &[Txn]) {
        (self.appended_after, &self.appended)
    }

    /// Begins the write of what was appended; gives its number.
    pub(crate) fn write_appended(&mut self) -> Option<Io> {
        if self.appended.is_empty() {
            return None;
        }
        let write = Write::Append { after: self.appended_after, txns: std::mem::take(&mut self.appended) };
        let then = self.unlocks.take().into_iter().collect();
        Some(self.persist(write, then))
    }

    /// Delivers all that is committed through here.
    pub(crate) fn deliver(&mut self, through: Zxid) {
        let history = self.ledger.history();
        debug_assert!(through <= history.last(), "{through} is committed, and the history ends at {}", history.last());
        if self.delivered < history.floor() {
            self.out.push(Action::Restore(history.snapshot()));
            self.delivered = history.snapshot();
        }
        if through > self.delivered {
            self.out.extend(history.between(self.delivered, through).cloned().map(Action::Deliver));
            self.delivered = through;
        }
    }

    /// Whether this server votes: one that has lost its log does not before it has all again.
    pub(crate) fn votes(&self) -> bool {
        let may = self.ledger.returning().is_none() || self.config.breaks(Planted::VoteWithoutLog);
        self.config.is_voter() && may
    }

    /// This server's own vote.
    pub(crate) fn own_vote(&self) -> Vote {
        #[cfg(feature = "planted")]
        if self.config.chaotic {
            // Another order each round.
            let number =
                self.round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.config.id.0.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let zxid = Zxid::from_u64(number.wrapping_mul(0x94d0_49bb_1331_11eb));
            return Vote { epoch: Epoch(0), zxid, preferred: self.preferred, server: self.config.id };
        }
        let linked = self.links.keys().filter(|peer| self.config.voters.contains(peer)).count();
        if linked + 1 < self.config.majority() {
            // It could not lead: any other is a better choice.
            return Vote { epoch: Epoch(0), zxid: Zxid::ZERO, preferred: false, server: self.config.id };
        }
        Vote {
            epoch: self.ledger.current(),
            zxid: self.ledger.history().last(),
            preferred: self.preferred,
            server: self.config.id,
        }
    }
}
