//! The adapter that needs no network: calls go through queues in this process.
//!
//! It is there for tests of the gateway and as the plainest example of the ports. A [`Hub`] connects its two sides.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossdock_message::{ByteString, Code, Fault, Message, Origin, RequestContext, Retry};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    AdapterError, Address, Binding, EntrySpec, Head, Inbound, Ingress, LocalFuture, NoFields, OpenIngress,
    OperationSpec, Outbound, Outcome, PathTemplate, SendFuture, WriteFormat,
};

/// Messages that wait at one address.
const QUEUE_LEN_MAX: usize = 1024;

struct Letter {
    message: Message,
    reply: oneshot::Sender<Result<Message, Fault>>,
}

/// Addresses and who listens on them.
#[derive(Clone, Default)]
pub struct Hub {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<Letter>>>>,
}

impl Hub {
    /// A hub where nobody listens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn listeners(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, mpsc::Sender<Letter>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// [`AdapterError::Listen`] where somebody does already.
    pub fn listen(&self, address: &str) -> Result<Box<dyn Inbound>, AdapterError> {
        let (sender, letters) = mpsc::channel(QUEUE_LEN_MAX);
        let mut listeners = self.listeners();
        if listeners.contains_key(address) {
            let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
            return Err(AdapterError::Listen { address: address.to_owned(), source });
        }
        listeners.insert(address.to_owned(), sender);
        drop(listeners);
        Ok(Box::new(MemoryInbound { hub: self.clone(), address: address.to_owned(), letters }))
    }

    /// A port to an address, whether somebody listens there or not.
    #[must_use]
    pub fn port(&self, address: &str) -> Rc<dyn Outbound> {
        Rc::new(MemoryOutbound { hub: self.clone(), address: address.to_owned() })
    }
}

struct MemoryInbound {
    hub: Hub,
    address: String,
    letters: mpsc::Receiver<Letter>,
}

impl Inbound for MemoryInbound {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn run(
        mut self: Box<Self>,
        _: usize,
        ingress: Arc<dyn OpenIngress>,
        stop: CancellationToken,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        // Messages are handled on one thread of their own, as on a data arbiter.
        let served = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| AdapterError::Stopped(error.to_string()))?;
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let ingress = ingress.open();
                let mut running = JoinSet::new();
                loop {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        Some(_) = running.join_next(), if !running.is_empty() => {}
                        letter = self.letters.recv() => match letter {
                            Some(letter) => { running.spawn_local(serve(Rc::clone(&ingress), self.address.clone(), letter)); }
                            None => break,
                        },
                    }
                }
                self.hub.listeners().remove(&self.address);
                while running.join_next().await.is_some() {}
                Ok(())
            })
        });
        Box::pin(async move { served.await.unwrap_or_else(|error| Err(AdapterError::Stopped(error.to_string()))) })
    }
}

async fn serve(ingress: Rc<dyn Ingress>, address: String, letter: Letter) {
    let mut context = RequestContext::new(ingress.new_id(), Instant::now());
    let mut head = Head { context: &mut context, listener: &address, method: "SEND", path: "/", headers: &NoFields };
    let answer = match ingress.admit(&mut head) {
        Ok(admission) => {
            let mut message = letter.message;
            message.id = context.id.clone();
            message.context = Some(Arc::new(context));
            message.params = admission.params;
            match admission.exchange.dispatch(message).await {
                Outcome::Replied(reply) => Ok(reply),
                Outcome::Accepted => Ok(Message::new(ByteString::new(), address.into())),
                Outcome::Failed(fault) => Err(fault),
            }
        }
        Err(fault) => Err(fault),
    };
    // A caller who left does not want it any more.
    let _ = letter.reply.send(answer);
}

struct MemoryOutbound {
    hub: Hub,
    address: String,
}

impl MemoryOutbound {
    fn nobody(&self) -> Fault {
        Fault::new(Code::Unavailable, "UNREACHABLE", "nobody listens there")
            .with_origin(Origin::Service(self.address.as_str().into()))
            .with_retry(Retry::Same)
    }
}

impl Outbound for MemoryOutbound {
    fn call<'a>(
        &'a self,
        _: &'a dyn OperationSpec,
        message: &'a Message,
        _: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            let listener = self.hub.listeners().get(&self.address).cloned().ok_or_else(|| self.nobody())?;
            let (reply, answer) = oneshot::channel();
            listener.send(Letter { message: message.clone(), reply }).await.map_err(|_| self.nobody())?;
            let lost = || Fault::new(Code::Unavailable, "NO_ANSWER", "the listener stopped before it answered");
            answer.await.unwrap_or_else(|_| Err(lost()))
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        let listening = self.hub.listeners().contains_key(&self.address);
        Box::pin(async move { if listening { Ok(()) } else { Err(self.nobody()) } })
    }
}

/// An operation and an entry without settings.
#[derive(Debug)]
pub struct MemorySpec {
    address: Address,
    binding: Arc<Binding>,
    body: WriteFormat,
}

impl MemorySpec {
    /// For the listener of that address.
    ///
    /// # Panics
    /// Never: the path is fixed.
    #[must_use]
    pub fn new(listener: &str) -> Self {
        let path = PathTemplate::parse("/").expect("a fixed path");
        let address = Address { listener: listener.into(), method: "SEND".into(), path, headers: Vec::new() };
        Self { address, binding: Arc::default(), body: WriteFormat::Json }
    }
}

impl EntrySpec for MemorySpec {
    fn address(&self) -> &Address {
        &self.address
    }

    fn binding(&self) -> &Arc<Binding> {
        &self.binding
    }

    fn describe(&self) -> String {
        format!("memory {}", self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl OperationSpec for MemorySpec {
    fn params(&self) -> &[ByteString] {
        &[]
    }

    fn body(&self) -> Option<&WriteFormat> {
        Some(&self.body)
    }

    fn is_idempotent(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("memory {}", self.address.listener)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
