//! The topics of a listener, with the entries of the current routes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crossdock_ports::EntrySpec;
use tokio::sync::Semaphore;

use crate::config::{Entry, Order};

/// How the records of a partition are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) order: Order,
    pub(super) is_transactional: bool,
    pub(super) is_at_most_once: bool,
}

impl Mode {
    /// Whether offsets are stored, and committed later by the client.
    pub(super) fn stores_offsets(self) -> bool {
        !self.is_transactional && !self.is_at_most_once
    }
}

/// How the records of a topic are processed now.
#[derive(Clone)]
pub(super) struct Topic {
    pub(super) spec: Arc<dyn EntrySpec>,
    /// One for each record that may be processed at the same time.
    pub(super) permits: Arc<Semaphore>,
    pub(super) mode: Mode,
    concurrency: usize,
}

/// The topics that routes consume, or have consumed since their partitions were assigned.
#[derive(Default)]
pub(super) struct Topics(RefCell<HashMap<String, Topic>>);

impl Topics {
    /// Takes the entries of the current routes, by topic. Records of a removed route wait for it, or for the revocation of their partitions: `is_owned` says
    /// whether there are any.
    pub(super) fn update(&self, entries: &HashMap<String, Arc<dyn EntrySpec>>, is_owned: impl Fn(&str) -> bool) {
        let mut topics = self.0.borrow_mut();
        topics.retain(|topic, _| entries.contains_key(topic) || is_owned(topic));
        for (topic, spec) in entries {
            let Some(entry) = spec.as_any().downcast_ref::<Entry>() else { continue };
            let mode = Mode {
                order: entry.order,
                is_transactional: entry.is_transactional,
                is_at_most_once: entry.is_at_most_once,
            };
            match topics.get_mut(topic) {
                Some(known) if known.concurrency == entry.concurrency => {
                    (known.spec, known.mode) = (Arc::clone(spec), mode);
                }
                _ => {
                    let concurrency = entry.concurrency;
                    let permits = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
                    topics.insert(topic.clone(), Topic { spec: Arc::clone(spec), mode, concurrency, permits });
                }
            }
        }
    }

    /// How the records of a topic are processed now; `None` if no route has consumed it since its partitions were assigned.
    pub(super) fn get(&self, name: &str) -> Option<Topic> {
        self.0.borrow().get(name).cloned()
    }

    /// The mode of a topic.
    pub(super) fn mode(&self, name: &str) -> Option<Mode> {
        self.0.borrow().get(name).map(|topic| topic.mode)
    }

    /// Whether this holds for a topic.
    pub(super) fn any(&self, holds: impl Fn(&Topic) -> bool) -> bool {
        self.0.borrow().values().any(holds)
    }
}
