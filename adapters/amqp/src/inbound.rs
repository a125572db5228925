//! A listener: consumes the queues of its routes.

mod consumer;
mod delivery;
mod status;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossdock_delivery::{Backoff, run_on_own_thread};
use crossdock_message::ByteString;
use crossdock_ports::{AdapterError, EntrySpec, Inbound, Ingress, OpenIngress, ReportStatus, SendFuture, Stop};
use crossdock_transport::with_token;
use lapin::types::ShortString;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Brokers, Purpose};
use crate::config::{Entry, Listener};
use crate::publisher::Publisher;
use crate::publisher::replies::Replies;

use self::status::ConsumerStatuses;

/// How often the queues of the routes are checked for changes.
const ROUTES_INTERVAL: Duration = Duration::from_millis(250);

/// The delays between attempts to consume a queue or to settle a message.
const fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

/// A listener.
pub(crate) struct AmqpInbound {
    name: String,
    consuming: Arc<Broker>,
    publishing: Arc<Broker>,
    replying: Arc<Broker>,
    quarantine: Arc<Broker>,
    statuses: Arc<ConsumerStatuses>,
}

impl AmqpInbound {
    pub(crate) fn open(name: &str, listener: &Listener, brokers: &Brokers) -> Result<Self, AdapterError> {
        let broker = |purpose| brokers.broker(&listener.addresses, purpose);
        let consuming = broker(Purpose::Consume)?;
        Ok(Self {
            name: name.to_owned(),
            statuses: Arc::new(ConsumerStatuses::new(Arc::clone(&consuming))),
            consuming,
            publishing: broker(Purpose::Publish)?,
            replying: broker(Purpose::Reply)?,
            quarantine: broker(Purpose::Quarantine)?,
        })
    }
}

impl Inbound for AmqpInbound {
    fn address(&self) -> String {
        self.consuming.name().to_owned()
    }

    fn status(&self) -> Arc<dyn ReportStatus> {
        Arc::clone(&self.statuses) as Arc<dyn ReportStatus>
    }

    fn run(
        self: Box<Self>,
        _: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: Stop,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        let name = format!("amqp {}", self.name);
        Box::pin(with_token(stop, async move |stop| {
            let serve = async move || {
                self.serve(&*ingress, stop).await;
                Ok(())
            };
            run_on_own_thread(name, serve).await
        }))
    }
}

/// State that all queues of a listener share.
struct ListenerContext {
    name: ByteString,
    consuming: Arc<Broker>,
    statuses: Arc<ConsumerStatuses>,
    publisher: Rc<Publisher>,
    replies: Replies,
    ingress: Rc<dyn Ingress>,
}

/// The consumer of a queue.
struct RunningConsumer {
    entry: Arc<dyn EntrySpec>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl AmqpInbound {
    async fn serve(self: Box<Self>, ingress: &dyn OpenIngress, stop: CancellationToken) {
        let shared = Rc::new(ListenerContext {
            name: self.name.as_str().into(),
            consuming: self.consuming,
            statuses: self.statuses,
            publisher: Publisher::new(self.publishing, ShortString::default(), None),
            replies: Replies::new(self.replying, self.quarantine),
            ingress: ingress.open(),
        });
        let mut running: HashMap<String, RunningConsumer> = HashMap::new();
        let mut ending: HashMap<String, JoinHandle<()>> = HashMap::new();
        loop {
            let routed = shared.routed_queues();
            let is_outdated = |queue: &String, running: &RunningConsumer| match routed.get(queue) {
                Some(entry) => {
                    let is_same =
                        Arc::ptr_eq(entry, &running.entry) || fingerprint(entry) == fingerprint(&running.entry);
                    running.task.is_finished() || !is_same
                }
                None => true,
            };
            for (queue, old) in running.extract_if(|queue, running| is_outdated(queue, running)) {
                // The next consumer gets its deliveries once this one has released them.
                old.stop.cancel();
                ending.insert(queue, old.task);
            }
            ending.retain(|_, task| !task.is_finished());
            for (queue, entry) in routed {
                // Wait for the old consumer, so that no message overtakes those that it still holds.
                if ending.contains_key(&queue) {
                    continue;
                }
                running.entry(queue).or_insert_with(|| {
                    let stop = stop.child_token();
                    let task = spawn_local(consumer::consume(Rc::clone(&shared), Arc::clone(&entry), stop.clone()));
                    RunningConsumer { entry, stop, task }
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(ROUTES_INTERVAL) => {}
            }
        }
        for task in running.into_values().map(|running| running.task).chain(ending.into_values()) {
            let _ = task.await;
        }
    }
}

/// Identifies the settings of an entry.
fn fingerprint(entry: &Arc<dyn EntrySpec>) -> Option<u64> {
    entry.as_any().downcast_ref::<Entry>().map(|entry| entry.fingerprint)
}

impl ListenerContext {
    /// The queues of the current routes.
    fn routed_queues(&self) -> HashMap<String, Arc<dyn EntrySpec>> {
        let named = |entry: Arc<dyn EntrySpec>| {
            let queue = entry.as_any().downcast_ref::<Entry>()?.queue.as_str().to_owned();
            Some((queue, entry))
        };
        self.ingress.entries(&self.name).into_iter().filter_map(named).collect()
    }
}
