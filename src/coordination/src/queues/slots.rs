//! How the slots of a queue are divided among its consumers.
//!
//! Each slot has at most one holder. Slots are divided as evenly as possible: one that is free goes to the consumer that has
//! fewest, and a consumer that has more than its share is asked for some of them. It keeps them until it gives them back, so that a slot
//! never has two holders, and loses them with its session.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{SessionId, Token};

/// A slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// The session that holds it, and the token: the zxid of the command that granted it.
    pub holder: Option<(SessionId, Token)>,
    /// The holder was asked to give it back.
    pub is_recalled: bool,
}

/// A change of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Granted(u32),
    Recalled(u32),
}

/// Slots and consumers.
#[derive(Debug, Clone)]
pub struct Slots {
    slots: Arc<[Slot]>,
    /// The consumers, in the order of their sessions.
    consumers: Arc<Vec<SessionId>>,
}

impl Slots {
    pub(crate) fn new(count: u32) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), consumers: Arc::default() }
    }

    /// A slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> Slot {
        self.slots[slot as usize]
    }

    /// All slots, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Slot)> {
        (0..).zip(self.slots.iter().copied())
    }

    /// The slots that a session holds, with its tokens.
    pub fn held_by(&self, session: SessionId) -> impl Iterator<Item = (u32, Token)> {
        self.iter().filter_map(move |(number, slot)| {
            let (holder, token) = slot.holder?;
            (holder == session).then_some((number, token))
        })
    }

    /// The sessions of the consumers.
    #[must_use]
    pub fn consumers(&self) -> &[SessionId] {
        &self.consumers
    }

    /// Whether there is no consumer, and none that has slots to give back.
    pub(crate) fn are_unused(&self) -> bool {
        self.consumers.is_empty() && self.slots.iter().all(|slot| slot.holder.is_none())
    }

    /// Adds a consumer, unless it is one.
    pub(crate) fn join(&mut self, session: SessionId) {
        if let Err(at) = self.consumers.binary_search(&session) {
            Arc::make_mut(&mut self.consumers).insert(at, session);
        }
    }

    /// Removes a consumer, and asks it for its slots. It keeps them until it gives them back.
    pub(crate) fn leave(&mut self, session: SessionId) {
        self.remove(session, |slot| slot.is_recalled = true);
    }

    /// Removes a consumer, and takes its slots: its session has ended.
    pub(crate) fn end(&mut self, session: SessionId) {
        self.remove(session, |slot| *slot = Slot::default());
    }

    fn remove(&mut self, session: SessionId, change: impl Fn(&mut Slot)) {
        if let Ok(at) = self.consumers.binary_search(&session) {
            Arc::make_mut(&mut self.consumers).remove(at);
        }
        let is_held = |slot: &Slot| slot.holder.is_some_and(|(holder, _)| holder == session);
        if self.slots.iter().any(is_held) {
            Arc::make_mut(&mut self.slots).iter_mut().filter(|slot| is_held(slot)).for_each(change);
        }
    }

    /// Takes a slot from its holder, if it holds it with this token.
    pub(crate) fn give_back(&mut self, slot: u32, holder: (SessionId, Token)) {
        if self.slots.get(slot as usize).is_some_and(|slot| slot.holder == Some(holder)) {
            self.put(slot, Slot::default());
        }
    }

    pub(crate) fn put(&mut self, slot: u32, state: Slot) {
        if let Some(slot) = Arc::make_mut(&mut self.slots).get_mut(slot as usize) {
            *slot = state;
        }
    }

    /// Divides the slots among the consumers. `token` is that of new grants.
    pub(crate) fn balance(&mut self, token: Token) -> Vec<Change> {
        let mut changes = Vec::new();
        // What each keeps. The first of those with the same number is the one whose session is oldest.
        let mut kept: BTreeMap<SessionId, u32> = self.consumers.iter().map(|session| (*session, 0)).collect();
        let mut recalled = 0;
        for slot in self.slots.iter() {
            let Some((holder, _)) = slot.holder else { continue };
            if slot.is_recalled {
                recalled += 1;
            } else if let Some(count) = kept.get_mut(&holder) {
                *count += 1;
            }
        }
        let fewest = |counts: &BTreeMap<SessionId, u32>| {
            counts.iter().min_by_key(|(_, count)| **count).map(|(session, count)| (*session, *count))
        };
        let free: Vec<u32> = self.iter().filter(|(_, slot)| slot.holder.is_none()).map(|(slot, _)| slot).collect();
        for slot in free {
            let Some((session, count)) = fewest(&kept) else { return changes };
            kept.insert(session, count + 1);
            self.put(slot, Slot { holder: Some((session, token)), is_recalled: false });
            changes.push(Change::Granted(slot));
        }
        // What each will have once the recalled slots are granted again.
        let mut expected = kept.clone();
        for _ in 0..recalled {
            let Some((session, count)) = fewest(&expected) else { return changes };
            expected.insert(session, count + 1);
        }
        loop {
            let most = kept.iter().max_by_key(|(session, count)| (**count, std::cmp::Reverse(**session)));
            let most = most.map(|(session, count)| (*session, *count));
            let (Some((from, most)), Some((to, least))) = (most, fewest(&expected)) else { return changes };
            if most <= least + 1 {
                return changes;
            }
            let held = self.iter().filter(|(_, slot)| slot.holder.is_some_and(|(holder, _)| holder == from));
            let Some((number, slot)) = held.filter(|(_, slot)| !slot.is_recalled).last() else { return changes };
            self.put(number, Slot { is_recalled: true, ..slot });
            changes.push(Change::Recalled(number));
            kept.insert(from, most - 1);
            expected.insert(to, least + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(slots: &Slots) -> Vec<usize> {
        slots.consumers().iter().map(|session| slots.held_by(*session).count()).collect()
    }

    /// Gives all recalled slots back, until none is.
    fn settle(slots: &mut Slots, token: &mut u64) -> usize {
        let mut moved = 0;
        loop {
            *token += 1;
            slots.balance(Token(*token));
            let recalled: Vec<_> = slots.iter().filter(|(_, slot)| slot.is_recalled).collect();
            if recalled.is_empty() {
                return moved;
            }
            moved += recalled.len();
            for (number, slot) in recalled {
                slots.give_back(number, slot.holder.expect("a holder"));
            }
        }
    }

    #[test]
    fn a_second_consumer_gets_half_of_the_slots_and_no_more_are_moved() {
        let mut slots = Slots::new(64);
        let mut token = 0;
        slots.join(SessionId(1));
        assert_eq!(settle(&mut slots, &mut token), 0);
        assert_eq!(counts(&slots), [64]);
        slots.join(SessionId(2));
        assert_eq!(settle(&mut slots, &mut token), 32);
        assert_eq!(counts(&slots), [32, 32]);
        slots.join(SessionId(3));
        assert_eq!(settle(&mut slots, &mut token), 21);
        let mut thirds = counts(&slots);
        let thirds_of_first = thirds[0];
        thirds.sort_unstable();
        assert_eq!(thirds, [21, 21, 22]);
        slots.leave(SessionId(1));
        assert_eq!(settle(&mut slots, &mut token), thirds_of_first);
        assert_eq!(counts(&slots), [32, 32]);
        slots.end(SessionId(2));
        assert_eq!(settle(&mut slots, &mut token), 0);
        assert_eq!(counts(&slots), [64]);
    }

    proptest! {
        #[test]
        fn slots_are_divided_evenly_after_any_changes(changes in prop::collection::vec((0_u64..6, 0_u8..3, any::<bool>()), 1..40)) {
            let mut slots = Slots::new(16);
            let mut token = 0;
            for (session, change, settles) in changes {
                match change {
                    0 => slots.join(SessionId(session)),
                    1 => slots.leave(SessionId(session)),
                    _ => slots.end(SessionId(session)),
                }
                token += 1;
                slots.balance(Token(token));
                for (_, slot) in slots.iter() {
                    let is_consumer = slot.holder.is_some_and(|(session, _)| slots.consumers().contains(&session));
                    prop_assert!(is_consumer || slot.is_recalled || slots.consumers().is_empty());
                }
                if settles {
                    settle(&mut slots, &mut token);
                    let counts = counts(&slots);
                    prop_assert!(counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1);
                }
            }
        }
    }
}
