//! `crossdock locks` and `crossdock lock`.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use clap::{Args, Subcommand};
use crossdock_http::client::Lines;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;

use super::cluster::Gateway;
use super::routes::{admin_of, fetch, post, post_for_lines, print_columns};
use crate::outcome::{Failure, Outcome, on_local_runtime};

/// How long a command whose lock is lost has to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// The gateway sends a line several times per second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

#[derive(Subcommand)]
pub(super) enum LocksCommand {
    /// Show the locks that are held or waited for.
    List {
        /// Only those whose names begin with this.
        #[arg(default_value = "")]
        prefix: String,
        /// The maximum number of locks.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print the JSON response of the gateway.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Show the sessions of instances, which hold the locks.
    Sessions {
        /// Print the JSON response of the gateway.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Ask the holders of a lock to release it.
    Revoke {
        /// The lock.
        name: String,
        /// Why, for the holders.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Take a lock from its holders, which may not have finished: what they send later is only rejected by services that check the fencing token.
    Break {
        /// The lock.
        name: String,
        /// Who does it and why, for the holders and for other operators.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        gateway: Gateway,
    },
}

/// Run a command while a lock is held that all instances of the cluster share.
///
/// The fencing token is in the environment of the command as CROSSDOCK_LOCK_TOKEN. If the lock is lost, as when the gateway
/// stops, the command is terminated: SIGTERM, and SIGKILL five seconds later. The exit code is that of the command; 1 if the
/// lock was not acquired or was lost.
#[derive(Args)]
pub(super) struct LockCommand {
    /// The lock.
    name: String,
    /// How many seconds to wait for it.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    wait: f64,
    /// Share it with others that share it.
    #[arg(long, conflicts_with = "permits")]
    shared: bool,
    /// How many may hold it, instead of one.
    #[arg(long)]
    permits: Option<u32>,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
    #[command(flatten)]
    gateway: Gateway,
}

pub(super) fn locks(command: LocksCommand) -> Outcome {
    match command {
        LocksCommand::List { prefix, limit, json, gateway } => {
            let target = format!("/api/v1/locks?limit={limit}&prefix={}", escaped(&prefix));
            show(gateway, &target, json, print_locks)
        }
        LocksCommand::Sessions { json, gateway } => show(gateway, "/api/v1/sessions?limit=10000", json, print_sessions),
        LocksCommand::Revoke { name, reason, gateway } => {
            change(gateway, &json!({ "revoke": name, "reason": reason }), "asked")
        }
        LocksCommand::Break { name, reason, gateway } => {
            change(gateway, &json!({ "break": name, "reason": reason }), "lost it")
        }
    }
}

/// A value in a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub(super) fn show(gateway: Gateway, target: &str, json: bool, print: impl FnOnce(&Value)) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let response = on_local_runtime(async move { fetch(&address, token.as_deref(), target).await })??;
    if json {
        println!("{response}");
        return Ok(());
    }
    let body: Value = serde_json::from_str(&response).map_err(|error| invalid(&error))?;
    print(&body);
    if body["more"] == true {
        println!("… and more: see `--limit`, or name a prefix");
    }
    Ok(())
}

fn invalid(error: &serde_json::Error) -> Failure {
    Failure::Error(format!("invalid response: {error}"))
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn seconds(millis: &Value) -> String {
    millis.as_f64().map_or_else(|| "-".to_owned(), |millis| format!("{:.1} s", millis / 1e3))
}

fn print_locks(body: &Value) {
    let mut rows = vec![["LOCK", "HELD BY", "FOR", "MODE", "TOKEN", "HELD", "WAITING"].map(str::to_owned)];
    for lock in body["locks"].as_array().into_iter().flatten() {
        let holders = lock["holders"].as_array().map(Vec::as_slice).unwrap_or_default();
        if holders.is_empty() {
            let held_by = if lock["closed_ms"] == 0 { "-".to_owned() } else { "closed after a loss".to_owned() };
            let none = || "-".to_owned();
            rows.push([text(&lock["name"]), held_by, none(), none(), none(), none(), text(&lock["waiters_count"])]);
        }
        for (at, holder) in holders.iter().enumerate() {
            let once = |value: &Value| if at == 0 { text(value) } else { String::new() };
            rows.push([
                once(&lock["name"]),
                text(&holder["label"]),
                text(&holder["metadata"]),
                text(&holder["mode"]),
                text(&holder["token"]),
                seconds(&holder["held_ms"]),
                once(&lock["waiters_count"]),
            ]);
        }
    }
    print_columns(&rows);
    for broken in body["broken"].as_array().into_iter().flatten().rev().take(5) {
        let count = text(&broken["holders_count"]);
        println!("taken away: {} from {count}: {}", text(&broken["lock"]), text(&broken["reason"]));
    }
}

fn print_sessions(body: &Value) {
    let mut rows = vec![["SESSION", "OF", "TTL", "EXPIRES IN", "REQUESTS"].map(str::to_owned)];
    for session in body["sessions"].as_array().into_iter().flatten() {
        rows.push([
            text(&session["id"]),
            text(&session["label"]),
            seconds(&session["ttl_ms"]),
            seconds(&session["expires_in_ms"]),
            text(&session["requests"]),
        ]);
    }
    print_columns(&rows);
}

fn change(gateway: Gateway, body: &Value, done: &str) -> Outcome {
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let body = body.to_string();
    let response = on_local_runtime(async move { post(&address, token.as_deref(), "/api/v1/locks", &body).await })??;
    let response: Value = serde_json::from_str(&response).map_err(|error| invalid(&error))?;
    println!("{} holders {done}", text(&response["holders"]));
    Ok(())
}

pub(super) fn lock(command: LockCommand) -> Outcome {
    let LockCommand { name, wait, shared, permits, command, gateway } = command;
    let Ok(wait) = Duration::try_from_secs_f64(wait) else {
        return Err(Failure::Error("`--wait` must be a number of seconds, such as 10".to_owned()));
    };
    let (address, token) = admin_of(gateway.admin, &gateway.config)?;
    let metadata = format!("process {} of {}", std::process::id(), command.first().map_or("", String::as_str));
    let mut body =
        json!({ "lock": name, "wait_ms": u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "metadata": metadata });
    if shared {
        body["shared"] = json!(true);
    }
    if let Some(permits) = permits {
        body["permits"] = json!(permits);
    }
    on_local_runtime(async move {
        let limits = (body.to_string(), wait + Duration::from_secs(15));
        let target = "/api/v1/locks/hold";
        let mut lines = post_for_lines(&address, token.as_deref(), target, (&limits.0, limits.1)).await?;
        let first = lines.next().await.map_err(Failure::Error)?.unwrap_or_default();
        let first: Value = serde_json::from_str(&first).map_err(|error| invalid(&error))?;
        let Some(token) = first["token"].as_u64() else {
            return Err(Failure::Error(format!("the lock was lost at once: {}", text(&first["lost"]))));
        };
        run(&command, token, &mut lines).await
    })?
}

/// Runs a command for as long as the lock is held.
async fn run(command: &[String], token: u64, lines: &mut Lines) -> Outcome {
    let [program, arguments @ ..] = command else { return Err(Failure::Error("no command".to_owned())) };
    let mut started = Command::new(program);
    started.args(arguments).env("CROSSDOCK_LOCK_TOKEN", token.to_string());
    // The lock is held until the command has ended. A terminal sends SIGINT to both.
    let mut terminate = crate::run::signal_handler(SignalKind::terminate())?;
    let _interrupt = crate::run::signal_handler(SignalKind::interrupt())?;
    let child = started.spawn().map_err(|error| Failure::Error(format!("cannot run `{program}`: {error}")))?;
    let pid = pid_of(&child);
    let mut ended = tokio::task::spawn_blocking(move || wait(child));
    let mut lost = std::pin::pin!(lost(lines));
    let lost = loop {
        tokio::select! {
            ended = &mut ended => return exit(ended),
            lost = &mut lost => break lost,
            _ = terminate.recv() => signal(pid, Signal::TERM),
        }
    };
    eprintln!("crossdock: the lock was lost, and `{program}` is terminated: {lost}");
    signal(pid, Signal::TERM);
    if tokio::time::timeout(GRACE, &mut ended).await.is_err() {
        signal(pid, Signal::KILL);
        let _ = ended.await;
    }
    Err(Failure::Failed)
}

fn wait(mut child: Child) -> std::io::Result<ExitStatus> {
    child.wait()
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

fn signal(pid: Option<Pid>, signal: Signal) {
    if let Some(pid) = pid {
        // It may have ended.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until the lock is lost, and returns why.
async fn lost(lines: &mut Lines) -> String {
    loop {
        match tokio::time::timeout(SILENCE_MAX, lines.next()).await {
            Err(_) => return "the gateway does not answer".to_owned(),
            Ok(Err(problem)) => return format!("the connection to the gateway has failed: {problem}"),
            Ok(Ok(None)) => return "the gateway has stopped".to_owned(),
            Ok(Ok(Some(line))) => {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(loss) = line["lost"].as_str() {
                    return loss.to_owned();
                }
            }
        }
    }
}

/// The exit code of a command, as a shell reports it.
fn exit(ended: Result<std::io::Result<ExitStatus>, tokio::task::JoinError>) -> Outcome {
    let status = ended.map_err(|error| Failure::Error(error.to_string()))?;
    let status = status.map_err(|error| Failure::Error(error.to_string()))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    match u8::try_from(code) {
        Ok(0) => Ok(()),
        Ok(code) => Err(Failure::Exit(code)),
        Err(_) => Err(Failure::Failed),
    }
}
