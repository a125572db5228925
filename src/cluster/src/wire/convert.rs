//! Conversion between messages of `zab` and the wire.

use crossdock_zab as zab;
use crossdock_zab::{Epoch, Message, Notification, Request, ServerId, ServerState, Session, Vote, Zxid};

use super::schema::{
    AckEpoch, AckNewLeader, Answer, FollowerInfo, FollowerKind, Forward, Idle, Kind, LeaderKind, Resigned, ToFollower,
    ToLeader, Txn, Txns, Vote as WireVote,
};

fn txns(after: Zxid, txns: &[zab::Txn]) -> Txns {
    let txns = txns.iter().map(|txn| Txn { zxid: txn.zxid.to_u64(), payload: txn.payload.clone() });
    Txns { after: after.to_u64(), txns: txns.collect() }
}

fn txns_back(txns: Txns) -> (Zxid, Vec<zab::Txn>) {
    let read = txns.txns.into_iter().map(|txn| zab::Txn { zxid: Zxid::from_u64(txn.zxid), payload: txn.payload });
    (Zxid::from_u64(txns.after), read.collect())
}

fn answer(request: Request, zxid: Option<Zxid>) -> Answer {
    Answer { request: request.0, zxid: zxid.map(Zxid::to_u64) }
}

impl Kind {
    /// The wire form; `None` for a snapshot, which is sent in parts.
    pub(crate) fn of_message(message: &Message) -> Option<Self> {
        Some(match message {
            Message::Vote(Notification { vote, round, state }) => Self::Vote(WireVote {
                epoch: vote.epoch.0,
                zxid: vote.zxid.to_u64(),
                preferred: vote.preferred,
                server: vote.server.0,
                round: *round,
                doing: match state {
                    ServerState::Looking => 1,
                    ServerState::Following => 2,
                    ServerState::Leading => 3,
                    ServerState::Established => 4,
                    ServerState::Asking => 5,
                },
                unelectable: !vote.electable,
            }),
            Message::ToLeader(session, message) => {
                Self::ToLeader(ToLeader { session: session.0, kind: Some(to_leader(message)) })
            }
            Message::ToFollower(session, message) => {
                Self::ToFollower(ToFollower { session: session.0, kind: Some(to_follower(message)?) })
            }
        })
    }

    /// The message; `None` if it is unknown or incomplete.
    pub(crate) fn into_message(self) -> Option<Message> {
        Some(match self {
            Self::Vote(vote) => Message::Vote(Notification {
                vote: Vote {
                    electable: !vote.unelectable,
                    epoch: Epoch(vote.epoch),
                    zxid: Zxid::from_u64(vote.zxid),
                    preferred: vote.preferred,
                    server: ServerId(vote.server),
                },
                round: vote.round,
                state: match vote.doing {
                    1 => ServerState::Looking,
                    2 => ServerState::Following,
                    3 => ServerState::Leading,
                    4 => ServerState::Established,
                    5 => ServerState::Asking,
                    _ => return None,
                },
            }),
            Self::ToLeader(message) => Message::ToLeader(Session(message.session), to_leader_back(message.kind?)),
            Self::ToFollower(message) => Message::ToFollower(Session(message.session), to_follower_back(message.kind?)),
            Self::Hello(_) | Self::Snapshot(_) | Self::Alive(_) => return None,
        })
    }
}

fn to_leader(message: &zab::ToLeader) -> LeaderKind {
    use zab::ToLeader as Z;
    match message {
        Z::FollowerInfo { accepted, returning } => {
            LeaderKind::FollowerInfo(FollowerInfo { accepted: accepted.0, returning: *returning })
        }
        Z::AckEpoch { epoch, current, last, is_new } => {
            LeaderKind::AckEpoch(AckEpoch { epoch: epoch.0, current: current.0, last: last.to_u64(), counts: *is_new })
        }
        Z::AckNewLeader { epoch, through } => {
            LeaderKind::AckNewLeader(AckNewLeader { epoch: epoch.0, through: through.to_u64() })
        }
        Z::Ack(zxid) => LeaderKind::Ack(zxid.to_u64()),
        Z::Pong { number } => LeaderKind::Pong(*number),
        Z::Forward { request, payload } => {
            LeaderKind::Forward(Forward { request: request.0, payload: payload.clone() })
        }
        Z::ReadIndex { request } => LeaderKind::ReadIndex(request.0),
        Z::Left => LeaderKind::Left(Idle {}),
    }
}

fn to_leader_back(kind: LeaderKind) -> zab::ToLeader {
    use zab::ToLeader as Z;
    match kind {
        LeaderKind::FollowerInfo(info) => Z::FollowerInfo { accepted: Epoch(info.accepted), returning: info.returning },
        LeaderKind::AckEpoch(ack) => Z::AckEpoch {
            epoch: Epoch(ack.epoch),
            current: Epoch(ack.current),
            last: Zxid::from_u64(ack.last),
            is_new: ack.counts,
        },
        LeaderKind::AckNewLeader(ack) => {
            Z::AckNewLeader { epoch: Epoch(ack.epoch), through: Zxid::from_u64(ack.through) }
        }
        LeaderKind::Ack(zxid) => Z::Ack(Zxid::from_u64(zxid)),
        LeaderKind::Pong(number) => Z::Pong { number },
        LeaderKind::Forward(forward) => Z::Forward { request: Request(forward.request), payload: forward.payload },
        LeaderKind::ReadIndex(request) => Z::ReadIndex { request: Request(request) },
        LeaderKind::Left(_) => Z::Left,
    }
}

fn to_follower(message: &zab::ToFollower) -> Option<FollowerKind> {
    use zab::ToFollower as Z;
    Some(match message {
        Z::NewEpoch(epoch) => FollowerKind::NewEpoch(epoch.0),
        Z::Diff => FollowerKind::Diff(Idle {}),
        Z::Truncate(zxid) => FollowerKind::Truncate(zxid.to_u64()),
        Z::Snapshot { .. } => return None,
        Z::Sync { after, txns: list } => FollowerKind::Sync(txns(*after, list)),
        Z::NewLeader(epoch) => FollowerKind::NewLeader(epoch.0),
        Z::UpToDate { commit } => FollowerKind::UpToDate(commit.to_u64()),
        Z::Propose { after, txns: list } => FollowerKind::Propose(txns(*after, list)),
        Z::Commit(zxid) => FollowerKind::Commit(zxid.to_u64()),
        Z::Inform { after, txns: list } => FollowerKind::Inform(txns(*after, list)),
        Z::Ping { number } => FollowerKind::Ping(*number),
        Z::Forwarded { request, zxid } => FollowerKind::Forwarded(answer(*request, *zxid)),
        Z::ReadIndexed { request, zxid } => FollowerKind::ReadIndexed(answer(*request, *zxid)),
        Z::Returned => FollowerKind::Returned(Idle {}),
        Z::Resigned { successor } => FollowerKind::Resigned(Resigned { successor: successor.map(|server| server.0) }),
    })
}

fn to_follower_back(kind: FollowerKind) -> zab::ToFollower {
    use zab::ToFollower as Z;
    match kind {
        FollowerKind::NewEpoch(epoch) => Z::NewEpoch(Epoch(epoch)),
        FollowerKind::Diff(_) => Z::Diff,
        FollowerKind::Truncate(zxid) => Z::Truncate(Zxid::from_u64(zxid)),
        FollowerKind::Sync(list) => {
            let (after, txns) = txns_back(list);
            Z::Sync { after, txns }
        }
        FollowerKind::NewLeader(epoch) => Z::NewLeader(Epoch(epoch)),
        FollowerKind::UpToDate(commit) => Z::UpToDate { commit: Zxid::from_u64(commit) },
        FollowerKind::Propose(list) => {
            let (after, txns) = txns_back(list);
            Z::Propose { after, txns }
        }
        FollowerKind::Commit(zxid) => Z::Commit(Zxid::from_u64(zxid)),
        FollowerKind::Inform(list) => {
            let (after, txns) = txns_back(list);
            Z::Inform { after, txns }
        }
        FollowerKind::Ping(number) => Z::Ping { number },
        FollowerKind::Forwarded(answer) => {
            Z::Forwarded { request: Request(answer.request), zxid: answer.zxid.map(Zxid::from_u64) }
        }
        FollowerKind::ReadIndexed(answer) => {
            Z::ReadIndexed { request: Request(answer.request), zxid: answer.zxid.map(Zxid::from_u64) }
        }
        FollowerKind::Returned(_) => Z::Returned,
        FollowerKind::Resigned(resigned) => Z::Resigned { successor: resigned.successor.map(ServerId) },
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::wire::{FRAME_LEN_MAX, Frame};

    fn messages() -> Vec<Message> {
        let (a, b) = (Zxid::new(Epoch(2), 3), Zxid::ZERO);
        let list = vec![zab::Txn { zxid: a, payload: Bytes::from_static(b"\0\xff") }];
        let request = Request(u64::MAX);
        let vote = Vote { electable: true, epoch: Epoch(u32::MAX), zxid: a, preferred: true, server: ServerId(9) };
        let to_leader = [
            zab::ToLeader::FollowerInfo { accepted: Epoch(0), returning: None },
            zab::ToLeader::FollowerInfo { accepted: Epoch(7), returning: Some(0) },
            zab::ToLeader::AckEpoch { epoch: Epoch(4), current: Epoch(3), last: a, is_new: false },
            zab::ToLeader::AckNewLeader { epoch: Epoch(4), through: b },
            zab::ToLeader::Ack(a),
            zab::ToLeader::Pong { number: 0 },
            zab::ToLeader::Forward { request, payload: Bytes::from_static(b"x") },
            zab::ToLeader::ReadIndex { request },
            zab::ToLeader::Left,
        ];
        let to_follower = [
            zab::ToFollower::NewEpoch(Epoch(5)),
            zab::ToFollower::Diff,
            zab::ToFollower::Truncate(b),
            zab::ToFollower::Sync { after: b, txns: list.clone() },
            zab::ToFollower::NewLeader(Epoch(5)),
            zab::ToFollower::UpToDate { commit: a },
            zab::ToFollower::Propose { after: a, txns: list.clone() },
            zab::ToFollower::Commit(a),
            zab::ToFollower::Inform { after: a, txns: list },
            zab::ToFollower::Ping { number: 7 },
            zab::ToFollower::Forwarded { request, zxid: Some(b) },
            zab::ToFollower::ReadIndexed { request, zxid: None },
            zab::ToFollower::Resigned { successor: Some(ServerId(0)) },
            zab::ToFollower::Resigned { successor: None },
            zab::ToFollower::Returned,
        ];
        let states = [
            ServerState::Looking,
            ServerState::Following,
            ServerState::Leading,
            ServerState::Established,
            ServerState::Asking,
        ];
        let unelectable =
            Vote { electable: false, epoch: Epoch(0), zxid: Zxid::ZERO, preferred: false, server: ServerId(1) };
        let states = states.map(|state| (vote, state)).into_iter().chain([(unelectable, ServerState::Looking)]);
        let votes = states.map(|(vote, state)| Message::Vote(Notification { vote, round: 3, state }));
        let to_leader = to_leader.map(|message| Message::ToLeader(Session(1), message));
        let to_follower = to_follower.map(|message| Message::ToFollower(Session(0), message));
        votes.chain(to_leader).chain(to_follower).collect()
    }

    #[test]
    fn every_message_comes_back_as_it_was() {
        let mut bytes = BytesMut::new();
        for message in messages() {
            Frame::of(Kind::of_message(&message).expect("not a snapshot")).write(&mut bytes);
        }
        for message in messages() {
            let frame = Frame::take(&mut bytes, FRAME_LEN_MAX).expect("a valid frame").expect("a complete frame");
            assert_eq!(frame.kind.and_then(Kind::into_message), Some(message));
        }
        assert_eq!(Frame::take(&mut bytes, FRAME_LEN_MAX), Ok(None));
    }

    /// Every field that the code writes is in the schema, with the same type.
    #[test]
    fn the_schema_file_knows_every_message() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        let files = protox::compile(["cluster.proto"], [folder]).expect("the schema");
        let pool = prost_reflect::DescriptorPool::from_file_descriptor_set(files).expect("the schema");
        let frame = pool.get_message_by_name("crossdock.cluster.v1.Frame").expect("a frame");
        let hello = crate::wire::Hello { version: 2, cluster: "c".into(), server: 2, peer: 3, version_min: 1 };
        let part = crate::wire::SnapshotPart { session: 1, zxid: 2, bytes: Bytes::from_static(b"x") };
        let others = [Kind::Hello(hello), Kind::Snapshot(part), Kind::Alive(crate::wire::Alive { busy: true })];
        for kind in messages().iter().filter_map(Kind::of_message).chain(others) {
            let bytes = prost::Message::encode_to_vec(&Frame::of(kind.clone()));
            let read = prost_reflect::DynamicMessage::decode(frame.clone(), &*bytes).expect("a frame");
            assert_eq!(prost::Message::encode_to_vec(&read), bytes, "{kind:?}");
            let known = |message: &prost_reflect::DynamicMessage| message.unknown_fields().next().is_none();
            assert!(known(&read), "{kind:?}");
            let mut inner: Vec<_> = read.fields().map(|(_, value)| value.clone()).collect();
            while let Some(value) = inner.pop() {
                match value {
                    prost_reflect::Value::Message(message) => {
                        assert!(known(&message), "{kind:?}");
                        inner.extend(message.fields().map(|(_, value)| value.clone()));
                    }
                    prost_reflect::Value::List(list) => inner.extend(list),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert!(Frame::take(&mut BytesMut::from(&[0xff; 8][..]), FRAME_LEN_MAX).is_err());
        assert!(Frame::take(&mut BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]), FRAME_LEN_MAX).is_err());
        assert_eq!(Frame::take(&mut BytesMut::from(&[0, 0, 0, 9, 1][..]), FRAME_LEN_MAX), Ok(None));
        let unknown = Kind::Vote(WireVote { doing: 9, ..WireVote::default() });
        assert_eq!(unknown.into_message(), None);
    }
}
