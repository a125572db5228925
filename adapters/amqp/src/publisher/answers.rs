//! Answers to requests, whose addresses come from the requests.
//!
//! A direct reply-to address (RabbitMQ, "Direct Reply-to") holds the identity of a process in the broker's cluster. RabbitMQ closes the
//! publisher's whole connection for one that it cannot decode, and addresses of other clusters come with federation and shovel. So
//! an address of a cluster node that has not accepted an answer yet is tried on a connection that nothing else uses.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crossdock_message::{Code, Fault};
use lapin::types::ShortString;
use tokio::sync::Semaphore;

use super::{Publication, Publisher};
use crate::broker::Broker;
use crate::error::unreachable;

/// What a direct reply-to address begins with.
pub(crate) const DIRECT_REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";
/// Cluster nodes that are remembered.
const NODES_MAX: usize = 256;
/// How long a node is refused at once after the broker refused an answer to it.
const REFUSED_TIME: Duration = Duration::from_secs(60);

/// Publishes answers on connections that nothing else is published on.
pub(crate) struct Answers {
    shared: Rc<Publisher>,
    quarantine: Rc<Publisher>,
    turn: Semaphore,
    nodes: RefCell<HashMap<Vec<u8>, Node>>,
}

#[derive(Clone, Copy)]
enum Node {
    /// An answer to it was accepted, or its requester was known to be gone.
    Known,
    /// An answer to it was accepted before, and the connection was closed while one was unconfirmed.
    Suspect(Instant),
    /// The broker closed the connection for an answer to it.
    Refused(Instant),
}

impl Answers {
    pub(crate) fn new(shared: Arc<Broker>, quarantine: Arc<Broker>) -> Self {
        let publisher = |broker| Publisher::new(broker, ShortString::default(), None);
        Self {
            shared: publisher(shared),
            quarantine: publisher(quarantine),
            turn: Semaphore::new(1),
            nodes: RefCell::default(),
        }
    }

    /// Publishes an answer; its key is the queue or address that its request names.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; FAILED_PRECONDITION where the broker cannot use the address.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), Fault> {
        let publication = Rc::new(publication);
        let Some(token) = publication.key.as_str().strip_prefix(DIRECT_REPLY_PREFIX) else {
            return self.shared.publish_noting(&publication, &Cell::default()).await;
        };
        let node = node_of(token);
        let known = node.as_ref().and_then(|node| self.nodes.borrow().get(node).copied());
        match known {
            Some(Node::Known) => match self.shared.publish_noting(&publication, &Cell::default()).await {
                Err(fault) if fault.reason == "CONNECTION_REFUSED" => {
                    // What ended the connection is among those that are sent alone now; the next ones are not to follow it.
                    self.learn(node.clone(), Node::Suspect(Instant::now()));
                    self.publish_alone(node, &publication).await
                }
                published => published,
            },
            Some(Node::Refused(since)) if since.elapsed() < REFUSED_TIME => Err(unusable_address()),
            _ => self.publish_alone(node, &publication).await,
        }
    }

    async fn publish_alone(&self, node: Option<Vec<u8>>, publication: &Rc<Publication>) -> Result<(), Fault> {
        let turn = self.turn.acquire().await;
        let _turn = turn.map_err(|_| unreachable("the publisher has ended"))?;
        // Another answer to it may have been accepted meanwhile.
        if node.as_ref().is_some_and(|node| matches!(self.nodes.borrow().get(node), Some(Node::Known))) {
            return self.shared.publish_noting(publication, &Cell::default()).await;
        }
        let published = self.quarantine.publish_noting(publication, &Cell::default()).await;
        let (learnt, published) = match published {
            Ok(()) => (Node::Known, Ok(())),
            Err(fault) if fault.reason == "UNROUTABLE" => (Node::Known, Err(fault)),
            Err(fault) if fault.reason == "CONNECTION_REFUSED" => {
                tracing::warn!("the broker refused the reply address of a request; it may be one of another cluster");
                (Node::Refused(Instant::now()), Err(unusable_address()))
            }
            Err(fault) => return Err(fault),
        };
        // One bad address says nothing of a node that others have shown to be there; nor does one good of a node under suspicion.
        let known = node.as_ref().and_then(|node| self.nodes.borrow().get(node).copied());
        let is_settled = match known {
            Some(Node::Suspect(since)) => since.elapsed() < REFUSED_TIME || matches!(learnt, Node::Refused(_)),
            Some(Node::Known) => true,
            Some(Node::Refused(_)) | None => false,
        };
        if !is_settled {
            self.learn(node, learnt);
        }
        published
    }

    fn learn(&self, node: Option<Vec<u8>>, learnt: Node) {
        let Some(node) = node else { return };
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&node) {
            // Which one goes matters little: it is learnt anew with its next answer.
            let forgotten = nodes.keys().next().cloned();
            forgotten.map(|forgotten| nodes.remove(&forgotten));
        }
        nodes.insert(node, learnt);
    }
}

fn unusable_address() -> Fault {
    let message = "the broker cannot use the reply address of the request; it may be one of another cluster";
    Fault::new(Code::FailedPrecondition, "REPLY_ADDRESS", message)
}

/// The name of the cluster node in a token: an Erlang process identifier in the external term format, in base64, and a key. Nothing where
/// it is anything else, or has a byte too few or too many: only a whole identifier is one that the broker can decode.
fn node_of(token: &str) -> Option<Vec<u8>> {
    /// The format's version, and its tags for both kinds of process identifiers and all kinds of atoms.
    const VERSION: u8 = 131;
    /// And what stands behind the atom: number, serial and creation, which has one byte or four.
    const PIDS: [(u8, usize); 2] = [(103, 9), (88, 12)];
    const LONG_ATOMS: [u8; 2] = [100, 118];
    const SHORT_ATOMS: [u8; 2] = [115, 119];
    let (pid, key) = token.rsplit_once('.')?;
    STANDARD.decode(key).ok().filter(|key| !key.is_empty())?;
    let bytes = STANDARD.decode(pid).ok()?;
    let [version, pid, atom, rest @ ..] = &bytes[..] else { return None };
    let (_, behind) = PIDS.into_iter().find(|(tag, _)| tag == pid).filter(|_| *version == VERSION)?;
    let (len, name) = match rest {
        [high, low, name @ ..] if LONG_ATOMS.contains(atom) => (usize::from(u16::from_be_bytes([*high, *low])), name),
        [len, name @ ..] if SHORT_ATOMS.contains(atom) => (usize::from(*len), name),
        _ => return None,
    };
    (name.len() == len + behind).then(|| name[..len].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_of_a_reply_address() {
        let name = b"reply@109791780";
        let token = |tag: u8, atom: &[u8], name: &[u8], behind: usize, key: &str| {
            let bytes = [&[131, tag], atom, name, &vec![0; behind][..]].concat();
            format!("{}.{key}", STANDARD.encode(bytes))
        };
        let key = "VehVGcPRkVkhHYaCr9MIeQ==";
        for (tag, behind) in [(103, 9), (88, 12)] {
            for atom in [&[100, 0, 15][..], &[118, 0, 15], &[115, 15], &[119, 15]] {
                assert_eq!(node_of(&token(tag, atom, name, behind, key)).as_deref(), Some(&name[..]));
            }
            // A byte too few or too many, another format, no key.
            for malformed in [
                token(tag, &[115, 15], name, behind - 1, key),
                token(tag, &[115, 15], name, behind + 1, key),
                token(tag, &[115, 14], name, behind, key),
                token(tag, &[1, 15], name, behind, key),
                token(97, &[115, 15], name, behind, key),
                token(tag, &[115, 15], name, behind, ""),
                token(tag, &[115, 15], name, behind, "%"),
            ] {
                assert_eq!(node_of(&malformed), None, "{malformed}");
            }
        }
        for malformed in ["", ".", "x.y", "g2dk.y", "AAAA.y", "nonsense"] {
            assert_eq!(node_of(malformed), None, "{malformed}");
        }
    }
}
