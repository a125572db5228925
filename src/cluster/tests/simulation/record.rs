//! What has happened so far in all instances together, and what must therefore not happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossdock_cluster::platform::simulated::World;
use crossdock_zab::Zxid;

/// An applied command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) command: u64,
    pub(crate) zxid: Zxid,
    /// Milliseconds since the Unix epoch.
    pub(crate) time: u64,
}

#[derive(Default)]
struct Facts {
    /// The order in which instances apply commands.
    order: Vec<Entry>,
    /// The place of each command in it.
    places: BTreeMap<u64, usize>,
    /// Commands that were refused.
    refused: BTreeSet<u64>,
    /// The number of commands that any later read must include.
    least: usize,
    answered: usize,
    reads: usize,
}

/// What has happened so far. Clones are the same record.
#[derive(Clone)]
pub(crate) struct Record {
    world: World,
    facts: Arc<Mutex<Facts>>,
}

impl Record {
    pub(crate) fn new(world: World) -> Self {
        Self { world, facts: Arc::default() }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An instance applies a command, after so many others.
    pub(crate) fn applied(&self, server: u64, before: usize, entry: Entry) {
        let mut facts = self.facts();
        match facts.order.get(before) {
            Some(expected) if *expected != entry => {
                self.world
                    .violation(&format!("instance {server} applies {entry:?} as number {before}, others {expected:?}"));
            }
            Some(_) => {}
            None if facts.order.len() < before => {
                let known = facts.order.len();
                self.world.violation(&format!("instance {server} has {before} commands, of which {known} are known"));
            }
            None => {
                if let Some(last) = facts.order.last().filter(|last| last.time > entry.time || last.zxid >= entry.zxid)
                {
                    self.world.violation(&format!("{entry:?} follows {last:?}"));
                }
                if facts.places.insert(entry.command, before).is_some() {
                    self.world.violation(&format!("command {} is applied twice", entry.command));
                }
                if facts.refused.contains(&entry.command) {
                    self.world.violation(&format!("command {} was refused, and is applied", entry.command));
                }
                facts.order.push(entry);
            }
        }
    }

    /// An instance restores so many commands.
    pub(crate) fn restored(&self, server: u64, entries: &[Entry]) {
        if !self.facts().order.starts_with(entries) {
            self.world.violation(&format!("instance {server} restores a state that there never was"));
        }
    }

    /// A client learns that its command was executed: which one, and after how many.
    pub(crate) fn answered(&self, command: u64, zxid: Zxid, answer: (u64, usize)) {
        let mut facts = self.facts();
        let (of, place) = answer;
        let is_there = facts.order.get(place).is_some_and(|entry| (entry.command, entry.zxid) == (command, zxid));
        if of != command {
            self.world.violation(&format!("command {command} gets the answer of command {of}"));
        } else if !is_there {
            self.world.violation(&format!("command {command} is answered, and is not number {place} at {zxid}"));
        }
        facts.least = facts.least.max(place + 1);
        facts.answered += 1;
    }

    /// A client learns that its command was not executed and never will be.
    pub(crate) fn refused(&self, command: u64) {
        let mut facts = self.facts();
        if facts.places.contains_key(&command) {
            self.world.violation(&format!("command {command} is applied, and is refused"));
        }
        facts.refused.insert(command);
    }

    /// The number of commands that a read from now on must include.
    pub(crate) fn least(&self) -> usize {
        self.facts().least
    }

    /// A client has read so many commands, of which there had to be at least so many.
    pub(crate) fn read(&self, entries: usize, least: usize) {
        let mut facts = self.facts();
        if entries < least {
            self.world.violation(&format!("a read finds {entries} commands, of which {least} were known before"));
        }
        facts.least = facts.least.max(entries);
        facts.reads += 1;
    }

    /// The number of commands through a transaction.
    pub(crate) fn count_through(&self, zxid: Zxid) -> usize {
        self.facts().order.partition_point(|entry| entry.zxid <= zxid)
    }

    /// The commands in order.
    pub(crate) fn order(&self) -> Vec<Entry> {
        self.facts().order.clone()
    }

    /// Answered commands, and reads.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let facts = self.facts();
        (facts.answered, facts.reads)
    }
}
