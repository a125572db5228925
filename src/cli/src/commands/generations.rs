//! `crossdock routes push`, `diff`, `history` and `rollback`: one version of the routes for all instances of a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
        GenerationsCommand::Push { folder, comment, dry_run, gateway } => push(&folder, &comment, dry_run, gateway),
        GenerationsCommand::History { json, gateway } => history(json, gateway),
        GenerationsCommand::Rollback { number, comment, gateway } => rollback(number, &comment, gateway),
    }
}

fn push(folder: &Path, comment: &str, dry_run: bool, gateway: Gateway) -> Outcome {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    let files = files_to_push(folder, &config).map_err(|problem| Failure::Error(problem.to_string()))?;
    let files: Files = files.into_iter().map(|(path, content)| (path, content.to_vec())).collect();
    if files.is_empty() {
        return Err(Failure::Error(format!("`{}` has no route files", folder.display())));
    }
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let (base, in_force) = files_of(&address, token.as_deref(), None)?;
    let changed = print_diff(&in_force, &files);
    if changed == 0 {
        println!("these are the files of generation {base}, which is in force");
        return Ok(());
    }
    if dry_run {
        return Ok(());
    }
    let encoded: BTreeMap<_, _> = files.iter().map(|(path, content)| (path, STANDARD.encode(content))).collect();
    let body = json!({ "files": encoded, "base": base, "author": author(), "comment": comment });
    propose(&address, token.as_deref(), &body)
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
        println!("generation {} is in force", text(&answer["generation"]));
        return Ok(());
    }
    eprintln!("{}", answer["error"].as_str().unwrap_or(&response.body));
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
    if let Some(proposal) = body["proposal"].as_object() {
        let missing: Vec<_> = proposal["missing"].as_array().into_iter().flatten().map(text).collect();
        println!("generation {} is being prepared by {}", text(&proposal["generation"]["number"]), missing.join(", "));
    }
    Ok(())
}
