//! The replicated state of a gateway: none, since no route uses the cluster.

use bytes::Bytes;
use crossdock_cluster::{InvalidState, SnapshotEncoder, StateMachine};
use crossdock_zab::Zxid;

/// Executes no command and answers no query.
pub(crate) struct EmptyState;

impl StateMachine for EmptyState {
    fn apply(&mut self, _: Zxid, _: u64, _: &Bytes) -> Bytes {
        Bytes::new()
    }

    fn query(&self, _: &[u8]) -> Bytes {
        Bytes::new()
    }

    fn snapshot(&self) -> SnapshotEncoder {
        Box::new(Vec::new)
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), InvalidState> {
        match state {
            None | Some([]) => Ok(()),
            Some(_) => Err(InvalidState("it is of another version of the gateway".into())),
        }
    }
}
