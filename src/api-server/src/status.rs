//! Errors of the engine as those of gRPC.

use crossdock_coordination::Refusal;
use crossdock_embedded::{AcquireError, CommandError, EnqueueError};
use tonic::{Code, Status};

pub(crate) fn of_command(problem: &CommandError) -> Status {
    let code = match problem {
        CommandError::Refused(refusal) => of_refusal(*refusal),
        CommandError::Cluster(_) | CommandError::TimedOut => Code::Unavailable,
        CommandError::Unreadable => Code::Internal,
    };
    Status::new(code, problem.to_string())
}

pub(crate) fn of_acquire(problem: &AcquireError) -> Status {
    let code = match problem {
        AcquireError::NotAvailable | AcquireError::TimedOut => Code::Aborted,
        AcquireError::SessionLost | AcquireError::Lost(_) => Code::FailedPrecondition,
        AcquireError::Command(problem) => return of_command(problem),
    };
    Status::new(code, problem.to_string())
}

pub(crate) fn of_enqueue(problem: &EnqueueError) -> Status {
    match problem {
        EnqueueError::Refused(refusal) => Status::new(of_refusal(*refusal), problem.to_string()),
        EnqueueError::NotConnected => Status::unavailable(problem.to_string()),
        // It cannot be repeated without an id.
        EnqueueError::Unknown(_) => Status::unknown(problem.to_string()),
    }
}

fn of_refusal(refusal: Refusal) -> Code {
    match refusal {
        Refusal::NoSession | Refusal::Finished | Refusal::NotHeld | Refusal::Fenced | Refusal::Deadlock => {
            Code::FailedPrecondition
        }
        Refusal::Reused | Refusal::Invalid | Refusal::OtherKind => Code::InvalidArgument,
        Refusal::NotAvailable | Refusal::InUse | Refusal::OtherBase => Code::Aborted,
        Refusal::TooMany | Refusal::Full | Refusal::Exhausted => Code::ResourceExhausted,
        Refusal::Unreadable | Refusal::OtherEpoch => Code::Internal,
    }
}
