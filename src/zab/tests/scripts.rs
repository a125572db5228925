//! Scripts for one server: inputs, and, indented, the exact actions that follow. `CROSSDOCK_BLESS=1` rewrites the
//! actions.
//!
//! ```text
//! server 1 of 1 2 3            a server with an empty log and the voters; an observer if not among them
//! new 1 of 1 2 3               the same with a new log, and the founders of its cluster
//! up 2 l1 [d9] / down 2 l1     a connection opens, to a server with that log, or ends
//! now 17                       the time of the clock
//! tick [N]                     N ticks pass
//! written 3                    all writes through 3 are durable
//! many 100                     as many proposals at once
//! propose r1 TEXT [in e1] / read r1 / snapshot 1:2 / transfer [2] / add r1 4 / remove r1 3
//! log-read l1 n1 1:1 1:2=x      transactions after 1:1 are read from the log on disk
//! from 2 l1 MESSAGE            a message, in the same form as in actions
//! ```
//!
//! The log of server 3 is d3. Transactions and points have the right hashes, except those that end with `!`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::{
    Action, Blob, ClusterId, Config, Epoch, Input, Link, LogId, LogState, MemberChange, Membership, Message,
    Notification, Payload, Point, Refusal, Request, ServerId, ServerState, Session, Summary, ToFollower, ToLeader, Txn,
    Vote, Write, WriteId, Zab, Zxid,
};

thread_local! {
    /// The points of the transactions that the script has mentioned.
    static POINTS: RefCell<BTreeMap<Zxid, Point>> = RefCell::default();
}

fn number(text: &str) -> u64 {
    text.trim_start_matches(|first: char| first.is_alphabetic()).parse().unwrap_or_else(|_| panic!("a number: {text}"))
}

fn epoch(text: &str) -> Epoch {
    Epoch(u32::try_from(number(text)).expect("an epoch"))
}

fn zxid(text: &str) -> Zxid {
    let (of, counter) = text.split_once(':').unwrap_or_else(|| panic!("a zxid: {text}"));
    Zxid::new(epoch(of), counter.parse().expect("a counter"))
}

fn note(point: Point) {
    POINTS.with_borrow_mut(|points| points.insert(point.zxid, point));
}

fn known(zxid: Zxid) -> Point {
    POINTS.with_borrow(|points| points.get(&zxid).copied()).unwrap_or(Point { zxid, ..Point::default() })
}

/// `1:2`, or `1:2!` with a wrong hash.
fn point(text: &str) -> Point {
    match text.strip_suffix('!') {
        Some(right) => Point { hash: !known(zxid(right)).hash, ..known(zxid(right)) },
        None => known(zxid(text)),
    }
}

fn show_point(point: Point) -> String {
    let wrong = if point == known(point.zxid) { "" } else { "!" };
    format!("{}{wrong}", point.zxid)
}

/// `c1 1=d1 2=d2 -3`.
fn membership(words: &[&str]) -> Arc<Membership> {
    let cluster = words[0].trim_start_matches('c');
    let pair = |word: &&str| word.split_once('=').map(|(id, log)| (ServerId(number(id)), LogId(number(log))));
    let replacing = words[1..].iter().filter_map(|word| word.strip_prefix('-')).map(|id| ServerId(number(id)));
    Arc::new(Membership {
        cluster: ClusterId(u64::from_str_radix(cluster, 16).expect("a cluster")),
        voters: words[1..].iter().filter_map(pair).collect(),
        replacing: replacing.collect(),
    })
}

fn show_membership(membership: &Membership) -> String {
    let voters = membership.voters.iter().map(|(id, log)| format!(" {id}={log:?}"));
    let replacing = membership.replacing.iter().map(|id| format!(" -{id}"));
    format!("{:?}{}", membership.cluster, voters.chain(replacing).collect::<String>())
}

/// `1:2=text`, or `1:2=[c1 1=d1]` without spaces for a membership: `1:2=[c1,1=d1]`.
fn txns(after: Zxid, words: &[&str]) -> Vec<Txn> {
    let mut last = known(after);
    let txn = |word: &&str| {
        let (name, text) = word.split_once('=').unwrap_or_else(|| panic!("a transaction: {word}"));
        let right = name.trim_end_matches('!');
        let payload = match text.strip_prefix('[') {
            Some(members) => {
                Payload::Membership(membership(&members.trim_end_matches(']').split(',').collect::<Vec<_>>()))
            }
            None => Payload::Command(Bytes::copy_from_slice(text.as_bytes())),
        };
        let mut txn = last.next(zxid(right), 0, payload);
        if name == right {
            note(txn.point());
        } else {
            txn.hash = !txn.hash;
        }
        last = txn.point();
        txn
    };
    words.iter().map(txn).collect()
}

fn show_txn(txn: &Txn) -> String {
    note(txn.point());
    let payload = match &txn.payload {
        Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        Payload::Membership(membership) => format!("[{}]", show_membership(membership).replace(' ', ",")),
    };
    let time = if txn.time == 0 { String::new() } else { format!("@{}", txn.time) };
    format!("{}={payload}{time}", txn.zxid)
}

/// Many transactions are shown as the first and the last.
fn show_txns(txns: &[Txn]) -> String {
    if txns.len() > 10 {
        let (first, last) = (&txns[0], &txns[txns.len() - 1]);
        return format!(" {} …{}… {}", show_txn(first), txns.len(), show_txn(last));
    }
    txns.iter().fold(String::new(), |text, txn| format!("{text} {}", show_txn(txn)))
}

fn server_state(text: &str) -> ServerState {
    match text {
        "looking" => ServerState::Looking,
        "following" => ServerState::Following,
        "leading" => ServerState::Leading,
        "established" => ServerState::Established,
        other => panic!("unknown state: {other}"),
    }
}

fn message(words: &[&str]) -> Message {
    if let ["VOTE", state, round, epoch_of, last, server, rest @ ..] = words {
        let vote = Vote {
            electable: rest != ["unelectable"],
            epoch: epoch(epoch_of),
            zxid: zxid(last),
            preferred: rest == ["preferred"],
            server: ServerId(number(server)),
        };
        return Message::Vote(Notification { vote, round: number(round), state: server_state(state) });
    }
    match words {
        ["FORMING", founders @ ..] => {
            return Message::Forming(founders.iter().map(|id| ServerId(number(id))).collect());
        }
        ["FORMED", members @ ..] => return Message::Formed(membership(members)),
        _ => {}
    }
    let [session, words @ ..] = words else { panic!("a message") };
    let session = Session(number(session));
    let to_leader = match words {
        ["CEPOCH", accepted] => ToLeader::FollowerInfo { accepted: epoch(accepted) },
        ["ACKEPOCH", accepted, current, last, again @ ..] => ToLeader::AckEpoch {
            epoch: epoch(accepted),
            current: epoch(current),
            last: point(last),
            is_new: again.is_empty(),
        },
        ["ACKLD", of, through] => ToLeader::AckNewLeader { epoch: epoch(of), through: zxid(through) },
        ["RECEIVED", through] => ToLeader::Received(zxid(through)),
        ["ACK", through] => ToLeader::Ack(zxid(through)),
        ["PONG", ping, delivered] => ToLeader::Pong { number: number(ping), delivered: point(delivered) },
        ["FORWARD", request, payload] => ToLeader::Forward {
            request: Request(number(request)),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            is_reserved: false,
        },
        ["READINDEX", request] => ToLeader::ReadIndex { request: Request(number(request)) },
        ["ADD", request, server] => ToLeader::ChangeMembers {
            request: Request(number(request)),
            change: MemberChange::Add(ServerId(number(server))),
        },
        ["REMOVE", request, server] => ToLeader::ChangeMembers {
            request: Request(number(request)),
            change: MemberChange::Remove(ServerId(number(server))),
        },
        ["DIFFERS", at] => ToLeader::Differs(zxid(at)),
        ["LEFT"] => ToLeader::Left,
        _ => return Message::ToFollower(session, to_follower(words)),
    };
    Message::ToLeader(session, to_leader)
}

fn to_follower(words: &[&str]) -> ToFollower {
    match words {
        ["NEWEPOCH", of] => ToFollower::NewEpoch(epoch(of)),
        ["DIFF", last, members @ ..] => ToFollower::Diff(summary(last, members)),
        ["TRUNC", to] => ToFollower::Truncate(point(to)),
        ["SNAP", last, blob, members @ ..] => {
            ToFollower::Snapshot { summary: summary(last, members), blob: Blob(number(blob)) }
        }
        ["SYNC", after, rest @ ..] => ToFollower::Sync { after: zxid(after), txns: txns(zxid(after), rest) },
        ["NEWLEADER", of] => ToFollower::NewLeader(epoch(of)),
        ["UPTODATE", commit] => ToFollower::UpToDate { commit: zxid(commit) },
        ["PROPOSE", after, rest @ ..] => ToFollower::Propose { after: zxid(after), txns: txns(zxid(after), rest) },
        ["COMMIT", through] => ToFollower::Commit(zxid(through)),
        ["PING", ping] => ToFollower::Ping { number: number(ping) },
        ["FORWARDED", request, place @ ..] => {
            ToFollower::Forwarded { request: Request(number(request)), zxid: answer(place) }
        }
        ["READINDEXED", request, place @ ..] => {
            ToFollower::ReadIndexed { request: Request(number(request)), zxid: answer(place) }
        }
        ["DIVERGED", points @ ..] => ToFollower::Differs(points.iter().map(|at| point(at)).collect()),
        ["RESIGNED", rest @ ..] => {
            ToFollower::Resigned { successor: rest.first().map(|server| ServerId(number(server))) }
        }
        _ => panic!("unknown message: {words:?}"),
    }
}

/// `1:2` or `busy`.
fn answer(words: &[&str]) -> Result<Zxid, Refusal> {
    match words {
        ["busy"] => Err(Refusal::Busy),
        [place] => Ok(zxid(place)),
        _ => panic!("a zxid or a refusal: {words:?}"),
    }
}

fn show_answer(answer: Result<Zxid, Refusal>) -> String {
    answer.map_or_else(|refusal| format!("{refusal:?}").to_lowercase(), |zxid| zxid.to_string())
}

fn summary(last: &str, members: &[&str]) -> Summary {
    Summary { point: point(last), membership: (!members.is_empty()).then(|| membership(members)) }
}

fn show_members(summary: &Summary) -> String {
    summary.membership.as_ref().map_or(String::new(), |membership| format!(" {}", show_membership(membership)))
}

fn show_message(message: &Message) -> String {
    match message {
        Message::Vote(Notification { vote, round, state }) => {
            let state = format!("{state:?}").to_lowercase();
            let preferred = if vote.preferred { " preferred" } else { "" };
            let unelectable = if vote.electable { "" } else { " unelectable" };
            format!("VOTE {state} {round} {:?} {} {:?}{preferred}{unelectable}", vote.epoch, vote.zxid, vote.server)
        }
        Message::Forming(founders) => {
            founders.iter().fold("FORMING".to_owned(), |text, founder| format!("{text} {founder}"))
        }
        Message::Formed(membership) => format!("FORMED {}", show_membership(membership)),
        Message::ToLeader(session, message) => {
            let rest = match message {
                ToLeader::FollowerInfo { accepted } => format!("CEPOCH {accepted:?}"),
                ToLeader::AckEpoch { epoch, current, last, is_new } => {
                    let again = if *is_new { "" } else { " again" };
                    format!("ACKEPOCH {epoch:?} {current:?} {}{again}", show_point(*last))
                }
                ToLeader::AckNewLeader { epoch, through } => format!("ACKLD {epoch:?} {through}"),
                ToLeader::Received(through) => format!("RECEIVED {through}"),
                ToLeader::Ack(through) => format!("ACK {through}"),
                ToLeader::Pong { number, delivered } => format!("PONG {number} {}", show_point(*delivered)),
                ToLeader::Forward { request, payload, is_reserved } => {
                    let reserved = if *is_reserved { " reserved" } else { "" };
                    format!("FORWARD {request:?} {}{reserved}", String::from_utf8_lossy(payload))
                }
                ToLeader::ReadIndex { request } => format!("READINDEX {request:?}"),
                ToLeader::ChangeMembers { request, change: MemberChange::Add(server) } => {
                    format!("ADD {request:?} {server}")
                }
                ToLeader::ChangeMembers { request, change: MemberChange::Remove(server) } => {
                    format!("REMOVE {request:?} {server}")
                }
                ToLeader::Differs(zxid) => format!("DIFFERS {zxid}"),
                ToLeader::Left => "LEFT".to_owned(),
            };
            format!("{session:?} {rest}")
        }
        Message::ToFollower(session, message) => {
            let rest = match message {
                ToFollower::NewEpoch(epoch) => format!("NEWEPOCH {epoch:?}"),
                ToFollower::Diff(summary) => format!("DIFF {}{}", show_point(summary.point), show_members(summary)),
                ToFollower::Truncate(to) => format!("TRUNC {}", show_point(*to)),
                ToFollower::Snapshot { summary, blob } => {
                    format!("SNAP {} {blob:?}{}", show_point(summary.point), show_members(summary))
                }
                ToFollower::Sync { after, txns } => format!("SYNC {after}{}", show_txns(txns)),
                ToFollower::NewLeader(epoch) => format!("NEWLEADER {epoch:?}"),
                ToFollower::UpToDate { commit } => format!("UPTODATE {commit}"),
                ToFollower::Propose { after, txns } => format!("PROPOSE {after}{}", show_txns(txns)),
                ToFollower::Commit(through) => format!("COMMIT {through}"),
                ToFollower::Ping { number } => format!("PING {number}"),
                ToFollower::Forwarded { request, zxid } => format!("FORWARDED {request:?} {}", show_answer(*zxid)),
                ToFollower::ReadIndexed { request, zxid } => format!("READINDEXED {request:?} {}", show_answer(*zxid)),
                ToFollower::Differs(points) => {
                    points.iter().fold("DIVERGED".to_owned(), |text, point| format!("{text} {}", show_point(*point)))
                }
                ToFollower::Resigned { successor } => {
                    successor.map_or("RESIGNED".to_owned(), |server| format!("RESIGNED {server:?}"))
                }
            };
            format!("{session:?} {rest}")
        }
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Send { link, message } => format!("send {link:?} {}", show_message(message)),
        Action::SendSnapshot { link, session, zxid } => format!("send-snapshot {link:?} {session:?} {zxid}"),
        Action::Persist { id, write, then } => {
            let write = match write {
                Write::AcceptEpoch(epoch) => format!("accept {epoch:?}"),
                Write::SyncBegin(epoch) => format!("sync-begin {epoch:?}"),
                Write::Form(membership) => format!("form {}", show_membership(membership)),
                Write::Truncate(to) => format!("truncate {}", show_point(*to)),
                Write::Install { summary, blob } => {
                    format!("install {} {blob:?}{}", show_point(summary.point), show_members(summary))
                }
                Write::Append { after, txns } => format!("append {after}{}", show_txns(txns)),
                Write::EpochInstalled(epoch) => format!("installed {epoch:?}"),
            };
            let then = then.iter().fold(String::new(), |text, (link, message)| {
                format!("{text}, then send {link:?} {}", show_message(message))
            });
            format!("write {} {write}{then}", id.0)
        }
        Action::ReadLog { link, session, after } => format!("read-log {link:?} {session:?} {after}"),
        Action::DiscardSnapshot(blob) => format!("discard {blob:?}"),
        Action::Deliver(txn) => format!("deliver {}", show_txn(txn)),
        Action::Restore(zxid) => format!("restore {zxid}"),
        Action::Proposed { request, zxid } => format!("proposed {request:?} {zxid}"),
        Action::Refused { request, refusal } => format!("refused {request:?}: {refusal}"),
        Action::ReadReady { request, zxid } => format!("read {request:?} at {zxid}"),
        Action::Became(role) => format!("became {role:?}"),
        Action::Close { link, problem } => format!("close {link:?}: {problem}"),
        Action::Stop(fatal) => format!("stop: {fatal}"),
    }
}

fn input(words: &[&str]) -> Input {
    match words {
        ["up", peer, link, log @ ..] => Input::LinkUp {
            peer: ServerId(number(peer)),
            link: Link(number(link)),
            log: LogId(number(log.first().unwrap_or(peer))),
        },
        ["now", time] => Input::Now(number(time)),
        ["down", peer, link] => Input::LinkDown { peer: ServerId(number(peer)), link: Link(number(link)) },
        ["behind"] => Input::Behind(true),
        ["tick"] => Input::Tick,
        ["written", id] => Input::Written(WriteId(number(id))),
        ["propose", request, payload, within @ ..] => Input::Propose {
            request: Request(number(request)),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            in_epoch: within.last().filter(|of| **of != "reserved").map(|of| epoch(of)),
            is_reserved: within.last() == Some(&"reserved"),
        },
        ["add", request, server] => {
            let change = MemberChange::Add(ServerId(number(server)));
            Input::ChangeMembers { request: Request(number(request)), change }
        }
        ["remove", request, server] => {
            let change = MemberChange::Remove(ServerId(number(server)));
            Input::ChangeMembers { request: Request(number(request)), change }
        }
        ["read", request] => Input::Read { request: Request(number(request)) },
        ["log-read", link, session, after, rest @ ..] => Input::LogRead {
            link: Link(number(link)),
            session: Session(number(session)),
            txns: txns(zxid(after), rest),
        },
        ["snapshot", through] => Input::SnapshotTaken(zxid(through)),
        ["transfer"] => Input::TransferLeadership(None),
        ["transfer", to] => Input::TransferLeadership(Some(ServerId(number(to)))),
        ["from", peer, link, rest @ ..] => {
            Input::Received { peer: ServerId(number(peer)), link: Link(number(link)), message: message(rest) }
        }
        _ => panic!("unknown input: {words:?}"),
    }
}

fn config(id: &str, log: &str) -> Config {
    let mut config = Config::new(ServerId(number(id)), LogId(number(log)));
    config.retained = 0;
    config
}

/// Runs the script and returns it with the actions of the server.
fn run_script(script: &str) -> String {
    POINTS.with_borrow_mut(BTreeMap::clear);
    let mut zab: Option<Zab> = None;
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        out.push_str(line);
        out.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut actions = Vec::new();
        match words.as_slice() {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["server", id, "of", voters @ ..] => {
                let voters = voters.iter().map(|voter| (ServerId(number(voter)), LogId(number(voter))));
                let membership = Membership { cluster: ClusterId(1), ..Membership::first(voters.collect()) };
                let mut log_state = LogState::default();
                log_state.apply(&Write::Form(Arc::new(membership))).expect("a new log");
                zab = Some(Zab::new(config(id, id), log_state, Zxid::ZERO));
            }
            ["new", id, "of", founders @ ..] => {
                let founders = founders.iter().map(|founder| ServerId(number(founder))).collect();
                let config = Config { founders, ..config(id, id) };
                zab = Some(Zab::new(config, LogState::default(), Zxid::ZERO));
            }
            // It has lost its log and has a new one.
            ["lost", log] => {
                let id = zab.as_ref().expect("a server").config().id.to_string();
                zab = Some(Zab::new(config(&id, log), LogState::default(), Zxid::ZERO));
            }
            // It restarts with the state of its log.
            ["restart"] => {
                let last = zab.as_ref().expect("a server");
                let (config, log_state) = (last.config().clone(), last.log_state().clone());
                let snapshot = log_state.history().snapshot();
                zab = Some(Zab::new(config, log_state, snapshot));
            }
            // So many proposals at once.
            ["many", count] => {
                let payload = Bytes::from_static(b"x");
                let propose = |request| Input::Propose {
                    request: Request(request),
                    payload: payload.clone(),
                    in_epoch: None,
                    is_reserved: false,
                };
                zab.as_mut().expect("a server").handle((0..number(count)).map(propose), &mut actions);
                actions.retain(|action| !matches!(action, Action::Proposed { .. }));
            }
            ["tick", count] => {
                let ticks = (0..number(count)).map(|_| Input::Tick);
                zab.as_mut().expect("a server").handle(ticks, &mut actions);
            }
            words => zab.as_mut().expect("a server").handle([input(words)], &mut actions),
        }
        let delivered = actions.iter().filter(|action| matches!(action, Action::Deliver(_))).count();
        if delivered > 10 {
            actions.retain(|action| !matches!(action, Action::Deliver(_)));
            writeln!(out, "    deliver {delivered}").expect("text");
        }
        for action in &actions {
            writeln!(out, "    {}", show(action)).expect("text");
        }
    }
    out
}

#[test]
fn scripts_produce_the_recorded_actions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    let mut failed = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("scripts") {
        let path = entry.expect("a file").path();
        let script = std::fs::read_to_string(&path).expect("a script");
        let now = run_script(&script);
        count += 1;
        if std::env::var_os("CROSSDOCK_BLESS").is_some() {
            std::fs::write(&path, now).expect("a script");
        } else if now != script {
            failed.push(format!("{}:\n{now}", path.display()));
        }
    }
    assert!(count >= 8, "there are {count} scripts");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
