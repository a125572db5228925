//! `crossdock dlq`: messages that were set aside.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use crossdock_message::{ByteString, Code};
use crossdock_ports::{Adapter, Choice, DeadLetter, DeadLetters, EntrySpec, Visit};
use serde_json::{Value, json};

use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_gateway::read_folder;
use crossdock_gateway::{Config, ListenerConfig, adapters};

#[derive(Subcommand)]
pub(super) enum DlqCommand {
    /// List dead letters: what failed, why, and how often it was tried. They stay; some brokers count each look as a delivery.
    ///
    /// Quorum queues from RabbitMQ 4 on drop what was delivered 20 times, unless the queue's `x-delivery-limit` says otherwise.
    List {
        #[command(flatten)]
        place: Place,
        /// Only those that failed for this reason, such as `BODY_TOO_LARGE`.
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Print one JSON document a line.
        #[arg(long)]
        json: bool,
    },
    /// Show dead letters whole: headers and body.
    Show {
        #[command(flatten)]
        place: Place,
        /// Their ids, as `list` prints them.
        #[arg(required = true)]
        ids: Vec<String>,
        /// Print nothing but the bytes of the bodies, as they are.
        #[arg(long)]
        body: bool,
    },
    /// Send dead letters back to the queues that they came from.
    Replay {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
    },
    /// Delete dead letters.
    Drop {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Args)]
pub(super) struct Place {
    /// The folder with crossdock.yaml and routes/.
    #[arg(long, default_value = "config", value_name = "FOLDER")]
    config: PathBuf,
    /// Only this dead letter queue; all that routes name where nothing is said.
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Dead letters of each queue that are looked at, from the oldest on.
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    max: usize,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
pub(super) struct Which {
    /// Their ids, as `list` prints them.
    ids: Vec<String>,
    /// Those that failed for this reason.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// An id that several have is that of all of them.
    #[arg(long, requires = "ids")]
    several: bool,
    /// All of them.
    #[arg(long, conflicts_with_all = ["ids", "reason"])]
    all: bool,
}

impl Which {
    fn takes(&self, letter: &DeadLetter) -> bool {
        let of_reason = self.reason.as_deref().is_none_or(|reason| letter.reason.as_deref() == Some(reason));
        of_reason && (self.ids.is_empty() || self.ids.iter().any(|id| *id == *letter.id))
    }
}

pub(super) fn dlq(command: DlqCommand) -> Outcome {
    match command {
        DlqCommand::List { place, reason, json } => list(&place, reason.as_deref(), json),
        DlqCommand::Show { place, ids, body } => show(&place, &ids, body),
        DlqCommand::Replay { place, which } => settle(&place, &which, Choice::Replay),
        DlqCommand::Drop { place, which } => settle(&place, &which, Choice::Drop),
    }
}

fn list(place: &Place, reason: Option<&str>, as_json: bool) -> Outcome {
    if !as_json {
        println!("{:<40} {:<20} {:<24} {:>5} {:>8}  ERROR", "ID", "FROM", "REASON", "TRIES", "BYTES");
    }
    let mut count = 0;
    let visited = visit_all(place, &mut |queue, letter| {
        if reason.is_some_and(|reason| letter.reason.as_deref() != Some(reason)) {
            return Choice::Keep;
        }
        count += 1;
        if as_json {
            println!("{}", told(queue, letter));
        } else {
            let or_dash = |text: &Option<ByteString>| listed(text.as_deref().unwrap_or("-"));
            let (id, source, reason) = (listed(&letter.id), or_dash(&letter.source), or_dash(&letter.reason));
            let (tries, error) = (or_dash(&letter.attempts), or_dash(&letter.error));
            println!("{id:<40} {source:<20} {reason:<24} {tries:>5} {:>8}  {error}", letter.body.len());
        }
        Choice::Keep
    })?;
    if !as_json {
        println!("{count} dead letters");
    }
    visited.ending()
}

fn show(place: &Place, ids: &[String], only_body: bool) -> Outcome {
    use std::io::Write as _;
    let mut found: Vec<String> = Vec::new();
    let visited = visit_all(place, &mut |queue, letter| {
        if !ids.iter().any(|id| *id == *letter.id) {
            return Choice::Keep;
        }
        found.push(letter.id.to_string());
        if only_body {
            let _ = std::io::stdout().write_all(&letter.body);
            return Choice::Keep;
        }
        let mut whole = told(queue, letter);
        whole["headers"] = letter.headers.iter().map(|(name, value)| json!([&**name, &**value])).collect();
        match std::str::from_utf8(&letter.body) {
            Ok(text) => whole["body"] = text.into(),
            Err(_) => {
                let hex: String = letter.body.iter().map(|byte| format!("{byte:02x}")).collect();
                whole["body_hex"] = hex.into();
            }
        }
        println!("{whole:#}");
        Choice::Keep
    })?;
    visited.ending()?;
    missing(ids.iter().filter(|id| !found.contains(id)))
}

fn settle(place: &Place, which: &Which, choice: Choice) -> Outcome {
    let mut named: Vec<String> = Vec::new();
    if !which.ids.is_empty() && !which.several {
        let looked = visit_all(place, &mut |_, letter| {
            if which.takes(letter) {
                named.push(letter.id.to_string());
            }
            Choice::Keep
        })?;
        // Another of the same id may be where nothing could be looked at.
        looked.ending()?;
        if let Some(id) = which.ids.iter().find(|id| named.iter().filter(|one| one == id).count() > 1) {
            let problem = format!(
                "`{id}` is the id of several dead letters: add --queue, --reason, or --several for all of them"
            );
            return Err(Failure::Misuse(problem));
        }
    }
    let mut found: Vec<String> = Vec::new();
    let visited = visit_all(place, &mut |_, letter| {
        if !which.takes(letter) {
            return Choice::Keep;
        }
        found.push(letter.id.to_string());
        choice
    })?;
    let sum = |count: fn(&Visit) -> usize| visited.visits.iter().map(count).sum::<usize>();
    match choice {
        Choice::Replay => println!("{} sent back to where they came from", sum(|visit| visit.replayed)),
        _ => println!("{} deleted", sum(|visit| visit.dropped)),
    }
    let ending = visited.ending();
    missing(which.ids.iter().filter(|id| !found.contains(id)))?;
    ending
}

fn missing<'a>(ids: impl Iterator<Item = &'a String>) -> Outcome {
    let mut ending = Ok(());
    for id in ids {
        eprintln!("there is no dead letter `{id}` among those that were looked at");
        ending = Err(Failure::Failed);
    }
    ending
}

/// What came of looking at several places.
#[derive(Default)]
struct Visited {
    visits: Vec<Visit>,
    /// Places that could not be looked at, and were told.
    unreached: usize,
}

impl Visited {
    /// Tells what stayed though it should not have.
    fn ending(&self) -> Outcome {
        let failed: Vec<_> = self.visits.iter().flat_map(|visit| &visit.failed).collect();
        for (id, fault) in &failed {
            eprintln!("{} stays: {}", listed(id), listed(&fault.to_string()));
        }
        if failed.is_empty() && self.unreached == 0 { Ok(()) } else { Err(Failure::Failed) }
    }
}

/// Looks at the dead letters of all places that are asked for; where one cannot be looked at, the others are.
fn visit_all(place: &Place, choose: &mut dyn FnMut(&str, &DeadLetter) -> Choice) -> Result<Visited, Failure> {
    let config = read_folder(&place.config, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.trim_end());
        Failure::Failed
    })?;
    on_local_runtime(async {
        let mut places = places(&config)?;
        if let Some(wanted) = &place.queue {
            places.retain(|place| place.name() == wanted);
        }
        if places.is_empty() {
            let problem = match &place.queue {
                Some(queue) => format!("no route sets messages aside in `{queue}`"),
                None => "no route sets messages aside in a place of its own".to_owned(),
            };
            return Err(Failure::Misuse(problem));
        }
        let mut visited = Visited::default();
        for one in &places {
            match one.visit(place.max, &mut |letter| choose(one.name(), letter)).await {
                Ok(visit) => visited.visits.push(visit),
                Err(fault) => {
                    eprintln!("{}: {fault}", one.name());
                    visited.unreached += 1;
                }
            }
        }
        Ok(visited)
    })?
}

/// Where the routes set messages aside. Listeners of the same settings are one: they have the same queues.
fn places(config: &Config) -> Result<Vec<Box<dyn DeadLetters>>, Failure> {
    let mut places: Vec<Box<dyn DeadLetters>> = Vec::new();
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
        places.extend(found.map_err(|error| Failure::Misuse(error.to_string()))?);
    }
    Ok(places)
}

fn told(queue: &str, letter: &DeadLetter) -> Value {
    let code = letter.code.map(|number| Code::from_number(number).unwrap_or(Code::Unknown).name());
    json!({
        "id": &*letter.id, "queue": queue, "source": letter.source.as_deref(), "code": code,
        "reason": letter.reason.as_deref(), "error": letter.error.as_deref(), "origin": letter.origin.as_deref(),
        "attempts": letter.attempts.as_deref().and_then(|text| text.parse::<u64>().ok()),
        "content_type": letter.content_type.as_deref(), "bytes": letter.body.len(),
    })
}

/// What others wrote, without what a terminal would obey.
fn listed(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}
