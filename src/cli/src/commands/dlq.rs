//! `crossdock dlq`: dead letters.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use crossdock_message::{ByteString, Code};
use crossdock_ports::{Adapter, Choice, DeadLetter, DeadLetters, EntrySpec, Visit};
use crossdock_routing::OrderPolicy;
use serde_json::{Value, json};

use super::queues::OfCluster;
use super::routes::admin_of;
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::read_folder;
use crossdock_gateway::{Config, ListenerConfig, adapters};

#[derive(Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters with error and number of attempts. They stay in their queue or topic, but a quorum queue counts this as a delivery.
    ///
    /// From RabbitMQ 4 on, quorum queues drop a message after 20 deliveries unless their `x-delivery-limit` is different.
    List {
        #[command(flatten)]
        source_args: Source,
        /// Select dead letters with this fault reason, such as `BODY_TOO_LARGE`.
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Print one JSON document per line.
        #[arg(long)]
        json: bool,
    },
    /// Show dead letters with headers and body.
    Show {
        #[command(flatten)]
        source_args: Source,
        /// Ids as printed by `list`.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Print only the bodies, unchanged.
        #[arg(long)]
        body: bool,
    },
    /// Send dead letters back to their original queues or topics.
    Replay {
        #[command(flatten)]
        source_args: Source,
        #[command(flatten)]
        selection: Selection,
    },
    /// Delete dead letters. Those in a topic of Kafka are no longer listed.
    Drop {
        #[command(flatten)]
        source_args: Source,
        #[command(flatten)]
        selection: Selection,
    },
}

#[derive(Args)]
pub(super) struct Source {
    /// The folder that contains crossdock.yaml and routes/.
    #[arg(long, default_value = "config", value_name = "FOLDER")]
    config: PathBuf,
    /// The dead letter queue or topic. Defaults to all of the routes.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The address of the admin listener of an instance, for queues of a cluster. Defaults to the one in the settings.
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// The maximum number of dead letters to read per queue or topic, oldest first.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    max: usize,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct Selection {
    /// Ids as printed by `list`.
    ids: Vec<String>,
    /// Select dead letters with this fault reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Select all dead letters that share an id.
    #[arg(long, requires = "ids")]
    several: bool,
    /// Select all dead letters.
    #[arg(long, conflicts_with_all = ["ids", "reason"])]
    all: bool,
}

impl Selection {
    fn matches(&self, letter: &DeadLetter) -> bool {
        let of_reason = self.reason.as_deref().is_none_or(|reason| letter.reason.as_deref() == Some(reason));
        of_reason && (self.ids.is_empty() || self.ids.iter().any(|id| *id == *letter.id))
    }
}

pub(super) fn dlq(command: DlqCommand) -> Outcome {
    match command {
        DlqCommand::List { source_args, reason, json } => list(&source_args, reason.as_deref(), json),
        DlqCommand::Show { source_args, ids, body } => show(&source_args, &ids, body),
        DlqCommand::Replay { source_args, selection } => settle(&source_args, &selection, Choice::Replay),
        DlqCommand::Drop { source_args, selection } => settle(&source_args, &selection, Choice::Drop),
    }
}

fn list(source_args: &Source, reason: Option<&str>, as_json: bool) -> Outcome {
    if !as_json {
        println!("{:<40} {:<20} {:<24} {:>8} {:>8}  ERROR", "ID", "FROM", "REASON", "ATTEMPTS", "BYTES");
    }
    let mut count = 0;
    let visited = visit_all(source_args, &mut |queue, letter| {
        if reason.is_some_and(|reason| letter.reason.as_deref() != Some(reason)) {
            return Choice::Keep;
        }
        count += 1;
        if as_json {
            println!("{}", to_json(queue, letter));
        } else {
            let or_dash = |text: &Option<ByteString>| printable(text.as_deref().unwrap_or("-"));
            let (id, source, reason) = (printable(&letter.id), or_dash(&letter.source), or_dash(&letter.reason));
            let (attempts, error) = (or_dash(&letter.attempts), or_dash(&letter.error));
            println!("{id:<40} {source:<20} {reason:<24} {attempts:>8} {:>8}  {error}", letter.body.len());
        }
        Choice::Keep
    })?;
    if !as_json {
        println!("{count} dead letters");
    }
    visited.outcome()
}

fn show(source_args: &Source, ids: &[String], only_body: bool) -> Outcome {
    use std::io::Write as _;
    let mut found: Vec<String> = Vec::new();
    let visited = visit_all(source_args, &mut |queue, letter| {
        if !ids.iter().any(|id| *id == *letter.id) {
            return Choice::Keep;
        }
        found.push(letter.id.to_string());
        if only_body {
            let _ = std::io::stdout().write_all(&letter.body);
            return Choice::Keep;
        }
        let mut shown = to_json(queue, letter);
        shown["headers"] = letter.headers.iter().map(|(name, value)| json!([&**name, &**value])).collect();
        match std::str::from_utf8(&letter.body) {
            Ok(text) => shown["body"] = text.into(),
            Err(_) => {
                let hex: String = letter.body.iter().map(|byte| format!("{byte:02x}")).collect();
                shown["body_hex"] = hex.into();
            }
        }
        println!("{shown:#}");
        Choice::Keep
    })?;
    visited.outcome()?;
    check_found(ids.iter().filter(|id| !found.contains(id)))
}

fn settle(source_args: &Source, selection: &Selection, choice: Choice) -> Outcome {
    let mut named: Vec<String> = Vec::new();
    if !selection.ids.is_empty() && !selection.several {
        let visited = visit_all(source_args, &mut |_, letter| {
            if selection.matches(letter) {
                named.push(letter.id.to_string());
            }
            Choice::Keep
        })?;
        // An unreadable queue may contain another dead letter with the same id.
        visited.outcome()?;
        if let Some(id) = selection.ids.iter().find(|id| named.iter().filter(|other| other == id).count() > 1) {
            let problem = format!(
                "several dead letters have the id `{id}`: add `--queue` or `--reason`, or `--several` to select all of them"
            );
            return Err(Failure::Error(problem));
        }
    }
    let mut found: Vec<String> = Vec::new();
    let visited = visit_all(source_args, &mut |_, letter| {
        if !selection.matches(letter) {
            return Choice::Keep;
        }
        found.push(letter.id.to_string());
        choice
    })?;
    let sum = |count: fn(&Visit) -> usize| visited.visits.iter().map(count).sum::<usize>();
    match choice {
        Choice::Replay => println!("{} replayed", sum(|visit| visit.replayed)),
        _ => println!("{} deleted", sum(|visit| visit.dropped)),
    }
    let outcome = visited.outcome();
    check_found(selection.ids.iter().filter(|id| !found.contains(id)))?;
    outcome
}

fn check_found<'a>(ids: impl Iterator<Item = &'a String>) -> Outcome {
    let mut outcome = Ok(());
    for id in ids {
        eprintln!("dead letter `{id}` not found among those read (`--max`)");
        outcome = Err(Failure::Failed);
    }
    outcome
}

/// The results of reading several queues.
#[derive(Default)]
struct Visited {
    visits: Vec<Visit>,
    /// Queues that could not be read; their errors have been printed.
    unreadable: usize,
}

impl Visited {
    /// Prints dead letters that could not be settled; fails if there are any or a queue could not be read.
    fn outcome(&self) -> Outcome {
        let failed: Vec<_> = self.visits.iter().flat_map(|visit| &visit.failed).collect();
        for (id, fault) in &failed {
            eprintln!("{} was kept: {}", printable(id), printable(&fault.to_string()));
        }
        if failed.is_empty() && self.unreadable == 0 { Ok(()) } else { Err(Failure::Failed) }
    }
}

/// Reads the dead letters of all selected queues; continues if one cannot be read.
fn visit_all(source_args: &Source, choose: &mut dyn FnMut(&str, &DeadLetter) -> Choice) -> Result<Visited, Failure> {
    let config = read_folder(&source_args.config, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    on_local_runtime(async {
        let mut queues = dead_letter_queues(&config)?;
        queues.extend(queues_of_cluster(&config, source_args)?);
        if let Some(wanted) = &source_args.queue {
            queues.retain(|queue| queue.name() == wanted);
        }
        if queues.is_empty() {
            let problem = match &source_args.queue {
                Some(queue) => format!("no route has the dead letter queue or topic `{queue}`"),
                None => "no route has a place for dead letters: add `dead_letter: NAME` to an entry".to_owned(),
            };
            return Err(Failure::Error(problem));
        }
        let mut visited = Visited::default();
        for queue in &queues {
            match queue.visit(source_args.max, &mut |letter| choose(queue.name(), letter)).await {
                Ok(visit) => visited.visits.push(visit),
                Err(fault) => {
                    eprintln!("{}: {fault}", queue.name());
                    visited.unreadable += 1;
                }
            }
        }
        Ok(visited)
    })?
}

/// The dead letter queues of the routes. Listeners with equal settings have the same queues and count as one.
fn dead_letter_queues(config: &Config) -> Result<Vec<Box<dyn DeadLetters>>, Failure> {
    let mut queues: Vec<Box<dyn DeadLetters>> = Vec::new();
    let identity = |listener: &ListenerConfig| (listener.adapter.name(), listener.spec.fingerprint());
    let mut seen = Vec::new();
    for listener in &config.listeners {
        let this = identity(listener);
        if seen.contains(&this) {
            continue;
        }
        let same = config.listeners.iter().filter(|other| identity(other) == this);
        let names: Vec<_> = same.map(|listener| &listener.name).collect();
        seen.push(this);
        let of_listener = |entry: &&Arc<dyn EntrySpec>| names.iter().any(|name| entry.address().listener == **name);
        let entries = config.plan.routes.iter().flat_map(|route| &route.entries).filter(of_listener);
        let entries: Vec<Arc<dyn EntrySpec>> = entries.cloned().collect();
        let adapter: &dyn Adapter = &*listener.adapter;
        let found = adapter.dead_letters(&*listener.spec, &entries);
        queues.extend(found.map_err(|error| Failure::Error(error.to_string()))?);
    }
    Ok(queues)
}

/// The queues of the cluster: those of entries, and those of routes with an order over all instances.
fn queues_of_cluster(config: &Config, source_args: &Source) -> Result<Vec<Box<dyn DeadLetters>>, Failure> {
    let mut names = Vec::new();
    for route in &config.plan.routes {
        let is_ordered = |order: &OrderPolicy| order.cluster.is_some();
        if route.policies.order.as_ref().is_some_and(is_ordered) {
            names.push(OrderPolicy::queue(&route.name));
        }
        names.extend(route.entries.iter().filter_map(|entry| Some(entry.queue()?.queue.clone())));
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let (address, token) = admin_of(source_args.admin.clone(), &source_args.config)?;
    let of =
        |queue| Box::new(OfCluster { queue, address: address.clone(), token: token.clone() }) as Box<dyn DeadLetters>;
    Ok(names.into_iter().map(of).collect())
}

fn to_json(queue: &str, letter: &DeadLetter) -> Value {
    let code = letter.code.map(|number| Code::from_number(number).unwrap_or(Code::Unknown).name());
    json!({
        "id": &*letter.id, "queue": queue, "source": letter.source.as_deref(), "code": code,
        "reason": letter.reason.as_deref(), "error": letter.error.as_deref(), "origin": letter.origin.as_deref(),
        "attempts": letter.attempts.as_deref().and_then(|text| text.parse::<u64>().ok()),
        "content_type": letter.content_type.as_deref(), "bytes": letter.body.len(),
    })
}

/// Replaces control characters, selection a terminal would interpret.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
