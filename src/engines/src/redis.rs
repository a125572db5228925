//! Redis, with the pattern that the documentation of SET describes: a key with a random value that expires, and scripts that extend or delete it if it still has
//! that value. The fencing token is a counter beside it. There is no session: all keys of the instance are extended together.
//!
//! Redis has no consensus. A server that takes over may lack the last locks and counters that the old one granted, and a memory limit may evict
//! them: two may hold a lock then, with the same token.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_ports::EngineRow;
use crossdock_transport::Dialer;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo};
use tokio::time::{Instant, sleep, timeout};

use crate::backend::{Backend, Opened, Problem, Ticket, escaped};
use crate::options::{Login, Options};
use crate::turns::Turns;

/// The longest wait for a connection and for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts to acquire a lock that others hold: at first and at most, less a random part.
const POLL: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_millis(250);
/// Keys that are extended by one script.
const BATCH_LEN: usize = 500;

/// Sets all locks, but for the last key, to an id, and returns the next number of the counter that is the last one; 0 if somebody else holds one.
const ACQUIRE: &str = "
for i = 1, #KEYS - 1 do
    local owner = redis.call('get', KEYS[i])
    if owner and owner ~= ARGV[1] then return 0 end
end
for i = 1, #KEYS - 1 do
    redis.call('set', KEYS[i], ARGV[1], 'px', ARGV[2])
end
return redis.call('incr', KEYS[#KEYS])";

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
    /// The server to connect to next.
    next: AtomicUsize,
    turns: Turns<u32>,
    /// Tickets that were found to have lost a lock.
    lost: Mutex<HashSet<String>>,
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
            next: AtomicUsize::new(0),
            turns: Turns::default(),
            lost: Mutex::default(),
        })
    }

    fn lost(&self) -> MutexGuard<'_, HashSet<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_key(&self, lock: &str) -> String {
        format!("{}/locks/{}", self.prefix, escaped(lock))
    }

    fn session_ms(&self) -> u64 {
        u64::try_from(self.session.as_millis()).unwrap_or(u64::MAX)
    }

    /// The connection to a server that can be reached.
    async fn connected(&self) -> Result<MultiplexedConnection, Problem> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = &*connection {
            return Ok(connection.clone());
        }
        let mut last = Problem::unreachable("Redis cannot be reached");
        let config = AsyncConnectionConfig::default().set_response_timeout(Some(ANSWER_TIMEOUT));
        for _ in 0..self.servers.len() {
            let dialer = &self.servers[self.next.fetch_add(1, Ordering::Relaxed) % self.servers.len()];
            let opening = async {
                let stream = dialer.dial().await.map_err(|fault| Problem::unreachable(&fault.message))?;
                MultiplexedConnection::new_with_config(&self.login, stream, config.clone())
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
        // A server that is not, or no longer, the one that can be written to says so by these codes.
        let is_unusable =
            |code: &str| matches!(code, "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "NOREPLICAS");
        if asked.as_ref().is_err_and(|error| error.code().is_none_or(is_unusable)) {
            // The next command goes to the next server.
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

    async fn keep_alive(&self, session: &u32) -> Result<(), Problem> {
        let held = self.turns.granted(session);
        if held.is_empty() {
            // A replica would answer a command that only reads.
            let mut command = redis::cmd("SET");
            command.arg(format!("{}/alive/{session}", self.prefix)).arg("").arg("PX").arg(self.session_ms());
            let _: redis::Value = self.ask(&command).await.map_err(|error| problem(&error))?;
        }
        let ttl = self.session_ms().to_string();
        for batch in held.chunks(BATCH_LEN) {
            let keys: Vec<_> = batch.iter().map(|(key, ..)| key.clone()).collect();
            let arguments: Vec<_> = std::iter::once(&*ttl).chain(batch.iter().map(|(_, id, _)| id.as_str())).collect();
            let lost: Vec<String> = self.run(EXTEND, &keys, &arguments).await?;
            // Those that were released meanwhile are not missed.
            let granted = self.turns.granted(session);
            let lost = lost.into_iter().filter(|id| granted.iter().any(|(_, granted, _)| granted == id));
            self.lost().extend(lost);
        }
        Ok(())
    }

    async fn close(&self, session: &u32) -> Result<(), Problem> {
        for (key, id, _) in self.turns.granted(session) {
            self.run::<redis::Value>(RELEASE, &[key], &[&id]).await?;
        }
        self.turns.end(session);
        Ok(())
    }

    fn forget(&self, session: &u32) {
        self.turns.end(session);
    }

    async fn acquire(&self, session: &u32, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let locks: Vec<_> = ticket.names.iter().map(|name| self.lock_key(name)).collect();
        for key in &locks {
            // Those that wait ask one at a time for each lock.
            if !self.turns.enter(session, key, ticket, waits).await {
                return Ok(None);
            }
        }
        let keys: Vec<_> = locks.iter().cloned().chain([format!("{}/token", self.prefix)]).collect();
        let ttl = self.session_ms().to_string();
        let mut pause = POLL;
        loop {
            let sent = Instant::now();
            let token: u64 = self.run(ACQUIRE, &keys, &[&ticket.id, &ttl]).await?;
            // The time of keys counts from when they are set: they must not end before a session that was kept alive meanwhile.
            if token > 0 && sent.elapsed() < self.session / 20 {
                for key in &locks {
                    self.turns.grant(key, ticket, token);
                }
                return Ok(Some(token));
            }
            if token > 0 {
                continue;
            }
            if !waits {
                return Ok(None);
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    async fn withdraw(&self, _: &u32, ticket: &Ticket) -> Result<(), Problem> {
        let keys: Vec<_> = ticket.names.iter().map(|name| self.lock_key(name)).collect();
        self.run::<redis::Value>(RELEASE, &keys, &[&ticket.id]).await?;
        for key in &keys {
            self.turns.leave(key, ticket);
        }
        self.lost().remove(&ticket.id);
        Ok(())
    }

    async fn holds(&self, _: &u32, ticket: &Ticket) -> Result<bool, Problem> {
        Ok(!self.lost().contains(&ticket.id))
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
