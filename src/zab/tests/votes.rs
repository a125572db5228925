//! The order of votes.

use crossdock_zab::{Epoch, ServerId, Vote, Zxid};
use proptest::prelude::*;

fn vote() -> impl Strategy<Value = Vote> {
    let numbers = (0..3_u32, 0..3_u32, 0..3_u32, 0..4_u64);
    (any::<bool>(), numbers, any::<bool>()).prop_map(|(electable, (epoch, of, counter, server), preferred)| Vote {
        electable,
        epoch: Epoch(epoch),
        zxid: Zxid::new(Epoch(of), counter),
        preferred,
        server: ServerId(server),
    })
}

proptest! {
    /// The order is strict and total.
    #[test]
    fn votes_are_totally_ordered(a in vote(), b in vote(), c in vote()) {
        prop_assert_eq!(a < b, b > a);
        prop_assert_eq!(a == b, a >= b && b >= a);
        prop_assert!(a < b || b < a || a == b);
        prop_assert!(a >= b || b >= c || a < c);
    }

    /// Electable, then epoch, then history, then the last leader's preference, then id.
    #[test]
    fn a_candidate_that_can_lead_outranks_the_history_which_outranks_preference_and_id(a in vote(), b in vote()) {
        let history = (a.electable, a.epoch, a.zxid).cmp(&(b.electable, b.epoch, b.zxid));
        let rest = (a.preferred, a.server).cmp(&(b.preferred, b.server));
        prop_assert_eq!(a.cmp(&b), history.then(rest));
    }

    /// The order of zxids is the order of their packed form.
    #[test]
    fn zxids_are_ordered_like_their_packed_form(a in any::<u64>(), b in any::<u64>()) {
        let (of_a, of_b) = (Zxid::from_u64(a), Zxid::from_u64(b));
        prop_assert_eq!(of_a.to_u64(), a);
        prop_assert_eq!(of_a.cmp(&of_b), a.cmp(&b));
    }
}
