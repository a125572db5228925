//! Distributes records to lanes. The records of a lane are processed one after another, those of different lanes concurrently.

use std::cell::{OnceCell, RefCell};
use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_delivery::failpoint;
use crossdock_ports::EntrySpec;
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;

use super::ListenerContext;
use super::batches::{Batches, Place};
use super::handler::handle;
use super::member::Delivery;
use super::topics::Mode;
use crate::config::Order;

/// How long a change of the guarantee waits until stored offsets are committed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How many records of a partition start before those of the next one have their turn.
const TURN_COUNT: usize = 32;

/// The records of a listener, by the number of the assignment of their partition. The room of the partitions bounds their memory.
pub(super) struct Lanes {
    pub(super) context: Rc<ListenerContext>,
    partitions: RefCell<HashMap<u64, PartitionLanes>>,
    /// The transactions of the topics that need them.
    batches: OnceCell<Rc<Batches>>,
}

/// An admitted record.
struct Admitted {
    delivery: Rc<Delivery>,
    /// Its place in the open transaction, if it is processed in one.
    place: Option<Place>,
}

/// The records of one assignment of a partition.
struct PartitionLanes {
    /// Cancelled when the partition is being revoked.
    stop: CancellationToken,
    /// Stored offsets are being committed before the mode changes.
    is_flushing: bool,
    /// Those outside of the window, in the order of their offsets.
    waiting: VecDeque<Delivery>,
    /// The mode of the admitted records.
    mode: Mode,
    /// The number of admitted records that have not ended.
    active: usize,
    /// The admitted records that wait in each lane that has a task. There is a lane for each key, or a single one if the order is by
    /// partition.
    lanes: HashMap<Bytes, VecDeque<Admitted>>,
}

impl Lanes {
    pub(super) fn new(context: Rc<ListenerContext>) -> Rc<Self> {
        Rc::new(Self { context, partitions: RefCell::default(), batches: OnceCell::new() })
    }

    /// Processes records by the entries of the current routes, by topic.
    pub(super) fn update(self: &Rc<Self>, entries: &HashMap<String, Arc<dyn EntrySpec>>) {
        let assignment = self.context.member.assignment();
        self.context.topics.update(entries, |topic| assignment.owns_topic(topic));
        if self.context.topics.any(|topic| topic.mode.is_transactional) {
            // Now, as the brokers deliver nothing before the transaction of a predecessor has ended.
            self.batches.get_or_init(|| Batches::open(self));
        }
        self.advance_all();
    }

    /// The lane of a record by the current mode of its topic; `None` if it has none.
    pub(super) fn lane_of(&self, delivery: &Delivery) -> Option<Bytes> {
        let order = self.context.topics.mode(&delivery.record.topic).map_or(Order::Partition, |mode| mode.order);
        lane(order, delivery)
    }

    /// Starts the records that can start now, of all partitions in turn.
    pub(super) fn advance_all(self: &Rc<Self>) {
        let mut assignments: Vec<u64> = self.partitions.borrow().keys().copied().collect();
        while !assignments.is_empty() {
            assignments.retain(|assignment| self.advance_by(*assignment, TURN_COUNT) == TURN_COUNT);
        }
    }

    /// Processes a record after those before it in its lane, once the window of its partition allows.
    pub(super) fn push(self: &Rc<Self>, delivery: Delivery) {
        let assignment = delivery.id.assignment;
        let new = || PartitionLanes::new(delivery.stop.clone());
        self.partitions.borrow_mut().entry(assignment).or_insert_with(new).waiting.push_back(delivery);
        self.advance(assignment);
    }

    /// Starts the records that the window of a partition admits.
    fn advance(self: &Rc<Self>, assignment: u64) {
        self.advance_by(assignment, usize::MAX);
    }

    /// Starts up to `max` records that the window of a partition admits, and returns how many; forgets those of a partition that is being revoked.
    fn advance_by(self: &Rc<Self>, assignment: u64, max: usize) -> usize {
        let mut partitions = self.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(&assignment) else { return 0 };
        let mut started = 0;
        while let Some(next) = partition.waiting.front().filter(|_| started < max) {
            if next.stop.is_cancelled() {
                partition.waiting.clear();
                break;
            }
            let Some(mode) = self.context.topics.mode(&next.record.topic) else { break };
            if partition.mode != mode {
                // No record may overtake another in either order, nor an offset outside of a transaction one inside.
                if partition.active > 0 || partition.is_flushing {
                    break;
                }
                if partition.mode.stores_offsets() && !mode.stores_offsets() {
                    // A stored offset must not be committed after those that records of the new mode commit themselves.
                    partition.is_flushing = true;
                    spawn_local(Rc::clone(self).flush(assignment, mode));
                    break;
                }
                partition.mode = mode;
            }
            let batches = mode.is_transactional.then(|| self.batches.get_or_init(|| Batches::open(self)));
            if batches.is_some_and(|batches| !batches.has_room()) || !self.context.member.assignment().admit(&next.id) {
                break;
            }
            if let Some(delivery) = partition.waiting.pop_front() {
                started += 1;
                partition.active += 1;
                let delivery = Rc::new(delivery);
                let place = batches.and_then(|batches| batches.join(&delivery));
                partition.start(self, Admitted { delivery, place });
            }
        }
        if partition.active == 0 && partition.waiting.is_empty() && partition.stop.is_cancelled() {
            partitions.remove(&assignment);
        }
        started
    }

    /// Commits stored offsets, and changes the mode of a partition.
    async fn flush(self: Rc<Self>, assignment: u64, mode: Mode) {
        let member = Arc::clone(&self.context.member);
        let flushing = tokio::task::spawn_blocking(move || member.commit_stored_once());
        if tokio::time::timeout(FLUSH_TIMEOUT, flushing).await.is_err() {
            // Nothing else can be committed either. The partition may be lost by then.
            tracing::warn!(listener = %self.context.name, "stored offsets not committed in time");
        }
        if let Some(partition) = self.partitions.borrow_mut().get_mut(&assignment) {
            (partition.is_flushing, partition.mode) = (false, mode);
        }
        self.advance(assignment);
    }

    /// Processes one record, and makes room for the next one; returns whether those behind it in its lane may be processed.
    async fn process(self: &Rc<Self>, admitted: Admitted) -> bool {
        let Admitted { delivery, place } = admitted;
        if let (Some(place), Some(batches)) = (place, self.batches.get()) {
            return Box::pin(batches.process(self, &delivery, place)).await;
        }
        let mode = self.mode_of(&delivery);
        let is_settled = handle(&self.context, &delivery, mode.is_some_and(|mode| mode.is_at_most_once)).await;
        failpoint("kafka.decided");
        self.end(&delivery, is_settled);
        failpoint("kafka.settled");
        is_settled
    }

    /// The mode of an admitted record.
    fn mode_of(&self, delivery: &Delivery) -> Option<Mode> {
        self.partitions.borrow().get(&delivery.id.assignment).map(|partition| partition.mode)
    }

    /// An admitted record is no longer processed.
    fn end(self: &Rc<Self>, delivery: &Delivery, is_settled: bool) {
        if self.mode_of(delivery).is_some_and(Mode::stores_offsets) {
            self.context.member.end(&delivery.id, is_settled);
        } else {
            self.context.member.end_without_store(&delivery.id, is_settled);
        }
        self.ended(delivery);
    }

    /// A record that was processed in a transaction has ended: its offset is committed, or it is left to the next owner of its partition.
    pub(super) fn end_in_transaction(self: &Rc<Self>, delivery: &Delivery, is_settled: bool) {
        self.context.member.end_without_store(&delivery.id, is_settled);
        self.ended(delivery);
    }

    fn ended(self: &Rc<Self>, delivery: &Delivery) {
        if let Some(partition) = self.partitions.borrow_mut().get_mut(&delivery.id.assignment) {
            partition.active -= 1;
        }
        self.advance(delivery.id.assignment);
    }

    /// Processes the records of a lane until none waits. Once one of them is left to the next owner of its partition, so are those behind it.
    async fn run(self: Rc<Self>, assignment: u64, key: Bytes) {
        let mut is_broken = false;
        while let Some(next) = self.next_of(assignment, &key) {
            match (is_broken, next.place, self.batches.get()) {
                (false, ..) => is_broken = !self.process(next).await,
                (true, Some(place), Some(batches)) => batches.leave(place),
                (true, ..) => self.end(&next.delivery, false),
            }
        }
    }

    /// The next record of a lane; the lane ends if there is none.
    fn next_of(&self, assignment: u64, key: &Bytes) -> Option<Admitted> {
        let mut partitions = self.partitions.borrow_mut();
        let lanes = &mut partitions.get_mut(&assignment)?.lanes;
        let next = lanes.get_mut(key)?.pop_front();
        if next.is_none() {
            lanes.remove(key);
        }
        next
    }
}

/// The lane of a record within its partition; `None` if it has none.
fn lane(order: Order, delivery: &Delivery) -> Option<Bytes> {
    match order {
        Order::Partition => Some(Bytes::new()),
        Order::Key => delivery.record.key.clone(),
        Order::None => None,
    }
}

impl PartitionLanes {
    fn new(stop: CancellationToken) -> Self {
        let mode = Mode { order: Order::Partition, is_transactional: false, is_at_most_once: false };
        Self { stop, is_flushing: false, waiting: VecDeque::new(), mode, active: 0, lanes: HashMap::new() }
    }

    fn start(&mut self, all: &Rc<Lanes>, admitted: Admitted) {
        let Some(key) = lane(self.mode.order, &admitted.delivery) else {
            let all = Rc::clone(all);
            spawn_local(async move {
                all.process(admitted).await;
            });
            return;
        };
        let assignment = admitted.delivery.id.assignment;
        match self.lanes.entry(key) {
            MapEntry::Occupied(mut waiting) => waiting.get_mut().push_back(admitted),
            MapEntry::Vacant(new) => {
                let key = new.key().clone();
                new.insert(VecDeque::from([admitted]));
                spawn_local(Rc::clone(all).run(assignment, key));
            }
        }
    }
}
