//! A request for locks.

use std::sync::Arc;

use super::lock::Mode;
use crate::answer::Refusal;
use crate::command::Acquire;
use crate::ids::{RequestId, SessionId, Token};
use crate::limits::{CLAIMS_MAX, DELAY_MS_MAX, HOLD_MS_MAX, METADATA_BYTES_MAX, NAME_BYTES_MAX, WAIT_MS_MAX};

/// A lock of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its name.
    pub lock: Arc<str>,
    /// How it is acquired.
    pub mode: Mode,
}

/// Whether a request holds its locks. Times are by the state's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestState {
    /// It waits.
    Waiting {
        /// When it gives up.
        until: Option<u64>,
    },
    /// It holds all of them.
    Held {
        /// The fencing token.
        token: Token,
        /// Since when.
        since: u64,
        /// When it loses them.
        until: Option<u64>,
    },
}

/// A request that waits for its locks, or holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The zxid of the command.
    pub zxid: u64,
    /// Its locks.
    pub claims: Vec<Claim>,
    /// Whether it holds them.
    pub state: RequestState,
    /// How long it may hold them, in milliseconds.
    pub hold_ms: Option<u64>,
    /// How long they stay closed if they are lost, in milliseconds.
    pub delay_ms: u64,
    /// Who it is within its session.
    pub owner: Arc<str>,
    /// Whether the owner may acquire the lock again.
    pub reentrant: bool,
    /// It was exclusive, and is shared since.
    pub is_downgraded: bool,
    /// What operators see.
    pub metadata: Arc<str>,
    /// The holder was asked to release a lock, for this reason.
    pub revoked: Option<Arc<str>>,
    /// Which caller has made or repeated it last.
    pub attempt: u64,
}

impl Request {
    /// Checks a command, and makes a waiting request of it.
    pub(super) fn read(command: &Acquire, zxid: u64, now: u64) -> Result<(RequestId, Self), Refusal> {
        let Acquire { session, number, wait_ms, hold_ms, delay_ms, owner, reentrant, metadata, steal, .. } = command;
        let mut claims: Vec<Claim> = Vec::with_capacity(command.claims.len().min(CLAIMS_MAX));
        for claim in &command.claims {
            let name = claim.lock.as_str();
            let is_new = claims.iter().all(|other| *other.lock != *name);
            if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_new || claims.len() == CLAIMS_MAX {
                return Err(Refusal::Invalid);
            }
            claims.push(Claim { lock: name.into(), mode: Mode::read(claim.mode.as_ref()).ok_or(Refusal::Invalid)? });
        }
        // A permit is not entered twice, and neither are several locks, which may have several tokens.
        let can_be_reentered = claims.len() == 1 && !matches!(claims[0].mode, Mode::Permit { .. });
        let is_valid = *number > 0
            && !claims.is_empty()
            && wait_ms.is_none_or(|wait| wait <= WAIT_MS_MAX)
            && hold_ms.is_none_or(|hold| (1..=HOLD_MS_MAX).contains(&hold))
            && *delay_ms <= DELAY_MS_MAX
            && [owner, steal.as_ref().unwrap_or(owner)].iter().all(|text| text.len() <= NAME_BYTES_MAX)
            && metadata.len() <= METADATA_BYTES_MAX
            && (!reentrant || can_be_reentered);
        if !is_valid {
            return Err(Refusal::Invalid);
        }
        let request = Self {
            zxid,
            claims,
            state: RequestState::Waiting { until: wait_ms.map(|wait| now.saturating_add(wait)) },
            hold_ms: *hold_ms,
            delay_ms: *delay_ms,
            owner: owner.as_str().into(),
            reentrant: *reentrant,
            is_downgraded: false,
            metadata: metadata.as_str().into(),
            revoked: None,
            attempt: command.attempt,
        };
        Ok((RequestId { session: SessionId(*session), number: *number }, request))
    }

    /// Whether a command repeats this request.
    pub(super) fn is_repeated_by(&self, other: &Self) -> bool {
        let is_same = |(own, other): (&Claim, &Claim)| {
            own.lock == other.lock && (own.mode == other.mode || self.is_downgraded && other.mode == Mode::Exclusive)
        };
        self.claims.len() == other.claims.len()
            && self.claims.iter().zip(&other.claims).all(is_same)
            && (self.hold_ms, self.delay_ms, self.reentrant) == (other.hold_ms, other.delay_ms, other.reentrant)
            && (&self.owner, &self.metadata) == (&other.owner, &other.metadata)
    }

    /// Its length in memory, about.
    pub(super) fn len(&self) -> usize {
        let names: usize = self.claims.iter().map(|claim| claim.lock.len() + 64).sum();
        200 + names + self.owner.len() + self.metadata.len()
    }

    /// The token, if it holds its locks.
    #[must_use]
    pub fn token(&self) -> Option<Token> {
        match self.state {
            RequestState::Held { token, .. } => Some(token),
            RequestState::Waiting { .. } => None,
        }
    }

    /// Whether its time to wait or to hold is over.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        let (RequestState::Waiting { until } | RequestState::Held { until, .. }) = self.state;
        until.is_some_and(|until| until <= now)
    }
}
