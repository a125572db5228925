//! Things that the instances of a cluster divide among them, by locks.

use std::time::Duration;

use crossdock_coordination::{Mode, hash_of, hex_of, limits::NAME_BYTES_MAX};
use crossdock_embedded::{AcquireError, Engine, Held, LockRequest, Wait};
use crossdock_ports::{Claim, ClaimGuard, Claimed, SendFuture};
use tokio::time::timeout;

/// Attempts, since another instance may take a name that was found unused.
const ATTEMPTS_MAX: usize = 16;
/// How long all of them may take.
const CLAIM_TIMEOUT: Duration = Duration::from_millis(500);

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
            // Without a session, nothing can be claimed, and callers do not wait for one.
            if !engine.has_session() {
                return None;
            }
            timeout(CLAIM_TIMEOUT, claim(&engine, names)).await.ok().flatten()
        })
    }
}

async fn claim(engine: &Engine, names: Vec<String>) -> Option<Claimed> {
    let view = engine.view();
    let unused = names.into_iter().map(shortened).enumerate().filter(|(_, name)| view.locks.get(name).is_none());
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
}

/// A name, or its first word and a digest if it is too long: clients of the API cannot use names with this word.
fn shortened(name: String) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let digest = hex_of(&hash_of(name.as_bytes()));
    format!("{} {digest}", name.split(' ').next().unwrap_or_default())
}
