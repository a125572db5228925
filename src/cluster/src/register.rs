//! A register of texts, for tests and measurements: compare and set, append, read.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::Txn;
use prost::{Message, Oneof};

use crate::machine::{Machine, Snapshotting};

/// Bytes of all values together.
const BYTES_MAX: usize = 1 << 30;

/// Something to do with a key.
#[derive(Clone, PartialEq, Message)]
pub struct Command {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What.
    #[prost(oneof = "Change", tags = "2, 3, 4")]
    pub change: Option<Change>,
}

/// What is done.
#[derive(Clone, PartialEq, Oneof)]
pub enum Change {
    /// Set the value.
    #[prost(bytes = "bytes", tag = "2")]
    Set(Bytes),
    /// Set it where it is another.
    #[prost(message, tag = "3")]
    CompareAndSet(CompareAndSet),
    /// Append an item and a line end.
    #[prost(bytes = "bytes", tag = "4")]
    Append(Bytes),
}

/// Set a value where it is another.
#[derive(Clone, PartialEq, Message)]
pub struct CompareAndSet {
    /// What it has to be; nothing where there must be none.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub expected: Option<Bytes>,
    /// What it becomes.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Command {
    /// A command as a transaction's payload.
    #[must_use]
    pub fn payload(key: &str, change: Change) -> Bytes {
        Self { key: key.to_owned(), change: Some(change) }.encode_to_vec().into()
    }
}

/// What a command that was done gives.
pub const DONE: &[u8] = b"done";
/// What one gives that was not.
pub const NOT_DONE: &[u8] = b"not done";

#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(btree_map = "string, bytes", tag = "1")]
    values: BTreeMap<String, Bytes>,
}

/// The register.
#[derive(Debug, Default)]
pub struct Register {
    /// Shared with a snapshot that is written out.
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

impl Machine for Register {
    fn apply(&mut self, txn: &Txn) -> Bytes {
        let done = Command::decode(txn.payload.clone()).is_ok_and(|command| self.change(command));
        Bytes::from_static(if done { DONE } else { NOT_DONE })
    }

    /// The value of the key that is asked for; nothing where there is none.
    fn query(&self, question: &[u8]) -> Bytes {
        let key = std::str::from_utf8(question).unwrap_or_default();
        self.values.get(key).map_or_else(Bytes::new, |value| Bytes::copy_from_slice(value))
    }

    fn snapshot(&self) -> Snapshotting {
        let values = self.values.clone();
        Box::new(move || {
            let values = values.iter().map(|(key, value)| (key.to_string(), Bytes::copy_from_slice(value)));
            State { values: values.collect() }.encode_to_vec()
        })
    }

    fn restore(&mut self, state: Option<&[u8]>) -> Result<(), String> {
        let state = State::decode(state.unwrap_or_default()).map_err(|problem| problem.to_string())?;
        self.values = state.values.into_iter().map(|(key, value)| (key.into(), Arc::new(value.to_vec()))).collect();
        self.bytes = self.values.values().map(|value| value.len()).sum();
        Ok(())
    }
}
