//! Entry points for fuzzing.

use std::collections::BTreeSet;

use bytes::BytesMut;
use crossdock_zab::{
    Action, Blob, Config, Doing, Epoch, Input, Ledger, Link, Message, Notification, ServerId, Session, ToFollower,
    ToLeader, Vote, Zab, Zxid,
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
    role: &'static str,
}

impl Server {
    fn take(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() && !self.zab.is_stopped() {
            let mut actions = Vec::new();
            self.zab.handle(inputs.drain(..), &mut actions);
            for action in actions {
                match action {
                    Action::Persist { io, .. } => inputs.push(Input::Written(io)),
                    Action::Send { message: Message::ToLeader(session, ToLeader::FollowerInfo { .. }), .. } => {
                        self.session = session;
                    }
                    Action::Send { message, .. } => {
                        let kind = Kind::of_message(&message).expect("what is sent has a form");
                        assert_eq!(kind.into_message(), Some(message), "what is sent is what is read");
                    }
                    _ => {}
                }
            }
        }
        self.role = self.zab.phase();
    }

    /// A new connection with a peer, by its place among the others.
    fn connect(&mut self, peer: usize) {
        self.links[peer].0 += 2;
        self.take(Input::LinkUp { peer: id(peer), link: self.links[peer] });
    }
}

/// The other servers are the first and the third.
fn id(peer: usize) -> ServerId {
    ServerId(if peer == 0 { 1 } else { 3 })
}

/// Feeds arbitrary frames of members to a server: nothing panics, and acceptedEpoch stays far from exhaustion.
///
/// The first byte selects the elected leader. Each frame follows a byte that selects its sender, and is preceded by its length. A frame that cannot be
/// decoded ends the connection.
///
/// # Panics
/// Where that does not hold.
pub fn members(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let config = Config::new(OWN, BTreeSet::from([ServerId(1), OWN, ServerId(3)]));
    let zab = Zab::new(config, Ledger::default(), Zxid::ZERO);
    let mut server = Server { zab, links: [Link(1), Link(2)], session: Session(0), role: "" };
    server.take(Input::Tick);
    (0..2).for_each(|peer| server.connect(peer));
    let leader = if first.is_multiple_of(2) { OWN } else { ServerId(3) };
    for peer in 0..2 {
        let vote = Vote { epoch: Epoch(0), zxid: Zxid::new(Epoch(0), 1), preferred: false, server: leader };
        let vote = if leader == OWN { Vote { zxid: Zxid::ZERO, ..vote } } else { vote };
        let told = Notification { vote, round: 1, doing: Doing::Looking };
        server.take(Input::Received { peer: id(peer), link: server.links[peer], message: Message::Vote(told) });
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
                let zxid = Zxid::from_u64(part.zxid);
                Some(Message::ToFollower(Session(part.session), ToFollower::Snapshot { zxid, blob: Blob(0) }))
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
        let accepted = server.zab.ledger().accepted();
        assert!(accepted.0 <= (1 << 31) + (1 << 24), "{accepted} is promised in phase {}", server.role);
    }
}
