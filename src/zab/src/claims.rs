//! How far an epoch that another server names may stand above those that are known here.
//!
//! An epoch is durable for ever and never falls: one false number, believed once, would use up all epochs there are. Zab itself cannot tell a
//! false number from a true one, but elections bound what can be true. A new epoch is one above the highest that a majority knew of. So a server
//! gets ahead of others by one with each try to lead that nobody hears of any more, which takes an election and a connection that breaks right
//! behind it; and it stays behind by one with each election that it does not hear of.
//!
//! What is believed, therefore:
//!
//! - One above what is promised here, always: that is what an election makes.
//! - Leaps beyond that, by [`LEAP_MAX`] epochs in all. What was leapt over is given back at one epoch in [`TICKS`] ticks, which with the usual
//!   ticks is one a second. All 2³² epochs last for more than a century of leaps, or for several years of elections without a pause. It is not
//!   durable: whoever restarts an instance while it is lied to grants another leap.
//! - The first epoch of a server that has promised nothing yet, in the lower half of all: it may join a cluster of any age.
//!
//! What is not believed ends the connection, and costs nothing else: a majority goes on without whoever said it. One whose own number is false, or
//! that was away for longer than this allows, comes back with a new log, as one that has lost its own (`crossdock cluster init --lost`).

use crate::Epoch;
use crate::base::Base;

/// How many epochs one server may be ahead of another: two years of an election a minute.
const LEAP_MAX: u32 = 1 << 20;
/// The highest epoch that a server begins with.
const FIRST_MAX: Epoch = Epoch(1 << 31);
/// Ticks in which one epoch that was leapt over is given back.
const TICKS: u64 = 50;

/// What others have said of epochs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Claims {
    /// The highest epoch that anybody was heard to have promised.
    heard: Epoch,
    /// What was leapt over and is not given back, in ticks.
    debt: u64,
}

impl Base {
    /// The highest epoch that is known here: promised here, or by others who were believed.
    pub(crate) fn known(&self) -> Epoch {
        self.ledger.accepted().max(self.claims.heard)
    }

    /// Whether a follower can have promised that epoch; it is known then.
    pub(crate) fn believes_claim(&mut self, epoch: Epoch) -> bool {
        self.leaps(epoch, LEAP_MAX)
    }

    /// Whether a leader can have come to that epoch. It may have believed a follower's claim that reached as far as one can.
    pub(crate) fn believes_invitation(&mut self, epoch: Epoch) -> bool {
        let is_first = self.ledger.accepted() == Epoch(0) && epoch <= FIRST_MAX;
        is_first || self.leaps(epoch, LEAP_MAX + 1)
    }

    fn leaps(&mut self, to: Epoch, max: u32) -> bool {
        // What is known and not promised yet is a step already.
        let step = u32::from(self.claims.heard <= self.ledger.accepted());
        let leap = to.0.saturating_sub(self.known().0).saturating_sub(step);
        let debt = self.claims.debt + u64::from(leap) * TICKS;
        if leap > 0 && debt > u64::from(max) * TICKS {
            return false;
        }
        self.claims.debt = debt;
        self.claims.heard = self.claims.heard.max(to);
        true
    }

    /// A tick has passed.
    pub(crate) fn give_back_leaps(&mut self) {
        self.claims.debt = self.claims.debt.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Config, Ledger, ServerId, Zxid};

    #[test]
    fn many_small_steps_are_a_leap() {
        let config = Config::new(ServerId(1), BTreeSet::from([ServerId(1), ServerId(2), ServerId(3)]));
        let mut base = Base::new(config, Ledger::default(), Zxid::ZERO);
        let believed = (1..2 * LEAP_MAX).take_while(|epoch| base.believes_claim(Epoch(*epoch))).count();
        assert_eq!(believed, LEAP_MAX as usize + 1);
        (0..TICKS * 3).for_each(|_| base.give_back_leaps());
        assert!(base.believes_claim(Epoch(LEAP_MAX + 4)));
        assert!(!base.believes_claim(Epoch(LEAP_MAX + 5)));
        assert!(base.believes_claim(Epoch(7)), "what is known is no leap");
    }
}
