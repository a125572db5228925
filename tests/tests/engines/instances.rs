//! Three instances that use one engine, in this process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use crossdock_cluster::{Machines, Member, Node, Settings};
use crossdock_engines::Kind;
use crossdock_ports::{EngineRow, LockEngine};
use crossdock_tests::EngineServers;
use crossdock_zab::ServerId;
use rustix::process::Signal;
use tempfile::TempDir;

/// The number of instances.
pub(crate) const COUNT: usize = 3;

/// What ends an instance as if its process had been killed.
enum Running {
    Embedded(Box<Node>, crossdock_embedded::Running),
    External(crossdock_engines::Running),
}

struct Instance {
    locks: Arc<dyn LockEngine>,
    running: Running,
}

/// Where the instances keep locks.
enum Engine {
    Embedded { settings: Vec<Settings>, _folder: TempDir },
    External(EngineServers),
}

/// Three instances that use one engine.
pub(crate) struct Instances {
    pub(crate) row: EngineRow,
    pub(crate) version: String,
    /// The time to live of their sessions.
    pub(crate) ttl: Duration,
    engine: Engine,
    running: Vec<Option<Instance>>,
}

impl Instances {
    /// Instances of a cluster of their own.
    pub(crate) fn embedded(ttl: Duration) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listeners: Vec<_> = (0..COUNT).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let address = |listener: &TcpListener| listener.local_addr().expect("an address").into();
        let members: BTreeMap<_, _> = (1..)
            .zip(&listeners)
            .map(|(id, listener)| (ServerId(id), Member { address: address(listener), votes: true }))
            .collect();
        drop(listeners);
        let one = |id: &ServerId| {
            let mut settings = Settings::new("engines", *id, members.clone(), folder.path().join(id.to_string()));
            settings.create = true;
            settings
        };
        let settings = members.keys().map(one).collect();
        Self::new(
            EngineRow::EMBEDDED,
            env!("CARGO_PKG_VERSION").to_owned(),
            ttl,
            Engine::Embedded { settings, _folder: folder },
        )
    }

    /// Instances that use servers of an engine.
    pub(crate) fn external(kind: Kind, ttl: Duration) -> Self {
        let servers = EngineServers::start(kind);
        Self::new(kind.row(), servers.version.clone(), ttl, Engine::External(servers))
    }

    fn new(row: EngineRow, version: String, ttl: Duration, engine: Engine) -> Self {
        let mut all = Self { row, version, ttl, engine, running: Vec::new() };
        all.running = (0..COUNT).map(|at| Some(all.start(at))).collect();
        all
    }

    fn start(&self, at: usize) -> Instance {
        match &self.engine {
            Engine::Embedded { settings, .. } => {
                let mut machines = Machines::new();
                let published = crossdock_embedded::add(&mut machines);
                let node = Node::start(&settings[at], machines).expect("an instance");
                let options = crossdock_embedded::Options { ttl: self.ttl, label: format!("instance {at}") };
                let started = crossdock_embedded::Engine::start(node.replica(&published), options);
                let (engine, running) = started.expect("a thread");
                Instance { locks: Arc::new(engine), running: Running::Embedded(Box::new(node), running) }
            }
            Engine::External(servers) => {
                let started = crossdock_engines::start(servers.options("test/gateway", self.ttl));
                let (locks, running) = started.expect("a thread");
                Instance { locks, running: Running::External(running) }
            }
        }
    }

    /// The locks of an instance.
    pub(crate) fn locks(&self, at: usize) -> Arc<dyn LockEngine> {
        Arc::clone(&self.running[at].as_ref().expect("a running instance").locks)
    }

    /// Ends an instance without closing its session, and starts another one in its place.
    pub(crate) fn replace(&mut self, at: usize) {
        self.stop(at);
        self.running[at] = Some(self.start(at));
    }

    /// Cuts the first instance off from its engine: stops the servers, or the other instances, which are its servers then.
    pub(crate) fn cut_off(&mut self) {
        if let Engine::External(servers) = &self.engine {
            servers.signal(Signal::STOP);
        } else {
            (1..COUNT).for_each(|at| self.stop(at));
        }
    }

    /// Ends what [`Instances::cut_off`] began.
    pub(crate) fn connect(&mut self) {
        if let Engine::External(servers) = &self.engine {
            servers.signal(Signal::CONT);
        } else {
            for at in 1..COUNT {
                self.running[at] = Some(self.start(at));
            }
        }
    }

    fn stop(&mut self, at: usize) {
        if let Some(Instance { running, .. }) = self.running[at].take() {
            match running {
                Running::Embedded(node, running) => {
                    drop(running);
                    node.stop();
                }
                Running::External(running) => drop(running),
            }
        }
    }

    /// The servers of the engine, unless the instances themselves are.
    pub(crate) fn servers(&mut self) -> Option<&mut EngineServers> {
        match &mut self.engine {
            Engine::Embedded { .. } => None,
            Engine::External(servers) => Some(servers),
        }
    }
}
