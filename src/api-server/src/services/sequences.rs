//! Sequences.

use crossdock_api::sequences_server::Sequences;
use crossdock_api::{TakeRequest, TakeResponse};
use tonic::{Request, Response, Status};

use super::{Methods, caller};
use crate::access::Action;
use crate::status::of_command;

#[tonic::async_trait]
impl Sequences for Methods {
    async fn take(&self, request: Request<TakeRequest>) -> Result<Response<TakeResponse>, Status> {
        let caller = caller(&request)?;
        let TakeRequest { sequence, count } = request.into_inner();
        caller.check(Action::Sequences, &sequence)?;
        let first = self.engine.next_numbers(&sequence, count.max(1)).await;
        Ok(Response::new(TakeResponse { first: first.map_err(|problem| of_command(&problem))? }))
    }
}
