//! The replicated state: the list of all commands.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use crossdock_cluster::platform::simulated::pause;
use crossdock_cluster::{Command, InvalidState, Outbox, StateMachine, View};
use crossdock_zab::Zxid;
use rpds::VectorSync;

use crate::record::{Entry, Record};
use crate::servers::Plan;

/// Bytes of an entry in a snapshot, without padding.
const ENTRY_LEN: usize = 24;

/// A command of this number, with padding.
pub(crate) fn command(number: u64, padding: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + padding);
    bytes.put_u64_le(number);
    bytes.put_bytes(7, padding);
    bytes.freeze()
}

/// The command and its place that an answer names.
pub(crate) fn decode_answer(mut answer: Bytes) -> Option<(u64, usize)> {
    if answer.len() != 16 {
        return None;
    }
    let command = answer.get_u64_le();
    Some((command, usize::try_from(answer.get_u64_le()).ok()?))
}

/// All commands so far.
#[derive(Clone)]
pub(crate) struct Commands {
    pub(crate) all: VectorSync<Entry>,
    padding: usize,
}

impl View for Commands {
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        let padding = vec![7; self.padding];
        for entry in &self.all {
            to.write_all(&entry.command.to_le_bytes())?;
            to.write_all(&entry.zxid.to_u64().to_le_bytes())?;
            to.write_all(&entry.time.to_le_bytes())?;
            to.write_all(&padding)?;
        }
        Ok(())
    }
}

/// The list of all commands.
pub(crate) struct Journal {
    server: u64,
    record: Record,
    commands: VectorSync<Entry>,
    /// How long a batch takes.
    takes: Duration,
    /// Bytes of an entry in a snapshot that mean nothing.
    padding: usize,
}

impl Journal {
    pub(crate) fn new(server: u64, record: Record, plan: &Plan) -> Self {
        let (takes, padding) = (plan.takes, plan.snapshot_padding);
        Self { server, record, commands: VectorSync::new_sync(), takes, padding }
    }
}

impl StateMachine for Journal {
    type View = Commands;
    type Event = ();

    fn apply(&mut self, commands: &[Command], outbox: &mut Outbox<()>) {
        pause(self.takes);
        for (at, command) in commands.iter().enumerate() {
            let mut payload = command.payload.clone();
            let entry = Entry { command: payload.get_u64_le(), zxid: command.zxid, time: command.time };
            let place = self.commands.len();
            self.record.applied(self.server, place, entry);
            self.commands.push_back_mut(entry);
            let mut answer = BytesMut::with_capacity(16);
            answer.put_u64_le(entry.command);
            answer.put_u64_le(place as u64);
            outbox.answer(at, answer.freeze());
        }
    }

    fn view(&self) -> Commands {
        Commands { all: self.commands.clone(), padding: self.padding }
    }

    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        let mut bytes = Vec::new();
        if let Some(from) = state {
            from.read_to_end(&mut bytes).map_err(|problem| InvalidState(problem.into()))?;
        }
        let len = ENTRY_LEN + self.padding;
        if !bytes.len().is_multiple_of(len) {
            return Err(InvalidState("a part of a command".into()));
        }
        let mut entries = Vec::with_capacity(bytes.len() / len);
        for mut entry in bytes.chunks_exact(len) {
            let command = entry.get_u64_le();
            let zxid = Zxid::from_u64(entry.get_u64_le());
            entries.push(Entry { command, zxid, time: entry.get_u64_le() });
        }
        self.record.restored(self.server, &entries);
        self.commands = entries.into_iter().collect();
        Ok(())
    }
}
