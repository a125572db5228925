//! What a follower lacks, sent piece by piece.
//!
//! A follower that is behind gets SYNC messages only as fast as it makes them durable, and no proposals meanwhile, so
//! what waits for it does not grow with the load. Once it has everything, NEWLEADER follows, and proposals from then on.
//! What is no longer in memory is read from the log on disk, which must stay there ([`Zab::needed_after`](crate::Zab)).

use crate::base::{Base, Next};
use crate::leading::{Leading, Progress, Stage};
use crate::{Action, Link, ServerId, Session, ToFollower, Txn, Zxid};

/// SYNC messages in flight to a follower.
const WINDOW: usize = 4;

impl Leading {
    /// Starts to send the history after `after`, where the follower's history ends now.
    pub(crate) fn begin_catch_up(&mut self, base: &mut Base, peer: ServerId, after: Zxid) {
        self.set_progress(peer, Progress::CatchingUp(after));
        self.fill_window(base, peer);
    }

    /// Sends pieces while fewer than [`WINDOW`] are in flight.
    fn fill_window(&mut self, base: &mut Base, peer: ServerId) {
        while self
            .followers
            .get(&peer)
            .is_some_and(|follower| follower.in_flight < WINDOW && matches!(follower.progress, Progress::CatchingUp(_)))
        {
            self.send_next(base, peer);
        }
    }

    /// Handles RECEIVED.
    pub(crate) fn received(&mut self, base: &mut Base, peer: ServerId, zxid: Zxid) -> Next {
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        let (votes, progress) = (follower.votes, follower.progress);
        let snapshot = follower.snapshot.take();
        if self.stage == Stage::Synchronisation && votes {
            self.note_attempt();
        }
        match (progress, snapshot) {
            (Progress::Snapshot(sent), Some(summary)) if sent == zxid => {
                self.send(base, peer, ToFollower::Diff(summary));
                self.begin_catch_up(base, peer, zxid);
            }
            (Progress::CatchingUp(sent) | Progress::Reading(sent), _) if zxid <= sent => {
                if let Some(follower) = self.followers.get_mut(&peer) {
                    follower.in_flight = follower.in_flight.saturating_sub(1);
                }
                self.fill_window(base, peer);
            }
            _ => return Next::Impossible("RECEIVED of what was not sent"),
        }
        Next::Stay
    }

    /// Sends the next piece of the history, or starts to read it; with the last one, sends NEWLEADER.
    fn send_next(&mut self, base: &mut Base, peer: ServerId) {
        let Some(follower) = self.followers.get_mut(&peer) else { return };
        let Progress::CatchingUp(after) = follower.progress else { return };
        follower.in_flight += 1;
        let history = base.log_state.history();
        if after < history.floor() {
            let (link, session) = (follower.link, follower.session);
            base.out.push(Action::ReadLog { link, session, after });
            self.set_progress(peer, Progress::Reading(after));
            return;
        }
        let end = follower.withheld_after.unwrap_or(history.last());
        let txns = history.batch((after, end), base.config.sync_batch, base.config.sync_batch_bytes);
        let sent = txns.last().map_or(after, |txn| txn.zxid);
        if !txns.is_empty() {
            self.send(base, peer, ToFollower::Sync { after, txns });
        }
        if sent == end {
            self.send(base, peer, ToFollower::NewLeader(self.epoch));
            self.set_progress(peer, Progress::Synchronising);
        } else {
            self.set_progress(peer, Progress::CatchingUp(sent));
        }
    }

    /// Sends what was read from the log on disk. A follower that lacks what is no longer there starts again, with a later
    /// snapshot.
    pub(crate) fn log_read(&mut self, base: &mut Base, (link, session): (Link, Session), txns: Vec<Txn>) {
        let of = |follower: &crate::leading::Follower| follower.link == link && follower.session == session;
        let found = self.followers.iter().find(|(_, follower)| of(follower));
        let Some((peer, Progress::Reading(after))) = found.map(|(peer, follower)| (*peer, follower.progress)) else {
            return;
        };
        // What is in memory may be withheld from the follower.
        let floor = base.log_state.history().floor();
        let txns: Vec<Txn> = txns.into_iter().take_while(|txn| txn.zxid <= floor).collect();
        let Some(sent) = txns.last().map(|txn| txn.zxid) else {
            self.send(base, peer, ToFollower::Resigned { successor: None });
            self.followers.remove(&peer);
            return;
        };
        self.send(base, peer, ToFollower::Sync { after, txns });
        self.set_progress(peer, Progress::CatchingUp(sent));
        self.fill_window(base, peer);
    }

    fn set_progress(&mut self, peer: ServerId, progress: Progress) {
        if let Some(follower) = self.followers.get_mut(&peer) {
            follower.progress = progress;
        }
    }

    /// The transaction after which followers that catch up need the log.
    pub(crate) fn needed_after(&self) -> Option<Zxid> {
        let needed = self.followers.values().filter_map(|follower| match follower.progress {
            Progress::Snapshot(zxid) | Progress::CatchingUp(zxid) | Progress::Reading(zxid) => Some(zxid),
            _ => None,
        });
        needed.min()
    }
}
