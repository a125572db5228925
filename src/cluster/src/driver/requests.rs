//! Requests of local clients.

use std::time::Instant;

use bytes::Bytes;
use crossdock_zab::{Epoch, Input, MemberChange, Request, ServerId, Zxid};
use tokio::sync::oneshot;

use super::Driver;
use crate::error::RequestError;

pub(super) type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

/// A request of a local client.
#[derive(Debug)]
pub(crate) enum ClientRequest {
    Propose { payload: Bytes, in_epoch: Option<Epoch>, reply: Reply<(Zxid, Bytes)> },
    ChangeMembers { change: MemberChange, reply: Reply<(Zxid, Bytes)> },
    Read { query: Bytes, reply: Reply<Bytes> },
    ReadStale { query: Bytes, reply: oneshot::Sender<Bytes> },
    TransferLeadership(Option<ServerId>),
}

/// A request that is not answered yet.
pub(super) enum Pending {
    Propose(Instant, Reply<(Zxid, Bytes)>),
    Read(Bytes, Reply<Bytes>),
}

/// A read that has its zxid and waits until that is applied.
pub(super) type Ready = (Zxid, Bytes, Reply<Bytes>);

impl Driver {
    pub(super) fn handle_request(&mut self, client_request: ClientRequest, inputs: &mut Vec<Input>) {
        let request = Request(self.next_id);
        self.next_id += 1;
        match client_request {
            // What is left of the current segment is for the transactions of others.
            ClientRequest::Propose { reply, .. } if self.log.space().is_lacking() => {
                let _ = reply.send(Err(RequestError::ReadOnly));
            }
            ClientRequest::Propose { payload, in_epoch, reply } => {
                self.pending.insert(request, Pending::Propose(Instant::now(), reply));
                inputs.push(Input::Propose { request, payload, in_epoch, is_reserved: false });
            }
            ClientRequest::ChangeMembers { change, reply } => {
                self.pending.insert(request, Pending::Propose(Instant::now(), reply));
                inputs.push(Input::ChangeMembers { request, change });
            }
            ClientRequest::Read { query, reply } => {
                self.pending.insert(request, Pending::Read(query, reply));
                inputs.push(Input::Read { request });
            }
            ClientRequest::ReadStale { query, reply } => {
                let _ = reply.send(self.state_machine.query(&query));
            }
            ClientRequest::TransferLeadership(to) => inputs.push(Input::TransferLeadership(to)),
        }
    }

    pub(super) fn answer_reads(&mut self) {
        let applied = self.applied;
        for (_, query, reply) in self.ready_reads.extract_if(.., |(zxid, ..)| *zxid <= applied) {
            let _ = reply.send(Ok(self.state_machine.query(&query)));
        }
    }

    /// Fails all pending requests; their outcome is unknown.
    pub(super) fn fail_pending(&mut self, error: RequestError) {
        for (_, pending) in self.pending.drain() {
            match pending {
                Pending::Propose(_, reply) => drop(reply.send(Err(error))),
                Pending::Read(_, reply) => drop(reply.send(Err(error))),
            }
        }
        for (_, (_, reply)) in std::mem::take(&mut self.proposed) {
            let _ = reply.send(Err(error));
        }
        for (_, _, reply) in self.ready_reads.drain(..) {
            let _ = reply.send(Err(error));
        }
    }
}
