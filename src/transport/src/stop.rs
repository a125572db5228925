//! The stop signal of a listener, for its many tasks.

use std::future::Future;
use std::pin::pin;

use crossdock_ports::Stop;
use tokio_util::sync::CancellationToken;

/// Runs a listener with a token that is cancelled when `stop` completes. Tasks of the listener share the token.
pub async fn with_token<F: Future>(stop: Stop, run: impl FnOnce(CancellationToken) -> F) -> F::Output {
    let token = CancellationToken::new();
    let mut running = pin!(run(token.clone()));
    tokio::select! {
        biased;
        output = &mut running => return output,
        () = stop => token.cancel(),
    }
    running.await
}
