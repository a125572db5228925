//! Entry points for fuzzing.

use bytes::BytesMut;
use crossdock_zab::{
    Action, Blob, Config, Epoch, Input, Link, LogId, LogState, Membership, Message, Notification, Point, ServerId,
    ServerState, Session, Summary, ToFollower, ToLeader, Vote, Write, Zab, Zxid,
};

use crate::wire::{Frame, Kind};

const OWN: ServerId = ServerId(2);
const FRAME_LEN_MAX: usize = 1 << 20;

/// A server whose actions take effect at once: writes are durable immediately, sent messages are discarded.
struct Server {
    zab: Zab,
    links: [Link; 2],
    /// Its current session, which messages of its leader carry.
    session: Session,
    phase: &'static str,
}

impl Server {
    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() && !self.zab.is_stopped() {
            let mut actions = Vec::new();
            self.zab.handle(inputs.drain(..), &mut actions);
            for action in actions {
                match action {
                    Action::Persist { id, .. } => inputs.push(Input::Written(id)),
                    Action::Send { message: Message::ToLeader(session, ToLeader::FollowerInfo { .. }), .. } => {
                        self.session = session;
                    }
                    Action::Send { message, .. } => {
                        let kind = Kind::of_message(&message).expect("a message with a wire form");
                        assert_eq!(kind.into_message(), Some(message), "the wire form round-trips");
                    }
                    _ => {}
                }
            }
        }
        self.phase = self.zab.phase();
    }

    /// Opens a new connection to the peer with that index.
    fn connect(&mut self, peer: usize) {
        self.links[peer].0 += 2;
        let peer_id = id(peer);
        self.take(Input::LinkUp { peer: peer_id, link: self.links[peer], log: LogId(peer_id.0) });
    }
}

/// The id of the peer with that index.
fn id(peer: usize) -> ServerId {
    ServerId(if peer == 0 { 1 } else { 3 })
}

/// Feeds arbitrary frames of members to a server.
///
/// The first byte selects the elected leader. Each frame follows a byte that selects its sender, and is preceded by its
/// length. A frame that cannot be decoded ends the connection.
///
/// # Panics
/// If the server panics, or its acceptedEpoch comes close to exhaustion.
pub fn members(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let voters = [ServerId(1), OWN, ServerId(3)].map(|server| (server, LogId(server.0)));
    let mut log_state = LogState::default();
    // A new log, or the log of a voter.
    if !first.is_multiple_of(3) {
        let form = Write::Form(Membership::first(voters.into()).into());
        assert_eq!(log_state.apply(&form), Ok(()), "a new log");
    }
    let config =
        Config { founders: voters.iter().map(|(server, _)| *server).collect(), ..Config::new(OWN, LogId(OWN.0)) };
    let zab = Zab::new(config, log_state, Zxid::ZERO);
    let mut server = Server { zab, links: [Link(1), Link(2)], session: Session(0), phase: "" };
    server.take(Input::Tick);
    (0..2).for_each(|peer| server.connect(peer));
    let leader = if first.is_multiple_of(2) { OWN } else { ServerId(3) };
    for peer in 0..2 {
        let vote =
            Vote { electable: true, epoch: Epoch(0), zxid: Zxid::new(Epoch(0), 1), preferred: false, server: leader };
        let vote = if leader == OWN { Vote { zxid: Zxid::ZERO, ..vote } } else { vote };
        let notification = Notification { vote, round: 1, state: ServerState::Looking };
        server.take(Input::Received { peer: id(peer), link: server.links[peer], message: Message::Vote(notification) });
    }
    while let Some((from, behind)) = rest.split_first() {
        let peer = usize::from(from & 1);
        if from & 2 != 0 {
            server.take(Input::Tick);
        }
        let mut frame = BytesMut::from(behind);
        let taken = Frame::take(&mut frame, FRAME_LEN_MAX);
        rest = &behind[behind.len() - frame.len()..];
        let message = match taken {
            Ok(None) => break,
            Ok(Some(Frame { kind: Some(Kind::Snapshot(part)) })) => {
                let point = Point { zxid: Zxid::from_u64(part.zxid), ..Point::default() };
                let summary = Summary { point, membership: None };
                Some(Message::ToFollower(Session(part.session), ToFollower::Snapshot { summary, blob: Blob(0) }))
            }
            Ok(Some(frame)) => frame.kind.and_then(Kind::into_message),
            Err(_) => None,
        };
        match message {
            Some(Message::ToFollower(_, message)) => {
                let message = Message::ToFollower(server.session, message);
                server.take(Input::Received { peer: id(peer), link: server.links[peer], message });
            }
            Some(message) => server.take(Input::Received { peer: id(peer), link: server.links[peer], message }),
            None => server.connect(peer),
        }
        let accepted = server.zab.log_state().accepted_epoch();
        assert!(accepted.0 <= (1 << 31) + (1 << 24), "acceptedEpoch is {accepted} in phase {}", server.phase);
    }
}
