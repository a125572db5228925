//! What all clients of librdkafka share: their settings, their logs, and their last error.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_ports::PortStatus;
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{Cluster, TokenSource};

/// Receives the logs and errors of a client.
#[derive(Debug)]
pub(crate) struct Monitor {
    /// The brokers, for logs.
    brokers: String,
    /// What the client does, for logs.
    purpose: &'static str,
    /// Where bearer tokens come from, if they are used.
    tokens: Option<TokenSource>,
    /// The last error, until the brokers do something that was requested.
    problem: Mutex<Option<Problem>>,
}

#[derive(Debug)]
struct Problem {
    text: String,
    checked: Instant,
}

impl Monitor {
    pub(crate) fn new(cluster: &Cluster, purpose: &'static str) -> Self {
        let (brokers, tokens) = (cluster.brokers.clone(), cluster.token_source().cloned());
        Self { brokers, purpose, tokens, problem: Mutex::default() }
    }

    /// The brokers replied.
    pub(crate) fn is_up(&self) {
        let was_down = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        if was_down.is_some() {
            tracing::info!(brokers = %self.brokers, purpose = self.purpose, "brokers reached again");
        }
    }

    /// The brokers cannot be used for this reason.
    pub(crate) fn is_down(&self, problem: &str) {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.text != problem) {
            tracing::warn!(brokers = %self.brokers, purpose = self.purpose, problem, "brokers cannot be used; retrying");
            *known = Some(Problem { text: problem.to_owned(), checked: Instant::now() });
        }
    }

    pub(crate) fn status(&self) -> PortStatus {
        match &*self.problem.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(problem) => PortStatus::Down(problem.text.clone()),
            None => PortStatus::Up,
        }
    }

    /// Whether the brokers are down and were not checked for this time; counts as a check.
    pub(crate) fn is_check_due(&self, interval: Duration) -> bool {
        let mut known = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match known.as_mut().filter(|problem| problem.checked.elapsed() >= interval) {
            Some(problem) => {
                problem.checked = Instant::now();
                true
            }
            None => false,
        }
    }
}

impl ClientContext for Monitor {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.tokens.as_ref().ok_or("no token is configured")?.token();
        token.map_err(|problem| {
            self.is_down(&problem);
            problem.into()
        })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let (brokers, purpose) = (&self.brokers, self.purpose);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(%brokers, purpose, facility, text, "message of librdkafka");
            }
            // Such as an offset that is no longer in the log.
            RDKafkaLogLevel::Warning if facility == "OFFSET" => {
                tracing::warn!(%brokers, purpose, facility, text, "message of librdkafka");
            }
            // Errors that matter are reported to `error` as well.
            _ => tracing::debug!(%brokers, purpose, facility, text, "message of librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // One broker of several: librdkafka uses the others.
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve)
                if self.brokers.contains(',') =>
            {
                tracing::debug!(brokers = %self.brokers, purpose = self.purpose, reason, "a broker is unreachable");
            }
            // The reason is in the error before it.
            Some(RDKafkaErrorCode::AllBrokersDown) if !self.status().is_up() => {}
            _ => self.is_down(reason),
        }
    }
}

impl ConsumerContext for Monitor {}

/// Receives the logs and errors of a client for a monitor that others read.
pub(crate) struct Observer(Arc<Monitor>);

impl Observer {
    pub(crate) fn new(monitor: &Arc<Monitor>) -> Self {
        Self(Arc::clone(monitor))
    }

    pub(crate) fn monitor(&self) -> &Monitor {
        &self.0
    }
}

impl ClientContext for Observer {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.generate_oauth_token(config)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for Observer {}
