//! Requests of local clients.

use bytes::Bytes;
use crossdock_zab::{Input, Refusal, Request, Zxid};
use prost::Message as _;

use super::Driver;
use crate::error::RequestError;
use crate::injected_bug::{InjectedBug, is_injected};
use crate::platform::Instant;
use crate::request::{ClientRequest, Proposed, Reply, send_to_all};
use crate::wire::Envelope;

/// Reads that may wait until a transaction is applied.
const READS_MAX: usize = 100_000;

/// The proposer of a transaction.
#[derive(Debug)]
pub(super) enum Waiting {
    /// A client with a command: when that arrived, and its request.
    Command(Instant, u64, Reply<(Zxid, Bytes)>),
    /// A client with a change of the voters.
    Change(Instant, Reply<(Zxid, Bytes)>),
    /// The driver itself: see [`super::undecided`].
    Marker,
    /// The driver itself, for a version of a machine.
    Version,
}

/// A request to the core that has no answer yet.
#[derive(Debug)]
pub(super) enum Pending {
    Transaction(Waiting),
    /// Reads that share one request.
    Barrier(Vec<Reply<Zxid>>),
}

impl Driver {
    fn next_request(&mut self) -> Request {
        self.next_id += 1;
        Request(self.next_id)
    }

    /// Proposes a command of the driver itself, which must not fail under load.
    pub(super) fn propose_own(&mut self, waiting: Waiting, envelope: &Envelope, inputs: &mut Vec<Input>) {
        let request = self.next_request();
        self.pending.insert(request, Pending::Transaction(waiting));
        let payload = envelope.encode_to_vec().into();
        inputs.push(Input::Propose { request, payload, in_epoch: None, is_reserved: true });
    }

    pub(super) fn handle_request(&mut self, client_request: ClientRequest, inputs: &mut Vec<Input>) {
        match client_request {
            ClientRequest::Propose(commands) => {
                for command in commands {
                    self.propose(command, inputs);
                }
            }
            ClientRequest::ChangeMembers { change, reply } => {
                let request = self.next_request();
                self.pending.insert(request, Pending::Transaction(Waiting::Change(Instant::now(), reply)));
                inputs.push(Input::ChangeMembers { request, change });
            }
            ClientRequest::Barrier(reply) => self.barriers.push(reply),
            ClientRequest::Applied(_, reply) if self.ready_reads.len() >= READS_MAX => {
                reply.send(Err(Refusal::Busy.into()));
            }
            ClientRequest::Applied(zxid, reply) => self.ready_reads.push((zxid, vec![reply])),
            ClientRequest::HashAt(zxid, reply) => {
                let point = self.zab.log_state().history().point_at(zxid);
                // Later ones may be replaced.
                reply.send(Ok(point.filter(|_| zxid <= self.delivered).map(|point| point.hash)));
            }
            ClientRequest::Save { file, reply } => self.take_backup(file, reply),
            ClientRequest::TransferLeadership(to) => inputs.push(Input::TransferLeadership(to)),
        }
    }

    fn propose(&mut self, command: Proposed, inputs: &mut Vec<Input>) {
        let Proposed { payload, request: number, in_epoch, is_reserved, reply } = command;
        // What is left of the current segment is for the transactions of others.
        if self.log.space().is_lacking() {
            return reply.send(Err(RequestError::ReadOnly));
        }
        if self.is_behind && !is_reserved {
            return reply.send(Err(Refusal::Busy.into()));
        }
        let request = self.next_request();
        if is_injected(InjectedBug::RefuseAccepted) && number.is_multiple_of(64) {
            reply.send(Err(Refusal::Busy.into()));
        } else {
            self.pending.insert(request, Pending::Transaction(Waiting::Command(Instant::now(), number, reply)));
        }
        inputs.push(Input::Propose { request, payload, in_epoch, is_reserved });
    }

    /// Starts one read for all that were requested in this round.
    pub(super) fn start_reads(&mut self, inputs: &mut Vec<Input>) {
        if !self.barriers.is_empty() {
            let request = self.next_request();
            self.pending.insert(request, Pending::Barrier(std::mem::take(&mut self.barriers)));
            inputs.push(Input::Read { request });
        }
    }

    pub(super) fn refused(&mut self, request: Request, refusal: Refusal) {
        match self.pending.remove(&request) {
            Some(Pending::Transaction(Waiting::Command(_, _, reply) | Waiting::Change(_, reply))) => {
                reply.send(Err(refusal.into()));
            }
            Some(Pending::Transaction(Waiting::Marker)) => self.undecided.marker_refused(),
            // It is proposed again.
            Some(Pending::Transaction(Waiting::Version)) => self.versions.forget_proposed(),
            Some(Pending::Barrier(replies)) => send_to_all(replies, Err(refusal.into())),
            None => {}
        }
    }

    /// Answers reads whose transactions were given to the state thread.
    pub(super) fn answer_reads(&mut self) {
        let (delivered, is_early) = (self.delivered, is_injected(InjectedBug::ReadTooEarly));
        for (zxid, replies) in self.ready_reads.extract_if(.., |(zxid, _)| *zxid <= delivered || is_early) {
            self.state.answer(zxid, replies);
        }
    }

    /// Forgets reads that nobody waits for.
    pub(super) fn forget_reads(&mut self) {
        self.ready_reads.retain(|(_, replies)| replies.iter().any(|reply| !reply.is_closed()));
    }

    /// Ends what waits for the leader, which is lost. What happened to commands turns out later.
    pub(super) fn leader_lost(&mut self) {
        let pending = std::mem::take(&mut self.pending).into_values();
        let proposed = std::mem::take(&mut self.proposed).into_values().map(Pending::Transaction);
        for one in pending.chain(proposed) {
            match one {
                Pending::Transaction(Waiting::Command(begun, number, reply)) => {
                    if is_injected(InjectedBug::DropReply) {
                        continue;
                    }
                    self.undecided.add(number, begun, reply);
                }
                Pending::Transaction(Waiting::Change(_, reply)) => reply.send(Err(RequestError::Unknown)),
                Pending::Transaction(Waiting::Marker | Waiting::Version) => {}
                Pending::Barrier(replies) => send_to_all(replies, Err(Refusal::NoLeader.into())),
            }
        }
        self.undecided.leader_lost();
    }

    /// Fails all requests, as the instance ends.
    pub(super) fn fail_requests(&mut self) {
        self.leader_lost();
        self.undecided.fail(RequestError::Ended);
        let reads = self.ready_reads.drain(..).flat_map(|(_, replies)| replies);
        send_to_all(reads.chain(self.barriers.drain(..)), Err(RequestError::Ended));
    }
}
