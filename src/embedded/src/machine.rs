//! The state machine.

use std::io::{self, Read, Write};
use std::ops::Deref;

use crossdock_cluster::{
    Command, InvalidState, MachineId, Machines, Outbox, Published, StateMachine, read_message, write_message,
};
use crossdock_coordination::saved::Saved;
use crossdock_coordination::{Coordination, Event, View};
use prost::Message as _;

/// Its number.
pub const COORDINATION: MachineId = MachineId(2);
/// Maximum length of a part of the state in a snapshot, in bytes.
const PART_LEN_MAX: usize = 4 << 20;

/// The replicated state of coordination.
#[derive(Debug, Default)]
pub struct Machine(Coordination);

/// A state at one point of the log.
#[derive(Debug, Clone, Default)]
pub struct State(View);

impl Deref for State {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}

/// Adds the machine to those of an instance.
pub fn add(machines: &mut Machines) -> Published<Machine> {
    machines.add(COORDINATION, Machine::default())
}

impl crossdock_cluster::View for State {
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        self.save().try_for_each(|part| write_message(to, &part))
    }
}

impl StateMachine for Machine {
    type View = State;
    type Event = Event;

    fn apply(&mut self, commands: &[Command], outbox: &mut Outbox<Event>) {
        self.0.observe(outbox.is_observed());
        let expired_first = self.0.next_expiry();
        for (at, command) in commands.iter().enumerate() {
            let answer = self.0.apply(command.zxid, command.time, command.payload.clone());
            if command.is_awaited {
                outbox.answer(at, answer.encode_to_vec().into());
            }
        }
        for event in self.0.take_events() {
            outbox.event(event);
        }
        let is_sooner = |next: u64| expired_first.is_none_or(|before| next < before);
        if outbox.is_observed() && self.0.next_expiry().is_some_and(is_sooner) {
            outbox.event(Event::ExpiresSooner);
        }
    }

    fn view(&self) -> State {
        State(self.0.view())
    }

    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        self.0.reset();
        let Some(state) = state else { return Ok(()) };
        while let Some(part) = read_message::<Saved>(state, PART_LEN_MAX)? {
            self.0.restore(part).map_err(|invalid| InvalidState(invalid.into()))?;
        }
        Ok(())
    }
}
