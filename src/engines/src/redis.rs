//! Redis, with the pattern that the documentation of SET describes: a key with a random value that expires, and scripts that extend or delete it if it still has
//! that value. The fencing token is a counter beside it. There is no session: all keys of the instance are extended together.
//!
//! Redis has no consensus. A server that takes over may lack the last locks and counters that the old one granted, and a memory limit may evict
//! them: two may hold a lock then, with the same token.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_ports::EngineRow;
use crossdock_transport::Dialer;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo};
use tokio::time::{sleep, timeout};

use crate::backend::{Backend, Opened, Problem, Ticket, escaped};
use crate::options::{Login, Options};

/// The longest wait for a connection and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts to acquire a lock that others hold: a random time between these.
const POLL_MS: std::ops::Range<u64> = 10..50;
/// Keys that are extended by one script.
const BATCH_LEN: usize = 500;

/// Sets all locks to an id, and all counters beside them to the same, higher number; 0 if somebody else holds one.
const ACQUIRE: &str = "
local count = #KEYS / 2
local token = 0
for i = 1, count do
    local owner = redis.call('get', KEYS[i])
    if owner and owner ~= ARGV[1] then return 0 end
    token = math.max(token, tonumber(redis.call('get', KEYS[count + i]) or '0'))
end
token = token + 1
for i = 1, count do
    redis.call('set', KEYS[i], ARGV[1], 'px', ARGV[2])
    redis.call('set', KEYS[count + i], string.format('%.0f', token))
end
return token";

/// Extends each key that has the id beside it; returns the ids of the others.
const EXTEND: &str = "
local lost = {}
for i = 1, #KEYS do
    if redis.call('get', KEYS[i]) == ARGV[i + 1] then
        redis.call('pexpire', KEYS[i], ARGV[1])
    else
        lost[#lost + 1] = ARGV[i + 1]
    end
end
return lost";

/// Deletes the keys that have the id.
const RELEASE: &str = "
for i = 1, #KEYS do
    if redis.call('get', KEYS[i]) == ARGV[1] then redis.call('del', KEYS[i]) end
end";

pub(crate) struct Redis {
    servers: Vec<Dialer>,
    prefix: String,
    session: Duration,
    login: RedisConnectionInfo,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    held: Mutex<Held>,
}

/// What the scripts extend.
#[derive(Default)]
struct Held {
    /// The locks of each ticket.
    keys: HashMap<String, Vec<String>>,
    /// Tickets that were found to have lost a lock.
    lost: HashSet<String>,
}

impl Redis {
    pub(crate) fn new(options: &Options) -> std::io::Result<Self> {
        let dialer = |endpoint| Dialer::new(endpoint, options.tls.as_ref(), &[], CONNECT_TIMEOUT);
        let servers = options.endpoints.iter().map(dialer).collect::<Result<Vec<_>, _>>();
        let mut login = RedisConnectionInfo::default();
        if let Some(Login::User { name, password }) = &options.login {
            if !name.is_empty() {
                login = login.set_username(name);
            }
            login = login.set_password(password.reveal());
        }
        Ok(Self {
            servers: servers.map_err(|problem| std::io::Error::other(problem.to_string()))?,
            prefix: options.prefix.clone(),
            session: options.session,
            login,
            connection: tokio::sync::Mutex::default(),
            held: Mutex::default(),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_key(&self, lock: &str) -> String {
        format!("{}/locks/{}", self.prefix, escaped(lock))
    }

    fn token_key(&self, lock: &str) -> String {
        format!("{}/tokens/{}", self.prefix, escaped(lock))
    }

    fn session_ms(&self) -> u64 {
        u64::try_from(self.session.as_millis()).unwrap_or(u64::MAX)
    }

    /// The connection to the first server that can be reached.
    async fn connected(&self) -> Result<MultiplexedConnection, Problem> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let mut last = Problem::unreachable("Redis cannot be reached");
        for dialer in &self.servers {
            let opening = async {
                let stream = dialer.dial().await.map_err(|fault| Problem::unreachable(&fault.message))?;
                MultiplexedConnection::new_with_config(&self.login, stream, AsyncConnectionConfig::default())
                    .await
                    .map_err(|error| Problem::unreachable(format!("Redis: {error}")))
            };
            match timeout(CONNECT_TIMEOUT, opening).await {
                Ok(Ok((opened, driver))) => {
                    tokio::spawn(driver);
                    *connection = Some(opened.clone());
                    return Ok(opened);
                }
                Ok(Err(problem)) => last = problem,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, redis::RedisError> {
        let failed = |problem: Problem| match problem {
            Problem::Unreachable(text) => (redis::ErrorKind::Io, "unreachable", text).into(),
            _ => redis::RedisError::from((redis::ErrorKind::Io, "unreachable")),
        };
        let mut connection = self.connected().await.map_err(failed)?;
        let asked = timeout(ANSWER_TIMEOUT, command.query_async(&mut connection)).await;
        let late = |_| Err((redis::ErrorKind::Io, "Redis does not answer in time").into());
        let asked: Result<T, redis::RedisError> = asked.unwrap_or_else(late);
        if asked.as_ref().is_err_and(|error| error.code().is_none()) {
            // The next command dials again, in case that another server has taken over.
            *self.connection.lock().await = None;
        }
        asked
    }

    async fn run<T: FromRedisValue>(&self, script: &str, keys: &[String], arguments: &[&str]) -> Result<T, Problem> {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        self.ask(&command).await.map_err(|error| problem(&error))
    }
}

fn problem(error: &redis::RedisError) -> Problem {
    Problem::unreachable(format!("Redis: {error}"))
}

impl Backend for Redis {
    /// A number for the log.
    type Session = u32;

    const ROW: EngineRow = EngineRow {
        name: "redis",
        shared: false,
        permits: false,
        in_order: false,
        survives_failover: false,
        sequences: true,
    };
    const KNOWN: f64 = 0.9;

    async fn open(&self) -> Result<Opened<u32>, Problem> {
        let _: String = self.ask(&redis::cmd("PING")).await.map_err(|error| problem(&error))?;
        Ok(Opened { session: rand::random(), ttl: self.session })
    }

    async fn keep_alive(&self, _: &u32) -> Result<(), Problem> {
        let held: Vec<(String, String)> = {
            let held = self.held();
            held.keys.iter().flat_map(|(id, keys)| keys.iter().map(|key| (key.clone(), id.clone()))).collect()
        };
        if held.is_empty() {
            let _: String = self.ask(&redis::cmd("PING")).await.map_err(|error| problem(&error))?;
        }
        let ttl = self.session_ms().to_string();
        for batch in held.chunks(BATCH_LEN) {
            let keys: Vec<_> = batch.iter().map(|(key, _)| key.clone()).collect();
            let arguments: Vec<_> = std::iter::once(&*ttl).chain(batch.iter().map(|(_, id)| id.as_str())).collect();
            let lost: Vec<String> = self.run(EXTEND, &keys, &arguments).await?;
            let mut held = self.held();
            // Those that were released meanwhile are not missed.
            let lost: Vec<_> = lost.into_iter().filter(|id| held.keys.contains_key(id)).collect();
            held.lost.extend(lost);
        }
        Ok(())
    }

    async fn close(&self, _: &u32) -> Result<(), Problem> {
        let held = std::mem::take(&mut *self.held());
        for (id, keys) in held.keys {
            self.run::<redis::Value>(RELEASE, &keys, &[&id]).await?;
        }
        Ok(())
    }

    async fn acquire(&self, _: &u32, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let locks = ticket.names.iter().map(|name| self.lock_key(name));
        let keys: Vec<_> = locks.clone().chain(ticket.names.iter().map(|name| self.token_key(name))).collect();
        let ttl = self.session_ms().to_string();
        loop {
            let token: u64 = self.run(ACQUIRE, &keys, &[&ticket.id, &ttl]).await?;
            if token > 0 {
                self.held().keys.insert(ticket.id.clone(), locks.collect());
                return Ok(Some(token));
            }
            if !waits {
                return Ok(None);
            }
            sleep(Duration::from_millis(rand::random_range(POLL_MS))).await;
        }
    }

    async fn withdraw(&self, _: &u32, ticket: &Ticket) -> Result<(), Problem> {
        {
            let mut held = self.held();
            held.keys.remove(&ticket.id);
            held.lost.remove(&ticket.id);
        }
        let keys: Vec<_> = ticket.names.iter().map(|name| self.lock_key(name)).collect();
        self.run::<redis::Value>(RELEASE, &keys, &[&ticket.id]).await.map(drop)
    }

    async fn holds(&self, _: &u32, ticket: &Ticket) -> Result<bool, Problem> {
        Ok(!self.held().lost.contains(&ticket.id))
    }

    async fn take(&self, _: &u32, sequence: &str, count: u64) -> Result<u64, Problem> {
        let key = format!("{}/sequences/{}", self.prefix, escaped(sequence));
        let mut command = redis::cmd("INCRBY");
        command.arg(key).arg(count);
        match self.ask::<u64>(&command).await {
            Ok(last) => Ok(last - count + 1),
            Err(error) if error.detail().is_some_and(|detail| detail.contains("overflow")) => Err(Problem::Exhausted),
            Err(error) => Err(problem(&error)),
        }
    }
}
