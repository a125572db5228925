//! Scripts for one server: inputs, and, indented, the exact actions that follow. `CROSSDOCK_BLESS=1` rewrites the
//! actions.
//!
//! ```text
//! server 1 of 1 2 3            a new server and the voters; an observer if not among them
//! up 2 l1 / down 2 l1          a connection opens or ends
//! tick [N]                     N ticks pass
//! written 3                    all writes through 3 are durable
//! propose r1 TEXT / read r1 / snapshot 1:2 / transfer [2]
//! from 2 l1 MESSAGE            a message, in the same form as in actions
//! ```

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use crossdock_zab::{
    Action, Blob, Config, Epoch, Input, Link, LogState, Message, Notification, Request, ServerId, ServerState, Session,
    ToFollower, ToLeader, Txn, Vote, Write, WriteId, Zab, Zxid,
};

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

/// `1:2=text`.
fn txns(words: &[&str]) -> Vec<Txn> {
    let txn = |word: &&str| {
        let (name, payload) = word.split_once('=').unwrap_or_else(|| panic!("a transaction: {word}"));
        Txn { zxid: zxid(name), payload: Bytes::copy_from_slice(payload.as_bytes()) }
    };
    words.iter().map(txn).collect()
}

fn show_txns(txns: &[Txn]) -> String {
    txns.iter()
        .fold(String::new(), |text, txn| format!("{text} {}={}", txn.zxid, String::from_utf8_lossy(&txn.payload)))
}

fn server_state(text: &str) -> ServerState {
    match text {
        "looking" => ServerState::Looking,
        "asking" => ServerState::Asking,
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
    let [session, words @ ..] = words else { panic!("a message") };
    let session = Session(number(session));
    let to_leader = match words {
        ["CEPOCH", accepted, rest @ ..] => {
            ToLeader::FollowerInfo { accepted: epoch(accepted), returning: rest.last().map(|log| number(log)) }
        }
        ["ACKEPOCH", accepted, current, last, again @ ..] => ToLeader::AckEpoch {
            epoch: epoch(accepted),
            current: epoch(current),
            last: zxid(last),
            is_new: again.is_empty(),
        },
        ["ACKLD", of, through] => ToLeader::AckNewLeader { epoch: epoch(of), through: zxid(through) },
        ["ACK", through] => ToLeader::Ack(zxid(through)),
        ["PONG", ping] => ToLeader::Pong { number: number(ping) },
        ["FORWARD", request, payload] => {
            ToLeader::Forward { request: Request(number(request)), payload: Bytes::copy_from_slice(payload.as_bytes()) }
        }
        ["READINDEX", request] => ToLeader::ReadIndex { request: Request(number(request)) },
        ["LEFT"] => ToLeader::Left,
        _ => return Message::ToFollower(session, to_follower(words)),
    };
    Message::ToLeader(session, to_leader)
}

fn to_follower(words: &[&str]) -> ToFollower {
    match words {
        ["NEWEPOCH", of] => ToFollower::NewEpoch(epoch(of)),
        ["DIFF"] => ToFollower::Diff,
        ["TRUNC", to] => ToFollower::Truncate(zxid(to)),
        ["SNAP", last, blob] => ToFollower::Snapshot { zxid: zxid(last), blob: Blob(number(blob)) },
        ["SYNC", after, rest @ ..] => ToFollower::Sync { after: zxid(after), txns: txns(rest) },
        ["NEWLEADER", of] => ToFollower::NewLeader(epoch(of)),
        ["UPTODATE", commit] => ToFollower::UpToDate { commit: zxid(commit) },
        ["PROPOSE", after, rest @ ..] => ToFollower::Propose { after: zxid(after), txns: txns(rest) },
        ["COMMIT", through] => ToFollower::Commit(zxid(through)),
        ["INFORM", after, rest @ ..] => ToFollower::Inform { after: zxid(after), txns: txns(rest) },
        ["PING", ping] => ToFollower::Ping { number: number(ping) },
        ["FORWARDED", request, place @ ..] => {
            ToFollower::Forwarded { request: Request(number(request)), zxid: place.first().map(|place| zxid(place)) }
        }
        ["READINDEXED", request, place @ ..] => {
            ToFollower::ReadIndexed { request: Request(number(request)), zxid: place.first().map(|place| zxid(place)) }
        }
        ["RETURNED"] => ToFollower::Returned,
        ["RESIGNED", rest @ ..] => {
            ToFollower::Resigned { successor: rest.first().map(|server| ServerId(number(server))) }
        }
        _ => panic!("unknown message: {words:?}"),
    }
}

fn place(zxid: Option<Zxid>) -> String {
    zxid.map_or(String::new(), |zxid| format!(" {zxid}"))
}

fn show_message(message: &Message) -> String {
    match message {
        Message::Vote(Notification { vote, round, state }) => {
            let state = format!("{state:?}").to_lowercase();
            let preferred = if vote.preferred { " preferred" } else { "" };
            let unelectable = if vote.electable { "" } else { " unelectable" };
            format!("VOTE {state} {round} {:?} {} {:?}{preferred}{unelectable}", vote.epoch, vote.zxid, vote.server)
        }
        Message::ToLeader(session, message) => {
            let rest = match message {
                ToLeader::FollowerInfo { accepted, returning } => {
                    let returning = returning.map_or(String::new(), |log| format!(" returning {log}"));
                    format!("CEPOCH {accepted:?}{returning}")
                }
                ToLeader::AckEpoch { epoch, current, last, is_new } => {
                    let again = if *is_new { "" } else { " again" };
                    format!("ACKEPOCH {epoch:?} {current:?} {last}{again}")
                }
                ToLeader::AckNewLeader { epoch, through } => format!("ACKLD {epoch:?} {through}"),
                ToLeader::Ack(through) => format!("ACK {through}"),
                ToLeader::Pong { number } => format!("PONG {number}"),
                ToLeader::Forward { request, payload } => {
                    format!("FORWARD {request:?} {}", String::from_utf8_lossy(payload))
                }
                ToLeader::ReadIndex { request } => format!("READINDEX {request:?}"),
                ToLeader::Left => "LEFT".to_owned(),
            };
            format!("{session:?} {rest}")
        }
        Message::ToFollower(session, message) => {
            let rest = match message {
                ToFollower::NewEpoch(epoch) => format!("NEWEPOCH {epoch:?}"),
                ToFollower::Diff => "DIFF".to_owned(),
                ToFollower::Truncate(to) => format!("TRUNC {to}"),
                ToFollower::Snapshot { zxid, blob } => format!("SNAP {zxid} {blob:?}"),
                ToFollower::Sync { after, txns } => format!("SYNC {after}{}", show_txns(txns)),
                ToFollower::NewLeader(epoch) => format!("NEWLEADER {epoch:?}"),
                ToFollower::UpToDate { commit } => format!("UPTODATE {commit}"),
                ToFollower::Propose { after, txns } => format!("PROPOSE {after}{}", show_txns(txns)),
                ToFollower::Commit(through) => format!("COMMIT {through}"),
                ToFollower::Inform { after, txns } => format!("INFORM {after}{}", show_txns(txns)),
                ToFollower::Ping { number } => format!("PING {number}"),
                ToFollower::Forwarded { request, zxid } => format!("FORWARDED {request:?}{}", place(*zxid)),
                ToFollower::ReadIndexed { request, zxid } => format!("READINDEXED {request:?}{}", place(*zxid)),
                ToFollower::Returned => "RETURNED".to_owned(),
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
                Write::Truncate(to) => format!("truncate {to}"),
                Write::Install { zxid, blob } => format!("install {zxid} {blob:?}"),
                Write::Append { after, txns } => format!("append {after}{}", show_txns(txns)),
                Write::EpochInstalled(epoch) => format!("installed {epoch:?}"),
                Write::Returned => "returned".to_owned(),
            };
            let then = then.iter().fold(String::new(), |text, (link, message)| {
                format!("{text}, then send {link:?} {}", show_message(message))
            });
            format!("write {} {write}{then}", id.0)
        }
        Action::Deliver(txn) => format!("deliver {}={}", txn.zxid, String::from_utf8_lossy(&txn.payload)),
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
        ["up", peer, link] => Input::LinkUp { peer: ServerId(number(peer)), link: Link(number(link)) },
        ["down", peer, link] => Input::LinkDown { peer: ServerId(number(peer)), link: Link(number(link)) },
        ["tick"] => Input::Tick,
        ["written", id] => Input::Written(WriteId(number(id))),
        ["propose", request, payload] => {
            Input::Propose { request: Request(number(request)), payload: Bytes::copy_from_slice(payload.as_bytes()) }
        }
        ["read", request] => Input::Read { request: Request(number(request)) },
        ["snapshot", through] => Input::SnapshotTaken(zxid(through)),
        ["transfer"] => Input::TransferLeadership(None),
        ["transfer", to] => Input::TransferLeadership(Some(ServerId(number(to)))),
        ["from", peer, link, rest @ ..] => {
            Input::Received { peer: ServerId(number(peer)), link: Link(number(link)), message: message(rest) }
        }
        _ => panic!("unknown input: {words:?}"),
    }
}

/// Runs the script and returns it with the actions of the server.
fn run_script(script: &str) -> String {
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
                let voters = voters.iter().map(|voter| ServerId(number(voter))).collect();
                let mut config = Config::new(ServerId(number(id)), voters);
                config.retained = 0;
                zab = Some(Zab::new(config, LogState::default(), Zxid::ZERO));
            }
            // It has lost its log and has a new one.
            ["lost", log] => {
                let last = zab.as_ref().expect("a server");
                let (id, voters) = (last.config().id, last.config().voters.clone());
                zab = Some(Zab::new(Config::new(id, voters), LogState::for_returning(number(log)), Zxid::ZERO));
            }
            // It restarts with the state of its log.
            ["restart"] => {
                let last = zab.as_ref().expect("a server");
                let (id, voters) = (last.config().id, last.config().voters.clone());
                let log_state = last.log_state().clone();
                let snapshot = log_state.history().snapshot();
                zab = Some(Zab::new(Config::new(id, voters), log_state, snapshot));
            }
            ["tick", count] => {
                let ticks = (0..number(count)).map(|_| Input::Tick);
                zab.as_mut().expect("a server").handle(ticks, &mut actions);
            }
            words => zab.as_mut().expect("a server").handle([input(words)], &mut actions),
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
