//! Results of messages that were processed once, by key.
//!
//! A request holds the lock of a key while its message is processed. [`Remember`] stores the result and releases that lock at
//! once: the next holder of the lock finds the result, and a holder that has lost it cannot store one.

use std::sync::Arc;

use bytes::Bytes;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use crate::answer::Refusal;
use crate::command::Remember;
use crate::context::{Context, Timer};
use crate::ids::RequestId;
use crate::injected_bug::InjectedBug;
use crate::limits::{
    EXPIRED_MAX, KEY_BYTES_MAX, MESSAGE_OVERHEAD, NAME_BYTES_MAX, RESULT_BYTES_MAX, RESULT_GROUP_BYTES_MAX,
    RESULT_GROUPS_MAX, RESULTS_BYTES_MAX, WINDOW_MS_MAX,
};

/// Time after the end of its window by which a result is forgotten, in milliseconds.
const FORGET_MS: u64 = 1_000;

/// The result of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What its duplicates get.
    pub result: Bytes,
    /// A digest of the message, to tell it from another one of the same key.
    pub digest: u64,
    /// When it is forgotten, by the state's clock.
    pub until: u64,
    /// The request that stored it.
    pub by: RequestId,
    /// The zxid of the command that stored it.
    pub(crate) zxid: u64,
}

impl Remembered {
    fn bytes(&self, key: &str) -> usize {
        self.result.len() + key.len() + MESSAGE_OVERHEAD
    }
}

/// The results of a group, which is forgotten when it has none.
#[derive(Debug, Clone, Default)]
pub struct ResultGroup {
    by_key: HashTrieMapSync<Arc<str>, Arc<Remembered>>,
    /// By the time at which they are forgotten, and their zxid.
    by_end: RedBlackTreeMapSync<(u64, u64), Arc<str>>,
    bytes: usize,
}

impl ResultGroup {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.size()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How much they count for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them by key, those to be forgotten first before the others.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Remembered)> {
        self.by_end.values().filter_map(|key| Some((&**key, &**self.by_key.get(key)?)))
    }

    fn insert(&mut self, key: Arc<str>, remembered: Remembered) {
        self.remove(&key);
        self.bytes += remembered.bytes(&key);
        self.by_end.insert_mut((remembered.until, remembered.zxid), Arc::clone(&key));
        self.by_key.insert_mut(key, Arc::new(remembered));
    }

    fn remove(&mut self, key: &Arc<str>) {
        let Some(old) = self.by_key.get(key) else { return };
        self.bytes -= old.bytes(key);
        self.by_end.remove_mut(&(old.until, old.zxid));
        self.by_key.remove_mut(key);
    }

    /// The one that is forgotten first, and when.
    fn first(&self) -> Option<(u64, Arc<str>)> {
        self.by_end.first().map(|((until, _), key)| (*until, Arc::clone(key)))
    }
}

/// All results, by group and key.
#[derive(Debug, Clone, Default)]
pub struct Results {
    groups: RedBlackTreeMapSync<Arc<str>, ResultGroup>,
    bytes: usize,
}

impl Results {
    /// The result of a key, unless it was to be forgotten before `now`, a time of the state's clock.
    #[must_use]
    pub fn get(&self, group: &str, key: &str, now: u64) -> Option<&Remembered> {
        let found = self.groups.get(group)?.by_key.get(key)?;
        (now < found.until).then_some(&**found)
    }

    /// All groups by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ResultGroup)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// How much all of them count for, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether this request has stored the result of the key.
    pub(crate) fn is_stored_by(&self, command: &Remember, id: RequestId) -> bool {
        let group = self.groups.get(command.group.as_str());
        group.and_then(|group| group.by_key.get(command.key.as_str())).is_some_and(|remembered| remembered.by == id)
    }

    /// Stores a result. Beyond the limits of its group, those that are forgotten first make room for it.
    ///
    /// # Errors
    /// It is out of its limits, or there is no room for it.
    pub(crate) fn store(&mut self, command: Remember, by: RequestId, context: &mut Context<'_>) -> Result<(), Refusal> {
        let Remember { group: name, key, digest, window_ms, keys_max, result, .. } = command;
        let is_valid = (1..=NAME_BYTES_MAX).contains(&name.len())
            && (1..=KEY_BYTES_MAX).contains(&key.len())
            && (1..=WINDOW_MS_MAX).contains(&window_ms)
            && keys_max > 0
            && result.len() <= RESULT_BYTES_MAX;
        if !is_valid {
            return Err(Refusal::Invalid);
        }
        let known = self.groups.get_key_value(name.as_str()).map(|(name, group)| (Arc::clone(name), group.clone()));
        if known.is_none() && self.groups.size() >= RESULT_GROUPS_MAX {
            return Err(Refusal::TooMany);
        }
        let (name, mut group) = known.unwrap_or_else(|| (name.into(), ResultGroup::default()));
        let before = group.bytes;
        let key: Arc<str> = key.into();
        let until = context.now.saturating_add(window_ms);
        // A slice of the command would keep all of it in memory.
        let result = Bytes::copy_from_slice(&result);
        let remembered = Remembered { result, digest, until, by, zxid: context.zxid };
        let bytes = remembered.bytes(&key);
        group.remove(&key);
        let keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX);
        for _ in 0..EXPIRED_MAX {
            if group.len() < keys_max && group.bytes + bytes <= RESULT_GROUP_BYTES_MAX {
                break;
            }
            let Some((_, oldest)) = group.first() else { break };
            group.remove(&oldest);
        }
        if self.bytes - before + group.bytes + bytes > RESULTS_BYTES_MAX {
            return Err(Refusal::Full);
        }
        group.insert(key, remembered);
        self.bytes = self.bytes - before + group.bytes;
        self.put_group(name, group, context);
        Ok(())
    }

    /// Forgets what is due of a group, up to a limit. Returns how many it forgot.
    pub(crate) fn expire(&mut self, name: &Arc<str>, max: usize, context: &mut Context<'_>) -> usize {
        let Some(mut group) = self.groups.get(name).cloned() else { return 0 };
        let before = group.bytes;
        let is_early = context.has_bug(InjectedBug::ForgetResult);
        let mut forgotten = 0;
        while forgotten < max
            && let Some((_, key)) = group.first().filter(|(until, _)| *until <= context.now || is_early)
        {
            group.remove(&key);
            forgotten += 1;
        }
        self.bytes = self.bytes - before + group.bytes;
        if group.is_empty() {
            self.groups.remove_mut(name);
        } else {
            self.put_group(Arc::clone(name), group, context);
        }
        forgotten
    }

    /// Adds a result of a snapshot.
    pub(crate) fn restore(&mut self, name: Arc<str>, key: Arc<str>, remembered: Remembered, context: &mut Context<'_>) {
        let mut group = self.groups.get(&name).cloned().unwrap_or_default();
        let before = group.bytes;
        group.insert(key, remembered);
        self.bytes = self.bytes - before + group.bytes;
        self.put_group(name, group, context);
    }

    fn put_group(&mut self, name: Arc<str>, group: ResultGroup, context: &mut Context<'_>) {
        if let Some((until, _)) = group.first() {
            let is_early = context.has_bug(InjectedBug::ForgetResult);
            // Nobody sees it from then on; to forget it together with others saves commands.
            let deadline = if is_early { context.now + 1 } else { until.saturating_add(FORGET_MS) };
            context.set_timer(Timer::Results(Arc::clone(&name)), deadline);
        }
        self.groups.insert_mut(name, group);
    }
}
