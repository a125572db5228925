//! Routes that are pushed to all instances of a cluster: this instance prepares what is proposed, and serves what is in force.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use crossdock_coordination::View;
use crossdock_embedded::Engine;
use tokio::time::sleep;

use crate::actors::{PrepareRoutes, Pushed, Routes, SwitchRoutes};
use crate::config::PushedFiles;

/// How long a start waits for the cluster to say which routes are in force.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until something is sent again that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The files of a generation.
pub(crate) fn files_of(view: &View, generation: &crossdock_coordination::Generation) -> Option<PushedFiles> {
    let file = |(path, hash): (&Arc<str>, _)| Some((path.to_string(), view.generations.content(hash)?.clone()));
    generation.files.iter().map(file).collect()
}

fn pushed(view: &View, generation: &crossdock_coordination::Generation) -> Option<Pushed> {
    Some(Pushed { number: generation.number, files: Arc::new(files_of(view, generation)?) })
}

/// The generation in force when an instance starts; `None` if none was pushed. Without a majority, it is the last one that this
/// instance knows.
pub(crate) async fn at_start(engine: &Engine) -> Option<Pushed> {
    let view = engine.read_within(START_TIMEOUT).await.unwrap_or_else(|problem| {
        tracing::warn!(%problem, "cluster not reachable: the routes are the last ones that this instance knows");
        engine.view()
    });
    view.generations.current().and_then(|current| pushed(&view, current))
}

/// Follows the generations of the cluster for as long as the instance runs.
pub(crate) async fn follow(engine: Engine, routes: Addr<Routes>, at_start: Option<u64>) {
    let mut changes = engine.serve_routes();
    let (mut seen, mut answered) = (at_start, None);
    loop {
        changes.borrow_and_update();
        let view = engine.view();
        if let Some(current) = view.generations.current().filter(|current| Some(current.number) != seen)
            && let Some(pushed) = pushed(&view, current)
        {
            // An error is logged, and shown in `/readyz`.
            let _ = routes.send(SwitchRoutes(pushed)).await;
            seen = Some(current.number);
            continue;
        }
        if let (Some(proposal), Some(session)) = (view.generations.proposal(), engine.session()) {
            let answer = (session, proposal.generation.number);
            if proposal.missing.contains(&session) && answered != Some(answer) {
                if prepare(&engine, &routes, &view, &proposal.generation).await {
                    answered = Some(answer);
                } else {
                    sleep(RETRY_INTERVAL).await;
                }
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Prepares a generation, and says what came of it. Whether the cluster has heard that.
async fn prepare(
    engine: &Engine,
    routes: &Addr<Routes>,
    view: &View,
    generation: &crossdock_coordination::Generation,
) -> bool {
    let problem = match pushed(view, generation) {
        None => "its files are missing".to_owned(),
        Some(pushed) => match routes.send(PrepareRoutes(pushed)).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        },
    };
    engine.prepared(generation.number, &problem).await.is_ok()
}
