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

/// The interval of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// Create the log of this instance, once, before its first start.
    ///
    /// An instance whose log is lost or damaged has forgotten what it acknowledged. Move the rest of the log away and use `--lost`: the instance then
    /// follows without a vote until it has recovered everything, in an epoch that began after the others learned of the loss.
    Init {
        /// The log of this instance was lost.
        #[arg(long)]
        lost: bool,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Measure the write performance of a cluster on the disk of this machine, with all instances in this process.
    Bench(cluster_bench::Bench),
    /// Show the role and progress of a running instance.
    Status {
        /// The address of the admin listener. Defaults to the one in the settings.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
        /// Refresh every second until interrupted.
        #[arg(long)]
        watch: bool,
        /// Print the JSON response of the gateway.
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
                        // Keep watching, to show when the instance returns.
                        Err(Failure::Failed) if watch => {}
                        Err(failure) => return Err(failure),
                        Ok(()) if !watch => return Ok(()),
                        Ok(()) => {}
                    }
                    tokio::time::sleep(WATCH_INTERVAL).await;
                }
            })?
        }
    }
}

fn init(folder: &std::path::Path, lost: bool) -> Outcome {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    let no_cluster = || Failure::Error("the settings must have `cluster:`".into());
    let settings = config.cluster.ok_or_else(no_cluster)?;
    let others = settings.members.iter().filter(|(id, member)| **id != settings.id && member.votes).count();
    if lost && others < settings.members.values().filter(|member| member.votes).count() / 2 + 1 {
        let problem = if others == 0 {
            "a cluster of one instance cannot recover a lost log from others: start with a new log, without `--lost`"
        } else {
            "`--lost` requires that the other voters are a majority of all voters: otherwise this instance could never vote again"
        };
        return Err(Failure::Error(problem.into()));
    }
    let created = if lost { crossdock_cluster::init_after_loss(&settings) } else { crossdock_cluster::init(&settings) };
    created.map_err(|problem| {
        eprintln!("{problem}");
        Failure::Failed
    })?;
    println!(
        "created {}, the log of instance {} of cluster `{}`",
        settings.data.display(),
        settings.id,
        settings.cluster
    );
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

/// The connection state of a peer, or its lag if known: `2:on`, `3:off`, `3:17`.
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
    let status: Value =
        serde_json::from_str(body).map_err(|error| Failure::Error(format!("invalid response: {error}")))?;
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
    if let Some(problem) = status["log_problem"].as_str() {
        eprintln!("the instance accepts no commands, as its log cannot grow: {problem}");
    }
    if let Some(problem) = status["stopped"].as_str() {
        eprintln!("the instance stopped: {problem}");
        return Err(Failure::Failed);
    }
    Ok(())
}
