//! ZooKeeper, by its recipe for locks. A request for a lock is an ephemeral sequential node below the node of the lock; the requests of a lock are granted
//! in the order of their numbers, and the fencing token is the zxid that created the node (czxid). Several locks are requested by one
//! transaction, so that all have the same zxid.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossdock_ports::{EngineRow, LockMode};
use tokio::sync::Mutex;
use tokio::time::timeout;
use zookeeper_client::{Acls, Client, CreateMode, Error, MultiWriteResult};

use crate::backend::{Backend, Opened, Predecessor, Problem, Ticket, WaitsFor, escaped, read_mode, waits_for, written};
use crate::options::{Login, Options};

/// The longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a session may take to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Servers that can be tried within the time of a session.
const CONNECTS_MIN: u32 = 8;
/// Attempts to create a request, since the empty node of a lock may be removed meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// A session: `None` once it was closed.
#[derive(Clone)]
pub(crate) struct Session {
    id: i64,
    client: Arc<Mutex<Option<Client>>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.id)
    }
}

impl Session {
    async fn client(&self) -> Result<Client, Problem> {
        self.client.lock().await.clone().ok_or(Problem::SessionEnded)
    }
}

pub(crate) struct Zookeeper {
    servers: String,
    prefix: String,
    session: Duration,
    /// A user and a password for the scheme `digest`.
    login: Option<String>,
}

/// A request in the queue of a lock.
struct Entry {
    node: String,
    mode: LockMode,
    sequence: i32,
}

impl Entry {
    /// Reads the name of a node: the id of a ticket, its mode and its number.
    fn read(node: &str) -> Option<Self> {
        let (rest, sequence) = (node.get(..node.len().checked_sub(10)?)?, node.get(node.len() - 10..)?);
        // After the highest number, ZooKeeper goes on with the lowest one, which has a sign and one character more.
        let (rest, sequence) = match rest.strip_suffix("--") {
            Some(rest) => (rest, format!("-{sequence}")),
            None => (rest.strip_suffix('-')?, sequence.to_owned()),
        };
        let (_, mode) = rest.split_once('-')?;
        Some(Self { node: node.to_owned(), mode: read_mode(mode)?, sequence: sequence.parse().ok()? })
    }

    /// Whether it was created before another one; numbers wrap around.
    fn is_before(&self, other: &Self) -> bool {
        self.sequence.wrapping_sub(other.sequence) < 0
    }
}

impl Zookeeper {
    pub(crate) fn new(options: &Options) -> Self {
        let servers: Vec<_> =
            options.endpoints.iter().map(|endpoint| endpoint.authority.to_str().unwrap_or_default()).collect();
        let login = match &options.login {
            Some(Login::User { name, password }) => Some(format!("{name}:{}", password.reveal())),
            Some(Login::Token(_)) | None => None,
        };
        Self { servers: servers.join(","), prefix: format!("/{}", options.prefix), session: options.session, login }
    }

    fn acls(&self) -> Acls<'static> {
        if self.login.is_some() { Acls::creator_all() } else { Acls::anyone_all() }
    }

    fn queue(&self, lock: &str) -> String {
        format!("{}/locks/{}", self.prefix, escaped(lock))
    }

    /// The nodes of a ticket, for each of its locks: one, unless they were deleted.
    async fn find(&self, client: &Client, ticket: &Ticket) -> Result<Vec<Vec<String>>, Problem> {
        answer(client.sync(&self.prefix)).await.or_else(|problem| match problem {
            Failed::NoNode => Ok(()),
            Failed::Problem(problem) => Err(problem),
        })?;
        let mut found = Vec::with_capacity(ticket.names.len());
        for name in &ticket.names {
            let queue = self.queue(name);
            let nodes = match answer(client.list_children(&queue)).await {
                Ok(nodes) => nodes,
                Err(Failed::NoNode) => Vec::new(),
                Err(Failed::Problem(problem)) => return Err(problem),
            };
            let own = nodes.into_iter().filter(|node| node.starts_with(&ticket.id));
            found.push(own.map(|node| format!("{queue}/{node}")).collect());
        }
        Ok(found)
    }

    /// Creates the nodes of a ticket, unless an earlier attempt has. Returns their paths.
    async fn enter(&self, client: &Client, ticket: &Ticket) -> Result<Vec<String>, Problem> {
        if ticket.is_repeated() {
            let found = self.find(client, ticket).await?;
            if found.iter().all(|nodes| nodes.len() == 1) {
                return Ok(found.into_iter().flatten().collect());
            }
            if !found.iter().all(Vec::is_empty) {
                return Err(Problem::Vanished);
            }
        }
        let options = CreateMode::EphemeralSequential.with_acls(self.acls());
        for _ in 0..ATTEMPTS_MAX {
            let mut writer = client.new_multi_writer();
            for name in &ticket.names {
                let path = format!("{}/{}-{}-", self.queue(name), ticket.id, written(ticket.mode));
                writer.add_create(&path, ticket.metadata.as_bytes(), &options).map_err(Problem::unreachable)?;
            }
            let writing = writer.commit();
            match answer(async { writing.await.map_err(Error::from) }).await {
                Ok(results) => return Ok(results.into_iter().filter_map(created).collect()),
                Err(Failed::NoNode) => {}
                Err(Failed::Problem(problem)) => return Err(problem),
            }
            for name in &ticket.names {
                let queue = self.queue(name);
                let options = CreateMode::Container.with_acls(self.acls());
                answer(client.mkdir(&queue, &options)).await.or_else(Failed::unless_none)?;
            }
        }
        Err(Problem::unreachable("the node of a lock vanishes again and again"))
    }

    /// What a node waits for, with those before it in its queue.
    fn look(nodes: &[String], own: &str) -> Result<Option<WaitsFor<String>>, Problem> {
        // What is not ours is not a request.
        let entries: Vec<_> = nodes.iter().filter_map(|node| Entry::read(node)).collect();
        let own = entries.iter().find(|entry| entry.node == own).ok_or(Problem::Vanished)?;
        let mut before: Vec<_> = entries.iter().filter(|entry| entry.is_before(own)).collect();
        before.sort_by(|a, b| a.sequence.wrapping_sub(b.sequence).cmp(&0).reverse());
        let before = before.into_iter().map(|entry| Predecessor { key: entry.node.clone(), mode: entry.mode });
        waits_for(own.mode, before.collect())
    }

    /// Waits until a node holds its lock.
    async fn turn(&self, client: &Client, path: &str, waits: bool) -> Result<bool, Problem> {
        let (queue, own) = path.rsplit_once('/').ok_or_else(|| Problem::unreachable("not the path of a request"))?;
        loop {
            let nodes = answer(client.list_children(queue)).await?;
            let watcher = match Self::look(&nodes, own)? {
                None => return Ok(true),
                Some(_) if !waits => return Ok(false),
                Some(WaitsFor::This(node)) => {
                    let (stat, watcher) = answer(client.check_and_watch_stat(&format!("{queue}/{node}"))).await?;
                    if stat.is_none() {
                        continue;
                    }
                    watcher
                }
                Some(WaitsFor::Any) => {
                    let (nodes, watcher) = answer(client.list_and_watch_children(queue)).await?;
                    if Self::look(&nodes, own)?.is_none() {
                        return Ok(true);
                    }
                    watcher
                }
            };
            let event = watcher.changed().await;
            if event.session_state.is_terminated() {
                return Err(Problem::SessionEnded);
            }
        }
    }
}

fn created(result: MultiWriteResult) -> Option<String> {
    match result {
        MultiWriteResult::Create { path, .. } => Some(path),
        _ => None,
    }
}

/// What became of a request to ZooKeeper that failed.
enum Failed {
    NoNode,
    Problem(Problem),
}

impl Failed {
    /// What was to be there, is, or what was not to be there, is not.
    fn unless_none(self) -> Result<(), Problem> {
        match self {
            Self::NoNode => Ok(()),
            Self::Problem(problem) => Err(problem),
        }
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::NoNode => Self::unreachable("a node of ZooKeeper is missing"),
            Failed::Problem(problem) => problem,
        }
    }
}

/// Waits for an answer for a limited time.
async fn answer<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    match timeout(ANSWER_TIMEOUT, asking).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Error::NoNode)) => Err(Failed::NoNode),
        Ok(Err(Error::SessionExpired | Error::ClientClosed)) => Err(Failed::Problem(Problem::SessionEnded)),
        Ok(Err(error)) => Err(Failed::Problem(Problem::unreachable(format!("ZooKeeper: {error}")))),
        Err(_) => Err(Failed::Problem(Problem::unreachable("ZooKeeper does not answer in time"))),
    }
}

impl Backend for Zookeeper {
    type Session = Session;

    const ROW: EngineRow = EngineRow {
        name: "zookeeper",
        shared: true,
        permits: true,
        in_order: true,
        survives_failover: true,
        sequences: true,
    };
    // A server reports the sessions that are alive to the leader twice per tick, of which a session has at least two: the leader may end one a quarter of
    // its time early. The rest is for delays.
    const KNOWN: f64 = 0.6;

    async fn open(&self) -> Result<Opened<Session>, Problem> {
        // A server whose host has failed must not cost the session: the next one is tried within its time.
        let connector = Client::connector().with_session_timeout(self.session);
        let mut connector = connector.with_connection_timeout(self.session / CONNECTS_MIN);
        if let Some(login) = &self.login {
            connector = connector.with_auth("digest", login.as_bytes());
        }
        let client = connector.connect(&self.servers).await;
        let client = client.map_err(|error| Problem::unreachable(format!("ZooKeeper: {error}")))?;
        let ttl = client.session_timeout();
        let id = client.session_id().0;
        Ok(Opened { session: Session { id, client: Arc::new(Mutex::new(Some(client))) }, ttl })
    }

    async fn keep_alive(&self, session: &Session) -> Result<(), Problem> {
        // A write needs a majority, so that neither the server nor its leader is one that the others have given up.
        let client = session.client().await?;
        let folder = format!("{}/sessions", self.prefix);
        let path = format!("{folder}/{:x}", session.id);
        match answer(client.set_data(&path, b"", None)).await {
            Ok(_) => return Ok(()),
            Err(Failed::NoNode) => {}
            Err(Failed::Problem(problem)) => return Err(problem),
        }
        answer(client.mkdir(&folder, &CreateMode::Container.with_acls(self.acls()))).await?;
        answer(client.create(&path, b"", &CreateMode::Ephemeral.with_acls(self.acls()))).await?;
        Ok(())
    }

    async fn close(&self, session: &Session) -> Result<(), Problem> {
        let Some(client) = session.client.lock().await.take() else { return Ok(()) };
        let mut states = client.state_watcher();
        drop(client);
        let closed = async {
            while !states.state().is_terminated() {
                if states.changed().await.is_terminated() {
                    return;
                }
            }
        };
        timeout(CLOSE_TIMEOUT, closed).await.map_err(|_| Problem::unreachable("ZooKeeper does not answer in time"))
    }

    async fn acquire(&self, session: &Session, ticket: &Ticket, waits: bool) -> Result<Option<u64>, Problem> {
        let client = session.client().await?;
        let paths = self.enter(&client, ticket).await?;
        let mut token = None;
        for path in &paths {
            if !self.turn(&client, path, waits).await? {
                return Ok(None);
            }
            let stat = answer(client.check_stat(path)).await?.ok_or(Problem::Vanished)?;
            token = Some(u64::try_from(stat.czxid).unwrap_or_default());
        }
        // While it waited for the last one, somebody may have deleted the first.
        if paths.len() > 1 && !self.holds(session, ticket).await? {
            return Err(Problem::Vanished);
        }
        Ok(token)
    }

    async fn withdraw(&self, session: &Session, ticket: &Ticket) -> Result<(), Problem> {
        let client = session.client().await?;
        for path in self.find(&client, ticket).await?.into_iter().flatten() {
            answer(client.delete(&path, None)).await.or_else(Failed::unless_none)?;
        }
        Ok(())
    }

    async fn holds(&self, session: &Session, ticket: &Ticket) -> Result<bool, Problem> {
        Ok(self.find(&session.client().await?, ticket).await?.iter().all(|nodes| !nodes.is_empty()))
    }

    async fn take(&self, session: &Session, sequence: &str, count: u64) -> Result<u64, Problem> {
        let client = session.client().await?;
        let folder = format!("{}/sequences", self.prefix);
        let path = format!("{folder}/{}", escaped(sequence));
        let options = CreateMode::Persistent.with_acls(self.acls());
        loop {
            let (text, version) = match answer(client.get_data(&path)).await {
                Ok((text, stat)) => (text, stat.version),
                Err(Failed::NoNode) => {
                    answer(client.mkdir(&folder, &options)).await.or_else(Failed::unless_none)?;
                    match timeout(ANSWER_TIMEOUT, client.create(&path, b"0", &options)).await {
                        Ok(Ok(_) | Err(Error::NodeExists)) => continue,
                        Ok(Err(error)) => return Err(Problem::unreachable(format!("ZooKeeper: {error}"))),
                        Err(_) => return Err(Problem::unreachable("ZooKeeper does not answer in time")),
                    }
                }
                Err(Failed::Problem(problem)) => return Err(problem),
            };
            let last: Option<u64> = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            let last = last.ok_or_else(|| Problem::unreachable(format!("`{path}` of ZooKeeper is not a number")))?;
            let next = last.checked_add(count).ok_or(Problem::Exhausted)?;
            match timeout(ANSWER_TIMEOUT, client.set_data(&path, next.to_string().as_bytes(), Some(version))).await {
                Ok(Ok(_)) => return Ok(last + 1),
                // Another instance was faster.
                Ok(Err(Error::BadVersion)) => {}
                Ok(Err(Error::SessionExpired | Error::ClientClosed)) => return Err(Problem::SessionEnded),
                Ok(Err(error)) => return Err(Problem::unreachable(format!("ZooKeeper: {error}"))),
                Err(_) => return Err(Problem::unreachable("ZooKeeper does not answer in time")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, mode: &str, sequence: i32) -> String {
        format!("{id:032x}-{mode}-{sequence:010}")
    }

    #[test]
    fn the_name_of_a_node_is_read() {
        for sequence in [0, 7, i32::MAX, -1, i32::MIN] {
            let name = node(1, "5", sequence);
            let entry = Entry::read(&name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((entry.sequence, entry.mode), (sequence, LockMode::Permit(5)), "{name}");
        }
        for name in ["", "x", "lock-0000000001", "ü-x-0000000001-"] {
            assert!(Entry::read(name).is_none(), "{name}");
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let nodes = [node(1, "x", i32::MAX), node(2, "x", i32::MIN), node(3, "x", i32::MAX - 1)];
        let waits = |own: &str| Zookeeper::look(&nodes, own);
        assert_eq!(waits(&nodes[2]), Ok(None));
        assert_eq!(waits(&nodes[0]), Ok(Some(WaitsFor::This(nodes[2].clone()))));
        assert_eq!(waits(&nodes[1]), Ok(Some(WaitsFor::This(nodes[0].clone()))));
    }
}
