//! A connection to a broker that is opened on demand and reopened when it is lost.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Backoff, jittered};

/// The first and the longest delay between two attempts to connect.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A connection that lasts this long resets the backoff; a shorter one may have been closed because of a message.
const STABLE_TIME: Duration = Duration::from_secs(10);
/// For closing a connection gracefully.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens and watches the connections of one broker.
pub trait Connector: Debug + Send + Sync + 'static {
    /// A connection, shared by its users.
    type Connection: Clone + Debug + Send + Sync + 'static;

    /// The addresses of the broker without credentials, for logs.
    fn broker(&self) -> &str;
    /// The purpose of the connection, for logs.
    fn purpose(&self) -> &'static str;
    /// Opens a connection. Limits its own time.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, String>> + Send;
    /// Whether a connection is usable.
    fn is_up(connection: &Self::Connection) -> bool;
    /// Completes once a connection is lost, with the reason.
    fn lost(&self, connection: &Self::Connection) -> impl Future<Output = String> + Send;
    /// Closes a connection. Limited to three seconds.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

/// A connection that is maintained by a task of its own, from its first use until it is dropped.
#[derive(Debug)]
pub struct Supervised<C: Connector> {
    connector: Arc<C>,
    runtime: Handle,
    state: OnceLock<watch::Receiver<State<C::Connection>>>,
}

#[derive(Debug, Clone)]
enum State<T> {
    /// There is no connection. The reason is empty if a connection is being opened.
    Down(String),
    Up(Live<T>),
}

/// An open connection; it may be lost at any time.
#[derive(Debug, Clone)]
pub struct Live<T> {
    /// Distinguishes this connection from earlier ones of the same broker.
    pub number: u64,
    /// The connection.
    pub connection: T,
    /// Cancelled once the connection is lost.
    ended: CancellationToken,
}

impl<T> Live<T> {
    /// Completes once the connection is lost. Cancel safe.
    pub async fn lost(&self) {
        self.ended.cancelled().await;
    }
}

impl<C: Connector> Supervised<C> {
    /// Prepares a connection; `runtime` will run its task.
    #[must_use]
    pub fn new(connector: C, runtime: Handle) -> Self {
        Self { connector: Arc::new(connector), runtime, state: OnceLock::new() }
    }

    /// The connector.
    #[must_use]
    pub fn connector(&self) -> &C {
        &self.connector
    }

    /// The connection; waits up to `timeout` for one. Cancel safe.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connection(&self, timeout: Duration) -> Result<Live<C::Connection>, String> {
        let mut state = self.state();
        let waiting = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Up(live) if Self::is_up(live) => return Ok(live.clone()),
                    State::Down(problem) if !problem.is_empty() => return Err(problem.clone()),
                    State::Up(_) | State::Down(_) => {}
                }
                if state.changed().await.is_err() {
                    return Err("the gateway is stopping".to_owned());
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.unwrap_or_else(|_| Err("the connect timeout expired".to_owned()))
    }

    /// The connection; waits for one without limit. Cancel safe.
    pub async fn wait_for_connection(&self) -> Live<C::Connection> {
        let mut state = self.state();
        loop {
            if let State::Up(live) = &*state.borrow_and_update()
                && Self::is_up(live)
            {
                return live.clone();
            }
            if state.changed().await.is_err() {
                // The process is exiting.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why there is no connection; `None` if there is one, or none has been needed yet. Opens no connection.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &*self.state.get()?.borrow() {
            State::Up(live) if Self::is_up(live) => None,
            State::Down(problem) if !problem.is_empty() => Some(problem.clone()),
            State::Up(_) | State::Down(_) => Some("connecting".to_owned()),
        }
    }

    /// Whether a connection is usable, as far as is known.
    #[must_use]
    pub fn is_up(live: &Live<C::Connection>) -> bool {
        !live.ended.is_cancelled() && C::is_up(&live.connection)
    }

    /// Spawns a task that outlives the caller.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    fn state(&self) -> watch::Receiver<State<C::Connection>> {
        let start = || {
            let (sender, state) = watch::channel(State::Down(String::new()));
            self.runtime.spawn(maintain(Arc::clone(&self.connector), sender));
            state
        };
        self.state.get_or_init(start).clone()
    }
}

/// Maintains a connection until all users have dropped it.
async fn maintain<C: Connector>(connector: Arc<C>, state: watch::Sender<State<C::Connection>>) {
    let (broker, purpose) = (connector.broker(), connector.purpose());
    let mut backoff = Backoff::new(BACKOFF, BACKOFF_MAX);
    let mut number = 0;
    let mut reported = String::new();
    loop {
        let connected = tokio::select! {
            connected = connector.connect() => connected,
            () = state.closed() => return,
        };
        match connected {
            Ok(connection) => {
                number += 1;
                let since = Instant::now();
                tracing::info!(%broker, %purpose, number, "connected to the broker");
                let ended = CancellationToken::new();
                // Cancelled however this connection ends.
                let _ended = ended.clone().drop_guard();
                state.send_replace(State::Up(Live { number, connection: connection.clone(), ended }));
                let problem = tokio::select! {
                    problem = connector.lost(&connection) => problem,
                    () = state.closed() => {
                        let _ = tokio::time::timeout(CLOSE_TIMEOUT, C::close(connection)).await;
                        return;
                    }
                };
                tracing::warn!(%broker, %purpose, number, %problem, "broker connection lost");
                // Callers now wait for the next connection instead of failing.
                state.send_replace(State::Down(String::new()));
                reported = String::new();
                if since.elapsed() >= STABLE_TIME {
                    backoff = Backoff::new(BACKOFF, BACKOFF_MAX);
                    continue;
                }
            }
            Err(problem) => {
                if problem != reported {
                    tracing::warn!(%broker, %purpose, %problem, "broker unreachable; retrying");
                    reported.clone_from(&problem);
                }
                state.send_replace(State::Down(problem));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(backoff.next_delay())) => {}
            () = state.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Refuses the first `refusals` connections. A connection is lost once its token is cancelled.
    #[derive(Debug)]
    struct Fake {
        refusals: u64,
        attempts: AtomicU64,
    }

    impl Connector for Fake {
        type Connection = CancellationToken;

        fn broker(&self) -> &'static str {
            "fake"
        }

        fn purpose(&self) -> &'static str {
            "Test"
        }

        async fn connect(&self) -> Result<CancellationToken, String> {
            let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
            if attempt < self.refusals { Err(format!("refusal {attempt}")) } else { Ok(CancellationToken::new()) }
        }

        fn is_up(connection: &CancellationToken) -> bool {
            !connection.is_cancelled()
        }

        async fn lost(&self, connection: &CancellationToken) -> String {
            connection.cancelled().await;
            "cancelled".to_owned()
        }

        async fn close(connection: CancellationToken) {
            connection.cancel();
        }
    }

    fn supervised(refusals: u64) -> Supervised<Fake> {
        Supervised::new(Fake { refusals, attempts: AtomicU64::new(0) }, Handle::current())
    }

    #[tokio::test]
    async fn a_lost_connection_is_replaced() {
        let supervised = supervised(0);
        let first = supervised.connection(Duration::from_secs(5)).await.expect("a connection");
        first.connection.cancel();
        first.lost().await;
        let second = supervised.connection(Duration::from_secs(5)).await.expect("a second connection");
        assert_eq!((first.number, second.number), (1, 2));
    }

    #[tokio::test]
    async fn callers_learn_why_there_is_no_connection_and_may_wait_for_one() {
        let supervised = supervised(2);
        assert_eq!(supervised.problem(), None, "no connection was needed yet");
        let problem = supervised.connection(Duration::from_secs(5)).await.expect_err("the first attempt is refused");
        assert!(problem.starts_with("refusal "), "{problem}");
        assert!(supervised.problem().is_some_and(|problem| problem.starts_with("refusal ") || problem == "connecting"));
        assert_eq!(supervised.wait_for_connection().await.number, 1);
        assert_eq!(supervised.problem(), None);
        assert_eq!(supervised.connector().attempts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_unused_connection_is_closed() {
        let supervised = supervised(0);
        let live = supervised.wait_for_connection().await;
        drop(supervised);
        tokio::time::timeout(Duration::from_secs(5), live.connection.cancelled()).await.expect("it is closed");
        live.lost().await;
    }
}
