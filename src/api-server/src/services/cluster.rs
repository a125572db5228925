//! The cluster.

use crossdock_api::cluster_server::Cluster;
use crossdock_api::{Member, StateRequest, StateResponse};
use crossdock_zab::Role;
use tonic::{Request, Response, Status};

use super::{Methods, caller};
use crate::access::Action;

#[tonic::async_trait]
impl Cluster for Methods {
    async fn state(&self, request: Request<StateRequest>) -> Result<Response<StateResponse>, Status> {
        caller(&request)?.check_any(Action::State)?;
        let (status, view) = (self.cluster.status(), self.engine.view());
        let leader = match status.role {
            Role::Looking => 0,
            Role::Leading(_) => status.id.0,
            Role::Following(leader, _) | Role::Observing(leader, _) => leader.0,
        };
        let votes = status.membership.as_ref().is_some_and(|of| of.voters.contains_key(&status.id));
        let own = Member { id: status.id.0, votes, is_connected: true };
        let others = status.peers.iter().map(|peer| Member {
            id: peer.id.0,
            votes: peer.votes,
            is_connected: peer.is_connected,
        });
        let mut members: Vec<_> = others.chain([own]).collect();
        members.sort_by_key(|member| member.id);
        Ok(Response::new(StateResponse {
            instance: status.id.0,
            leader,
            epoch: status.applied.epoch.0,
            counter: status.applied.counter,
            members,
            sessions: view.sessions.len() as u64,
            locks: view.locks.len() as u64,
            generation: view.generations.current().map_or(0, |generation| generation.number),
        }))
    }
}
