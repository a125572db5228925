//! Publishes replies to requests, whose addresses come from the requests.
//!
//! A direct reply-to address (RabbitMQ, "Direct Reply-to") contains the identifier of a process in the broker's cluster. RabbitMQ closes the
//! connection of a publisher that uses an address that it cannot decode, and federation and shovel deliver addresses of other clusters. So the
//! first reply to each cluster node is published on a separate connection, the quarantine.

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
use crate::reason;

/// The prefix of a direct reply-to address.
pub(crate) const DIRECT_REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";
/// The maximum number of cluster nodes that are remembered.
const NODES_MAX: usize = 256;
/// How long replies to a node are rejected immediately after the broker refused one.
const REFUSED_TIME: Duration = Duration::from_secs(60);

/// Publishes replies, on connections reserved for them.
pub(crate) struct Replies {
    shared: Rc<Publisher>,
    quarantine: Rc<Publisher>,
    quarantine_permit: Semaphore,
    nodes: RefCell<HashMap<Vec<u8>, NodeStatus>>,
}

#[derive(Clone, Copy)]
enum NodeStatus {
    /// The broker accepted a reply to it, or reported that its requester is gone.
    Known,
    /// The broker accepted a reply to it before, but closed the connection while one was unconfirmed.
    Suspect(Instant),
    /// The broker closed the connection because of a reply to it.
    Refused(Instant),
}

impl Replies {
    pub(crate) fn new(shared: Arc<Broker>, quarantine: Arc<Broker>) -> Self {
        let publisher = |broker| Publisher::new(broker, ShortString::default(), None);
        Self {
            shared: publisher(shared),
            quarantine: publisher(quarantine),
            quarantine_permit: Semaphore::new(1),
            nodes: RefCell::default(),
        }
    }

    /// Publishes a reply; its routing key is the queue or address that the request names.
    ///
    /// # Errors
    /// Like [`Publisher::publish`]; FAILED_PRECONDITION if the broker cannot use the address.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), Fault> {
        let publication = Rc::new(publication);
        let Some(token) = publication.key.as_str().strip_prefix(DIRECT_REPLY_PREFIX) else {
            return self.shared.publish_tracked(&publication, &Cell::default()).await;
        };
        let node = node_of(token);
        let known = node.as_ref().and_then(|node| self.nodes.borrow().get(node).copied());
        match known {
            Some(NodeStatus::Known) => match self.shared.publish_tracked(&publication, &Cell::default()).await {
                Err(fault) if fault.reason == reason::CONNECTION_REFUSED => {
                    // One of the replies that are isolated now closed the connection; later ones to this node must be isolated too.
                    self.record(node.clone(), NodeStatus::Suspect(Instant::now()));
                    self.publish_isolated(node, &publication).await
                }
                published => published,
            },
            Some(NodeStatus::Refused(since)) if since.elapsed() < REFUSED_TIME => Err(unusable_address()),
            _ => self.publish_isolated(node, &publication).await,
        }
    }

    async fn publish_isolated(&self, node: Option<Vec<u8>>, publication: &Rc<Publication>) -> Result<(), Fault> {
        let permit = self.quarantine_permit.acquire().await;
        let _permit = permit.map_err(|_| unreachable("the publisher was closed"))?;
        // Another reply to the node may have been accepted meanwhile.
        if node.as_ref().is_some_and(|node| matches!(self.nodes.borrow().get(node), Some(NodeStatus::Known))) {
            return self.shared.publish_tracked(publication, &Cell::default()).await;
        }
        let published = self.quarantine.publish_tracked(publication, &Cell::default()).await;
        let (status, published) = match published {
            Ok(()) => (NodeStatus::Known, Ok(())),
            Err(fault) if fault.reason == reason::UNROUTABLE => (NodeStatus::Known, Err(fault)),
            Err(fault) if fault.reason == reason::CONNECTION_REFUSED => {
                tracing::warn!("reply address refused by broker; it may belong to another cluster");
                (NodeStatus::Refused(Instant::now()), Err(unusable_address()))
            }
            Err(fault) => return Err(fault),
        };
        // One refused address does not refute a known node, and one accepted address does not clear a suspect node.
        let known = node.as_ref().and_then(|node| self.nodes.borrow().get(node).copied());
        let is_settled = match known {
            Some(NodeStatus::Suspect(since)) => {
                since.elapsed() < REFUSED_TIME || matches!(status, NodeStatus::Refused(_))
            }
            Some(NodeStatus::Known) => true,
            Some(NodeStatus::Refused(_)) | None => false,
        };
        if !is_settled {
            self.record(node, status);
        }
        published
    }

    fn record(&self, node: Option<Vec<u8>>, status: NodeStatus) {
        let Some(node) = node else { return };
        let mut nodes = self.nodes.borrow_mut();
        if nodes.len() >= NODES_MAX && !nodes.contains_key(&node) {
            // Any will do: it is learned again with its next reply.
            let evicted = nodes.keys().next().cloned();
            evicted.map(|evicted| nodes.remove(&evicted));
        }
        nodes.insert(node, status);
    }
}

fn unusable_address() -> Fault {
    let message = "the broker cannot use the reply address of the request; it may belong to another cluster";
    Fault::new(Code::FailedPrecondition, reason::REPLY_ADDRESS, message)
}

/// The cluster node in a token, which is an Erlang process identifier in the external term format, in base64, and a key. `None` for anything else,
/// including missing or extra bytes: the broker can only decode a complete identifier.
fn node_of(token: &str) -> Option<Vec<u8>> {
    /// The version of the format, then its tags for both kinds of process identifiers and all kinds of atoms.
    const VERSION: u8 = 131;
    /// Tag, and the bytes after the atom: number, serial and creation, which has one byte or four.
    const PIDS: [(u8, usize); 2] = [(103, 9), (88, 12)];
    const LONG_ATOMS: [u8; 2] = [100, 118];
    const SHORT_ATOMS: [u8; 2] = [115, 119];
    let (pid, key) = token.rsplit_once('.')?;
    STANDARD.decode(key).ok().filter(|key| !key.is_empty())?;
    let bytes = STANDARD.decode(pid).ok()?;
    let [version, pid, atom, rest @ ..] = &bytes[..] else { return None };
    let (_, tail_len) = PIDS.into_iter().find(|(tag, _)| tag == pid).filter(|_| *version == VERSION)?;
    let (len, name) = match rest {
        [high, low, name @ ..] if LONG_ATOMS.contains(atom) => (usize::from(u16::from_be_bytes([*high, *low])), name),
        [len, name @ ..] if SHORT_ATOMS.contains(atom) => (usize::from(*len), name),
        _ => return None,
    };
    (name.len() == len + tail_len).then(|| name[..len].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_reply_addresses_have_a_node() {
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
            // A missing or extra byte, another format, no key.
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
