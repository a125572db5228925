//! Consul. A lock is a key of its store that is acquired with the session of the instance; the fencing token is the index at which that happened. Requests of
//! one instance for the same lock wait for each other here, since Consul tells sessions apart, not requests. After a session has ended by force, its
//! locks stay closed for a while (lock-delay).

mod http;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::{Method, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossdock_ports::EngineRow;
use serde_json::{Value as Json, json};
use tokio::sync::OwnedMutexGuard;
use tokio::time::sleep;

use self::http::Client;
use crate::backend::{Backend, Opened, Problem, Ticket, escaped};
use crate::options::Options;

/// How long a wait for a change lasts at most, before the lock is tried again: it may be closed for a while without an owner.
const WAIT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
/// Locks of this instance whose entries are kept although nobody uses them.
const LOCAL_KEPT: usize = 1_000;

/// Locks of this instance: one request at a time may use the session for a key.
#[derive(Default)]
struct Local {
    by_key: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    /// What each ticket has acquired, or may have.
    held: HashMap<String, Vec<(String, OwnedMutexGuard<()>)>>,
}

pub(crate) struct Consul {
    client: Client,
    prefix: String,
    session: Duration,
    label: String,
    local: Mutex<Local>,
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
            local: Mutex::default(),
        })
    }

    fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, lock: &str) -> String {
        format!("{}/locks/{}", self.prefix, escaped(lock))
    }

    /// Waits until no other request of this instance uses a key; `false` if one does, and this does not wait.
    async fn enter(&self, key: &str, ticket: &Ticket, waits: bool) -> bool {
        let own = {
            let mut local = self.local();
            if local.held.get(&ticket.id).is_some_and(|held| held.iter().any(|(held, _)| held == key)) {
                return true;
            }
            if local.by_key.len() >= LOCAL_KEPT {
                local.by_key.retain(|_, mutex| Arc::strong_count(mutex) > 1);
            }
            Arc::clone(local.by_key.entry(key.to_owned()).or_default())
        };
        let guard = if waits { Some(own.lock_owned().await) } else { own.try_lock_owned().ok() };
        let Some(guard) = guard else { return false };
        self.local().held.entry(ticket.id.clone()).or_default().push((key.to_owned(), guard));
        true
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

    /// Acquires a key; `false` if another session has it, or it is closed.
    async fn lock(&self, session: &str, key: &str, value: &str) -> Result<bool, Problem> {
        let path = format!("/v1/kv/{}?acquire={session}", http::path(key));
        let answer = self.client.ask(Method::PUT, &path, Some(value.to_owned()), Duration::ZERO).await?;
        match answer.json() {
            Ok(Json::Bool(is_acquired)) if answer.status == StatusCode::OK => Ok(is_acquired),
            _ => Err(answer.problem()),
        }
    }

    /// Releases a key by deleting it, if the session has it: otherwise the keys of all locks would stay for ever.
    async fn unlock(&self, session: &str, key: &str) -> Result<(), Problem> {
        let operations = json!([
            { "KV": { "Verb": "check-session", "Key": key, "Session": session } },
            { "KV": { "Verb": "delete", "Key": key } },
        ]);
        let answer = self.client.ask(Method::PUT, "/v1/txn", Some(operations.to_string()), Duration::ZERO).await?;
        match answer.status {
            // The session does not have it.
            StatusCode::OK | StatusCode::CONFLICT => Ok(()),
            _ => Err(answer.problem()),
        }
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
            // A session that is ended by force is missed within a third of its time.
            "LockDelay": format!("{}s", (ttl / 2).as_secs().min(60)),
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
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND => Err(Problem::SessionEnded),
            _ => Err(answer.problem()),
        }
    }

    async fn close(&self, session: &String) -> Result<(), Problem> {
        // What is released before its session ends is not closed for a while.
        let held = std::mem::take(&mut self.local().held);
        for (key, _) in held.values().flatten() {
            self.unlock(session, key).await?;
        }
        let path = format!("/v1/session/destroy/{session}");
        self.client.ask(Method::PUT, &path, None, Duration::ZERO).await.map(drop)
    }

    async fn acquire(&self, session: &String, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let value = json!({ "ticket": ticket.id, "metadata": ticket.metadata }).to_string();
        let mut token = 0;
        for name in &ticket.names {
            let key = self.key(name);
            if !self.enter(&key, ticket, waits).await {
                return Ok(None);
            }
            while !self.lock(session, &key, &value).await? {
                if !waits {
                    return Ok(None);
                }
                match self.get(&key, None).await? {
                    (Some(Entry { session: Some(_), .. }), index) => drop(self.get(&key, Some(index)).await?),
                    // It is closed.
                    _ => sleep(PAUSE).await,
                }
            }
            match self.get(&key, None).await? {
                (Some(found), _) if found.session.as_ref() == Some(session) => token = token.max(found.index),
                _ => return Err(Problem::Vanished),
            }
        }
        Ok(Some(token))
    }

    async fn withdraw(&self, session: &String, ticket: &Ticket) -> Result<(), Problem> {
        loop {
            let next = self.local().held.get(&ticket.id).and_then(|held| held.last().map(|(key, _)| key.clone()));
            let Some(key) = next else { break };
            self.unlock(session, &key).await?;
            // Only then the next request of this instance may use it.
            self.local().held.get_mut(&ticket.id).map(Vec::pop);
        }
        self.local().held.remove(&ticket.id);
        Ok(())
    }

    async fn holds(&self, session: &String, ticket: &Ticket) -> Result<bool, Problem> {
        for name in &ticket.names {
            let (found, _) = self.get(&self.key(name), None).await?;
            let is_own = |found: &Entry| {
                let value: Json = serde_json::from_slice(&found.value).unwrap_or_default();
                found.session.as_ref() == Some(session)
                    && value.get("ticket").and_then(Json::as_str) == Some(&ticket.id)
            };
            if !found.as_ref().is_some_and(is_own) {
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
