//! The service actors of one data arbiter, for one generation of the routes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::SendError;
use actix::{Actor as _, Addr, Context};
use crossdock_message::{ByteString, Code, Fault, Message, Origin, Retry};
use crossdock_ports::{Adapter, AdapterError, Cancels};
use crossdock_routing::CallPlan;
use tokio::sync::oneshot;

use super::shard::{Call, CallRequest, DispatchCall, ServiceShard, ShardState};
use crate::generation::Generation;
use crate::process::Fence;

/// The maximum number of restarts within [`RESTART_WINDOW`]; then an actor stays down.
const RESTARTS_MAX: usize = 10;
const RESTART_WINDOW: Duration = Duration::from_secs(10);

/// The service actors of one data arbiter.
pub(crate) struct Shards {
    generation: Arc<Generation>,
    handles: Vec<Handle>,
}

struct Handle {
    state: Rc<ShardState>,
    address: RefCell<Addr<ServiceShard>>,
    restarts: RefCell<VecDeque<Instant>>,
    mailbox_len_max: usize,
}

impl Shards {
    /// Starts one actor for each service, on this thread.
    pub(crate) fn open(generation: Arc<Generation>, adapters: &[Arc<dyn Adapter>]) -> Result<Self, AdapterError> {
        let handles = generation.services.iter().map(|share| {
            let state = ShardState::open(share, adapters)?;
            // The permits bound the number of calls; the mailbox only has to hold them.
            let mailbox_len_max = share.plan.concurrency;
            let address = RefCell::new(start(&state, mailbox_len_max));
            Ok(Handle { state, address, restarts: RefCell::default(), mailbox_len_max })
        });
        let handles = handles.collect::<Result<_, AdapterError>>()?;
        Ok(Self { generation, handles })
    }

    pub(crate) fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The fault of a call if its service has no permit available; checked before the call is prepared.
    pub(crate) fn refusal(&self, plan: &CallPlan) -> Option<Fault> {
        let share = &self.generation.services[plan.service];
        (share.permits.available_permits() == 0).then(|| {
            share.stats.count(|stats| &stats.refused);
            no_permit(&share.plan.name)
        })
    }

    /// Sends a call to the actor of its service.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the service has no permit available: calls are not queued.
    pub(crate) fn call(
        &self,
        plan: &CallPlan,
        message: Message,
        carry: &Arc<[ByteString]>,
        deadline: Instant,
        (cancels, fence): (Cancels, Option<Fence>),
    ) -> Result<oneshot::Receiver<Result<Message, Fault>>, Fault> {
        let share = &self.generation.services[plan.service];
        let Ok(permit) = Arc::clone(&share.permits).try_acquire_owned() else {
            share.stats.count(|stats| &stats.refused);
            return Err(no_permit(&share.plan.name));
        };
        let (reply, answer) = oneshot::channel();
        let request = CallRequest {
            operation: Arc::clone(&plan.operation),
            idempotent: plan.idempotent,
            retried: plan.retried,
            cancels: match cancels {
                Cancels::Never => false,
                Cancels::Idempotent => plan.idempotent,
                Cancels::Always => true,
            },
            message,
            carry: Arc::clone(carry),
            deadline,
            fence,
        };
        let call = DispatchCall(Box::new(Call { reply, permit, request }));
        let handle = &self.handles[plan.service];
        let sent = handle.address.borrow().try_send(call);
        match sent {
            Ok(()) => Ok(answer),
            Err(SendError::Full(_)) => Err(no_permit(&share.plan.name)),
            Err(SendError::Closed(call)) => {
                share.stats.count(|stats| &stats.restarts);
                handle.restart(&share.plan.name)?;
                match handle.address.borrow().try_send(call) {
                    Ok(()) => Ok(answer),
                    Err(_) => Err(actor_down(&share.plan.name)),
                }
            }
        }
    }

    /// The address of the actor of a service, for tests that crash it.
    #[cfg(test)]
    pub(crate) fn address(&self, service: usize) -> Addr<ServiceShard> {
        self.handles[service].address.borrow().clone()
    }
}

impl Handle {
    /// Restarts a dead actor; fails if it dies too often.
    fn restart(&self, service: &ByteString) -> Result<(), Fault> {
        let now = Instant::now();
        let mut restarts = self.restarts.borrow_mut();
        while restarts.front().is_some_and(|at| now.saturating_duration_since(*at) > RESTART_WINDOW) {
            restarts.pop_front();
        }
        if restarts.len() == RESTARTS_MAX {
            return Err(actor_down(service));
        }
        restarts.push_back(now);
        tracing::warn!(%service, restarts = restarts.len(), "service actor died; restarted");
        *self.address.borrow_mut() = start(&self.state, self.mailbox_len_max);
        Ok(())
    }
}

fn start(state: &Rc<ShardState>, mailbox_len_max: usize) -> Addr<ServiceShard> {
    let state = Rc::clone(state);
    ServiceShard::create(move |context: &mut Context<ServiceShard>| {
        context.set_mailbox_capacity(mailbox_len_max);
        ServiceShard::new(state)
    })
}

fn no_permit(service: &ByteString) -> Fault {
    Fault::new(
        Code::ResourceExhausted,
        "NO_CREDIT",
        format!("the service `{service}` has reached its limit of concurrent calls"),
    )
    .with_origin(Origin::Service(service.clone()))
    .with_retry(Retry::After(Duration::from_secs(1)))
    .with_http_status(503)
}

fn actor_down(service: &ByteString) -> Fault {
    Fault::new(Code::Unavailable, "ACTOR_DOWN", format!("the actor of the service `{service}` failed repeatedly"))
        .with_origin(Origin::Service(service.clone()))
}
