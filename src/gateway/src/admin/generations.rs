//! Generations of the routes for operators: their history, their files, and pushing another one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossdock_coordination::limits::COMMENT_BYTES_MAX;
use crossdock_coordination::{Generation, Proposal, Refusal, View, hex_of};
use crossdock_embedded::{CommandError, Engine};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::locks::read;
use crate::config::PushedFiles;
use crate::pushed::{files_from_json, files_of, files_to_json};

/// How long a push may take, with some margin over the time that instances have to prepare it.
const PUSH_TIMEOUT: Duration = Duration::from_secs(25);

fn generation_json(generation: &Generation) -> Value {
    let files: BTreeMap<_, _> = generation.files.iter().map(|(path, hash)| (path.to_string(), hex_of(hash))).collect();
    json!({
        "number": generation.number, "author": &*generation.author, "comment": &*generation.comment,
        "time_ms": generation.time, "files": files, "stage": generation.stage.iter().map(|label| &**label).collect::<Vec<_>>(),
    })
}

fn label(view: &View, session: crossdock_coordination::SessionId) -> String {
    let known = view.sessions.get(session).map(|session| session.label.to_string());
    known.unwrap_or_else(|| format!("session {session}"))
}

fn proposal_json(view: &View, proposal: &Proposal) -> Value {
    let problems = proposal.problems.iter();
    let problems: Vec<_> = problems
        .map(|(session, problem)| json!({ "instance": label(view, *session), "problem": &**problem }))
        .collect();
    let missing: Vec<_> = proposal.missing.iter().map(|session| label(view, *session)).collect();
    json!({ "generation": generation_json(&proposal.generation), "missing": missing, "problems": problems })
}

/// The generations that are and were in force, the one that is being prepared, and the last one that was rejected.
pub(super) async fn generations_json(engine: &Engine) -> Result<Value, (u16, String)> {
    let view = read(engine).await?;
    let generations = &view.generations;
    Ok(json!({
        "current": generations.current().map(|current| current.number),
        "in_force": generations.in_force().map(|generation| generation_json(generation)).collect::<Vec<_>>(),
        "proposal": generations.proposal().map(|proposal| proposal_json(&view, proposal)),
        "staged": generations.staged().map(|generation| generation_json(generation)),
        "rejected": generations.rejected().map(|rejected| proposal_json(&view, rejected)),
        "instances": generations.instances().map(|session| label(&view, session)).collect::<Vec<_>>(),
    }))
}

/// The files of a generation, of the one in force by default: `generation=3`.
pub(super) async fn files_json(engine: &Engine, query: &BTreeMap<String, String>) -> Result<Value, (u16, String)> {
    let view = read(engine).await?;
    let generation = match query.get("generation") {
        None => match view.generations.current() {
            Some(current) => current,
            // None was pushed yet.
            None => return Ok(json!({ "number": 0, "files": {} })),
        },
        Some(number) => {
            let number = number.parse().map_err(|_| (400, "`generation` must be a number".to_owned()))?;
            let is_gone = || (404, format!("generation {number} is not kept; see `crossdock routes history`"));
            let staged = view.generations.staged().filter(|staged| staged.number == number);
            view.generations.get(number).or(staged).ok_or_else(is_gone)?
        }
    };
    let files = files_of(&view, generation).unwrap_or_default();
    Ok(json!({ "number": generation.number, "files": files_to_json(&files) }))
}

/// Where the files of a generation come from.
#[derive(Debug)]
enum Files {
    Given(PushedFiles),
    /// Those of a generation that is or was in force.
    Of(u64),
    /// Those of the generation that is staged, if it has this number.
    Staged(u64),
}

/// A generation to propose, or to withdraw.
#[derive(Debug)]
pub(super) enum Push {
    Propose(Proposed),
    /// End the stage of this generation.
    Withdraw(u64),
}

/// A generation to propose.
#[derive(Debug)]
pub(super) struct Proposed {
    files: Files,
    /// The labels of the instances that serve it first; none for all.
    stage: Vec<String>,
    /// The generation in force that it is based on, if it must still be.
    base: Option<u64>,
    author: String,
    comment: String,
}

impl Push {
    /// `{"files": {"routes/a.yaml": BASE64}, "base": 3, "author": "…", "comment": "…"}`, or `"rollback": 2` instead of `files`, or `"promote": 4` for those of the one
    /// that is staged; `base` is optional, and so is `"stage": ["instance 1"]`. Or `{"withdraw": 4}`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        if let (Some(number), 1) = (object.get("withdraw"), object.len()) {
            return number.as_u64().map(Self::Withdraw);
        }
        let keys = ["files", "rollback", "promote", "stage", "base", "author", "comment"];
        if !object.keys().all(|key| keys.contains(&key.as_str())) {
            return None;
        }
        let text = |key: &str| object.get(key).map_or(Some(""), Value::as_str).map(str::to_owned);
        let files = match (object.get("files"), object.get("rollback"), object.get("promote")) {
            (Some(files), None, None) => Files::Given(files_from_json(files)?),
            (None, Some(number), None) => Files::Of(number.as_u64()?),
            (None, None, Some(number)) => Files::Staged(number.as_u64()?),
            _ => return None,
        };
        let label = |label: &Value| label.as_str().map(str::to_owned);
        let stage = match object.get("stage") {
            None => Vec::new(),
            Some(stage) => stage.as_array()?.iter().map(label).collect::<Option<_>>()?,
        };
        let base = object.get("base").map_or(Some(None), |base| base.as_u64().map(Some))?;
        Some(Self::Propose(Proposed { files, stage, base, author: text("author")?, comment: text("comment")? }))
    }
}

/// Proposes a generation, and waits until it is in force, staged or rejected; or withdraws one.
pub(super) async fn push(engine: &Engine, push: Push) -> Result<Value, (u16, Value)> {
    let failed = |status: u16, problem: String| (status, json!({ "error": problem }));
    let view = read(engine).await.map_err(|(status, problem)| failed(status, problem))?;
    let Proposed { files, stage, base, author, mut comment } = match push {
        Push::Propose(proposed) => proposed,
        Push::Withdraw(number) => return withdraw(engine, number).await,
    };
    let known: Vec<_> = view.generations.instances().map(|session| label(&view, session)).collect();
    if let Some(unknown) = stage.iter().find(|label| !known.contains(label)) {
        return Err(failed(404, format!("there is no `{unknown}`; connected are {}", known.join(", "))));
    }
    if view.generations.current().is_none() && !stage.is_empty() {
        let problem = "no routes were pushed to the cluster yet: push the present ones to all instances first";
        return Err(failed(409, problem.to_owned()));
    }
    let files = match files {
        Files::Given(files) => files,
        Files::Of(number) => {
            if comment.is_empty() {
                comment = format!("rollback to generation {number}");
            }
            let found = view.generations.get(number).and_then(|generation| files_of(&view, generation));
            found.ok_or_else(|| failed(404, format!("generation {number} is not kept")))?
        }
        Files::Staged(number) => {
            let staged = view.generations.staged().filter(|staged| staged.number == number);
            let staged = staged.ok_or_else(|| failed(404, format!("generation {number} is not staged")))?;
            if comment.is_empty() {
                comment = format!("generation {number} for all instances: {}", staged.comment);
                comment.truncate(comment.floor_char_boundary(COMMENT_BYTES_MAX));
            }
            files_of(&view, staged).ok_or_else(|| failed(404, format!("generation {number} is not kept")))?
        }
    };
    let base = base.unwrap_or_else(|| view.generations.current().map_or(0, |current| current.number));
    let proposed = engine.propose_routes(base, &files, (&author, &comment), &stage).await;
    let number = proposed.map_err(|problem| match problem {
        CommandError::Refused(Refusal::Invalid) => {
            let limits = "a generation has 1 to 2000 files, which have at most 3 MiB together, and relative paths without `..`, `\\` and \
                          `:`; its comment has at most 1024 bytes, and its author at most 255";
            failed(400, limits.to_owned())
        }
        CommandError::Refused(_) => failed(409, problem.to_string()),
        _ => failed(503, problem.to_string()),
    })?;
    tracing::info!(generation = number, author, comment, "generation of the routes is proposed");
    match timeout(PUSH_TIMEOUT, decided(engine, number)).await {
        Ok(Decision::InForce) => Ok(json!({ "generation": number })),
        Ok(Decision::Staged) => Ok(json!({ "generation": number, "stage": stage })),
        Ok(Decision::Rejected(mut report)) => {
            report["error"] = json!(format!("generation {number} was rejected"));
            Err((409, report))
        }
        Err(_) => Err(failed(503, format!("it is not known what became of generation {number}"))),
    }
}

/// Ends the stage of a generation.
async fn withdraw(engine: &Engine, number: u64) -> Result<Value, (u16, Value)> {
    let failed = |status: u16, problem: String| (status, json!({ "error": problem }));
    match engine.withdraw_routes(number).await {
        Ok(()) => {
            tracing::info!(generation = number, "generation of the routes is withdrawn");
            Ok(json!({ "withdrawn": number }))
        }
        Err(CommandError::Refused(Refusal::Finished)) => Err(failed(404, format!("generation {number} is not staged"))),
        Err(problem @ CommandError::Refused(_)) => Err(failed(409, problem.to_string())),
        Err(problem) => Err(failed(503, problem.to_string())),
    }
}

enum Decision {
    InForce,
    Staged,
    Rejected(Value),
}

/// Waits until a generation is in force or staged, or was rejected.
async fn decided(engine: &Engine, number: u64) -> Decision {
    let mut changes = engine.serve_routes();
    loop {
        changes.borrow_and_update();
        let view = engine.view();
        let is_rejected = |proposal: &&Arc<Proposal>| proposal.generation.number == number;
        if view.generations.get(number).is_some() {
            return Decision::InForce;
        }
        if view.generations.staged().is_some_and(|staged| staged.number == number) {
            return Decision::Staged;
        }
        if let Some(rejected) = view.generations.rejected().filter(is_rejected) {
            return Decision::Rejected(proposal_json(&view, rejected));
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
