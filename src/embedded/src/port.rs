//! The engine as the port that routes use.

use std::sync::Arc;

use crossdock_coordination::{Claim, Mode, Refusal, Token};
use crossdock_ports::{
    LockEngine, LockError, LockGrant, LockLoss, LockMode, LockRequest, LockWait, SendFuture, SequenceError,
};

use crate::engine::Engine;
use crate::error::{AcquireError, CommandError};
use crate::locks::{self, Held, Wait};
use crate::requests::Loss;

impl From<Loss> for LockLoss {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Released => Self::Released,
            Loss::HoldExpired => Self::HoldExpired,
            Loss::SessionLost => Self::SessionLost,
            Loss::Broken(reason) => Self::Broken(reason),
            Loss::Unknown => Self::Unknown,
        }
    }
}

impl From<AcquireError> for LockError {
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::NotAvailable | AcquireError::TimedOut => Self::TimedOut,
            AcquireError::Lost(loss) => Self::Lost(loss.into()),
            AcquireError::Command(CommandError::Refused(Refusal::Invalid)) => Self::InvalidName,
            AcquireError::Command(CommandError::Refused(Refusal::OtherKind)) => Self::OtherKind,
            AcquireError::Command(CommandError::Refused(Refusal::TooMany)) => Self::TooMany,
            AcquireError::SessionLost | AcquireError::Command(_) => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<CommandError> for SequenceError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused(Refusal::TooMany) => Self::TooMany,
            CommandError::Refused(_) => Self::Exhausted,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

fn request_of(request: LockRequest) -> locks::LockRequest {
    let mode = match request.mode {
        LockMode::Exclusive => Mode::Exclusive,
        LockMode::Shared => Mode::Shared,
        LockMode::Permit(of) => Mode::Permit { of },
    };
    let wait = match request.wait {
        LockWait::Try => Wait::Try,
        LockWait::For(time) => Wait::For(time),
        LockWait::Forever => Wait::Forever,
    };
    let claims = request.names.into_iter().map(|lock| Claim { lock, mode }).collect();
    let LockRequest { hold, metadata, .. } = request;
    locks::LockRequest { claims, hold, metadata, ..locks::LockRequest::new("", mode, wait) }
}

impl LockGrant for Held {
    fn token(&self) -> u64 {
        let Token(token) = self.token();
        token
    }

    fn holds(&self) -> bool {
        self.validity().holds()
    }

    fn lost(&self) -> SendFuture<'_, LockLoss> {
        let mut validity = self.validity();
        Box::pin(async move { validity.lost().await.into() })
    }

    fn revoked(&self) -> SendFuture<'_, Option<Arc<str>>> {
        let mut validity = self.validity();
        Box::pin(async move { validity.revoked().await })
    }

    fn give_up(&self) {
        self.give_up();
    }
}

impl LockEngine for Engine {
    fn has_session(&self) -> bool {
        self.has_session()
    }

    fn sessions_lost(&self) -> u64 {
        self.sessions_lost()
    }

    fn acquire(&self, request: LockRequest) -> SendFuture<'_, Result<Arc<dyn LockGrant>, LockError>> {
        Box::pin(async move {
            let held = self.acquire(&request_of(request)).await?;
            Ok(Arc::new(held) as Arc<dyn LockGrant>)
        })
    }

    fn next_numbers<'a>(&'a self, sequence: &'a str, count: u64) -> SendFuture<'a, Result<u64, SequenceError>> {
        Box::pin(async move { Ok(self.next_numbers(sequence, count).await?) })
    }

    fn close(&self) -> SendFuture<'_, ()> {
        Box::pin(self.close())
    }
}
