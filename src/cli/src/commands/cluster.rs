//! `crossdock cluster`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::cluster_backup::{SnapshotCommand, force_new, snapshot};
use super::cluster_bench;
use super::cluster_check::check;
use super::routes::{admin_of, fetch, post};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::adapters;
use crossdock_gateway::read_folder;

/// The interval of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// Create the log of this instance, before its first start.
    ///
    /// With `--bootstrap`, the instance forms a new cluster with the other `members` of its settings, once all of them are connected and have new
    /// logs, too. Without it, the instance joins the cluster of the others.
    ///
    /// An instance whose log is lost or damaged has forgotten what it acknowledged. Move the rest of the log away and create another one: the
    /// instance then follows without a vote until it has recovered everything.
    Init {
        /// Form a new cluster with the members in the settings.
        #[arg(long)]
        bootstrap: bool,
        /// Confirm that the log of this instance was lost. The cluster notices that by itself.
        #[arg(long, conflicts_with = "bootstrap")]
        lost: bool,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Make an instance a voter. It has to follow the leader already, as an observer.
    #[command(visible_alias = "promote")]
    Add {
        /// The instance.
        id: u64,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Make a voter an observer. The others must be able to do without it.
    Remove {
        /// The instance.
        id: u64,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Make an instance a voter in the place of another one. It has to follow the leader already, as an observer.
    Replace {
        /// The voter that is to become an observer.
        old: u64,
        /// The instance that is to become a voter.
        new: u64,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Compare running instances: reachable, one leader, the same voters and the same history, clocks, releases, alarms.
    Check {
        /// The address of the admin listener of an instance; one for each. Defaults to the one in the settings.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Vec<String>,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Transfer leadership from the running instance to another voter.
    Transfer {
        /// The instance that is to lead. By default, any that is up to date.
        id: Option<u64>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Save the state of the cluster to a file, verify such a file, or make a new cluster from it.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Make this instance a new cluster of one, if a majority of the voters has lost its logs for good.
    ///
    /// The instance must not run. What only the lost logs had is missing from then on, although it may have been acknowledged.
    ForceNew {
        /// Confirm that acknowledged data may be missing.
        #[arg(long)]
        confirm_loss: bool,
        /// The folder that contains crossdock.yaml.
        #[arg(long, default_value = "config", value_name = "FOLDER")]
        config: PathBuf,
    },
    /// Measure the write performance of a cluster on the disk of this machine, with all instances in this process.
    Bench(cluster_bench::Bench),
    /// Show the role and progress of a running instance.
    Status {
        #[command(flatten)]
        gateway: Gateway,
        /// Refresh every second until interrupted.
        #[arg(long)]
        watch: bool,
        /// Print the JSON response of the gateway.
        #[arg(long)]
        json: bool,
    },
}

/// A running instance.
#[derive(clap::Args)]
pub(super) struct Gateway {
    /// The address of the admin listener. Defaults to the one in the settings.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) admin: Option<String>,
    /// The folder that contains crossdock.yaml.
    #[arg(long, default_value = "config", value_name = "FOLDER")]
    pub(super) config: PathBuf,
}

pub(super) fn cluster(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init { bootstrap, lost: _, config } => init(&config, bootstrap),
        ClusterCommand::Add { id, gateway } => {
            request(gateway, &json!({ "add": id }), &format!("instance {id} is a voter now"))
        }
        ClusterCommand::Remove { id, gateway } => {
            request(gateway, &json!({ "remove": id }), &format!("instance {id} is an observer now"))
        }
        ClusterCommand::Replace { old, new, gateway } => {
            let done = format!("instance {new} is a voter now, and {old} an observer");
            request(gateway, &json!({ "replace": { "old": old, "new": new } }), &done)
        }
        ClusterCommand::Check { admin, config } => check(admin, &config),
        ClusterCommand::Transfer { id, gateway } => {
            request(gateway, &json!({ "transfer": id }), "the instance no longer leads")
        }
        ClusterCommand::Snapshot(command) => snapshot(command),
        ClusterCommand::ForceNew { confirm_loss, config } => force_new(&config, confirm_loss),
        ClusterCommand::Bench(bench) => cluster_bench::bench(&bench),
        ClusterCommand::Status { gateway: Gateway { admin, config }, watch, json } => {
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

/// Sends a request to the cluster through a running instance, and says what it did.
fn request(gateway: Gateway, body: &Value, done: &str) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let body = body.to_string();
    let done = done.to_owned();
    on_local_runtime(async move {
        post(&address, token.as_deref(), "/api/v1/cluster", &body).await?;
        println!("{done}");
        Ok(())
    })?
}

/// The cluster settings in a folder.
pub(super) fn settings_in(folder: &Path) -> Result<crossdock_cluster::Settings, Failure> {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    let no_cluster = || Failure::Error("the settings must have `cluster:`".into());
    config.cluster.map(|cluster| cluster.settings).ok_or_else(no_cluster)
}

fn init(folder: &Path, bootstrap: bool) -> Outcome {
    let settings = settings_in(folder)?;
    let is_founder = settings.members.get(&settings.id).is_some_and(|member| member.votes);
    if bootstrap && !is_founder {
        let problem = "`--bootstrap` is for `members`, and this instance is an observer: run `crossdock cluster init`";
        return Err(Failure::Error(problem.into()));
    }
    crossdock_cluster::init(&settings, bootstrap).map_err(|problem| {
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
    let alarms: Vec<&str> = status["alarms"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !alarms.is_empty() {
        eprintln!("alarms: {}", alarms.join(", "));
    }
    if let Some(problem) = status["stopped"].as_str() {
        eprintln!("the instance stopped: {problem}");
        return Err(Failure::Failed);
    }
    Ok(())
}
