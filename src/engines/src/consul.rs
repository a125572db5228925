//! Consul. A lock is a key of its store that is acquired with the session of the instance; the fencing token is the index at which that happened. Requests of
//! one instance for the same lock wait for each other here, since Consul tells sessions apart, not requests. After a session has ended by force, its
//! locks stay closed for a while (lock-delay).

mod http;

use std::time::Duration;

use ::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossdock_ports::EngineRow;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use self::http::Client;
use crate::backend::{Backend, Opened, Problem, Ticket, escaped};
use crate::marks::Marks;
use crate::options::Options;
use crate::turns::Turns;

/// How long a wait for a change lasts at most, before the lock is tried again: it may be closed for a while without an owner.
const WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
/// Attempts to delete a key that somebody else changes.
const ATTEMPTS_MAX: usize = 5;

pub(crate) struct Consul {
    client: Client,
    prefix: String,
    session: Duration,
    label: String,
    turns: Turns<String>,
    marks: Marks,
}

/// A key of Consul's store.
struct Entry {
    index: u64,
    session: Option<String>,
    value: Vec<u8>,
}

impl Consul {
    pub(crate) fn new(options: &Options) -> std::io::Result<Self> {
        Ok(Self {
            client: Client::new(options)?,
            prefix: options.prefix.clone(),
            session: options.session,
            label: options.label.clone(),
            turns: Turns::default(),
            marks: Marks::default(),
        })
    }

    fn key(&self, lock: &str) -> String {
        format!("{}/locks/{}", self.prefix, escaped(lock))
    }

    /// A key, and the index to wait for a change of it.
    async fn get(&self, key: &str, wait: Option<u64>) -> Result<(Option<Entry>, u64), Problem> {
        let (path, limit) = match wait {
            None => (format!("/v1/kv/{}?consistent", http::path(key)), Duration::ZERO),
            Some(index) => (format!("/v1/kv/{}?index={index}&wait={}s", http::path(key), WAIT.as_secs()), WAIT * 2),
        };
        let answer = self.client.ask(Method::GET, &path, None, limit).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok((None, answer.index)),
            StatusCode::OK => Ok((Some(entry(&answer.json()?)?), answer.index)),
            _ => Err(answer.problem()),
        }
    }

    /// A key that says that a ticket was withdrawn before an attempt to acquire something for it was answered. It goes with the session.
    fn withdrawn(&self, ticket: &Ticket) -> String {
        format!("{}/withdrawn/{}", self.prefix, ticket.id)
    }

    /// Acquires a key, unless its ticket was withdrawn, and returns the index at which that happened. `None` if another session has it, or it is
    /// closed.
    async fn lock(&self, session: &str, key: &str, ticket: &Ticket) -> Result<Option<u64>, Problem> {
        let value = json!({ "ticket": ticket.id, "metadata": ticket.metadata }).to_string();
        let operations = json!([
            { "KV": { "Verb": "check-not-exists", "Key": self.withdrawn(ticket) } },
            { "KV": { "Verb": "lock", "Key": key, "Value": STANDARD.encode(value), "Session": session } },
        ]);
        let answer = self.transact(&operations).await?;
        match answer.status {
            StatusCode::OK => {
                let index = answer.json()?.pointer("/Results/0/KV/ModifyIndex").and_then(Json::as_u64);
                index.map(Some).ok_or_else(|| answer.problem())
            }
            StatusCode::CONFLICT if !answer.is_denied() => match answer.problem() {
                Problem::SessionEnded => Err(Problem::SessionEnded),
                _ => Ok(None),
            },
            _ => Err(answer.problem()),
        }
    }

    async fn transact(&self, operations: &Json) -> Result<http::Answer, Problem> {
        self.client.ask(Method::PUT, "/v1/txn", Some(operations.to_string()), Duration::ZERO).await
    }

    /// Releases a key by deleting it, if the session has it: otherwise the keys of all locks would stay for ever. It is the turn of one request of the
    /// session, to which it was granted at this index, as far as is known. A repetition that arrives late finds another index, and deletes nothing.
    async fn unlock(&self, session: &str, key: &str, granted: Option<u64>) -> Result<(), Problem> {
        let mut known = granted;
        for _ in 0..ATTEMPTS_MAX {
            let index = match known.take() {
                Some(index) => index,
                None => match self.get(key, None).await?.0 {
                    Some(found) if found.session.as_deref() == Some(session) => found.index,
                    _ => return Ok(()),
                },
            };
            let delete = json!([{ "KV": { "Verb": "delete-cas", "Key": key, "Index": index } }]);
            let answer = self.transact(&delete).await?;
            match answer.status {
                StatusCode::OK => return Ok(()),
                // Somebody has changed or deleted it.
                StatusCode::CONFLICT if !answer.is_denied() => {}
                _ => return Err(answer.problem()),
            }
        }
        Err(Problem::unreachable("the key of a lock in Consul changes again and again"))
    }
}

impl Entry {
    /// Whether the request of a ticket has it.
    fn is_of(&self, session: &str, ticket: &str) -> bool {
        let value: Json = serde_json::from_slice(&self.value).unwrap_or_default();
        self.session.as_deref() == Some(session) && value.get("ticket").and_then(Json::as_str) == Some(ticket)
    }
}

fn entry(answer: &Json) -> Result<Entry, Problem> {
    let unreadable = || Problem::unreachable("the answer of Consul cannot be read");
    let found = answer.get(0).ok_or_else(unreadable)?;
    let value = found.get("Value").and_then(Json::as_str).unwrap_or_default();
    Ok(Entry {
        index: found.get("ModifyIndex").and_then(Json::as_u64).ok_or_else(unreadable)?,
        session: found.get("Session").and_then(Json::as_str).map(str::to_owned),
        value: STANDARD.decode(value).map_err(|_| unreadable())?,
    })
}

impl Backend for Consul {
    type Session = String;

    const ROW: EngineRow = EngineRow {
        name: "consul",
        shared: false,
        permits: false,
        in_order: false,
        survives_failover: true,
        sequences: true,
    };
    const KNOWN: f64 = 0.9;

    async fn open(&self) -> Result<Opened<String>, Problem> {
        let ttl = self.session;
        let session = json!({
            "Name": self.label,
            "TTL": format!("{}s", ttl.as_secs()),
            "Behavior": "delete",
            // Otherwise it would end with the server that it was opened at.
            "NodeChecks": [],
            // A holder that is cut off trusts its session for that long, also if an operator has ended it.
            "LockDelay": format!("{}s", ttl.as_secs().min(60)),
        });
        let answer =
            self.client.ask(Method::PUT, "/v1/session/create", Some(session.to_string()), Duration::ZERO).await?;
        let id = answer.json().ok().and_then(|answer| answer.get("ID")?.as_str().map(str::to_owned));
        id.map(|session| Opened { session, ttl }).ok_or_else(|| answer.problem())
    }

    async fn keep_alive(&self, session: &String) -> Result<(), Problem> {
        let path = format!("/v1/session/renew/{session}");
        let answer = self.client.ask(Method::PUT, &path, None, Duration::ZERO).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Problem::SessionEnded),
            _ => return Err(answer.problem()),
        }
        let due = self.marks.due();
        if !due.is_empty() {
            let delete = |key| json!({ "KV": { "Verb": "delete", "Key": key } });
            // If that fails, they go with the session.
            let _ = self.transact(&due.into_iter().map(delete).collect()).await;
        }
        Ok(())
    }

    async fn close(&self, session: &String) -> Result<(), Problem> {
        // What is released before its session ends is not closed for a while.
        for (key, _, index) in self.turns.granted(session) {
            self.unlock(session, &key, Some(index)).await?;
        }
        self.turns.end(session);
        let path = format!("/v1/session/destroy/{session}");
        self.client.ask(Method::PUT, &path, None, Duration::ZERO).await.map(drop)
    }

    fn forget(&self, session: &String) {
        self.turns.end(session);
    }

    async fn acquire(&self, session: &String, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let mut token = 0;
        for name in &ticket.names {
            let key = self.key(name);
            if !self.turns.enter(session, &key, ticket, waits).await {
                return Ok(None);
            }
            loop {
                if let Some(index) = ticket.sending(self.lock(session, &key, ticket)).await? {
                    self.turns.grant(&key, ticket, index);
                    token = token.max(index);
                    break;
                }
                if !waits {
                    return Ok(None);
                }
                match self.get(&key, None).await? {
                    (Some(Entry { session: Some(_), .. }), index) => drop(self.get(&key, Some(index)).await?),
                    // It is closed.
                    _ => sleep(PAUSE).await,
                }
            }
        }
        // While it waited for the last one, somebody may have deleted the first.
        if ticket.names.len() > 1 && !self.holds(session, ticket).await? {
            return Err(Problem::Vanished);
        }
        Ok(Some(token))
    }

    async fn withdraw(&self, session: &String, ticket: &Ticket) -> Result<(), Problem> {
        if ticket.is_unanswered() {
            // What was dropped or not answered in time may arrive after this, and would never be released.
            let lock = json!({ "Verb": "lock", "Key": self.withdrawn(ticket), "Value": "", "Session": session });
            let answer = self.transact(&json!([{ "KV": lock }])).await?;
            if answer.status != StatusCode::OK {
                return Err(answer.problem());
            }
            self.marks.add(self.withdrawn(ticket));
        }
        while let Some((key, granted)) = self.turns.last(ticket) {
            self.unlock(session, &key, granted).await?;
            // Only then the next request of this instance may use it.
            self.turns.leave(&key, ticket);
        }
        Ok(())
    }

    async fn holds(&self, session: &String, ticket: &Ticket) -> Result<bool, Problem> {
        for name in &ticket.names {
            let (found, _) = self.get(&self.key(name), None).await?;
            if !found.is_some_and(|found| found.is_of(session, &ticket.id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn take(&self, _: &String, sequence: &str, count: u64) -> Result<u64, Problem> {
        let key = format!("{}/sequences/{}", self.prefix, escaped(sequence));
        loop {
            let (found, _) = self.get(&key, None).await?;
            let (last, index) = match &found {
                None => (0, 0),
                Some(found) => {
                    let text = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse::<u64>().ok());
                    let unreadable = || Problem::unreachable(format!("`{key}` of Consul is not a number"));
                    (text.ok_or_else(unreadable)?, found.index)
                }
            };
            let next = last.checked_add(count).ok_or(Problem::Exhausted)?;
            let path = format!("/v1/kv/{}?cas={index}", http::path(&key));
            let answer = self.client.ask(Method::PUT, &path, Some(next.to_string()), Duration::ZERO).await?;
            match answer.json() {
                Ok(Json::Bool(true)) => return Ok(last + 1),
                // Another instance was faster.
                Ok(Json::Bool(false)) => {}
                _ => return Err(answer.problem()),
            }
        }
    }
}
