//! A listener: consumes the topics of its routes as one member of a consumer group.

mod assignment;
mod batches;
mod commits;
mod events;
mod handler;
mod lanes;
mod member;
mod prefix;
mod request;
mod set_aside;
mod start;
mod topics;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossdock_delivery::{Backoff, run_on_own_thread};
use crossdock_message::{ByteString, Fault};
use crossdock_ports::{
    AdapterError, EntrySpec, Inbound, Ingress, OpenIngress, PortStatus, ReportStatus, SendFuture, SourceStatus, Stop,
};
use crossdock_transport::with_token;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::assignment::{Subscription, Window};
use self::commits::Commits;
use self::lanes::Lanes;
use self::member::{Member, StopOnDrop};
use self::topics::Topics;
use crate::client::Monitor;
use crate::config::{Cluster, Declare, Entry, Listener, RegistryAccess, RejectPolicy};
use crate::declare;
use crate::mapping;
use crate::producer::{Batching, Producer, Producers};
use crate::registry::{Registries, Registry, unusable};

/// The maximum number of records on their way to the arbiter; the polling thread waits for it.
const DELIVERIES_MAX: usize = 4096;
/// How many of them the arbiter takes at once.
const DELIVERIES_COUNT: usize = 256;
/// The delays between attempts to create topics.
const DECLARE_INTERVAL_MIN: Duration = Duration::from_millis(500);
const DECLARE_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// How often the ends of paused partitions are asked for.
const ENDS_INTERVAL: Duration = Duration::from_secs(5);
/// How often the topics of the routes are checked for changes.
const ROUTES_INTERVAL: Duration = Duration::from_millis(250);

/// A listener.
pub(crate) struct KafkaInbound {
    name: String,
    cluster: Cluster,
    member: Arc<Member>,
    /// For dead letters.
    producer: Arc<Producer>,
    transactional_id: String,
    registries: Arc<Registries>,
}

impl KafkaInbound {
    pub(crate) fn open(
        name: &str,
        listener: &Listener,
        producers: &Producers,
        registries: &Arc<Registries>,
    ) -> Result<Self, AdapterError> {
        let monitor = Arc::new(Monitor::new(&listener.cluster, "consume"));
        Ok(Self {
            name: name.to_owned(),
            cluster: listener.cluster.clone(),
            member: Member::open(listener, monitor)?,
            producer: producers.producer(&listener.cluster, Batching::default())?,
            transactional_id: transactional_id(name, listener),
            registries: Arc::clone(registries),
        })
    }
}

/// Built from the group, the listener and the instance. Without a name for the instance, an earlier process cannot be recognized; its transactions end
/// by their timeout.
fn transactional_id(name: &str, listener: &Listener) -> String {
    let unnamed = || format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let instance = listener.instance.clone().unwrap_or_else(unnamed);
    // Escaped, so that different parts never give the same id.
    let parts = ["crossdock", &listener.group, name, &instance];
    parts.map(mapping::escaped).join("/")
}

/// The status of a member, which it does not keep alive.
#[derive(Debug)]
struct MemberStatus(Weak<Member>);

impl ReportStatus for MemberStatus {
    fn status(&self) -> PortStatus {
        self.0.upgrade().map_or_else(|| PortStatus::Down("stopped".to_owned()), |member| member.status())
    }

    fn sources(&self) -> Vec<SourceStatus> {
        self.0.upgrade().map_or_else(Vec::new, |member| member.assignment().sources())
    }

    fn events(&self) -> Vec<(&'static str, u64)> {
        self.0.upgrade().map_or_else(Vec::new, |member| member.events().counts())
    }

    fn times(&self) -> Vec<(&'static str, Duration)> {
        self.0.upgrade().map_or_else(Vec::new, |member| member.events().times())
    }
}

impl Inbound for KafkaInbound {
    fn address(&self) -> String {
        self.cluster.brokers.clone()
    }

    fn status(&self) -> Arc<dyn ReportStatus> {
        Arc::new(MemberStatus(Arc::downgrade(&self.member)))
    }

    fn run(
        self: Box<Self>,
        _: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: Stop,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        let name = format!("kafka {}", self.name);
        Box::pin(with_token(stop, async move |stop| {
            let serve = async move || self.serve(&*ingress, stop).await.map_err(AdapterError::Stopped);
            run_on_own_thread(name, serve).await
        }))
    }
}

/// State that all records of a listener share.
struct ListenerContext {
    name: ByteString,
    member: Arc<Member>,
    commits: Rc<Commits>,
    producer: Arc<Producer>,
    ingress: Rc<dyn Ingress>,
    topics: Topics,
    cluster: Cluster,
    /// Ends the transactions of an earlier process of the same instance.
    transactional_id: String,
    /// Of the transactional producer.
    monitor: Arc<Monitor>,
    registries: Arc<Registries>,
    /// Those of the current entries.
    open_registries: RefCell<HashMap<u64, Arc<Registry>>>,
}

impl KafkaInbound {
    async fn serve(self: Box<Self>, ingress: &dyn OpenIngress, stop: CancellationToken) -> Result<(), String> {
        let (sender, mut deliveries) = mpsc::channel(DELIVERIES_MAX);
        let member = Arc::clone(&self.member);
        let (ended, mut polling) = tokio::sync::oneshot::channel();
        let thread = std::thread::Builder::new().name("kafka poll".to_owned());
        let poll = move || {
            // An error means that the arbiter has ended.
            let _ = ended.send(member.run(&sender));
        };
        thread.spawn(poll).map_err(|error| error.to_string())?;
        let _stop_on_drop = StopOnDrop(Arc::downgrade(&self.member));
        let context = Rc::new(ListenerContext {
            name: self.name.as_str().into(),
            member: Arc::clone(&self.member),
            commits: Commits::new(Arc::clone(&self.member)),
            producer: Arc::clone(&self.producer),
            ingress: ingress.open(),
            topics: Topics::default(),
            cluster: self.cluster.clone(),
            transactional_id: self.transactional_id.clone(),
            monitor: Arc::new(Monitor::new(&self.cluster, "produce in transactions")),
            registries: Arc::clone(&self.registries),
            open_registries: RefCell::default(),
        });
        let lanes = Lanes::new(Rc::clone(&context));
        let mut received = Vec::with_capacity(DELIVERIES_COUNT);
        let mut subscribed: HashMap<String, Subscription> = HashMap::new();
        let mut routes = tokio::time::interval(ROUTES_INTERVAL);
        let mut ends = tokio::time::interval(ENDS_INTERVAL);
        let mut asking = None;
        let cluster = self.cluster.clone();
        let mut declarations = Declarations { cluster, started: HashSet::new(), finished: Rc::default() };
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                // One question at a time, however slow the brokers are.
                _ = ends.tick(), if asking.as_ref().is_none_or(JoinHandle::is_finished) => {
                    let member = Arc::clone(&self.member);
                    asking = Some(tokio::task::spawn_blocking(move || member.ask_for_ends()));
                }
                () = stop.cancelled(), if !is_stopping => {
                    self.member.stop();
                    is_stopping = true;
                }
                _ = routes.tick(), if !is_stopping => {
                    let topics = context.routed_topics();
                    lanes.update(&topics);
                    let ready = topics.into_iter().filter(|(topic, spec)| {
                        spec.as_any().downcast_ref().is_none_or(|entry| declarations.is_ready(topic, entry))
                    });
                    let wanted: HashMap<_, _> = ready.map(|(topic, spec)| (topic, subscription(&spec))).collect();
                    if wanted != subscribed {
                        self.member.subscribe(wanted.clone());
                        subscribed = wanted;
                    }
                }
                1.. = deliveries.recv_many(&mut received, DELIVERIES_COUNT) => {
                    received.drain(..).for_each(|delivery| lanes.push(delivery));
                }
                // The member has left the group.
                ended = &mut polling => {
                    return ended.unwrap_or_else(|_| Err("the polling thread panicked".to_owned()));
                }
            }
        }
    }
}

/// The delays between attempts to reach the brokers.
const fn retry_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

/// Creates topics that entries want to be created.
struct Declarations {
    cluster: Cluster,
    /// Topics that are being created, and those that exist.
    started: HashSet<String>,
    finished: Rc<RefCell<HashSet<String>>>,
}

impl Declarations {
    /// Whether a topic of an entry can be subscribed: it exists, or that is not checked.
    fn is_ready(&mut self, topic: &str, entry: &Entry) -> bool {
        if entry.declare != Declare::Create {
            return true;
        }
        let dead = match &entry.reject_policy {
            RejectPolicy::DeadLetter(dead) => Some(dead),
            RejectPolicy::Discard => None,
        };
        let topics: Vec<String> =
            entry.topics().chain(dead).filter(|topic| self.started.insert((*topic).clone())).cloned().collect();
        if !topics.is_empty() {
            let (cluster, finished) = (self.cluster.clone(), Rc::clone(&self.finished));
            tokio::task::spawn_local(async move {
                let mut backoff = Backoff::new(DECLARE_INTERVAL_MIN, DECLARE_INTERVAL_MAX);
                while let Err(problem) = declare::create(cluster.clone(), topics.clone()).await {
                    tracing::warn!(topics = topics.join(" "), problem, "topics not created; retrying");
                    backoff.wait(std::future::pending()).await;
                }
                finished.borrow_mut().extend(topics);
            });
        }
        self.finished.borrow().contains(topic)
    }
}

fn subscription(spec: &Arc<dyn EntrySpec>) -> Subscription {
    let Some(entry) = spec.as_any().downcast_ref::<Entry>() else {
        return Subscription { window: Window::SINGLE, must_exist: false };
    };
    let window = Window {
        // A crash loses the started records of an entry that processes them at most once.
        count_max: if entry.is_at_most_once { entry.window.min(entry.concurrency) } else { entry.window },
        len_max: entry.window_len,
    };
    Subscription { window, must_exist: entry.declare != Declare::Never }
}

impl ListenerContext {
    /// The schema registry of an entry.
    ///
    /// # Errors
    /// UNAVAILABLE if its settings cannot be used.
    fn registry(&self, access: &RegistryAccess) -> Result<Arc<Registry>, Fault> {
        let mut open = self.open_registries.borrow_mut();
        if let Some(known) = open.get(&access.fingerprint) {
            return Ok(Arc::clone(known));
        }
        let is_used = |fingerprint: u64| {
            self.topics.any(|topic| {
                let entry = topic.spec.as_any().downcast_ref::<Entry>();
                entry.and_then(|entry| entry.registry.as_ref()).is_some_and(|access| access.fingerprint == fingerprint)
            })
        };
        open.retain(|fingerprint, _| is_used(*fingerprint));
        let registry = self.registries.registry(access).map_err(|error| unusable(&error.to_string()))?;
        open.insert(access.fingerprint, Arc::clone(&registry));
        Ok(registry)
    }

    /// The topics of the current routes, with their retry topics.
    fn routed_topics(&self) -> HashMap<String, Arc<dyn EntrySpec>> {
        let named = |spec: Arc<dyn EntrySpec>| {
            let entry = spec.as_any().downcast_ref::<Entry>();
            let topics: Vec<String> = entry.map(|entry| entry.topics().cloned().collect()).unwrap_or_default();
            topics.into_iter().map(move |topic| (topic, Arc::clone(&spec)))
        };
        self.ingress.entries(&self.name).into_iter().flat_map(named).collect()
    }
}
