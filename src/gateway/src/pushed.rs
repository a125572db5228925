//! Routes that are pushed to all instances of a cluster: this instance prepares what is proposed, and serves what is in force.

mod json;
mod kept;

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use crossdock_coordination::View;
use crossdock_embedded::Engine;
use tokio::time::{Instant, sleep, sleep_until};

pub(crate) use self::json::{files_from_json, files_to_json};
pub(crate) use self::kept::Kept;
use crate::actors::{DiscardPrepared, PrepareRoutes, Pushed, Routes, SwitchRoutes};
use crate::config::PushedFiles;
use crate::error::LoadError;

/// How long a start waits for the cluster to say which routes are in force.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until an answer is sent again that failed.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// Time until a switch that failed is tried again; it doubles.
const SWITCH_RETRY_MIN: Duration = Duration::from_secs(1);
const SWITCH_RETRY_MAX: Duration = Duration::from_secs(60);

/// The files of a generation.
pub(crate) fn files_of(view: &View, generation: &crossdock_coordination::Generation) -> Option<PushedFiles> {
    let file = |(path, hash): (&Arc<str>, _)| Some((path.to_string(), view.generations.content(hash)?.clone()));
    generation.files.iter().map(file).collect()
}

fn pushed(view: &View, generation: &crossdock_coordination::Generation) -> Option<Pushed> {
    Some(Pushed { number: generation.number, files: Arc::new(files_of(view, generation)?) })
}

fn current(view: &View) -> Option<Pushed> {
    pushed(view, view.generations.current()?)
}

/// What this instance is to serve: the generation in force, or the one that is staged on it.
fn wanted(view: &View, label: &str) -> Option<Pushed> {
    pushed(view, view.generations.of_instance(label)?)
}

/// The generation in force when an instance starts; `None` if none was pushed. Without a majority, it is the last one that was in
/// force on this instance.
///
/// # Errors
/// [`LoadError::Read`] if there is no majority, and the copy of the last one cannot be read.
pub(crate) async fn at_start(engine: &Engine, kept: &Kept) -> Result<Option<Pushed>, LoadError> {
    match engine.read_within(START_TIMEOUT).await {
        Ok(view) => {
            let in_force = current(&view);
            if let Some(pushed) = &in_force {
                keep(kept, pushed).await;
            }
            Ok(in_force)
        }
        Err(problem) => {
            // The state that was restored may be older than the copy, or the copy could not be written.
            let last = kept.read()?.into_iter().chain(current(&engine.view())).max_by_key(|pushed| pushed.number);
            let generation = last.as_ref().map(|pushed| pushed.number);
            tracing::warn!(%problem, generation, "cluster not reachable: the routes are the last ones of this instance");
            Ok(last)
        }
    }
}

async fn keep(kept: &Kept, pushed: &Pushed) {
    if let Err(problem) = kept.write(pushed).await {
        let generation = pushed.number;
        tracing::error!(%problem, generation, "routes cannot be kept: a start without a majority would use older ones");
    }
}

/// Follows the generations of the cluster for as long as the instance runs.
pub(crate) async fn follow(engine: Engine, routes: Addr<Routes>, at_start: Option<u64>, kept: Kept) {
    let mut changes = engine.serve_routes();
    let (mut served, mut answered) = (at_start, None);
    // What was to be served last: a reload takes that.
    let mut asked = at_start;
    let mut prepared: Option<(u64, String)> = None;
    let (mut switch_at, mut delay) = (Instant::now(), SWITCH_RETRY_MIN);
    loop {
        changes.borrow_and_update();
        let view = engine.view();
        let to_switch = wanted(&view, engine.label()).filter(|pushed| [served, asked] != [Some(pushed.number); 2]);
        let waits = to_switch.is_some();
        if let Some(pushed) = to_switch.filter(|_| switch_at <= Instant::now()) {
            let number = pushed.number;
            if view.generations.get(number).is_some() {
                // One that is staged may be withdrawn while this instance is alone.
                keep(&kept, &pushed).await;
            }
            asked = Some(number);
            // An error is logged, and shown in `/readyz`.
            if let Ok(Ok(_)) = routes.send(SwitchRoutes(pushed)).await {
                (served, delay) = (Some(number), SWITCH_RETRY_MIN);
                continue;
            }
            switch_at = Instant::now() + delay;
            delay = (delay * 2).min(SWITCH_RETRY_MAX);
        }
        let proposal = view.generations.proposal();
        if let Some((number, _)) = prepared
            && proposal.is_none_or(|proposal| proposal.generation.number != number)
        {
            prepared = None;
            let _ = routes.send(DiscardPrepared).await;
        }
        if let (Some(proposal), Some(session)) = (proposal, engine.session()) {
            let number = proposal.generation.number;
            if proposal.missing.contains(&session) && answered != Some((session, number)) {
                let (_, problem) = match &mut prepared {
                    Some(prepared) => prepared,
                    none => none.insert((number, prepare(&routes, &view, &proposal.generation).await)),
                };
                if engine.prepared(number, problem).await.is_ok() {
                    answered = Some((session, number));
                } else {
                    sleep(RETRY_INTERVAL).await;
                }
                continue;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(switch_at), if waits => {}
        }
    }
}

/// Prepares a generation. Returns why it cannot be; nothing if it is.
async fn prepare(routes: &Addr<Routes>, view: &View, generation: &crossdock_coordination::Generation) -> String {
    match pushed(view, generation) {
        None => "its files are missing".to_owned(),
        Some(pushed) => match routes.send(PrepareRoutes(pushed)).await {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        },
    }
}
