//! Queues of the cluster for operators: as JSON, and as metrics.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossdock_coordination::{DeadLetter, Queue, View};
use crossdock_embedded::{CommandError, Engine};
use crossdock_stored::restore;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::cluster::{REQUEST_TIMEOUT, unanswered};
use super::families::Families;
use super::locks::{Listed, read};

/// Dead letters in an answer, at most; and their length, of which the last one may exceed it.
const DEAD_MAX: usize = 1_000;
const DEAD_BYTES_MAX: usize = 8 << 20;
/// The oldest message is searched for metrics in queues of at most this many messages.
const SEARCHED_MAX: usize = 50_000;

/// The queues whose names begin with the prefix, in the order of their names.
pub(super) async fn queues_json(engine: &Engine, listed: &Listed<'_>) -> Result<Value, (u16, String)> {
    let view = read(engine).await?;
    let mut found = view.queues.iter().filter(|(name, _)| name.starts_with(listed.prefix));
    let queues: Vec<_> =
        found.by_ref().take(listed.limit).map(|(name, queue)| queue_json(&view, name, queue)).collect();
    Ok(json!({ "queues": queues, "more": found.next().is_some(), "bytes": view.queues.bytes() }))
}

fn oldest_ms(view: &View, queue: &Queue) -> Option<u64> {
    queue.oldest().map(|oldest| view.clock.leader_time().saturating_sub(oldest))
}

fn queue_json(view: &View, name: &str, queue: &Queue) -> Value {
    let consumers = queue.slots().consumers().iter().map(|session| {
        let label = view.sessions.get(*session).map(|session| session.label.to_string());
        json!({ "session": session.0, "label": label, "slots": queue.slots().held_by(*session).count() })
    });
    json!({
        "name": name, "messages": queue.len(), "delayed": queue.delayed(), "dead_letters": queue.dead_len(),
        "bytes": queue.bytes(), "oldest_ms": oldest_ms(view, queue), "consumers": consumers.collect::<Vec<_>>(),
    })
}

/// The dead letters of a queue after a position, in the order of their positions: `queue=…&after=17&limit=20`.
pub(super) async fn dead_letters_json(
    engine: &Engine,
    query: &BTreeMap<String, String>,
) -> Result<Value, (u16, String)> {
    let number = |key: &str, default: u64| query.get(key).map_or(Some(default), |text| text.parse().ok());
    let (Some(name), Some(after), Some(limit)) = (query.get("queue"), number("after", 0), number("limit", 100)) else {
        return Err((400, "name a `queue`; `after` and `limit` must be numbers".to_owned()));
    };
    let limit = usize::try_from(limit).unwrap_or(DEAD_MAX).min(DEAD_MAX);
    let view = read(engine).await?;
    let mut bytes = 0;
    let found = view.queues.get(name).into_iter().flat_map(|queue| queue.dead_letters(after.saturating_add(1)));
    let fits = |(_, letter): &(u64, &DeadLetter)| {
        let is_first_over = bytes < DEAD_BYTES_MAX;
        bytes += letter.message.payload.len();
        is_first_over
    };
    let letters: Vec<_> = found.take(limit).take_while(fits).map(|(at, letter)| letter_json(at, letter)).collect();
    let queue = view.queues.get(name);
    let (total, last) = (queue.map_or(0, Queue::dead_len), queue.and_then(Queue::last_dead));
    Ok(json!({ "dead_letters": letters, "total": total, "last": last }))
}

fn letter_json(position: u64, letter: &DeadLetter) -> Value {
    // The reason of a fault, and its message.
    let (reason, error) = letter.reason.split_once(": ").unwrap_or((&letter.reason, ""));
    let mut shown = json!({
        "position": position, "key": &*letter.key, "reason": reason, "error": error, "since_ms": letter.since,
        "enqueued_ms": letter.message.enqueued, "attempts": letter.message.attempts.saturating_add(1),
    });
    if let Ok(stored) = restore(letter.message.payload.clone()) {
        shown["entry"] = json!(stored.entry);
        shown["id"] = json!(stored.id());
        shown["content_type"] = json!(stored.content_type());
        shown["headers"] = stored.headers().map(|(name, value)| json!([name, value])).collect();
        shown["body_base64"] = json!(STANDARD.encode(stored.body()));
    }
    shown
}

/// A request of an operator about a queue.
#[derive(Debug)]
pub(super) enum Change {
    /// Enqueue dead letters again.
    Replay { queue: String, positions: Vec<u64> },
    /// Delete dead letters.
    Drop { queue: String, positions: Vec<u64> },
    /// Delete messages of a queue that no instance consumes.
    Purge { queue: String },
}

impl Change {
    /// `{"queue": "…", "replay": [17, 18]}`, or `drop` instead of `replay`, or `"purge": true`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        let queue = object.get("queue")?.as_str().filter(|_| object.len() == 2)?.to_owned();
        let positions = |value: &Value| value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>();
        match (object.get("replay"), object.get("drop"), object.get("purge")) {
            (Some(replay), None, None) => Some(Self::Replay { queue, positions: positions(replay)? }),
            (None, Some(dropped), None) => Some(Self::Drop { queue, positions: positions(dropped)? }),
            (None, None, Some(Value::Bool(true))) => Some(Self::Purge { queue }),
            _ => None,
        }
    }
}

/// Executes a request of an operator. Returns how many messages it concerned.
pub(super) async fn change(engine: &Engine, change: Change) -> Result<Value, (u16, String)> {
    let shown = format!("{change:?}");
    let changed = async {
        match change {
            Change::Replay { queue, positions } => engine.take_dead(&queue, positions, true).await,
            Change::Drop { queue, positions } => engine.take_dead(&queue, positions, false).await,
            Change::Purge { queue } => purge(engine, &queue).await,
        }
    };
    let changed = timeout(REQUEST_TIMEOUT, changed).await.map_err(|_| unanswered())?;
    match changed {
        Ok(messages) => {
            tracing::warn!(change = shown, messages, "request of an operator about a queue");
            Ok(json!({ "messages": messages }))
        }
        Err(problem) => {
            tracing::warn!(change = shown, %problem, "request of an operator about a queue failed");
            let status = if matches!(problem, CommandError::Refused(_)) { 409 } else { 503 };
            Err((status, problem.to_string()))
        }
    }
}

/// Deletes the messages in parts, so that no command takes long.
async fn purge(engine: &Engine, queue: &str) -> Result<u64, CommandError> {
    let mut purged = 0;
    loop {
        match engine.purge(queue).await? {
            0 => return Ok(purged),
            count => purged += count,
        }
    }
}

pub(super) fn queue_metrics(out: &mut Families<'_>, engine: &Engine) -> fmt::Result {
    let view = engine.view();
    let gauges: [(&str, &str, fn(&Queue) -> u64); 5] = [
        ("crossdock_queue_messages", "Messages that wait or are being processed.", |queue| queue.len() as u64),
        ("crossdock_queue_delayed", "Messages that are delayed.", |queue| queue.delayed() as u64),
        ("crossdock_queue_dead_letters", "Dead letters.", |queue| queue.dead_len() as u64),
        ("crossdock_queue_bytes", "What a queue counts for, of at most 128 MiB.", |queue| queue.bytes() as u64),
        ("crossdock_queue_consumers", "Instances that consume a queue.", |queue| {
            queue.slots().consumers().len() as u64
        }),
    ];
    for (name, help, value) in gauges {
        let all = view.queues.iter().map(|(name, queue)| (vec![("queue", name.to_string())], value(queue)));
        out.gauge(name, help, all)?;
    }
    let help = "Age of the oldest message, in whole seconds; left out for queues of more than 50 000 messages.";
    let small = view.queues.iter().filter(|(_, queue)| queue.len() <= SEARCHED_MAX);
    let oldest =
        small.map(|(name, queue)| (vec![("queue", name.to_string())], oldest_ms(&view, queue).unwrap_or(0) / 1_000));
    out.gauge("crossdock_queue_oldest_seconds", help, oldest)?;
    let events = engine
        .queue_counts()
        .into_iter()
        .map(|(queue, event, count)| (vec![("queue", queue.to_string()), ("event", event.name().to_owned())], count));
    out.counter("crossdock_queue_events", "What this instance has done with messages of a queue.", events)
}
