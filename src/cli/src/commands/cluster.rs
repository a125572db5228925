//! `crossdock cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::cluster_bench;
use super::routes::{admin_of, fetch};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::adapters;
use crossdock_gateway::read_folder;

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// Make the log of this instance: once, before its first start.
    ///
    /// An instance that has lost its log, or whose log is damaged, has forgotten what it promised to others. Move what is left of the log away, and
    /// say `--lost`: the instance then follows without a vote until it has all again, in an epoch that the others began after they knew of its loss.
    Init {
        /// The log was lost.
        #[arg(long)]
        lost: bool,
        /// The folder with crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Measure how fast a cluster is on this machine's disk, all instances in this process.
    Bench(cluster_bench::Bench),
    /// Show what a running instance is, and how far it has got.
    Status {
        /// The admin address; the one of the settings where nothing is said.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// The folder with crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// Look again each second, until interrupted.
        #[arg(long)]
        watch: bool,
        /// Print the JSON that the gateway gives.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn cluster(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init { lost, config } => init(&config, lost),
        ClusterCommand::Bench(bench) => cluster_bench::bench(&bench),
        ClusterCommand::Status { admin, config, watch, json } => {
            let (address, token) = admin_of(admin, &config)?;
            on_local_runtime(async move {
                print_head(json);
                loop {
                    let shown =
                        fetch(&address, token.as_deref(), "/api/v1/cluster").await.and_then(|body| show(&body, json));
                    match shown {
                        // Who watches wants to see it come back.
                        Err(Failure::Failed) if watch => {}
                        Err(failure) => return Err(failure),
                        Ok(()) if !watch => return Ok(()),
                        Ok(()) => {}
                    }
                    tokio::time::sleep(LOOK).await;
                }
            })?
        }
    }
}

fn init(folder: &std::path::Path, lost: bool) -> Outcome {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.trim_end());
        Failure::Failed
    })?;
    let none = || Failure::Misuse("the settings have no `cluster:`".into());
    let settings = config.cluster.ok_or_else(none)?;
    let others = settings.members.iter().filter(|(id, member)| **id != settings.id && member.votes).count();
    if lost && others < settings.members.values().filter(|member| member.votes).count() / 2 + 1 {
        let problem = if others == 0 {
            "it is alone: what it has lost nobody has; begin anew, without --lost"
        } else {
            "the others that vote are no majority of all, and it could never vote again; of two, both are needed"
        };
        return Err(Failure::Misuse(problem.into()));
    }
    let made = if lost { crossdock_cluster::init_after_loss(&settings) } else { crossdock_cluster::init(&settings) };
    made.map_err(|problem| {
        eprintln!("{problem}");
        Failure::Failed
    })?;
    println!("{} is the log of instance {} of `{}`", settings.data.display(), settings.id, settings.cluster);
    Ok(())
}

fn print_head(json: bool) {
    if !json {
        println!(
            "{:<4} {:<10} {:<28} {:>6} {:<7} {:>16} {:>16} {:>9}  PEERS",
            "ID", "ROLE", "PHASE", "EPOCH", "LEADER", "LAST", "APPLIED", "SYNCS"
        );
    }
}

/// Whether another instance is connected, and how far it is behind where that is known: `2:on`, `3:off`, `3:17`.
fn peer(of: &Value) -> String {
    let state = match (&of["connected"], of["lag"].as_u64()) {
        (Value::Bool(true), Some(lag)) => lag.to_string(),
        (Value::Bool(true), None) => "on".to_owned(),
        _ => "off".to_owned(),
    };
    format!("{}:{state}", of["id"])
}

fn show(body: &str, json: bool) -> Outcome {
    if json {
        println!("{body}");
        return Ok(());
    }
    let status: Value = serde_json::from_str(body).map_err(|error| Failure::Misuse(format!("bad answer: {error}")))?;
    let text = |name: &str| match &status[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let peers: Vec<String> = status["peers"].as_array().into_iter().flatten().map(peer).collect();
    let (id, role, phase, epoch, leader) = (text("id"), text("role"), text("phase"), text("epoch"), text("leader"));
    let (last, applied, syncs) = (text("last"), text("applied"), text("syncs"));
    println!(
        "{id:<4} {role:<10} {phase:<28} {epoch:>6} {leader:<7} {last:>16} {applied:>16} {syncs:>9}  {}",
        peers.join(" ")
    );
    if let Some(problem) = status["stopped"].as_str() {
        eprintln!("the instance has stopped: {problem}");
        return Err(Failure::Failed);
    }
    Ok(())
}
