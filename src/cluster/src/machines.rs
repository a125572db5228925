//! The state machines of an instance: several behind one log, in one snapshot.

mod cluster_state;
mod messages;
mod sections;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use crossdock_zab::{Payload, Role, Txn, Zxid};
use prost::Message as _;

pub use self::cluster_state::ClientError;
use self::cluster_state::{Admission, ClusterState};
pub use self::messages::{read_message, write_message};
use self::sections::{SectionReader, SectionWriter};
use crate::replica::{Notice, Published};
use crate::state_machine::{Command, InvalidState, Outbox, StateMachine, View};
use crate::wire::{ClusterChange, Envelope};

/// The number of a machine, in commands and snapshots. It is never used for another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub u32);

/// The machine of the cluster itself: its clients, and the versions of the others.
pub(crate) const CLUSTER: MachineId = MachineId(0);

/// Why a committed command cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotApplicable {
    #[error(
        "transaction {zxid} is for machine {machine}, which this release does not have: use the release that wrote it"
    )]
    UnknownMachine { zxid: Zxid, machine: u32 },
    #[error("transaction {0} cannot be decoded: use the release that wrote it")]
    Undecodable(Zxid),
    #[error(transparent)]
    Version(#[from] TooNew),
}

/// A machine is used in a version that this release does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster uses version {version} of machine {machine}, and this release understands {max}: use a later release"
)]
pub(crate) struct TooNew {
    machine: u32,
    version: u32,
    max: u32,
}

/// What the proposer of a command gets.
pub(crate) type Answer = Result<(Zxid, Bytes), ClientError>;

/// A machine of any type.
trait Hosted: Send {
    /// Adds a command to the next batch; the place of its answer.
    fn add(&mut self, place: usize, command: Command);
    /// Applies the batch, if there is one, and passes the answers to their places.
    fn apply(&mut self, version: u32, answer: &mut dyn FnMut(usize, Bytes));
    /// The highest version that it understands.
    fn version_max(&self) -> u32;
    /// The version in effect, shared with its users.
    fn version(&self) -> Arc<AtomicU32>;
    /// Makes the state and its events visible.
    fn publish(&mut self, zxid: Zxid);
    fn view(&self) -> Arc<dyn View>;
    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState>;
    fn became(&self, role: Role);
    fn ended(&self);
}

struct Host<M: StateMachine> {
    machine: M,
    published: Published<M>,
    /// The next batch, and the places of its answers.
    commands: Vec<Command>,
    places: Vec<usize>,
    /// It has the events that are not published yet.
    outbox: Outbox<M::Event>,
    /// The state differs from what is published.
    is_changed: bool,
    /// Nobody was subscribed when it changed.
    is_unobserved: bool,
    is_restored: bool,
}

impl<M: StateMachine> Hosted for Host<M> {
    fn add(&mut self, place: usize, command: Command) {
        self.places.push(place);
        self.commands.push(command);
    }

    fn version_max(&self) -> u32 {
        self.machine.version()
    }

    fn version(&self) -> Arc<AtomicU32> {
        self.published.version()
    }

    fn apply(&mut self, version: u32, answer: &mut dyn FnMut(usize, Bytes)) {
        if self.commands.is_empty() {
            return;
        }
        let is_observed = self.published.is_observed();
        self.is_unobserved |= !is_observed;
        self.outbox.begin(self.commands.len(), is_observed, version);
        self.machine.apply(&self.commands, &mut self.outbox);
        self.is_changed = true;
        self.commands.clear();
        for (place, outcome) in self.places.drain(..).zip(self.outbox.answers()) {
            answer(place, outcome);
        }
    }

    fn publish(&mut self, zxid: Zxid) {
        if !std::mem::take(&mut self.is_changed) {
            return;
        }
        self.published.set(self.machine.view());
        if std::mem::take(&mut self.is_unobserved) {
            // A subscriber that joined during the batch may have read the previous view.
            self.published.notify(|| Notice::Missed);
        }
        if std::mem::take(&mut self.is_restored) {
            self.published.notify(|| Notice::Restored(zxid));
        }
        let events = self.outbox.take_events();
        if !events.is_empty() {
            self.published.notify(|| Notice::Events(zxid, events.into()));
        }
    }

    fn view(&self) -> Arc<dyn View> {
        self.published.view()
    }

    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        self.outbox.take_events();
        (self.is_changed, self.is_restored) = (true, true);
        self.machine.restore(state)
    }

    fn became(&self, role: Role) {
        self.published.notify(|| Notice::Role(role));
    }

    fn ended(&self) {
        self.published.notify(|| Notice::Ended);
    }
}

/// The machines of an instance.
#[derive(Default)]
pub struct Machines {
    hosted: BTreeMap<u32, Box<dyn Hosted>>,
    own: ClusterState,
}

impl Machines {
    /// No machines: a log that nobody writes to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a machine, and returns what it publishes.
    ///
    /// # Panics
    /// The number is 0 or belongs to another machine.
    pub fn add<M: StateMachine>(&mut self, id: MachineId, machine: M) -> Published<M> {
        assert!(id != CLUSTER && !self.hosted.contains_key(&id.0), "machine {} is added twice", id.0);
        let published = Published::new(id, machine.view());
        let host = Host {
            machine,
            published: published.clone(),
            commands: Vec::new(),
            places: Vec::new(),
            outbox: Outbox::new(),
            is_changed: false,
            is_unobserved: false,
            is_restored: false,
        };
        self.hosted.insert(id.0, Box::new(host));
        published
    }

    /// Applies committed transactions, each with whether its answer is used on this instance, and replaces `answers`.
    /// Nothing is visible before it is [published](Self::publish).
    ///
    /// # Errors
    /// [`NotApplicable`]; the state is of no use any more.
    pub(crate) fn apply(&mut self, txns: &[(Txn, bool)], answers: &mut Vec<Answer>) -> Result<(), NotApplicable> {
        answers.clear();
        answers.extend(txns.iter().map(|(txn, _)| Ok((txn.zxid, Bytes::new()))));
        // Commands of clients: executed, and repeated.
        let (mut executed, mut repeated) = (Vec::new(), Vec::new());
        for (at, (txn, is_awaited)) in txns.iter().enumerate() {
            let Payload::Command(payload) = &txn.payload else { continue };
            let envelope = Envelope::decode(payload.clone()).map_err(|_| NotApplicable::Undecodable(txn.zxid))?;
            if envelope.machine == CLUSTER.0 {
                // These are not numbered.
                let change =
                    ClusterChange::decode(envelope.payload).map_err(|_| NotApplicable::Undecodable(txn.zxid))?;
                if let Some(raised) = change.raised.filter(|raised| raised.machine != CLUSTER.0) {
                    // A batch has one version.
                    self.apply_batches(txns, answers);
                    self.raise_version(raised.machine, raised.version)?;
                }
                answers[at] = self.change_clients(txn, &change);
                continue;
            }
            if let Some(numbered) = envelope.numbered {
                let (client, number) = (numbered.client, numbered.number);
                match self.own.admit(client, number, txn.time) {
                    Admission::Execute => executed.push((at, client)),
                    Admission::Repeated => {
                        repeated.push((at, client, number));
                        continue;
                    }
                    Admission::Refused(refused) => {
                        answers[at] = Err(refused);
                        continue;
                    }
                }
            }
            let Some(hosted) = self.hosted.get_mut(&envelope.machine) else {
                return Err(NotApplicable::UnknownMachine { zxid: txn.zxid, machine: envelope.machine });
            };
            let is_awaited = *is_awaited || envelope.numbered.is_some();
            let command = Command { zxid: txn.zxid, time: txn.time, payload: envelope.payload, is_awaited };
            hosted.add(at, command);
        }
        self.apply_batches(txns, answers);
        for (at, client) in executed {
            if let Ok((zxid, answer)) = &answers[at] {
                self.own.record(client, *zxid, answer);
            }
        }
        for (at, client, number) in repeated {
            answers[at] = self.own.answer(client, number);
        }
        Ok(())
    }

    fn apply_batches(&mut self, txns: &[(Txn, bool)], answers: &mut [Answer]) {
        for (id, hosted) in &mut self.hosted {
            let version = self.own.version(*id);
            hosted.apply(version, &mut |at, answer| answers[at] = Ok((txns[at].0.zxid, answer)));
        }
    }

    fn raise_version(&mut self, machine: u32, version: u32) -> Result<(), TooNew> {
        self.own.raise_version(machine, version);
        tracing::info!(machine, version, "a later version of a state machine is used, as all instances understand it");
        self.check_version(machine)
    }

    /// Makes the version of a machine visible, if this release understands it.
    fn check_version(&self, machine: u32) -> Result<(), TooNew> {
        let version = self.own.version(machine);
        let Some(hosted) = self.hosted.get(&machine) else { return Ok(()) };
        let max = hosted.version_max();
        if version > max {
            return Err(TooNew { machine, version, max });
        }
        hosted.version().store(version, Ordering::Release);
        Ok(())
    }

    /// The version of each machine in effect, shared with its users.
    pub(crate) fn versions(&self) -> BTreeMap<MachineId, Arc<AtomicU32>> {
        self.hosted.iter().map(|(id, hosted)| (MachineId(*id), hosted.version())).collect()
    }

    /// The highest version of each machine that this release understands.
    pub(crate) fn versions_max(&self) -> BTreeMap<MachineId, u32> {
        self.hosted.iter().map(|(id, hosted)| (MachineId(*id), hosted.version_max())).collect()
    }

    fn change_clients(&mut self, txn: &Txn, change: &ClusterChange) -> Answer {
        let done = (txn.zxid, Bytes::new());
        if change.open {
            return self.own.open(txn.zxid, txn.time).map(|()| done);
        }
        if change.close != 0 {
            self.own.close(change.close);
        }
        Ok(done)
    }

    /// Makes all that was applied visible.
    pub(crate) fn publish(&mut self, zxid: Zxid) {
        for hosted in self.hosted.values_mut() {
            hosted.publish(zxid);
        }
    }

    /// Tells subscribers about the role of this instance.
    pub(crate) fn became(&self, role: Role) {
        for hosted in self.hosted.values() {
            hosted.became(role);
        }
    }

    /// Tells subscribers that this instance has ended.
    pub(crate) fn ended(&self) {
        for hosted in self.hosted.values() {
            hosted.ended();
        }
    }

    /// The states, as last published.
    pub(crate) fn freeze(&self) -> Frozen {
        let own: (u32, Arc<dyn View>) = (CLUSTER.0, Arc::new(self.own.clone()));
        Frozen([own].into_iter().chain(self.hosted.iter().map(|(id, hosted)| (*id, hosted.view()))).collect())
    }

    /// Replaces all states by those of a snapshot, or by the initial ones, and publishes them.
    ///
    /// # Errors
    /// The snapshot has the state of an unknown machine, or one that cannot be decoded.
    pub(crate) fn restore(&mut self, zxid: Zxid, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        let invalid = |error: io::Error| InvalidState(error.into());
        self.own.restore(None)?;
        for hosted in self.hosted.values_mut() {
            hosted.restore(None)?;
        }
        if let Some(from) = state {
            while let Some((id, mut section)) = SectionReader::next(from).map_err(invalid)? {
                match self.hosted.get_mut(&id) {
                    Some(hosted) => hosted.restore(Some(&mut section))?,
                    None if id == CLUSTER.0 => self.own.restore(Some(&mut section))?,
                    None => {
                        let problem = format!("it has the state of machine {id}, which this release does not have");
                        return Err(InvalidState(problem.into()));
                    }
                }
                section.end().map_err(invalid)?;
            }
        }
        for id in self.hosted.keys() {
            self.check_version(*id).map_err(|problem| InvalidState(problem.into()))?;
        }
        self.publish(zxid);
        Ok(())
    }
}

/// The states of all machines at one point.
pub(crate) struct Frozen(Vec<(u32, Arc<dyn View>)>);

impl Frozen {
    /// Encodes them for [`Machines::restore`].
    pub(crate) fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        for (id, view) in &self.0 {
            let mut section = SectionWriter::begin(to, *id)?;
            view.write_to(&mut section)?;
            section.end()?;
        }
        Ok(())
    }
}
