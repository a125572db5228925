//! Things that the instances of a cluster divide among them, by locks.

use crossdock_coordination::{Mode, hash_of, limits::NAME_BYTES_MAX};
use crossdock_embedded::{AcquireError, Engine, Held, LockRequest, Wait};
use crossdock_ports::{Claim, ClaimGuard, Claimed, SendFuture};

/// Names that are tried after they were found unused, and taken meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// Claims by the locks of the embedded engine.
#[derive(Clone)]
pub(crate) struct Claims(pub(crate) Engine);

struct Guard(Held);

impl ClaimGuard for Guard {
    fn holds(&self) -> bool {
        self.0.validity().holds()
    }
}

impl Claim for Claims {
    fn claim(&self, names: Vec<String>) -> SendFuture<'static, Option<Claimed>> {
        let engine = self.0.clone();
        Box::pin(async move {
            let names = names.into_iter().map(|name| {
                if name.len() <= NAME_BYTES_MAX {
                    return name;
                }
                hash_of(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
            });
            let view = engine.view();
            let unused = names.enumerate().filter(|(_, name)| view.locks.get(name).is_none());
            for (at, name) in unused.take(ATTEMPTS_MAX) {
                match engine.acquire(&LockRequest::new(&name, Mode::Exclusive, Wait::Try)).await {
                    Ok(held) => return Some(Claimed { at, guard: Box::new(Guard(held)) }),
                    Err(AcquireError::NotAvailable) => {}
                    Err(problem) => {
                        tracing::debug!(name, %problem, "cannot be claimed at the moment");
                        return None;
                    }
                }
            }
            None
        })
    }
}
