//! Instances in this process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crossdock_cluster::{Machines, Member, Node, Settings};
use crossdock_embedded::{Engine, Options, Running, State, add};
use crossdock_zab::{Role, ServerId};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// The time to live of sessions.
pub(crate) const TTL: Duration = Duration::from_secs(1);

struct Instance {
    node: Node,
    engine: Engine,
    running: Running,
}

pub(crate) struct Cluster {
    ttl: Duration,
    settings: Vec<Settings>,
    instances: Vec<Option<Instance>>,
    _folder: TempDir,
}

/// Settings of instances on free ports.
fn settings(count: u64, folder: &Path) -> Vec<Settings> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let members: BTreeMap<_, _> = (1..)
        .zip(&listeners)
        .map(|(id, listener)| {
            let address = listener.local_addr().expect("an address").into();
            (ServerId(id), Member { address, votes: true })
        })
        .collect();
    let one = |id: &ServerId| {
        let mut settings = Settings::new("test", *id, members.clone(), folder.join(id.to_string()));
        settings.create = true;
        settings.log.segment_len = 1 << 20;
        settings
    };
    members.keys().map(one).collect()
}

fn start(settings: &Settings, ttl: Duration) -> Instance {
    let mut machines = Machines::new();
    let published = add(&mut machines);
    let node = Node::start(settings, machines).expect("an instance");
    let options = Options { ttl, label: format!("instance {}", settings.id) };
    let (engine, running) = Engine::start(node.replica(&published), options).expect("a thread");
    Instance { node, engine, running }
}

impl Cluster {
    pub(crate) async fn start(count: u64) -> Self {
        Self::start_with(count, TTL).await
    }

    /// With another time to live of sessions.
    pub(crate) async fn start_with(count: u64, ttl: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = settings(count, folder.path());
        let instances = settings.iter().map(|settings| Some(start(settings, ttl))).collect();
        let cluster = Self { ttl, settings, instances, _folder: folder };
        cluster.leader().await;
        cluster
    }

    fn instance(&self, at: usize) -> &Instance {
        self.instances[at].as_ref().expect("a running instance")
    }

    pub(crate) fn engine(&self, at: usize) -> Engine {
        self.instance(at).engine.clone()
    }

    /// The instance that leads, which is waited for.
    pub(crate) async fn leader(&self) -> usize {
        let leads = |instance: &Option<Instance>| {
            instance.as_ref().is_some_and(|instance| matches!(instance.node.client().status().role, Role::Leading(_)))
        };
        let found = async {
            loop {
                if let Some(at) = self.instances.iter().position(leads) {
                    return at;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), found).await.expect("a leader")
    }

    /// Ends an instance without closing its session.
    pub(crate) fn kill(&mut self, at: usize) {
        let Instance { node, running, .. } = self.instances[at].take().expect("a running instance");
        drop(running);
        node.stop();
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        self.instances[at] = Some(start(&self.settings[at], self.ttl));
        self.leader().await;
    }

    /// Waits for a state of an instance.
    pub(crate) async fn until(&self, at: usize, holds: impl Fn(&State) -> bool) {
        let engine = self.engine(at);
        let found = async {
            while !holds(&engine.view()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let state = engine.view();
        let locks = || state.locks.iter().map(|(name, lock)| (name.to_string(), lock.counts())).collect::<Vec<_>>();
        timeout(Duration::from_secs(20), found).await.unwrap_or_else(|_| panic!("locks are {:?}", locks()));
    }

    pub(crate) async fn stop(mut self) {
        for instance in self.instances.iter().flatten() {
            instance.engine.close().await;
        }
        for instance in self.instances.iter_mut().filter_map(Option::take) {
            drop(instance.running);
            instance.node.shut_down().await;
        }
    }
}
