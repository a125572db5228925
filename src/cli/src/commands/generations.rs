//! `crossdock routes push`, `promote`, `withdraw`, `history` and `rollback`: one version of the routes for all instances of a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::{Value, json};
use similar::TextDiff;

use super::cluster::Gateway;
use super::locks::text;
use super::routes::{admin_of, exchange, fetch, print_columns};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::{adapters, files_to_push, read_folder};

const GENERATIONS: &str = "/api/v1/routes/generations";
/// Interval between two looks at a folder that is watched, and the most files that are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const WATCHED_FILES_MAX: usize = 10_000;
/// Time until a push is tried again that failed, as while another generation is staged.
const WATCH_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// Lines around a difference.
const CONTEXT: usize = 3;

#[derive(Subcommand)]
pub(super) enum GenerationsCommand {
    /// Put the routes and contracts of a folder into force on all instances of a cluster.
    ///
    /// The folder is checked like by `crossdock check`, and the differences to the routes in force are shown. Each instance prepares them; if one cannot,
    /// nothing changes, and its problem is shown. Otherwise, one transaction of the cluster puts it into force, and each instance switches when it learns of that. From then on, the
    /// routes in the folders of instances are not used any more. crossdock.yaml is not pushed: each instance has its own.
    Push {
        /// The folder that contains crossdock.yaml and routes/.
        folder: PathBuf,
        /// Why, for the history.
        #[arg(long, default_value = "")]
        comment: String,
        /// Show the differences only.
        #[arg(long)]
        dry_run: bool,
        /// Only these instances serve it at first, by the `id` in their settings; repeat it for several. All instances prepare it. `promote` puts it into force on all,
        /// `withdraw` ends it.
        #[arg(long, value_name = "ID")]
        stage: Vec<u64>,
        /// Go on: push the folder again whenever it changes, until the command is stopped. What is not valid is reported and not pushed; a push that fails is tried again.
        #[arg(long, conflicts_with_all = ["dry_run", "stage"])]
        watch: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Put the generation into force on all instances that is staged on some.
    Promote {
        /// Why, for the history.
        #[arg(long, default_value = "")]
        comment: String,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// End the generation that is staged on some instances: they serve the one in force again.
    Withdraw {
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Show the generations that are and were in force, and the last one that was rejected.
    History {
        /// Print the JSON response of the gateway.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Put the files of an earlier generation into force again.
    Rollback {
        /// Its number; the one before the generation in force by default.
        number: Option<u64>,
        /// Why, for the history.
        #[arg(long, default_value = "")]
        comment: String,
        #[command(flatten)]
        gateway: Gateway,
    },
}

type Files = BTreeMap<String, Vec<u8>>;

pub(super) fn generations(command: GenerationsCommand) -> Outcome {
    match command {
        GenerationsCommand::Push { folder, comment, watch: true, gateway, .. } => watch(&folder, &comment, gateway),
        GenerationsCommand::Push { folder, comment, dry_run, stage, gateway, .. } => {
            push(&folder, &comment, dry_run, &stage, gateway)
        }
        GenerationsCommand::Promote { comment, gateway } => promote(&comment, gateway),
        GenerationsCommand::Withdraw { gateway } => withdraw(gateway),
        GenerationsCommand::History { json, gateway } => history(json, gateway),
        GenerationsCommand::Rollback { number, comment, gateway } => rollback(number, &comment, gateway),
    }
}

/// The files of a folder, once they are checked.
fn checked_files(folder: &Path) -> Result<Files, Failure> {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    let files = files_to_push(folder, &config).map_err(|problem| Failure::Error(problem.to_string()))?;
    let files: Files = files.into_iter().map(|(path, content)| (path, content.to_vec())).collect();
    if files.is_empty() {
        return Err(Failure::Error(format!("`{}` has no route files", folder.display())));
    }
    Ok(files)
}

fn push(folder: &Path, comment: &str, dry_run: bool, stage: &[u64], gateway: Gateway) -> Outcome {
    let files = checked_files(folder)?;
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    push_files(&address, token.as_deref(), &files, (comment, stage), dry_run)
}

fn push_files(
    address: &str,
    token: Option<&str>,
    files: &Files,
    (comment, stage): (&str, &[u64]),
    dry_run: bool,
) -> Outcome {
    let unreachable = |_| Failure::Error("it is not known which routes are in force".to_owned());
    let (base, in_force) = files_of(address, token, None).map_err(unreachable)?;
    let changed = print_diff(&in_force, files);
    if changed == 0 {
        println!("these are the files of generation {base}, which is in force");
        return Ok(());
    }
    if dry_run {
        return Ok(());
    }
    let encoded: BTreeMap<_, _> = files.iter().map(|(path, content)| (path, STANDARD.encode(content))).collect();
    let stage: Vec<String> = stage.iter().map(|id| format!("instance {id}")).collect();
    let body = json!({ "files": encoded, "base": base, "stage": stage, "author": author(), "comment": comment });
    propose(address, token, &body)
}

/// Pushes a folder whenever it changes, until the process is stopped.
fn watch(folder: &Path, comment: &str, gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let (mut seen, mut tried): (_, Option<(u64, Option<Instant>)>) = (None, None);
    loop {
        let now = content_of(folder);
        let is_due = match tried {
            None => true,
            Some((content, retry_at)) => content != now || retry_at.is_some_and(|at| at <= Instant::now()),
        };
        // Not while it is being written: it has to be the same twice.
        if seen == Some(now) && is_due {
            let retry_at = match checked_files(folder) {
                // It does not get better by itself.
                Err(Failure::Failed) => None,
                Err(failure) => return Err(failure),
                Ok(files) => match push_files(&address, token.as_deref(), &files, (comment, &[]), false) {
                    Ok(()) => None,
                    Err(failure) => {
                        if let Failure::Error(problem) = failure {
                            eprintln!("{problem}");
                        }
                        eprintln!("trying again in {} s", WATCH_RETRY_INTERVAL.as_secs());
                        Some(Instant::now() + WATCH_RETRY_INTERVAL)
                    }
                },
            };
            tried = Some((now, retry_at));
        }
        seen = Some(now);
        on_local_runtime(async { tokio::time::sleep(WATCH_INTERVAL).await })?;
    }
}

/// A digest of the names, lengths and times of all files below a folder.
fn content_of(folder: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let (mut open, mut hasher, mut count) = (vec![folder.to_owned()], DefaultHasher::new(), 0);
    while let Some(folder) = open.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::path);
        for entry in entries.into_iter().take(WATCHED_FILES_MAX.saturating_sub(count)) {
            count += 1;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => (entry.path(), metadata.len(), metadata.modified().ok()).hash(&mut hasher),
                Err(_) => {}
            }
        }
    }
    hasher.finish()
}

/// The generation that is staged.
fn staged(address: &str, token: Option<&str>) -> Result<u64, Failure> {
    let response = on_local_runtime(async move { fetch(address, token, GENERATIONS).await })??;
    let body: Value = serde_json::from_str(&response).unwrap_or_default();
    body["staged"]["number"].as_u64().ok_or_else(|| Failure::Error("no generation is staged".to_owned()))
}

fn promote(comment: &str, gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let number = staged(&address, token.as_deref())?;
    let body = json!({ "promote": number, "author": author(), "comment": comment });
    propose(&address, token.as_deref(), &body)
}

fn withdraw(gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let number = staged(&address, token.as_deref())?;
    propose(&address, token.as_deref(), &json!({ "withdraw": number }))
}

/// Who runs the command, as far as the environment says.
fn author() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.unwrap_or_else(|_| "unknown".to_owned())
}

fn rollback(number: Option<u64>, comment: &str, gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let (base, in_force) = files_of(&address, token.as_deref(), None)?;
    let number = match number {
        Some(number) => number,
        None => before(&address, token.as_deref(), base)?,
    };
    let (_, files) = files_of(&address, token.as_deref(), Some(number))?;
    print_diff(&in_force, &files);
    let body = json!({ "rollback": number, "base": base, "author": author(), "comment": comment });
    propose(&address, token.as_deref(), &body)
}

/// The generation that was in force before this one.
fn before(address: &str, token: Option<&str>, current: u64) -> Result<u64, Failure> {
    let response = on_local_runtime(async move { fetch(address, token, GENERATIONS).await })??;
    let body: Value = serde_json::from_str(&response).unwrap_or_default();
    let numbers = body["in_force"].as_array().into_iter().flatten().filter_map(|of| of["number"].as_u64());
    let last = numbers.filter(|number| *number < current).max();
    last.ok_or_else(|| Failure::Error("there is no earlier generation".to_owned()))
}

/// The number and the files of a generation, of the one in force by default; 0 and none if there is none.
fn files_of(address: &str, token: Option<&str>, number: Option<u64>) -> Result<(u64, Files), Failure> {
    let target = match number {
        None => "/api/v1/routes/files".to_owned(),
        Some(number) => format!("/api/v1/routes/files?generation={number}"),
    };
    let response = on_local_runtime(async move { fetch(address, token, &target).await })??;
    let body: Value =
        serde_json::from_str(&response).map_err(|error| Failure::Error(format!("invalid response: {error}")))?;
    let file = |(path, content): (&String, &Value)| {
        Some((path.clone(), content.as_str().and_then(|text| STANDARD.decode(text).ok())?))
    };
    let files = body["files"].as_object().into_iter().flatten().filter_map(file).collect();
    Ok((body["number"].as_u64().unwrap_or(0), files))
}

/// Prints what changes; the number of files that do.
fn print_diff(old: &Files, new: &Files) -> usize {
    let paths: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut changed = 0;
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        if before == after {
            continue;
        }
        changed += 1;
        let as_text = |content: Option<&Vec<u8>>| content.map(|content| String::from_utf8(content.clone())).transpose();
        let name = |side: &str, content: Option<&Vec<u8>>| {
            content.map_or("/dev/null".to_owned(), |_| format!("{side}/{path}"))
        };
        match (as_text(before), as_text(after)) {
            (Ok(old), Ok(new)) => {
                let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
                let diff = TextDiff::from_lines(&old, &new);
                let mut shown = diff.unified_diff();
                print!("{}", shown.context_radius(CONTEXT).header(&name("a", before), &name("b", after)));
            }
            _ => println!("binary file {path} differs"),
        }
    }
    changed
}

/// Proposes a generation and prints the result.
fn propose(address: &str, token: Option<&str>, body: &Value) -> Outcome {
    let body = body.to_string();
    let response = on_local_runtime(async move { exchange(address, token, "POST", GENERATIONS, &body).await })?;
    let response = response.map_err(Failure::Error)?;
    let answer: Value = serde_json::from_str(&response.body).unwrap_or_default();
    if response.status == 200 {
        let number = text(&answer["generation"]);
        match (answer["withdrawn"].as_u64(), answer["stage"].as_array()) {
            (Some(number), _) => println!("generation {number} is withdrawn"),
            (None, Some(stage)) => {
                let instances: Vec<_> = stage.iter().map(text).collect();
                println!(
                    "generation {number} is served by {}: `promote` puts it into force on all",
                    instances.join(", ")
                );
            }
            (None, None) => println!("generation {number} is in force"),
        }
        return Ok(());
    }
    let problem = answer["error"].as_str().unwrap_or(&response.body);
    if response.status >= 500 {
        return Err(Failure::Error(problem.to_owned()));
    }
    eprintln!("{problem}");
    for problem in answer["problems"].as_array().into_iter().flatten() {
        eprintln!("{}: {}", text(&problem["instance"]), text(&problem["problem"]).trim_end());
    }
    Err(Failure::Failed)
}

fn history(as_json: bool, gateway: Gateway) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let response = on_local_runtime(async move { fetch(&address, token.as_deref(), GENERATIONS).await })??;
    if as_json {
        println!("{response}");
        return Ok(());
    }
    let body: Value =
        serde_json::from_str(&response).map_err(|error| Failure::Error(format!("invalid response: {error}")))?;
    let mut rows = vec![["GENERATION", "PROPOSED", "BY", "FILES", "COMMENT"].map(str::to_owned)];
    for generation in body["in_force"].as_array().into_iter().flatten() {
        let is_current = generation["number"] == body["current"];
        let files = generation["files"].as_object().map_or(0, serde_json::Map::len);
        let time = generation["time_ms"].as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        rows.push([
            format!("{}{}", text(&generation["number"]), if is_current { " (in force)" } else { "" }),
            time.map_or_else(|| "-".to_owned(), |time| format!("{time:.0}")),
            text(&generation["author"]),
            files.to_string(),
            text(&generation["comment"]),
        ]);
    }
    print_columns(&rows);
    if let Some(rejected) = body["rejected"].as_object() {
        println!("last rejected: generation {}", text(&rejected["generation"]["number"]));
        for problem in rejected["problems"].as_array().into_iter().flatten() {
            println!("  {}: {}", text(&problem["instance"]), text(&problem["problem"]).trim_end());
        }
    }
    if let Some(staged) = body["staged"].as_object() {
        let instances: Vec<_> = staged["stage"].as_array().into_iter().flatten().map(text).collect();
        println!("generation {} is staged on {}", text(&staged["number"]), instances.join(", "));
    }
    if let Some(proposal) = body["proposal"].as_object() {
        let missing: Vec<_> = proposal["missing"].as_array().into_iter().flatten().map(text).collect();
        println!("generation {} is being prepared by {}", text(&proposal["generation"]["number"]), missing.join(", "));
    }
    Ok(())
}
