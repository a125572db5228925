//! Histories that differ, which Zab excludes: a log was copied, restored from a backup, or damaged in a way that its
//! checksums do not show.
//!
//! Each transaction has a hash over its whole history, so two points at the same position with different hashes prove
//! that the histories before them differ. A leader compares the end of a follower's history with its own, a follower the
//! point where it begins to adopt the leader's, and every appended transaction must continue the history. Those that
//! differ from a quorum stop; a leader that differs from a quorum of followers stops itself.

use crate::base::{Base, Next};
use crate::following::{Following, Stage as FollowerStage};
use crate::leading::{Leading, Progress, Stage};
use crate::{Fatal, Point, ServerId, ToFollower, ToLeader, Zxid};

/// Maximum number of points in a sample of a history.
const SAMPLE_LEN: usize = 256;

impl Leading {
    /// Whether the point is not of this leader's history. Unknown points are not.
    pub(crate) fn differs(base: &Base, point: Point) -> bool {
        base.log_state.history().point_at(point.zxid).is_some_and(|own| own != point)
    }

    /// Handles DIFFERS: the follower's history through `zxid` is not this leader's.
    pub(crate) fn follower_differs(&mut self, base: &mut Base, peer: ServerId, zxid: Zxid) -> Next {
        let Some(follower) = self.followers.get_mut(&peer) else { return Next::Stale };
        follower.progress = Progress::Differs(zxid);
        self.judge(base)
    }

    /// Decides who stops, once that is known: this leader, or the followers whose histories differ from a quorum's.
    pub(crate) fn judge(&mut self, base: &mut Base) -> Next {
        let differs = |(server, follower): (&ServerId, &crate::leading::Follower)| match follower.progress {
            Progress::Differs(zxid) => Some((*server, follower.votes, zxid)),
            _ => None,
        };
        let differing: Vec<_> = self.followers.iter().filter_map(differs).collect();
        let voters = differing.iter().filter(|(_, votes, _)| *votes).count();
        if let Some((.., zxid)) = differing.first().filter(|_| voters >= self.quorum) {
            return Next::Stop(Fatal::Outnumbered(*zxid));
        }
        if self.stage == Stage::Broadcast {
            let sample = base.log_state.history().sample(SAMPLE_LEN);
            for (server, _, zxid) in differing {
                let mut points = sample.clone();
                // The proof, which the sample need not have.
                points.extend(base.log_state.history().point_at(zxid));
                points.sort_by_key(|point| point.zxid);
                points.dedup();
                self.send(base, server, ToFollower::Differs(points));
            }
        }
        Next::Stay
    }
}

impl Following {
    /// Tells the leader that this server's history differs at that point, and waits for its decision.
    pub(crate) fn report_difference(&mut self, base: &mut Base, point: Point) -> Next {
        self.stage = FollowerStage::Differing;
        self.send(base, ToLeader::Differs(point.zxid));
        Next::Stay
    }

    /// Handles DIVERGED: a quorum has another history. Only a proof stops this server for good: a point where it has
    /// another hash.
    pub(crate) fn diverged(base: &Base, points: &[Point]) -> Next {
        let history = base.log_state.history();
        let is_other = |point: &&Point| history.point_at(point.zxid).is_some_and(|own| own != **point);
        let Some(other) = points.iter().filter(is_other).min_by_key(|point| point.zxid) else {
            return Next::Impossible("DIVERGED for a history that does not differ");
        };
        let is_same = |point: &&Point| point.zxid < other.zxid && history.point_at(point.zxid) == Some(**point);
        let same = points.iter().filter(is_same).map(|point| point.zxid).max().unwrap_or(Zxid::ZERO);
        Next::Stop(Fatal::OtherHistory { same, different: other.zxid })
    }
}
