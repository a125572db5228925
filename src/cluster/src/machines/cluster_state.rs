//! The state of the cluster itself: its clients, and the versions of the machines.
//!
//! Commands of a client are executed exactly once, however often they are sent. A client is opened by a command, and is known by the zxid of that. It numbers its commands without gaps: one that was
//! executed is answered again and not executed again; one that would leave a gap is refused, so that a command that was
//! refused is not overtaken by those sent after it (section 6.3 of Ongaro's dissertation "Consensus", 2014, has the problem
//! and the numbers; the refusal of gaps is added here).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::Zxid;
use prost::Message;
use rpds::HashTrieMapSync;

use super::messages::{read_message, write_message};
use crate::state_machine::{FIRST_VERSION, InvalidState, View};

/// Maximum number of clients.
const CLIENTS_MAX: usize = 10_000;
/// A client that has sent nothing for this time in milliseconds may be forgotten, to make room for a new one.
const IDLE_MS: u64 = 3_600_000;
/// Minimum time in milliseconds between searches for idle clients.
const SEARCH_INTERVAL_MS: u64 = 10_000;
/// Answers that are kept of one client: their number, and their total length in bytes.
const ANSWERS_MAX: usize = 32;
const ANSWERS_BYTES_MAX: usize = 16 << 10;
/// Maximum length of a client in a snapshot, in bytes.
const ENTRY_LEN_MAX: usize = 64 << 10;

/// Why a command of a client was not executed, or is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The client was never opened, or was forgotten after it had sent nothing for an hour.
    #[error("the cluster does not know this client: open another one; the outcome of its last commands is unknown")]
    Unknown,
    /// An earlier command is missing, so this one was not executed.
    #[error("the next command of this client must have the number {next}")]
    Gap {
        /// The number of the missing command.
        next: u64,
    },
    /// The command was executed before, and its answer is not kept any more.
    #[error("the command was executed before; its answer is not kept any more")]
    AnswerLost,
    /// There are too many clients.
    #[error("the cluster has too many clients")]
    TooMany,
}

/// Whether to execute a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Execute,
    /// It was executed before; see [`ClusterState::answer`].
    Repeated,
    Refused(ClientError),
}

/// A client.
#[derive(Debug, Clone)]
struct Entry {
    /// The number of its next command.
    next: u64,
    /// The time of its last command.
    seen: u64,
    /// The answers to the last commands; the last one belongs to the command before `next`.
    answers: VecDeque<(Zxid, Bytes)>,
    answers_bytes: usize,
}

/// All clients, and the versions of the machines.
#[derive(Debug, Clone, Default)]
pub(super) struct ClusterState {
    entries: HashTrieMapSync<u64, Arc<Entry>>,
    /// The versions of the machines in effect, unless they are the first.
    versions: BTreeMap<u32, u32>,
    /// When idle clients were last searched for.
    searched: u64,
}

/// An entry in a snapshot.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    /// The client; 0 for the time of the last search, in `seen`, and for the version of a machine.
    #[prost(uint64, tag = "1")]
    client: u64,
    #[prost(uint64, tag = "2")]
    next: u64,
    #[prost(uint64, tag = "3")]
    seen: u64,
    #[prost(message, repeated, tag = "4")]
    answers: Vec<SavedAnswer>,
    /// The machine whose version this is; 0 if none.
    #[prost(uint32, tag = "5")]
    machine: u32,
    #[prost(uint32, tag = "6")]
    version: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SavedAnswer {
    #[prost(uint64, tag = "1")]
    zxid: u64,
    #[prost(bytes = "bytes", tag = "2")]
    answer: Bytes,
}

impl ClusterState {
    /// The version of a machine in effect.
    pub(super) fn version(&self, machine: u32) -> u32 {
        self.versions.get(&machine).copied().unwrap_or(FIRST_VERSION)
    }

    /// Raises the version of a machine. It never goes back.
    pub(super) fn raise_version(&mut self, machine: u32, version: u32) {
        if version > self.version(machine) {
            self.versions.insert(machine, version);
        }
    }

    /// Opens a client. Its number is the zxid of the command.
    pub(super) fn open(&mut self, zxid: Zxid, time: u64) -> Result<(), ClientError> {
        if self.entries.size() >= CLIENTS_MAX && time.saturating_sub(self.searched) >= SEARCH_INTERVAL_MS {
            self.searched = time;
            let is_idle = |entry: &Entry| time.saturating_sub(entry.seen) >= IDLE_MS;
            let idle = self.entries.iter().filter(|(_, entry)| is_idle(entry)).map(|(client, _)| *client);
            for client in idle.collect::<Vec<_>>() {
                self.entries.remove_mut(&client);
            }
        }
        if self.entries.size() >= CLIENTS_MAX {
            return Err(ClientError::TooMany);
        }
        let entry = Entry { next: 1, seen: time, answers: VecDeque::new(), answers_bytes: 0 };
        self.entries.insert_mut(zxid.to_u64(), Arc::new(entry));
        Ok(())
    }

    /// Forgets a client.
    pub(super) fn close(&mut self, client: u64) {
        self.entries.remove_mut(&client);
    }

    /// Decides about a command of a client. One that is to be executed must be [recorded](Self::record).
    pub(super) fn admit(&mut self, client: u64, number: u64, time: u64) -> Admission {
        let Some(entry) = self.entries.get_mut(&client).map(Arc::make_mut) else {
            return Admission::Refused(ClientError::Unknown);
        };
        entry.seen = time;
        match number.cmp(&entry.next) {
            std::cmp::Ordering::Less => Admission::Repeated,
            std::cmp::Ordering::Equal => {
                entry.next += 1;
                Admission::Execute
            }
            std::cmp::Ordering::Greater => Admission::Refused(ClientError::Gap { next: entry.next }),
        }
    }

    /// Keeps the answer to the command that was executed last.
    pub(super) fn record(&mut self, client: u64, zxid: Zxid, answer: &Bytes) {
        let Some(entry) = self.entries.get_mut(&client).map(Arc::make_mut) else { return };
        // A copy: the answer may be a part of something large.
        entry.answers.push_back((zxid, Bytes::copy_from_slice(answer)));
        entry.answers_bytes += answer.len();
        let is_over = |entry: &Entry| entry.answers.len() > ANSWERS_MAX || entry.answers_bytes > ANSWERS_BYTES_MAX;
        while is_over(entry)
            && let Some((_, old)) = entry.answers.pop_front()
        {
            entry.answers_bytes -= old.len();
        }
    }

    /// The answer to an earlier command, and the zxid of that.
    pub(super) fn answer(&self, client: u64, number: u64) -> Result<(Zxid, Bytes), ClientError> {
        let entry = self.entries.get(&client).ok_or(ClientError::Unknown)?;
        let back = usize::try_from(entry.next.saturating_sub(number)).unwrap_or(usize::MAX);
        let at = entry.answers.len().checked_sub(back).ok_or(ClientError::AnswerLost)?;
        entry.answers.get(at).cloned().ok_or(ClientError::AnswerLost)
    }

    pub(super) fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState> {
        *self = Self::default();
        let Some(state) = state else { return Ok(()) };
        while let Some(saved) = read_message::<Saved>(state, ENTRY_LEN_MAX)? {
            if saved.client == 0 {
                if saved.machine == 0 {
                    self.searched = saved.seen;
                } else {
                    self.raise_version(saved.machine, saved.version);
                }
                continue;
            }
            let answers = saved.answers.into_iter().map(|saved| (Zxid::from_u64(saved.zxid), saved.answer));
            let answers: VecDeque<_> = answers.collect();
            let answers_bytes = answers.iter().map(|(_, answer)| answer.len()).sum();
            let entry = Entry { next: saved.next, seen: saved.seen, answers, answers_bytes };
            self.entries.insert_mut(saved.client, Arc::new(entry));
        }
        Ok(())
    }
}

impl View for ClusterState {
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()> {
        write_message(to, &Saved { seen: self.searched, ..Saved::default() })?;
        for (machine, version) in &self.versions {
            write_message(to, &Saved { machine: *machine, version: *version, ..Saved::default() })?;
        }
        for (client, entry) in &self.entries {
            let answers = entry.answers.iter();
            let answers = answers.map(|(zxid, answer)| SavedAnswer { zxid: zxid.to_u64(), answer: answer.clone() });
            let (next, seen) = (entry.next, entry.seen);
            let answers = answers.collect();
            write_message(to, &Saved { client: *client, next, seen, answers, ..Saved::default() })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crossdock_zab::Epoch;

    use super::*;

    fn zxid(counter: u32) -> Zxid {
        Zxid::new(Epoch(1), counter)
    }

    /// Executes a command if it is admitted, with its number as the answer.
    fn send(clients: &mut ClusterState, client: u64, number: u64) -> Result<(Zxid, Bytes), ClientError> {
        match clients.admit(client, number, 5) {
            Admission::Execute => {
                let done = (zxid(100 + u32::try_from(number).expect("small")), Bytes::from(number.to_string()));
                clients.record(client, done.0, &done.1);
                Ok(done)
            }
            Admission::Repeated => clients.answer(client, number),
            Admission::Refused(refused) => Err(refused),
        }
    }

    fn reopened(clients: &ClusterState) -> ClusterState {
        let mut state = Vec::new();
        clients.write_to(&mut state).expect("memory");
        let mut again = ClusterState::default();
        again.restore(Some(&mut state.as_slice())).expect("intact");
        again
    }

    #[test]
    fn a_command_is_executed_once_and_in_order() {
        let mut clients = ClusterState::default();
        clients.open(zxid(7), 5).expect("there is room");
        let client = zxid(7).to_u64();
        assert_eq!(send(&mut clients, client, 2), Err(ClientError::Gap { next: 1 }));
        let first = send(&mut clients, client, 1).expect("executed");
        assert_eq!(send(&mut clients, client, 2).expect("executed").1, "2");
        for clients in [&mut reopened(&clients), &mut clients] {
            assert_eq!(send(clients, client, 1).as_ref(), Ok(&first), "repeated");
            assert_eq!(send(clients, client, 4), Err(ClientError::Gap { next: 3 }));
            assert_eq!(send(clients, 8, 1), Err(ClientError::Unknown));
        }
        for number in 3..=40 {
            send(&mut clients, client, number).expect("executed");
        }
        assert_eq!(send(&mut clients, client, 8), Err(ClientError::AnswerLost));
        assert_eq!(send(&mut clients, client, 9).expect("it is kept").1, "9");
        clients.close(client);
        assert_eq!(send(&mut clients, client, 41), Err(ClientError::Unknown));
    }

    #[test]
    fn answers_of_a_client_are_bounded_in_bytes() {
        let mut clients = ClusterState::default();
        clients.open(zxid(7), 5).expect("there is room");
        let client = zxid(7).to_u64();
        for number in 1..=3 {
            assert_eq!(clients.admit(client, number, 5), Admission::Execute);
            clients.record(client, zxid(9), &Bytes::from(vec![0; 7_000]));
        }
        assert_eq!(clients.answer(client, 1), Err(ClientError::AnswerLost));
        assert_eq!(clients.answer(client, 2).expect("it is kept").1.len(), 7_000);
    }

    #[test]
    fn idle_clients_make_room_for_new_ones() {
        let mut clients = ClusterState::default();
        let many = u32::try_from(CLIENTS_MAX).expect("small");
        for counter in 1..=many {
            clients.open(zxid(counter), 5).expect("there is room");
        }
        assert_eq!(clients.open(zxid(many + 1), IDLE_MS), Err(ClientError::TooMany));
        assert_eq!(clients.admit(zxid(3).to_u64(), 1, IDLE_MS), Admission::Execute);
        let later = 5 + IDLE_MS + SEARCH_INTERVAL_MS;
        assert_eq!(clients.open(zxid(many + 2), later), Ok(()));
        assert_eq!(clients.entries.size(), 2, "the one that was used, and the new one");
    }
}
