//! A key-value register for tests and benchmarks: compare-and-set, append, read.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use prost::{Message, Oneof};
use rpds::HashTrieMapSync;

use crate::error::StartError;
use crate::machines::{MachineId, Machines, read_message, write_message};
use crate::node::Node;
use crate::replica::Replica;
use crate::settings::Settings;
use crate::state_machine::{self, InvalidState, Outbox, StateMachine, View};

/// Its number.
pub const REGISTER: MachineId = MachineId(1);
/// Starts an instance that replicates a register, and nothing else.
///
/// # Errors
/// See [`StartError`].
pub fn start(settings: &Settings) -> Result<(Node, Replica<Register>), StartError> {
    let mut machines = Machines::new();
    let published = machines.add(REGISTER, Register::default());
    let node = Node::start(settings, machines)?;
    let register = node.replica(&published);
    Ok((node, register))
}

/// Maximum total bytes of all values.
const BYTES_MAX: usize = 1 << 30;

/// A change of a key.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The change.
    #[prost(oneof = "Change", tags = "2, 3, 4")]
    pub change: Option<Change>,
}

/// A kind of change.
#[derive(Clone, PartialEq, Oneof)]
pub enum Change {
    /// Set the value.
    #[prost(bytes = "bytes", tag = "2")]
    Set(Bytes),
    /// Set it if it has the expected value.
    #[prost(message, tag = "3")]
    CompareAndSet(CompareAndSet),
    /// Append an item and a newline.
    #[prost(bytes = "bytes", tag = "4")]
    Append(Bytes),
}

/// Sets a value if it has the expected one.
#[derive(Clone, PartialEq, Message)]
pub struct CompareAndSet {
    /// The expected value; `None` if the key must be absent.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub expected: Option<Bytes>,
    /// The new value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Command {
    /// Encodes a command as a transaction's payload.
    #[must_use]
    pub fn payload(key: &str, change: Change) -> Bytes {
        Self { key: key.to_owned(), change: Some(change) }.encode_to_vec().into()
    }
}

/// The response to a command that was executed.
pub const DONE: &[u8] = b"done";
/// The response to a command that was not executed.
pub const NOT_DONE: &[u8] = b"not done";

/// A key in a snapshot.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// A change that was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The key.
    pub key: Arc<str>,
}

/// The register.
#[derive(Debug, Default)]
pub struct Register {
    values: Values,
    bytes: usize,
}

/// The values by key.
#[derive(Debug, Clone, Default)]
pub struct Values(HashTrieMapSync<Arc<str>, Arc<Vec<u8>>>);

impl Values {
    /// The value of a key; empty if absent.
    #[must_use]
    pub fn get(&self, key: &str) -> &[u8] {
        self.0.get(key).map_or(&[], |value| value)
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl View for Values {
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|(key, value)| {
            write_message(to, &Entry { key: key.to_string(), value: Bytes::copy_from_slice(value) })
        })
    }
}

impl Register {
    /// Executes a command; whether it has changed the key.
    fn change(&mut self, key: &str, change: Change) -> bool {
        let slot = self.values.0.get_mut(key);
        let old = slot.as_ref().map(|value| value.as_slice());
        let old_len = old.map_or(0, <[u8]>::len);
        let new_len = match &change {
            Change::Set(value) => value.len(),
            Change::CompareAndSet(compare) if old != compare.expected.as_deref() => return false,
            Change::CompareAndSet(compare) => compare.value.len(),
            Change::Append(item) => old_len + item.len() + 1,
        };
        let bytes = self.bytes - old_len + new_len;
        if bytes > BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        let value = match (change, slot) {
            (Change::Append(item), Some(list)) => {
                append(Arc::make_mut(list), &item);
                return true;
            }
            (Change::Append(item), None) => {
                let mut list = Vec::new();
                append(&mut list, &item);
                list
            }
            (Change::Set(value) | Change::CompareAndSet(CompareAndSet { value, .. }), Some(slot)) => {
                *slot = Arc::new(value.to_vec());
                return true;
            }
            (Change::Set(value) | Change::CompareAndSet(CompareAndSet { value, .. }), None) => value.to_vec(),
        };
        self.values.0.insert_mut(key.into(), Arc::new(value));
        true
    }
}

fn append(list: &mut Vec<u8>, item: &[u8]) {
    list.extend_from_slice(item);
    list.push(b'\n');
}

impl StateMachine for Register {
    type View = Values;
    type Event = Changed;

    fn apply(&mut self, commands: &[state_machine::Command], outbox: &mut Outbox<Changed>) {
        for (at, command) in commands.iter().enumerate() {
            let decoded = Command::decode(command.payload.clone());
            let is_done = match decoded {
                Ok(Command { key, change: Some(change) }) => {
                    let is_done = self.change(&key, change);
                    if is_done && outbox.is_observed() {
                        outbox.event(Changed { key: key.into() });
                    }
                    is_done
                }
                _ => false,
            };
            if command.is_awaited {
                outbox.answer(at, Bytes::from_static(if is_done { DONE } else { NOT_DONE }));
            }
        }
    }

    fn view(&self) -> Values {
        self.values.clone()
    }

    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        *self = Self::default();
        let Some(state) = state else { return Ok(()) };
        while let Some(entry) = read_message::<Entry>(state, BYTES_MAX)? {
            self.bytes += entry.value.len();
            self.values.0.insert_mut(entry.key.into(), Arc::new(entry.value.to_vec()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crossdock_zab::{Epoch, Zxid};

    use super::*;

    fn apply(register: &mut Register, key: &str, change: Change) -> Bytes {
        let payload = Command::payload(key, change);
        let committed = state_machine::Command { zxid: Zxid::new(Epoch(1), 1), time: 0, payload, is_awaited: true };
        let mut outbox = Outbox::new();
        outbox.begin(1, false, 1);
        register.apply(&[committed], &mut outbox);
        outbox.answers().next().expect("an answer")
    }

    fn restored(view: &Values) -> Register {
        let (mut state, mut register) = (Vec::new(), Register::default());
        view.write_to(&mut state).expect("memory");
        register.restore(Some(&mut state.as_slice())).expect("intact");
        register
    }

    #[test]
    fn a_view_does_not_change_and_is_restored_as_it_was() {
        let mut register = Register::default();
        let set = |value: &'static [u8]| Change::Set(Bytes::from_static(value));
        let append = |item: &'static [u8]| Change::Append(Bytes::from_static(item));
        assert_eq!(apply(&mut register, "a", set(b"1")), DONE);
        assert_eq!(apply(&mut register, "list", append(b"x")), DONE);
        let view = register.view();
        let compare = |expected: Option<&'static [u8]>| {
            let expected = expected.map(Bytes::from_static);
            Change::CompareAndSet(CompareAndSet { expected, value: Bytes::from_static(b"22") })
        };
        assert_eq!(apply(&mut register, "a", compare(None)), NOT_DONE);
        assert_eq!(apply(&mut register, "a", compare(Some(b"1"))), DONE);
        assert_eq!(apply(&mut register, "b", compare(None)), DONE);
        assert_eq!(apply(&mut register, "list", append(b"y")), DONE);
        assert_eq!((view.get("a"), view.get("b"), view.get("list")), (&b"1"[..], &b""[..], &b"x\n"[..]));
        let mut again = restored(&register.view());
        assert_eq!((again.bytes, register.bytes), (8, 8));
        assert_eq!((again.view().get("a"), again.view().get("list")), (&b"22"[..], &b"x\ny\n"[..]));
        assert_eq!(apply(&mut again, "list", append(b"z")), DONE);
        assert_eq!(restored(&view).view().get("list"), b"x\n");
    }

    /// It is taken after each batch.
    #[test]
    fn a_view_of_a_large_state_is_taken_at_once() {
        let mut register = Register::default();
        for key in 0..200_000 {
            apply(&mut register, &format!("key-{key}"), Change::Set(Bytes::from_static(&[7; 64])));
        }
        let mut views = Vec::new();
        let shortest = (0..20).map(|_| {
            let begun = Instant::now();
            views.push(register.view());
            let took = begun.elapsed();
            apply(&mut register, "key-1", Change::Set(Bytes::from_static(b"changed")));
            took
        });
        let shortest = shortest.min().expect("some");
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    }
}
