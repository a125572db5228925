//! The order of votes.

use crossdock_zab::{Epoch, ServerId, Vote, Zxid};
use proptest::prelude::*;

fn vote() -> impl Strategy<Value = Vote> {
    (0..3_u32, 0..3_u32, 0..3_u32, any::<bool>(), 0..4_u64).prop_map(|(epoch, of, counter, preferred, server)| Vote {
        epoch: Epoch(epoch),
        zxid: Zxid::new(Epoch(of), counter),
        preferred,
        server: ServerId(server),
    })
}

proptest! {
    /// Strict and total: of two votes that differ one is the better, whoever compares.
    #[test]
    fn of_two_votes_one_is_better(a in vote(), b in vote(), c in vote()) {
        prop_assert_eq!(a < b, b > a);
        prop_assert_eq!(a == b, a >= b && b >= a);
        prop_assert!(a < b || b < a || a == b);
        prop_assert!(a >= b || b >= c || a < c);
    }

    /// First the epoch, then the history, then the last leader's word, then the id.
    #[test]
    fn history_comes_before_all_else(a in vote(), b in vote()) {
        let history = (a.epoch, a.zxid).cmp(&(b.epoch, b.zxid));
        let rest = (a.preferred, a.server).cmp(&(b.preferred, b.server));
        prop_assert_eq!(a.cmp(&b), history.then(rest));
    }

    /// A zxid is ordered as its number is.
    #[test]
    fn a_zxid_is_ordered_as_its_number(a in any::<u64>(), b in any::<u64>()) {
        let (of_a, of_b) = (Zxid::from_u64(a), Zxid::from_u64(b));
        prop_assert_eq!(of_a.to_u64(), a);
        prop_assert_eq!(of_a.cmp(&of_b), a.cmp(&b));
    }
}
