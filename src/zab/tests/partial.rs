//! Elections among voters of which not all reach one another, and never will.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use crossdock_zab::{
    Action, Config, Epoch, Input, Link, LogId, LogState, Membership, Message, Payload, Point, Role, ServerId, Write,
    WriteId, Zab, Zxid,
};

type Micros = u64;
const TICK: Micros = 20_000;
const WRITE: Micros = 1_000;

/// Voters with histories of some length, and the latency of each connection.
struct Ensemble {
    zabs: BTreeMap<u64, Zab>,
    latency: BTreeMap<(u64, u64), Micros>,
    queue: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, (u64, Input, Vec<(Link, Message)>)>,
    number: u64,
    /// When the last message over each connection arrives: they keep their order.
    last: BTreeMap<(u64, u64), Micros>,
}

/// A voter of `count` with the history of epoch 1 and this many transactions; with none, no epoch.
fn history(count: u64, len: u32) -> LogState {
    let mut log_state = LogState::default();
    let voters = (1..=count).map(|id| (ServerId(id), LogId(id)));
    let form = Write::Form(Membership::first(voters.collect()).into());
    log_state.apply(&form).expect("a new log");
    if len == 0 {
        return log_state;
    }
    let mut last = Point::default();
    let txn = |counter| {
        let txn = last.next(Zxid::new(Epoch(1), counter), 0, Payload::Command(Bytes::from_static(b"x")));
        last = txn.point();
        txn
    };
    let writes = [
        Write::AcceptEpoch(Epoch(1)),
        Write::SyncBegin(Epoch(1)),
        Write::EpochInstalled(Epoch(1)),
        Write::Append { after: Zxid::ZERO, txns: (1..=len).map(txn).collect() },
    ];
    for write in &writes {
        log_state.apply(write).expect("a valid write");
    }
    log_state
}

/// The connection of `from` to `to`, at its end.
fn link(from: u64, to: u64) -> Link {
    Link(from * 100 + to)
}

impl Ensemble {
    /// `lens` are the lengths of the histories of voters 1, 2, …; pairs without a latency are not connected.
    fn new(lens: &[u32], latency: impl Fn(u64, u64) -> Option<Micros>) -> Self {
        let count = lens.len() as u64;
        let zab = |id: u64, len: u32| Zab::new(Config::new(ServerId(id), LogId(id)), history(count, len), Zxid::ZERO);
        let zabs = (1..).zip(lens).map(|(id, len)| (id, zab(id, *len))).collect();
        let pairs = (1..=count).flat_map(|a| (1..=count).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let latency = pairs.filter_map(|(a, b)| Some(((a, b), latency(a.min(b), a.max(b))?))).collect();
        let mut this =
            Self { zabs, latency, queue: BinaryHeap::new(), events: BTreeMap::new(), number: 0, last: BTreeMap::new() };
        for id in 1..=count {
            this.at(id * 100, id, Input::Tick, Vec::new());
        }
        let pairs: Vec<_> = this.latency.keys().copied().collect();
        for (a, b) in pairs {
            this.at(100, a, Input::LinkUp { peer: ServerId(b), link: link(a, b), log: LogId(b) }, Vec::new());
        }
        this
    }

    fn at(&mut self, time: Micros, server: u64, input: Input, unlocked: Vec<(Link, Message)>) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number)));
        self.events.insert(self.number, (server, input, unlocked));
    }

    fn send(&mut self, now: Micros, from: u64, to: Link, message: Message) {
        let to = to.0 % 100;
        let last = self.last.entry((from, to)).or_default();
        *last = (*last).max(now + self.latency[&(from, to)]);
        let input = Input::Received { peer: ServerId(from), link: link(to, from), message };
        self.at(self.last[&(from, to)], to, input, Vec::new());
    }

    /// Runs until a leader is established; returns it and the time. `None` after `limit`.
    fn elect(&mut self, limit: Micros) -> Option<(u64, Micros)> {
        while let Some(Reverse((now, number))) = self.queue.pop().filter(|Reverse((now, _))| *now < limit) {
            let (server, input, unlocked) = self.events.remove(&number).expect("an event");
            if input == Input::Tick {
                self.at(now + TICK, server, Input::Tick, Vec::new());
            }
            for (to, message) in unlocked {
                self.send(now, server, to, message);
            }
            let mut actions = Vec::new();
            self.zabs.get_mut(&server).expect("a voter").handle([input], &mut actions);
            for action in actions {
                match action {
                    Action::Send { link, message } => self.send(now, server, link, message),
                    Action::Persist { id: WriteId(id), then, .. } => {
                        self.at(now + WRITE, server, Input::Written(WriteId(id)), then);
                    }
                    Action::Became(Role::Leading(_)) => return Some((server, now)),
                    Action::Stop(fatal) => panic!("{server} stops: {fatal}"),
                    _ => {}
                }
            }
        }
        None
    }
}

#[test]
fn a_voter_with_a_later_history_that_reaches_only_the_candidate_does_not_prevent_its_election() {
    // Voter 2 reaches 5 only, and answers it before or after the others do.
    let linked = |a, b| (a != 2 && b != 2) || (a, b) == (2, 5);
    for (near, far) in [(200, 10_000), (10_000, 200), (200, 1_000), (300, 500), (500, 300)] {
        for (len, what) in [(1, "no"), (2, "one"), (9, "many")] {
            let latency = |a, b| linked(a, b).then_some(if a == 2 || b == 2 { near } else { far });
            let found = Ensemble::new(&[1, len, 1, 1, 1], latency).elect(60_000_000);
            let (leader, time) = found.unwrap_or_else(|| panic!("{near} µs, {far} µs, {what} more: nobody leads"));
            assert!(leader == 5 && time < 300_000, "{near} µs, {far} µs, {what} more: {leader} after {time} µs");
        }
    }
}

#[test]
fn a_hub_that_reaches_a_quorum_is_elected_among_three_to_seven() {
    // Everyone reaches only the last voter, whose history a quorum does not exceed; the others have more.
    for count in 3..=7_u64 {
        let hub = count;
        let quorum = count / 2 + 1;
        let lens: Vec<u32> = (1..=count).map(|id| if id > count - quorum { 5 } else { 6 }).collect();
        for near in [100, 1_000, 5_000] {
            let latency = |a, b| (b == hub).then_some(if a > count - quorum { 1_000 } else { near });
            let found = Ensemble::new(&lens, latency).elect(60_000_000);
            // Of three, any two are a quorum.
            let is_expected = |leader| leader == hub || count == 3;
            assert!(
                found.is_some_and(|(leader, time)| is_expected(leader) && time < 1_000_000),
                "{count}, {near}: {found:?}"
            );
        }
    }
}

#[test]
fn a_candidate_without_the_history_of_a_quorum_gives_way_at_once() {
    // All are connected. Voter 3 alone lacks a transaction, but is the one that they know first.
    let found = Ensemble::new(&[6, 6, 5], |_, _| Some(500)).elect(60_000_000);
    assert!(found.is_some_and(|(leader, time)| leader == 2 && time < 300_000), "{found:?}");
}

#[test]
fn a_new_voter_with_the_highest_id_that_reaches_too_few_does_not_prevent_the_first_election() {
    // Four voters, of which three are a quorum: 1 and 3 reach 2 only, and 4 reaches nobody.
    for latency in [100, 1_000, 10_000] {
        let linked = |a, b| ((a, b) == (1, 2) || (a, b) == (2, 3)).then_some(latency);
        let found = Ensemble::new(&[0, 0, 0, 0], linked).elect(60_000_000);
        assert!(found.is_some_and(|(leader, time)| leader == 2 && time < 500_000), "{latency} µs: {found:?}");
    }
}

#[test]
fn a_candidate_that_was_refused_by_a_later_history_gives_others_precedence() {
    // Six voters, of which four are a quorum. Voter 3 reaches one, but voter 4 of it has more. Voter 2, with the same
    // history and a lower id, reaches one that follows it.
    let pairs = [(1, 2), (1, 3), (2, 3), (3, 4), (2, 5), (2, 6), (5, 6)];
    for latency in [100, 1_000, 10_000] {
        let linked = |a, b| pairs.contains(&(a, b)).then_some(latency);
        let found = Ensemble::new(&[5, 9, 9, 10, 7, 7], linked).elect(60_000_000);
        assert!(found.is_some_and(|(leader, time)| leader == 2 && time < 500_000), "{latency} µs: {found:?}");
    }
}
