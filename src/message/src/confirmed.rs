//! What was sent for a message in earlier attempts to process it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The sends that receivers have confirmed while a message was processed, over all attempts. An attempt does not repeat what an earlier one has sent, so
/// that a fan-out that failed in part is completed rather than sent again.
///
/// Sends are recognized by a digest of receiver, id and content: what an attempt makes anew is the same only if nothing of it differs.
#[derive(Debug, Default)]
pub struct ConfirmedSends(Mutex<Attempts>);

#[derive(Debug, Default)]
struct Attempts {
    current: u32,
    /// The number of sends.
    len: usize,
    /// By digest: of each send, the last attempt that made or skipped it.
    sends: HashMap<u128, Vec<u32>>,
}

impl ConfirmedSends {
    /// How many are remembered. Those that the current attempt has not made or skipped make room, others are not remembered and sent again.
    pub const LEN_MAX: usize = 20_000;

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an attempt.
    pub fn begin_attempt(&self) {
        self.attempts().current += 1;
    }

    /// Whether an earlier attempt has made this send. Each of several equal ones is skipped once.
    #[must_use]
    pub fn skip(&self, digest: u128) -> bool {
        let attempts = &mut *self.attempts();
        let made = attempts.sends.get_mut(&digest);
        let found = made.and_then(|made| made.iter_mut().find(|attempt| **attempt < attempts.current));
        found.map(|attempt| *attempt = attempts.current).is_some()
    }

    /// Remembers a send that was confirmed.
    pub fn add(&self, digest: u128) {
        let attempts = &mut *self.attempts();
        let current = attempts.current;
        if attempts.len >= Self::LEN_MAX {
            attempts.sends.retain(|_, made| {
                made.retain(|attempt| *attempt == current);
                !made.is_empty()
            });
            attempts.len = attempts.sends.values().map(Vec::len).sum();
        }
        if attempts.len < Self::LEN_MAX {
            attempts.len += 1;
            attempts.sends.entry(digest).or_default().push(current);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_skips_what_an_earlier_one_sent_as_often_as_it_was_sent() {
        let sends = ConfirmedSends::default();
        sends.begin_attempt();
        for _ in 0..2 {
            assert!(!sends.skip(5), "of the same attempt");
            sends.add(5);
        }
        for _ in 0..3 {
            sends.begin_attempt();
            assert!(!sends.skip(6), "another one");
            assert!(sends.skip(5) && sends.skip(5));
            assert!(!sends.skip(5), "the third of two");
        }
    }

    #[test]
    fn sends_of_earlier_attempts_make_room() {
        let sends = ConfirmedSends::default();
        sends.begin_attempt();
        (0..=ConfirmedSends::LEN_MAX as u128).for_each(|digest| sends.add(digest));
        assert_eq!(sends.attempts().len, ConfirmedSends::LEN_MAX);
        sends.begin_attempt();
        assert!(sends.skip(7));
        sends.add(1 << 100);
        assert_eq!(sends.attempts().len, 2);
        sends.begin_attempt();
        assert!(sends.skip(7) && sends.skip(1 << 100) && !sends.skip(8));
    }
}
