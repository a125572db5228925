//! A key-value register for tests and benchmarks: compare-and-set, append, read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::Zxid;
use prost::{Message, Oneof};

use crate::state_machine::{InvalidState, SnapshotEncoder, StateMachine};

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

#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(btree_map = "string, bytes", tag = "1")]
    values: BTreeMap<String, Bytes>,
}

/// The register.
#[derive(Debug, Default)]
pub struct Register {
    /// Shared with snapshots that are being encoded.
    values: BTreeMap<Arc<str>, Arc<Vec<u8>>>,
    bytes: usize,
}

impl Register {
    fn change(&mut self, command: Command) -> bool {
        let Some(change) = command.change else { return false };
        let old = self.values.get(&*command.key).map(|value| value.as_slice());
        let value = match change {
            Change::Set(value) => value.to_vec(),
            Change::CompareAndSet(compare) => {
                if old != compare.expected.as_deref() {
                    return false;
                }
                compare.value.to_vec()
            }
            Change::Append(item) => {
                let Some(bytes) = self.bytes.checked_add(item.len() + 1).filter(|bytes| *bytes <= BYTES_MAX) else {
                    return false;
                };
                self.bytes = bytes;
                let list = Arc::make_mut(self.values.entry(command.key.into()).or_default());
                list.extend_from_slice(&item);
                list.push(b'\n');
                return true;
            }
        };
        let bytes = self.bytes - old.map_or(0, <[u8]>::len) + value.len();
        if bytes > BYTES_MAX {
            return false;
        }
        self.bytes = bytes;
        self.values.insert(command.key.into(), Arc::new(value));
        true
    }
}

impl StateMachine for Register {
    fn apply(&mut self, _: Zxid, _: u64, command: &Bytes) -> Bytes {
        let done = Command::decode(command.clone()).is_ok_and(|command| self.change(command));
        Bytes::from_static(if done { DONE } else { NOT_DONE })
    }

    /// The value of the requested key; empty if absent.
    fn query(&self, query: &[u8]) -> Bytes {
        let key = std::str::from_utf8(query).unwrap_or_default();
        self.values.get(key).map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value))
    }

    fn snapshot(&self) -> SnapshotEncoder {
        let values = self.values.clone();
        Box::new(move || {
            let values = values.iter().map(|(key, value)| (key.to_string(), Bytes::copy_from_slice(value)));
            State { values: values.collect() }.encode_to_vec()
        })
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), InvalidState> {
        let state = State::decode(state.unwrap_or_default()).map_err(|problem| InvalidState(problem.into()))?;
        self.values = state.values.into_iter().map(|(key, value)| (key.into(), Arc::new(value.to_vec()))).collect();
        self.bytes = self.values.values().map(|value| value.len()).sum();
        Ok(())
    }
}
