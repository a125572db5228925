//! Sessions.

use std::collections::BTreeSet;

use crossdock_api::session_event::Event;
use crossdock_api::sessions_server::Sessions;
use crossdock_api::{
    CloseRequest, CloseResponse, KeepAliveRequest, KeepAliveResponse, OpenRequest, OpenResponse, SessionEvent,
    WatchRequest,
};
use crossdock_coordination::SessionId;
use crossdock_embedded::{Engine, News, SessionWatch};
use tonic::{Request, Response, Status};

use super::{Ending, Events, Methods, caller};
use crate::access::Action;
use crate::status::of_command;

#[tonic::async_trait]
impl Sessions for Methods {
    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let caller = caller(&request)?;
        caller.check_any(Action::Locks)?;
        let OpenRequest { ttl_ms, label } = request.into_inner();
        let session = self.open_session(&caller, ttl_ms, &label).await?;
        tracing::debug!(client = caller.name, %session, "session of a client opened");
        Ok(Response::new(OpenResponse { session: session.0 }))
    }

    async fn keep_alive(&self, request: Request<KeepAliveRequest>) -> Result<Response<KeepAliveResponse>, Status> {
        let caller = caller(&request)?;
        let session = self.own_session(&caller, request.into_inner().session).await?;
        match self.engine.keep_session_alive(session).await {
            Ok(true) => Ok(Response::new(KeepAliveResponse {})),
            Ok(false) => Err(Status::failed_precondition("the session has ended")),
            Err(problem) => Err(of_command(&problem)),
        }
    }

    async fn close(&self, request: Request<CloseRequest>) -> Result<Response<CloseResponse>, Status> {
        let caller = caller(&request)?;
        let session = self.own_session(&caller, request.into_inner().session).await?;
        self.engine.close_session(session).await.map_err(|problem| of_command(&problem))?;
        Ok(Response::new(CloseResponse {}))
    }

    type WatchStream = Events<SessionEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller(&request)?;
        let session = self.own_session(&caller, request.into_inner().session).await?;
        let ending = self.ending(&caller);
        let told = BTreeSet::new();
        let watching = Watching { engine: self.engine.clone(), ending, session, told, phase: Phase::Missed };
        let events = futures_util::stream::unfold(Some((watching, Vec::new())), async |state| {
            let (mut watching, mut events): (_, Vec<SessionEvent>) = state?;
            while events.is_empty() {
                match watching.next().await {
                    // In the reverse order.
                    Ok(next) => events = next,
                    Err(status) => return Some((Err(status), None)),
                }
            }
            let event = events.pop()?;
            let is_last = matches!(event.event, Some(Event::SessionEnded(_)));
            Some((Ok(event), (!is_last).then_some((watching, events))))
        });
        Ok(Response::new(Box::pin(events)))
    }
}

enum Phase {
    /// What is so has to be told first.
    Missed,
    Following(SessionWatch),
}

/// A session that is watched.
struct Watching {
    engine: Engine,
    ending: Ending,
    session: SessionId,
    /// The requests that hold locks, as the client knows.
    told: BTreeSet<u64>,
    phase: Phase,
}

fn event(number: u64, event: Event) -> SessionEvent {
    SessionEvent { number, event: Some(event) }
}

impl Watching {
    /// The next events, the first of them last.
    async fn next(&mut self) -> Result<Vec<SessionEvent>, Status> {
        let Phase::Following(watch) = &mut self.phase else {
            // Nothing is missed from here on.
            let watch = self.engine.watch_session(self.session);
            let current = self.current();
            self.phase = Phase::Following(watch);
            return Ok(current);
        };
        let news = tokio::select! {
            news = watch.next() => news,
            status = self.ending.status() => return Err(status),
        };
        match &news {
            Some(News::Granted(number, _)) => {
                self.told.insert(*number);
            }
            Some(News::Lost(number, _)) => {
                self.told.remove(number);
            }
            _ => {}
        }
        Ok(vec![match news {
            None => {
                self.phase = Phase::Missed;
                return Ok(Vec::new());
            }
            Some(News::Granted(number, token)) => event(number, Event::Granted(token.0)),
            Some(News::Revoked(number, reason)) => event(number, Event::Revoked(reason.to_string())),
            Some(News::TimedOut(number)) => event(number, Event::Lost("the lock was not available in time".to_owned())),
            Some(News::Lost(number, loss)) => event(number, Event::Lost(loss.to_string())),
            Some(News::SessionEnded) => ended(),
        }])
    }

    /// What the requests of the session have come to, the first of them last.
    fn current(&mut self) -> Vec<SessionEvent> {
        let view = self.engine.view();
        if view.sessions.get(self.session).is_none() && view.clock.has_passed(self.session.0) {
            return vec![ended()];
        }
        let mut events = vec![event(0, Event::IsCurrent(true))];
        let mut held = BTreeSet::new();
        for (id, request) in view.locks.requests_of(self.session) {
            let Some(token) = request.token() else { continue };
            held.insert(id.number);
            let revoked = request.revoked.as_deref().map(|reason| event(id.number, Event::Revoked(reason.to_owned())));
            events.extend(revoked.into_iter().chain([event(id.number, Event::Granted(token.0))]));
        }
        // What happened to them was missed.
        let lost = self.told.difference(&held);
        events.extend(lost.map(|number| event(*number, Event::Lost("the lock was lost or released".to_owned()))));
        self.told = held;
        events
    }
}

fn ended() -> SessionEvent {
    event(0, Event::SessionEnded("the session was closed, or was not kept alive".to_owned()))
}
