//! etcd. A session is a lease. A request for a lock is a key with this lease below the name of the lock; the requests of a lock are granted in the order
//! in which their keys were created, and the fencing token is the revision at which that happened. Several locks are requested by one transaction, so
//! that all have the same revision.

mod client;

use std::sync::Arc;
use std::time::Duration;

use crossdock_ports::{EngineRow, LockMode};
use tokio::time::timeout;
use tonic::Status;

use self::client::{Client, api};
use crate::backend::{Backend, Opened, Predecessor, Problem, Ticket, WaitsFor, escaped, read_mode, waits_for, written};
use crate::marks::Marks;
use crate::options::Options;

/// The most requests before one that are looked at. Each takes less than 500 bytes of an answer of 4 MiB.
const PREDECESSORS_MAX: i64 = 5_000;
/// How long an event is waited for, until the lock is looked at again.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

pub(crate) struct Etcd {
    client: Client,
    prefix: String,
    session: Duration,
    marks: Marks,
}

impl Etcd {
    pub(crate) fn new(options: &Options) -> std::io::Result<Self> {
        let client = Client::new(options)?;
        Ok(Self { client, prefix: options.prefix.clone(), session: options.session, marks: Marks::default() })
    }

    /// What the keys of all requests for a lock begin with.
    fn queue(&self, lock: &str) -> String {
        format!("{}/locks/{}/", self.prefix, escaped(lock))
    }

    fn key(&self, lock: &str, ticket: &Ticket) -> String {
        format!("{}{}", self.queue(lock), ticket.id)
    }

    /// A key that says that a ticket was withdrawn before an attempt to request it was answered.
    fn withdrawn(&self, ticket: &Ticket) -> String {
        format!("{}/withdrawn/{}", self.prefix, ticket.id)
    }

    async fn delete(&self, keys: Vec<String>) -> Result<(), Problem> {
        let request =
            api::TxnRequest { success: keys.into_iter().map(deletion).collect(), ..api::TxnRequest::default() };
        self.client.txn(request).await.map(drop)
    }

    /// Requests all locks of a ticket, or finds out when it did. Returns the revision.
    async fn enter(&self, lease: i64, ticket: &Ticket) -> Result<i64, Problem> {
        let keys = || ticket.names.iter().map(|name| self.key(name, ticket));
        let value = format!("{} {}", written(ticket.mode), ticket.metadata);
        let put = |key: String| api::PutRequest { key: key.into(), value: value.clone().into(), lease };
        let range = |key: String| api::RangeRequest { key: key.into(), ..api::RangeRequest::default() };
        let request = api::TxnRequest {
            compare: keys().chain([self.withdrawn(ticket)]).map(|key| created_at(key, 0)).collect(),
            success: keys().map(|key| op(api::request_op::Request::RequestPut(put(key)))).collect(),
            failure: keys().map(|key| op(api::request_op::Request::RequestRange(range(key)))).collect(),
        };
        let response = ticket.sending(self.client.txn(request)).await?;
        if response.succeeded {
            return Ok(revision(response.header.as_ref()));
        }
        let found = response.responses.into_iter().find_map(|response| match response.response {
            Some(api::response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        found.map(|found| found.create_revision).ok_or_else(|| Problem::unreachable("etcd has lost a request"))
    }

    /// What a request of this revision waits for.
    async fn look(&self, lock: &str, revision: i64, mode: LockMode) -> Result<Option<WaitsFor<Vec<u8>>>, Problem> {
        let queue = self.queue(lock);
        // As many as are enough to decide: whether there is any, or so many.
        let limit = match mode {
            LockMode::Exclusive => 1,
            LockMode::Shared => PREDECESSORS_MAX,
            LockMode::Permit(of) => i64::from(of).min(PREDECESSORS_MAX),
        };
        let request = api::RangeRequest {
            range_end: end_of(&queue).into(),
            key: queue.into(),
            limit,
            sort_order: api::range_request::SortOrder::Descend.into(),
            sort_target: api::range_request::SortTarget::Create.into(),
            count_only: false,
            max_create_revision: revision - 1,
        };
        let found = self.client.range(request).await?.kvs;
        if mode != LockMode::Exclusive && found.len() >= usize::try_from(PREDECESSORS_MAX).unwrap_or(usize::MAX) {
            // There may be others before them.
            return Ok(Some(WaitsFor::Any));
        }
        let before = found.into_iter().map(|found| {
            let mode = found.value.split(|byte| *byte == b' ').next().and_then(|mode| std::str::from_utf8(mode).ok());
            // What is not ours is respected.
            let mode = mode.and_then(read_mode).unwrap_or(LockMode::Exclusive);
            Predecessor { key: found.key.to_vec(), mode }
        });
        waits_for(mode, before.collect())
    }

    /// Waits until a request of this revision holds a lock.
    async fn turn(&self, lock: &str, revision: i64, mode: LockMode) -> Result<(), Problem> {
        while let Some(waits) = self.look(lock, revision, mode).await? {
            let (key, range_end) = match waits {
                WaitsFor::This(key) => (key, Vec::new()),
                WaitsFor::Any => (self.queue(lock).into_bytes(), end_of(&self.queue(lock))),
            };
            let mut deletions = self.client.watch_deletions(key, range_end).await?;
            // What was deleted before the watch began is not told.
            match self.look(lock, revision, mode).await? {
                None => return Ok(()),
                Some(_) => {
                    if let Ok(event) = timeout(LOOK_INTERVAL, deletions.next()).await {
                        event?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Backend for Etcd {
    type Session = i64;

    const ROW: EngineRow = EngineRow {
        name: "etcd",
        shared: true,
        permits: true,
        in_order: true,
        survives_failover: true,
        sequences: true,
    };
    const KNOWN: f64 = 0.9;

    async fn open(&self) -> Result<Opened<i64>, Problem> {
        let (session, ttl) =
            self.client.grant(i64::try_from(self.session.as_secs().max(1)).unwrap_or(i64::MAX)).await?;
        Ok(Opened { session, ttl })
    }

    async fn keep_alive(&self, session: &i64) -> Result<(), Problem> {
        self.client.keep_alive(*session).await?;
        let due = self.marks.due();
        if !due.is_empty() {
            // If that fails, they go with the session.
            let _ = self.delete(due).await;
        }
        Ok(())
    }

    async fn close(&self, session: &i64) -> Result<(), Problem> {
        self.client.revoke(*session).await
    }

    async fn acquire(&self, session: &i64, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let revision = self.enter(*session, ticket).await?;
        for name in &ticket.names {
            if waits {
                self.turn(name, revision, ticket.mode).await?;
            } else if self.look(name, revision, ticket.mode).await?.is_some() {
                return Ok(None);
            }
        }
        // While it waited, its session may have ended, or somebody may have deleted it.
        if self.holds(session, ticket).await? {
            Ok(Some(u64::try_from(revision).unwrap_or_default()))
        } else {
            Err(Problem::Vanished)
        }
    }

    async fn withdraw(&self, session: &i64, ticket: &Ticket) -> Result<(), Problem> {
        // A request that was dropped or not answered in time may arrive after this one, and would never be released.
        let remember = ticket.is_unanswered().then(|| {
            let put =
                api::PutRequest { key: self.withdrawn(ticket).into(), value: bytes::Bytes::new(), lease: *session };
            op(api::request_op::Request::RequestPut(put))
        });
        let keys = ticket.names.iter().map(|name| self.key(name, ticket));
        let request =
            api::TxnRequest { success: keys.map(deletion).chain(remember).collect(), ..api::TxnRequest::default() };
        self.client.txn(request).await?;
        if ticket.is_unanswered() {
            self.marks.add(self.withdrawn(ticket));
        }
        Ok(())
    }

    async fn holds(&self, _: &i64, ticket: &Ticket) -> Result<bool, Problem> {
        let range = |name: &Arc<str>| api::RangeRequest {
            key: self.key(name, ticket).into(),
            count_only: true,
            ..api::RangeRequest::default()
        };
        let request = api::TxnRequest {
            success: ticket.names.iter().map(|name| op(api::request_op::Request::RequestRange(range(name)))).collect(),
            ..api::TxnRequest::default()
        };
        let mut counts = self.client.txn(request).await?.responses.into_iter();
        let is_there = |response: api::ResponseOp| matches!(response.response, Some(api::response_op::Response::ResponseRange(range)) if range.count == 1);
        Ok(counts.all(is_there))
    }

    async fn take(&self, _: &i64, sequence: &str, count: u64) -> Result<u64, Problem> {
        let key = format!("{}/sequences/{}", self.prefix, escaped(sequence));
        loop {
            let request = api::RangeRequest { key: key.clone().into(), ..api::RangeRequest::default() };
            let found = self.client.range(request).await?.kvs.into_iter().next();
            let last = match &found {
                None => 0,
                Some(found) => std::str::from_utf8(&found.value)
                    .ok()
                    .and_then(|text| text.parse::<u64>().ok())
                    .ok_or_else(|| Problem::unreachable(format!("`{key}` of etcd is not a number")))?,
            };
            let next = last.checked_add(count).ok_or(Problem::Exhausted)?;
            let put = api::PutRequest { key: key.clone().into(), value: next.to_string().into(), lease: 0 };
            let known =
                found.map_or_else(|| created_at(key.clone(), 0), |found| modified_at(key.clone(), found.mod_revision));
            let request = api::TxnRequest {
                compare: vec![known],
                success: vec![op(api::request_op::Request::RequestPut(put))],
                ..api::TxnRequest::default()
            };
            // Otherwise, another instance was faster.
            if self.client.txn(request).await?.succeeded {
                return Ok(last + 1);
            }
        }
    }
}

/// The end of the range of all keys that begin with this.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // A prefix ends with `/`.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

fn deletion(key: String) -> api::RequestOp {
    op(api::request_op::Request::RequestDeleteRange(api::DeleteRangeRequest { key: key.into() }))
}

fn op(request: api::request_op::Request) -> api::RequestOp {
    api::RequestOp { request: Some(request) }
}

fn created_at(key: String, revision: i64) -> api::Compare {
    api::Compare {
        result: api::compare::CompareResult::Equal.into(),
        target: api::compare::CompareTarget::Create.into(),
        key: key.into(),
        target_union: Some(api::compare::TargetUnion::CreateRevision(revision)),
    }
}

fn modified_at(key: String, revision: i64) -> api::Compare {
    api::Compare {
        result: api::compare::CompareResult::Equal.into(),
        target: api::compare::CompareTarget::Mod.into(),
        key: key.into(),
        target_union: Some(api::compare::TargetUnion::ModRevision(revision)),
    }
}

fn revision(header: Option<&api::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// What a status of etcd means.
fn problem(status: &Status) -> Problem {
    if status.message().contains("requested lease not found") {
        Problem::SessionEnded
    } else {
        Problem::unreachable(format!("etcd: {}", status.message()))
    }
}
