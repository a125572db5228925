//! A lock, with its holders and waiters.

use rpds::RedBlackTreeMapSync;

use crate::command;
use crate::ids::RequestId;
use crate::limits::{PERMITS_MAX, SHARING_WAITERS_MAX};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with others that share it.
    Shared,
    /// As one of a number of permits.
    Permit {
        /// The number of permits.
        of: u32,
    },
}

impl Mode {
    /// `None` if it is absent or invalid.
    pub(crate) fn read(mode: Option<&command::Mode>) -> Option<Self> {
        match mode? {
            command::Mode::Exclusive(_) => Some(Self::Exclusive),
            command::Mode::Shared(_) => Some(Self::Shared),
            command::Mode::PermitOf(of) => (1..=PERMITS_MAX).contains(of).then_some(Self::Permit { of: *of }),
        }
    }

    /// Its form in commands.
    #[must_use]
    pub fn to_command(self) -> command::Mode {
        match self {
            Self::Exclusive => command::Mode::Exclusive(command::Exclusive {}),
            Self::Shared => command::Mode::Shared(command::Shared {}),
            Self::Permit { of } => command::Mode::PermitOf(of),
        }
    }

    /// Whether a lock can be held in both modes, if not at the same time.
    fn is_of_same_kind(self, other: Self) -> bool {
        match (self, other) {
            (Self::Permit { of }, Self::Permit { of: other }) => of == other,
            (Self::Permit { .. }, _) | (_, Self::Permit { .. }) => false,
            _ => true,
        }
    }
}

/// How much of a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    Shared,
    Permits(u32),
    All,
}

impl Taken {
    /// How much is taken with one more in this mode; `None` if that is not possible.
    pub(super) fn and(self, mode: Mode) -> Option<Self> {
        match (self, mode) {
            (Self::Nothing, Mode::Exclusive) => Some(Self::All),
            (Self::Nothing | Self::Shared, Mode::Shared) => Some(Self::Shared),
            (Self::Nothing, Mode::Permit { .. }) => Some(Self::Permits(1)),
            (Self::Permits(taken), Mode::Permit { of }) if taken < of => Some(Self::Permits(taken + 1)),
            _ => None,
        }
    }
}

/// A lock that is held, waited for, or closed.
#[derive(Debug, Clone, Default)]
pub struct Lock {
    pub(super) holders: RedBlackTreeMapSync<RequestId, Mode>,
    /// By the zxid of the request.
    pub(super) waiters: RedBlackTreeMapSync<u64, (RequestId, Mode)>,
    /// How many of the holders have it exclusively: more than one only if the same owner acquires it again.
    pub(super) exclusive: usize,
    /// By the state's clock; nobody is granted it before. 0 if there is no timer for it.
    pub(super) closed_until: u64,
}

impl Lock {
    /// The requests that hold it, and how.
    pub fn holders(&self) -> impl Iterator<Item = (RequestId, Mode)> {
        self.holders.iter().map(|(id, mode)| (*id, *mode))
    }

    /// The requests that wait for it, and how they will hold it, in the order in which they will.
    pub fn waiters(&self) -> impl Iterator<Item = (RequestId, Mode)> {
        self.waiters.values().copied()
    }

    /// How many requests hold it, and how many wait for it.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.holders.size(), self.waiters.size())
    }

    /// Until when it is closed after the death of a holder, by the state's clock; a time in the past if it is not.
    #[must_use]
    pub fn closed_until(&self) -> u64 {
        self.closed_until
    }

    pub(super) fn taken(&self) -> Taken {
        match self.holders.first() {
            None => Taken::Nothing,
            Some(_) if self.exclusive > 0 => Taken::All,
            Some((_, Mode::Permit { .. })) => Taken::Permits(u32::try_from(self.holders.size()).unwrap_or(u32::MAX)),
            Some(_) => Taken::Shared,
        }
    }

    /// Whether a request of this zxid can hold it now, without delaying one that waits longer.
    pub(super) fn admits(&self, zxid: u64, mode: Mode, now: u64) -> bool {
        let before = self.waiters.range(..zxid).map(|(_, (_, mode))| *mode).take(SHARING_WAITERS_MAX + 1);
        let counted = |(taken, count): (Taken, usize), mode| Some((taken.and(mode)?, count + 1));
        let taken = before.chain([mode]).try_fold((self.taken(), 0), counted);
        now >= self.closed_until && taken.is_some_and(|(_, count)| count <= SHARING_WAITERS_MAX + 1)
    }

    /// Whether it may ever be held in this mode together with those that hold it or wait.
    pub(super) fn is_of_kind(&self, mode: Mode) -> bool {
        let holder = self.holders.first().map(|(_, mode)| *mode);
        let other = holder.or_else(|| self.waiters.first().map(|(_, (_, mode))| *mode));
        other.is_none_or(|other| other.is_of_same_kind(mode))
    }

    pub(super) fn add_holder(&mut self, id: RequestId, mode: Mode) {
        self.holders.insert_mut(id, mode);
        self.exclusive += usize::from(mode == Mode::Exclusive);
    }

    pub(super) fn remove_holder(&mut self, id: RequestId) {
        if let Some(Mode::Exclusive) = self.holders.get(&id) {
            self.exclusive -= 1;
        }
        self.holders.remove_mut(&id);
    }

    pub(super) fn is_unused(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty() && self.closed_until == 0
    }
}
