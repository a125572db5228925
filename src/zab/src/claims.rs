//! Bounds the epochs that peers may claim.
//!
//! acceptedEpoch is durable and never decreases, so one bogus epoch, once accepted, would exhaust the 32-bit epoch space for good. Zab cannot
//! verify a claim, but elections bound what is plausible. A new epoch is one above the highest known to a quorum. A server therefore gets
//! ahead of its peers by one for each attempt to lead that none of them hears of, which takes an election and a connection that breaks right
//! after it; and it falls behind by one for each election that it misses.
//!
//! Accepted are therefore:
//!
//! - an epoch one above acceptedEpoch, always: an election produces it;
//! - leaps beyond that, by [`LEAP_MAX`] epochs in total. The budget refills at one epoch per [`TICKS`] ticks, one per second with the default tick.
//!   2³² epochs thus last more than a century of continuous leaps, or several years of back-to-back elections. The budget is not durable:
//!   restarting an instance during an attack grants another leap;
//! - the first epoch of a server with acceptedEpoch 0, up to [`FIRST_MAX`], so that a new server can join a cluster of any age.
//!
//! A rejected claim closes the connection and has no other effect: the quorum continues without its sender. A server whose own acceptedEpoch is
//! bogus, or that was away for longer than the budget covers, rejoins with a new log (`crossdock cluster init`).

use crate::Epoch;
use crate::base::Base;

/// Epochs by which one server may be ahead of another: two years of one election per minute.
const LEAP_MAX: u32 = 1 << 20;
/// The highest first epoch of a server.
const FIRST_MAX: Epoch = Epoch(1 << 31);
/// Ticks after which the budget for leaps grows by one epoch.
const TICKS: u64 = 50;

/// Epoch claims of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Claims {
    /// The highest accepted claim.
    highest: Epoch,
    /// The spent part of the budget for leaps, in ticks.
    debt: u64,
}

impl Base {
    /// The highest known epoch: acceptedEpoch, or an accepted claim of a peer.
    pub(crate) fn known_epoch(&self) -> Epoch {
        self.log_state.accepted_epoch().max(self.claims.highest)
    }

    /// Checks the acceptedEpoch of a follower; if plausible, it becomes known.
    pub(crate) fn accept_claim(&mut self, epoch: Epoch) -> bool {
        self.accept(epoch, LEAP_MAX)
    }

    /// Checks the NEWEPOCH of a leader, which may be one above the highest plausible claim of a follower.
    pub(crate) fn accept_new_epoch(&mut self, epoch: Epoch) -> bool {
        let is_first = self.log_state.accepted_epoch() == Epoch(0) && epoch <= FIRST_MAX;
        is_first || self.accept(epoch, LEAP_MAX + 1)
    }

    fn accept(&mut self, to: Epoch, max: u32) -> bool {
        // A known epoch that is not accepted yet has used the free step.
        let step = u32::from(self.claims.highest <= self.log_state.accepted_epoch());
        let leap = to.0.saturating_sub(self.known_epoch().0).saturating_sub(step);
        let debt = self.claims.debt + u64::from(leap) * TICKS;
        if leap > 0 && debt > u64::from(max) * TICKS {
            return false;
        }
        self.claims.debt = debt;
        self.claims.highest = self.claims.highest.max(to);
        true
    }

    /// Refills the budget; called once per tick.
    pub(crate) fn refill_leaps(&mut self) {
        self.claims.debt = self.claims.debt.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, LogId, LogState, ServerId, Zxid};

    #[test]
    fn many_small_steps_count_as_a_leap() {
        let config = Config::new(ServerId(1), LogId(1));
        let mut base = Base::new(config, LogState::default(), Zxid::ZERO);
        let accepted = (1..2 * LEAP_MAX).take_while(|epoch| base.accept_claim(Epoch(*epoch))).count();
        assert_eq!(accepted, LEAP_MAX as usize + 1);
        (0..TICKS * 3).for_each(|_| base.refill_leaps());
        assert!(base.accept_claim(Epoch(LEAP_MAX + 4)));
        assert!(!base.accept_claim(Epoch(LEAP_MAX + 5)));
        assert!(base.accept_claim(Epoch(7)), "a known epoch is not a leap");
    }
}
