//! Conversion between messages of `zab` and the wire.

use std::sync::Arc;

use crossdock_zab as zab;
use crossdock_zab::{
    ClusterId, Epoch, LogId, MemberChange, Message, Notification, Request, ServerId, ServerState, Session, Vote, Zxid,
};

use super::schema::{
    AckEpoch, AckNewLeader, Answer, Change, ChangeMembers, FollowerInfo, FollowerKind, Forming, Forward, Idle, Kind,
    LeaderKind, Membership, Outcome, Payload, Point, Points, Pong, Refusal, Resigned, Summary, ToFollower, ToLeader,
    Txn, Txns, Vote as WireVote, Voter,
};

impl From<&zab::Membership> for Membership {
    fn from(membership: &zab::Membership) -> Self {
        let voters = membership.voters.iter().map(|(server, log)| Voter { server: server.0, log: log.0 });
        let replacing = membership.replacing.iter().map(|server| server.0);
        Self { cluster: membership.cluster.0, voters: voters.collect(), replacing: replacing.collect() }
    }
}

impl Membership {
    pub(crate) fn into_zab(self) -> Arc<zab::Membership> {
        let voters = self.voters.iter().map(|voter| (ServerId(voter.server), LogId(voter.log)));
        Arc::new(zab::Membership {
            cluster: ClusterId(self.cluster),
            voters: voters.collect(),
            replacing: self.replacing.into_iter().map(ServerId).collect(),
        })
    }
}

impl From<zab::Point> for Point {
    fn from(point: zab::Point) -> Self {
        Self { zxid: point.zxid.to_u64(), time: point.time, hash: point.hash }
    }
}

impl From<Point> for zab::Point {
    fn from(point: Point) -> Self {
        Self { zxid: Zxid::from_u64(point.zxid), time: point.time, hash: point.hash }
    }
}

/// A missing point is the one before all transactions.
fn point_back(point: Option<Point>) -> zab::Point {
    point.unwrap_or_default().into()
}

fn txns(after: Zxid, txns: &[zab::Txn]) -> Txns {
    let payload = |txn: &zab::Txn| match &txn.payload {
        zab::Payload::Command(command) => Payload::Command(command.clone()),
        zab::Payload::Membership(membership) => Payload::Membership((&**membership).into()),
    };
    let txn =
        |txn: &zab::Txn| Txn { zxid: txn.zxid.to_u64(), payload: Some(payload(txn)), time: txn.time, hash: txn.hash };
    Txns { after: after.to_u64(), txns: txns.iter().map(txn).collect() }
}

/// `None` if a transaction has no payload.
fn txns_back(txns: Txns) -> Option<(Zxid, Vec<zab::Txn>)> {
    let txn = |txn: Txn| {
        let payload = match txn.payload? {
            Payload::Command(command) => zab::Payload::Command(command),
            Payload::Membership(membership) => zab::Payload::Membership(membership.into_zab()),
        };
        Some(zab::Txn { zxid: Zxid::from_u64(txn.zxid), time: txn.time, hash: txn.hash, payload })
    };
    Some((Zxid::from_u64(txns.after), txns.txns.into_iter().map(txn).collect::<Option<_>>()?))
}

fn answer(request: Request, outcome: Result<Zxid, zab::Refusal>) -> Answer {
    let outcome = match outcome {
        Ok(zxid) => Outcome::Zxid(zxid.to_u64()),
        Err(refusal) => Outcome::Refusal(refusal_of(refusal).into()),
    };
    Answer { request: request.0, outcome: Some(outcome) }
}

fn refusal_of(refusal: zab::Refusal) -> Refusal {
    match refusal {
        zab::Refusal::NoLeader => Refusal::NoLeader,
        zab::Refusal::Busy => Refusal::Busy,
        zab::Refusal::TooLong => Refusal::TooLong,
        zab::Refusal::TransferringLeadership => Refusal::TransferringLeadership,
        zab::Refusal::OtherEpoch => Refusal::OtherEpoch,
        zab::Refusal::ChangeInProgress => Refusal::ChangeInProgress,
        zab::Refusal::AlreadyVotes => Refusal::AlreadyVotes,
        zab::Refusal::NoVoter => Refusal::NoVoter,
        zab::Refusal::NotFollowing => Refusal::NotFollowing,
        zab::Refusal::Leads => Refusal::Leads,
        zab::Refusal::NoQuorum => Refusal::NoQuorum,
    }
}

/// A reason that this release does not know is a refusal all the same.
fn answer_back(answer: Answer) -> Option<(Request, Result<Zxid, zab::Refusal>)> {
    let outcome = match answer.outcome? {
        Outcome::Zxid(zxid) => Ok(Zxid::from_u64(zxid)),
        Outcome::Refusal(refusal) => Err(match Refusal::try_from(refusal).unwrap_or(Refusal::Unspecified) {
            Refusal::NoLeader => zab::Refusal::NoLeader,
            Refusal::Busy | Refusal::Unspecified => zab::Refusal::Busy,
            Refusal::TooLong => zab::Refusal::TooLong,
            Refusal::TransferringLeadership => zab::Refusal::TransferringLeadership,
            Refusal::OtherEpoch => zab::Refusal::OtherEpoch,
            Refusal::ChangeInProgress => zab::Refusal::ChangeInProgress,
            Refusal::AlreadyVotes => zab::Refusal::AlreadyVotes,
            Refusal::NoVoter => zab::Refusal::NoVoter,
            Refusal::NotFollowing => zab::Refusal::NotFollowing,
            Refusal::Leads => zab::Refusal::Leads,
            Refusal::NoQuorum => zab::Refusal::NoQuorum,
        }),
    };
    Some((Request(answer.request), outcome))
}

impl Kind {
    /// The wire form; `None` for a snapshot, which is sent in parts.
    pub(crate) fn of_message(message: &Message) -> Option<Self> {
        Some(match message {
            Message::Forming(founders) => {
                Self::Forming(Forming { founders: founders.iter().map(|founder| founder.0).collect() })
            }
            Message::Formed(membership) => Self::Formed((&**membership).into()),
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
                    _ => return None,
                },
            }),
            Self::Forming(forming) => Message::Forming(forming.founders.into_iter().map(ServerId).collect()),
            Self::Formed(membership) => Message::Formed(membership.into_zab()),
            Self::ToLeader(message) => Message::ToLeader(Session(message.session), to_leader_back(message.kind?)?),
            Self::ToFollower(message) => {
                Message::ToFollower(Session(message.session), to_follower_back(message.kind?)?)
            }
            Self::Hello(_) | Self::Snapshot(_) | Self::Alive(_) | Self::Refused(_) => return None,
        })
    }
}

fn to_leader(message: &zab::ToLeader) -> LeaderKind {
    use zab::ToLeader as Z;
    match message {
        Z::FollowerInfo { accepted } => LeaderKind::FollowerInfo(FollowerInfo { accepted: accepted.0 }),
        Z::AckEpoch { epoch, current, last, is_new } => LeaderKind::AckEpoch(AckEpoch {
            epoch: epoch.0,
            current: current.0,
            last: Some((*last).into()),
            counts: *is_new,
        }),
        Z::AckNewLeader { epoch, through } => {
            LeaderKind::AckNewLeader(AckNewLeader { epoch: epoch.0, through: through.to_u64() })
        }
        Z::Ack(zxid) => LeaderKind::Ack(zxid.to_u64()),
        Z::Pong { number, delivered } => {
            LeaderKind::Pong(Pong { number: *number, delivered: Some((*delivered).into()) })
        }
        Z::Forward { request, payload, is_reserved } => {
            LeaderKind::Forward(Forward { request: request.0, payload: payload.clone(), is_reserved: *is_reserved })
        }
        Z::ReadIndex { request } => LeaderKind::ReadIndex(request.0),
        Z::ChangeMembers { request, change } => LeaderKind::ChangeMembers(ChangeMembers {
            request: request.0,
            change: Some(match change {
                MemberChange::Add(server) => Change::Add(server.0),
                MemberChange::Remove(server) => Change::Remove(server.0),
            }),
        }),
        Z::Differs(zxid) => LeaderKind::Differs(zxid.to_u64()),
        Z::Received(zxid) => LeaderKind::Received(zxid.to_u64()),
        Z::Left => LeaderKind::Left(Idle {}),
    }
}

/// `None` if the message is incomplete.
fn to_leader_back(kind: LeaderKind) -> Option<zab::ToLeader> {
    use zab::ToLeader as Z;
    Some(match kind {
        LeaderKind::FollowerInfo(info) => Z::FollowerInfo { accepted: Epoch(info.accepted) },
        LeaderKind::AckEpoch(ack) => Z::AckEpoch {
            epoch: Epoch(ack.epoch),
            current: Epoch(ack.current),
            last: point_back(ack.last),
            is_new: ack.counts,
        },
        LeaderKind::AckNewLeader(ack) => {
            Z::AckNewLeader { epoch: Epoch(ack.epoch), through: Zxid::from_u64(ack.through) }
        }
        LeaderKind::Ack(zxid) => Z::Ack(Zxid::from_u64(zxid)),
        LeaderKind::Pong(pong) => Z::Pong { number: pong.number, delivered: point_back(pong.delivered) },
        LeaderKind::Forward(forward) => {
            Z::Forward { request: Request(forward.request), payload: forward.payload, is_reserved: forward.is_reserved }
        }
        LeaderKind::ReadIndex(request) => Z::ReadIndex { request: Request(request) },
        LeaderKind::ChangeMembers(wanted) => Z::ChangeMembers {
            request: Request(wanted.request),
            change: match wanted.change? {
                Change::Add(server) => MemberChange::Add(ServerId(server)),
                Change::Remove(server) => MemberChange::Remove(ServerId(server)),
            },
        },
        LeaderKind::Received(zxid) => Z::Received(Zxid::from_u64(zxid)),
        LeaderKind::Differs(zxid) => Z::Differs(Zxid::from_u64(zxid)),
        LeaderKind::Left(_) => Z::Left,
    })
}

fn to_follower(message: &zab::ToFollower) -> Option<FollowerKind> {
    use zab::ToFollower as Z;
    Some(match message {
        Z::NewEpoch(epoch) => FollowerKind::NewEpoch(epoch.0),
        Z::Diff(summary) => FollowerKind::Diff(Summary {
            point: Some(summary.point.into()),
            membership: summary.membership.as_deref().map(Membership::from),
        }),
        Z::Truncate(point) => FollowerKind::Truncate((*point).into()),
        Z::Snapshot { .. } => return None,
        Z::Sync { after, txns: list } => FollowerKind::Sync(txns(*after, list)),
        Z::NewLeader(epoch) => FollowerKind::NewLeader(epoch.0),
        Z::UpToDate { commit } => FollowerKind::UpToDate(commit.to_u64()),
        Z::Propose { after, txns: list } => FollowerKind::Propose(txns(*after, list)),
        Z::Commit(zxid) => FollowerKind::Commit(zxid.to_u64()),
        Z::Ping { number } => FollowerKind::Ping(*number),
        Z::Forwarded { request, zxid } => FollowerKind::Forwarded(answer(*request, *zxid)),
        Z::ReadIndexed { request, zxid } => FollowerKind::ReadIndexed(answer(*request, *zxid)),
        Z::Differs(points) => {
            FollowerKind::Diverged(Points { points: points.iter().map(|point| (*point).into()).collect() })
        }
        Z::Resigned { successor } => FollowerKind::Resigned(Resigned { successor: successor.map(|server| server.0) }),
    })
}

/// `None` if the message is incomplete.
fn to_follower_back(kind: FollowerKind) -> Option<zab::ToFollower> {
    use zab::ToFollower as Z;
    Some(match kind {
        FollowerKind::NewEpoch(epoch) => Z::NewEpoch(Epoch(epoch)),
        FollowerKind::Diff(summary) => Z::Diff(zab::Summary {
            point: point_back(summary.point),
            membership: summary.membership.map(Membership::into_zab),
        }),
        FollowerKind::Truncate(point) => Z::Truncate(point.into()),
        FollowerKind::Sync(list) => {
            let (after, txns) = txns_back(list)?;
            Z::Sync { after, txns }
        }
        FollowerKind::NewLeader(epoch) => Z::NewLeader(Epoch(epoch)),
        FollowerKind::UpToDate(commit) => Z::UpToDate { commit: Zxid::from_u64(commit) },
        FollowerKind::Propose(list) => {
            let (after, txns) = txns_back(list)?;
            Z::Propose { after, txns }
        }
        FollowerKind::Commit(zxid) => Z::Commit(Zxid::from_u64(zxid)),
        FollowerKind::Ping(number) => Z::Ping { number },
        FollowerKind::Forwarded(answer) => {
            let (request, zxid) = answer_back(answer)?;
            Z::Forwarded { request, zxid }
        }
        FollowerKind::ReadIndexed(answer) => {
            let (request, zxid) = answer_back(answer)?;
            Z::ReadIndexed { request, zxid }
        }
        FollowerKind::Resigned(resigned) => Z::Resigned { successor: resigned.successor.map(ServerId) },
        FollowerKind::Diverged(points) => Z::Differs(points.points.into_iter().map(zab::Point::from).collect()),
    })
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;
    use crate::wire::{FRAME_LEN_MAX, Frame};

    fn messages() -> Vec<Message> {
        let (a, b) = (Zxid::new(Epoch(2), 3), Zxid::ZERO);
        let point = zab::Point { zxid: a, time: 1 << 41, hash: u64::MAX };
        let membership = Arc::new(zab::Membership {
            cluster: ClusterId(u64::MAX),
            voters: [(ServerId(1), LogId(2)), (ServerId(3), LogId(u64::MAX))].into(),
            replacing: [ServerId(4)].into(),
        });
        let summary = zab::Summary { point, membership: Some(Arc::clone(&membership)) };
        let command = zab::Payload::Command(Bytes::from_static(b"\0\xff"));
        let changed = zab::Payload::Membership(Arc::clone(&membership));
        let list = vec![point.next(a, 0, command), point.next(b, 7, changed)];
        let request = Request(u64::MAX);
        let vote = Vote { electable: true, epoch: Epoch(u32::MAX), zxid: a, preferred: true, server: ServerId(9) };
        let to_leader = [
            zab::ToLeader::FollowerInfo { accepted: Epoch(0) },
            zab::ToLeader::FollowerInfo { accepted: Epoch(7) },
            zab::ToLeader::AckEpoch { epoch: Epoch(4), current: Epoch(3), last: point, is_new: false },
            zab::ToLeader::AckNewLeader { epoch: Epoch(4), through: b },
            zab::ToLeader::Ack(a),
            zab::ToLeader::Pong { number: 0, delivered: zab::Point::default() },
            zab::ToLeader::ChangeMembers { request, change: MemberChange::Add(ServerId(4)) },
            zab::ToLeader::ChangeMembers { request, change: MemberChange::Remove(ServerId(0)) },
            zab::ToLeader::Differs(a),
            zab::ToLeader::Received(a),
            zab::ToLeader::Forward { request, payload: Bytes::from_static(b"x"), is_reserved: true },
            zab::ToLeader::ReadIndex { request },
            zab::ToLeader::Left,
        ];
        let to_follower = [
            zab::ToFollower::NewEpoch(Epoch(5)),
            zab::ToFollower::Diff(zab::Summary::default()),
            zab::ToFollower::Diff(summary),
            zab::ToFollower::Truncate(point),
            zab::ToFollower::Sync { after: b, txns: list.clone() },
            zab::ToFollower::NewLeader(Epoch(5)),
            zab::ToFollower::UpToDate { commit: a },
            zab::ToFollower::Propose { after: a, txns: list },
            zab::ToFollower::Commit(a),
            zab::ToFollower::Ping { number: 7 },
            zab::ToFollower::Forwarded { request, zxid: Ok(b) },
            zab::ToFollower::ReadIndexed { request, zxid: Err(zab::Refusal::Busy) },
            zab::ToFollower::Differs(vec![zab::Point::default(), point]),
            zab::ToFollower::Resigned { successor: Some(ServerId(0)) },
            zab::ToFollower::Resigned { successor: None },
        ];
        let states = [ServerState::Looking, ServerState::Following, ServerState::Leading, ServerState::Established];
        let unelectable =
            Vote { electable: false, epoch: Epoch(0), zxid: Zxid::ZERO, preferred: false, server: ServerId(1) };
        let states = states.map(|state| (vote, state)).into_iter().chain([(unelectable, ServerState::Looking)]);
        let votes = states.map(|(vote, state)| Message::Vote(Notification { vote, round: 3, state }));
        let to_leader = to_leader.map(|message| Message::ToLeader(Session(1), message));
        let to_follower = to_follower.map(|message| Message::ToFollower(Session(0), message));
        let forming = [Message::Forming([ServerId(1), ServerId(2)].into()), Message::Formed(membership)];
        votes.chain(to_leader).chain(to_follower).chain(forming).collect()
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
        let hello = crate::wire::Hello {
            version: 2,
            cluster: "c".into(),
            server: 2,
            peer: 3,
            version_min: 1,
            log: 4,
            cluster_id: 5,
            machines: vec![crate::wire::MachineVersion { machine: 6, version: 7 }],
        };
        let part = crate::wire::SnapshotPart { session: 1, zxid: 2, bytes: Bytes::from_static(b"x") };
        let refused = crate::wire::Refused { reason: "r".into() };
        let alive = crate::wire::Alive { busy: true };
        let others = [Kind::Hello(hello), Kind::Snapshot(part), Kind::Alive(alive), Kind::Refused(refused)];
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
        let empty = Txns { after: 0, txns: vec![Txn { payload: None, ..Txn::default() }] };
        let empty = Kind::ToFollower(ToFollower { session: 1, kind: Some(FollowerKind::Propose(empty)) });
        assert_eq!(empty.into_message(), None);
    }

    #[test]
    fn every_refusal_comes_back() {
        for number in 1..=11 {
            let refusal = Refusal::try_from(number).expect("a refusal");
            let answer = Answer { request: 1, outcome: Some(Outcome::Refusal(number)) };
            let (_, outcome) = answer_back(answer).expect("complete");
            assert_eq!(outcome.map_err(refusal_of), Err(refusal));
        }
        let later = Answer { request: 1, outcome: Some(Outcome::Refusal(99)) };
        assert_eq!(answer_back(later), Some((Request(1), Err(zab::Refusal::Busy))));
    }
}
