//! `crossdock queues`, and dead letters of queues of the cluster.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use crossdock_message::{ByteString, Code, Fault};
use crossdock_ports::{Choice, DeadLetter, DeadLetters, LocalFuture, Visit};
use serde_json::{Value, json};

use super::cluster::Gateway;
use super::locks::{escaped, seconds, show, text};
use super::routes::{admin_of, fetch, post, print_columns};
use crate::outcome::{Failure, Outcome, on_local_runtime};

/// Dead letters that are read with one request.
const PAGE: usize = 100;
/// Where queues are in the admin API.
const PATH: &str = "/api/v1/queues";

#[derive(Subcommand)]
pub(super) enum QueuesCommand {
    /// Show the queues of a cluster: how many messages wait, are delayed, or are dead letters, and which instances consume them.
    ///
    /// The queue of a route with `order: { scope: cluster }` has the name `route NAME`. `crossdock dlq` shows, replays and deletes dead letters.
    List {
        /// Only those whose names begin with this.
        #[arg(default_value = "")]
        prefix: String,
        /// The maximum number of queues.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Print the JSON response of the gateway.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Delete all messages of a queue that no instance consumes, as after its route was removed. Dead letters are kept.
    Purge {
        /// The queue.
        name: String,
        /// The messages are lost: say that you mean it.
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
}

pub(super) fn queues(command: QueuesCommand) -> Outcome {
    match command {
        QueuesCommand::List { prefix, limit, json, gateway } => {
            let target = format!("{PATH}?limit={limit}&prefix={}", escaped(&prefix));
            show(gateway, &target, json, print_queues)
        }
        QueuesCommand::Purge { name, yes: _, gateway } => {
            let (address, token) = admin_of(gateway.admin, &gateway.config)?;
            let body = json!({ "queue": name, "purge": true }).to_string();
            let response = on_local_runtime(async move { post(&address, token.as_deref(), PATH, &body).await })??;
            let response: Value = serde_json::from_str(&response).unwrap_or_default();
            println!("{} messages deleted", text(&response["messages"]));
            Ok(())
        }
    }
}

fn print_queues(body: &Value) {
    let header = ["QUEUE", "MESSAGES", "DELAYED", "DEAD", "BYTES", "OLDEST", "CONSUMED BY"].map(str::to_owned);
    let mut rows = vec![header];
    for queue in body["queues"].as_array().into_iter().flatten() {
        let consumers = queue["consumers"].as_array().into_iter().flatten();
        let consumers: Vec<_> =
            consumers.map(|of| format!("{} ({} slots)", text(&of["label"]), text(&of["slots"]))).collect();
        rows.push([
            text(&queue["name"]),
            text(&queue["messages"]),
            text(&queue["delayed"]),
            text(&queue["dead_letters"]),
            text(&queue["bytes"]),
            seconds(&queue["oldest_ms"]),
            if consumers.is_empty() { "no instance".to_owned() } else { consumers.join(", ") },
        ]);
    }
    print_columns(&rows);
}

/// The dead letters of a queue of the cluster, through the admin listener of a running instance.
pub(super) struct OfCluster {
    pub(super) queue: String,
    pub(super) address: String,
    pub(super) token: Option<String>,
}

impl OfCluster {
    /// Dead letters after a position, and the position of the last one that there is.
    async fn page(&self, after: u64, limit: usize) -> Result<(Vec<Value>, u64), Fault> {
        let target = format!("{PATH}/dead?queue={}&after={after}&limit={limit}", escaped(&self.queue));
        let response =
            fetch(&self.address, self.token.as_deref(), &target).await.map_err(|problem| unreachable(&problem))?;
        let body: Value = serde_json::from_str(&response).unwrap_or_default();
        Ok((body["dead_letters"].as_array().cloned().unwrap_or_default(), body["last"].as_u64().unwrap_or(0)))
    }

    /// Replays or drops dead letters; how many there were.
    async fn take(&self, change: &str, positions: &[u64]) -> Result<usize, Fault> {
        if positions.is_empty() {
            return Ok(0);
        }
        let body = json!({ "queue": self.queue, change: positions }).to_string();
        let posted = post(&self.address, self.token.as_deref(), PATH, &body).await;
        let response: Value =
            serde_json::from_str(&posted.map_err(|problem| unreachable(&problem))?).unwrap_or_default();
        Ok(response["messages"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
    }

    async fn visit(&self, max: usize, choose: &mut dyn FnMut(&DeadLetter) -> Choice) -> Result<Visit, Fault> {
        let mut visit = Visit::default();
        let mut after = 0;
        let mut is_stopped = false;
        let mut last = None;
        while visit.seen < max && !is_stopped {
            let (page, newest) = self.page(after, PAGE.min(max - visit.seen)).await?;
            // A letter that is replayed and rejected again gets a higher position, and is not visited again.
            let last = *last.get_or_insert(newest);
            let position = |letter: &Value| letter["position"].as_u64().unwrap_or(u64::MAX);
            let page: Vec<_> = page.into_iter().filter(|letter| position(letter) <= last).collect();
            if page.is_empty() {
                break;
            }
            let (mut replayed, mut dropped) = (Vec::new(), Vec::new());
            for letter in &page {
                let position = position(letter);
                after = position;
                visit.seen += 1;
                match choose(&letter_of(&self.queue, letter)) {
                    Choice::Keep => {}
                    Choice::Replay => replayed.push(position),
                    Choice::Drop => dropped.push(position),
                    Choice::Stop => {
                        is_stopped = true;
                        break;
                    }
                }
            }
            visit.replayed += self.take("replay", &replayed).await?;
            visit.dropped += self.take("drop", &dropped).await?;
        }
        Ok(visit)
    }
}

fn unreachable(problem: &Failure) -> Fault {
    let problem = match problem {
        Failure::Error(problem) => problem.clone(),
        _ => "the request failed".to_owned(),
    };
    Fault::new(Code::Unavailable, "ADMIN", format!("the admin listener of an instance is needed: {problem}"))
}

fn letter_of(queue: &str, letter: &Value) -> DeadLetter {
    let text = |key: &str| letter[key].as_str().map(ByteString::from);
    let headers = letter["headers"].as_array().into_iter().flatten();
    let pair = |pair: &Value| Some((pair[0].as_str()?.into(), pair[1].as_str()?.into()));
    DeadLetter {
        id: letter["position"].to_string().into(),
        reason: text("reason"),
        error: text("error"),
        source: Some(queue.into()),
        attempts: Some(letter["attempts"].to_string().into()),
        content_type: text("content_type"),
        headers: headers.filter_map(pair).collect(),
        body: letter["body_base64"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default().into(),
        ..DeadLetter::default()
    }
}

impl DeadLetters for OfCluster {
    fn name(&self) -> &str {
        &self.queue
    }

    fn visit<'a>(
        &'a self,
        max: usize,
        choose: &'a mut dyn FnMut(&DeadLetter) -> Choice,
    ) -> LocalFuture<'a, Result<Visit, Fault>> {
        Box::pin(self.visit(max, choose))
    }
}
