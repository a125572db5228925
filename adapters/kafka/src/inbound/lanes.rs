//! Distributes records to lanes. The records of a lane are processed one after another, those of different lanes concurrently.

use std::cell::RefCell;
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_ports::EntrySpec;
use tokio::sync::Semaphore;
use tokio::task::spawn_local;

use super::ListenerContext;
use super::handler::handle;
use super::member::Delivery;
use crate::config::{Entry, Order};

/// A lane: an assignment of a partition, and the key if the order is by key.
type LaneId = (u64, Option<Bytes>);

type Waiting = Rc<RefCell<HashMap<LaneId, VecDeque<Delivery>>>>;

/// The lanes of a listener. The windows of the partitions bound the number of waiting records.
pub(super) struct Lanes {
    context: Rc<ListenerContext>,
    topics: HashMap<String, Topic>,
    /// The records that wait in each lane that has a task.
    waiting: Waiting,
}

/// The entry of a topic.
struct Topic {
    spec: Arc<dyn EntrySpec>,
    order: Order,
    concurrency: usize,
    permits: Arc<Semaphore>,
}

impl Lanes {
    pub(super) fn new(context: Rc<ListenerContext>) -> Self {
        Self { context, topics: HashMap::new(), waiting: Waiting::default() }
    }

    /// The entries of the current routes, by topic.
    pub(super) fn update(&mut self, topics: &HashMap<String, Arc<dyn EntrySpec>>) {
        // Records of a removed route wait for it, or for the revocation of their partitions.
        let assignment = self.context.member.assignment();
        self.topics.retain(|topic, _| topics.contains_key(topic) || assignment.owns_topic(topic));
        for (topic, spec) in topics {
            let Some(entry) = spec.as_any().downcast_ref::<Entry>() else { continue };
            match self.topics.get_mut(topic) {
                Some(known) if known.concurrency == entry.concurrency => {
                    (known.spec, known.order) = (Arc::clone(spec), entry.order);
                }
                _ => {
                    let (order, concurrency) = (entry.order, entry.concurrency);
                    let permits = Arc::new(Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)));
                    self.topics.insert(topic.clone(), Topic { spec: Arc::clone(spec), order, concurrency, permits });
                }
            }
        }
    }

    /// Processes a record after those before it in its lane.
    pub(super) fn push(&self, delivery: Delivery) {
        let Some(topic) = self.topics.get(&*delivery.record.topic) else { return };
        let key = match topic.order {
            Order::Partition => None,
            Order::Key if delivery.record.key.is_some() => delivery.record.key.clone(),
            Order::Key | Order::None => {
                let (context, spec, permits) = self.task(topic);
                spawn_local(async move { handle(&context, &spec, &permits, delivery).await });
                return;
            }
        };
        let lane: LaneId = (delivery.id.assignment, key);
        match self.waiting.borrow_mut().entry(lane.clone()) {
            MapEntry::Occupied(mut waiting) => waiting.get_mut().push_back(delivery),
            MapEntry::Vacant(new) => {
                new.insert(VecDeque::from([delivery]));
                let (context, spec, permits) = self.task(topic);
                spawn_local(run(context, spec, permits, lane, Rc::clone(&self.waiting)));
            }
        }
    }

    fn task(&self, topic: &Topic) -> (Rc<ListenerContext>, Arc<dyn EntrySpec>, Arc<Semaphore>) {
        (Rc::clone(&self.context), Arc::clone(&topic.spec), Arc::clone(&topic.permits))
    }
}

/// Processes the records of a lane until none waits.
async fn run(
    context: Rc<ListenerContext>,
    spec: Arc<dyn EntrySpec>,
    permits: Arc<Semaphore>,
    lane: LaneId,
    waiting: Waiting,
) {
    loop {
        let next = match waiting.borrow_mut().entry(lane.clone()) {
            MapEntry::Occupied(mut queue) => match queue.get_mut().pop_front() {
                Some(next) => next,
                None => {
                    queue.remove();
                    return;
                }
            },
            MapEntry::Vacant(_) => return,
        };
        // Ends without a settlement only if its partition is being revoked; then no record of the lane starts any more.
        handle(&context, &spec, &permits, next).await;
    }
}
