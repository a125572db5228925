//! An adapter without a network: calls pass through queues in this process.
//!
//! It serves tests of the gateway, and is the simplest example of the ports. A [`Hub`] connects its two sides.

use std::any::Any;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossdock_message::{ByteString, Code, EndpointVerdict, Fault, Message, Origin, RequestContext, Retry};
use crossdock_ports::{
    AdapterError, Address, Binding, EntrySpec, Head, Inbound, Ingress, LocalFuture, NoFields, OpenIngress,
    OperationSpec, Outbound, Outcome, PathTemplate, SendFuture, Stop, WriteFormat,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// The capacity of the queue of an address, in messages.
const QUEUE_LEN_MAX: usize = 1024;

struct Letter {
    message: Message,
    reply: oneshot::Sender<Result<Message, Fault>>,
}

/// The listeners, by address.
#[derive(Clone, Default)]
pub struct Hub {
    listeners: Arc<Mutex<BTreeMap<String, mpsc::Sender<Letter>>>>,
}

impl Hub {
    /// A hub without listeners.
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
    /// [`AdapterError::Listen`] if the address is in use.
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

    /// A port to an address, which needs no listener yet.
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
        mut stop: Stop,
    ) -> SendFuture<'static, Result<(), AdapterError>> {
        // Messages are processed on a thread of their own, as on a data arbiter.
        let served = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| AdapterError::Stopped(error.to_string()))?;
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let ingress = ingress.open();
                let mut running = JoinSet::new();
                loop {
                    tokio::select! {
                        biased;
                        () = &mut stop => break,
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
    let mut head = Head {
        context: &mut context,
        listener: &address,
        method: "SEND",
        path: "/",
        headers: &NoFields,
        is_accepted: false,
    };
    let reply = match ingress.admit(&mut head) {
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
    // The caller may have disconnected.
    let _ = letter.reply.send(reply);
}

struct MemoryOutbound {
    hub: Hub,
    address: String,
}

impl MemoryOutbound {
    fn unreachable(&self) -> Fault {
        Fault::new(Code::Unavailable, "UNREACHABLE", "no listener has this address")
            .with_endpoint_verdict(EndpointVerdict::Unreachable)
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
            let listener = self.hub.listeners().get(&self.address).cloned().ok_or_else(|| self.unreachable())?;
            let (reply, answer) = oneshot::channel();
            listener.send(Letter { message: message.clone(), reply }).await.map_err(|_| self.unreachable())?;
            let lost = || Fault::new(Code::Unavailable, "NO_ANSWER", "the listener stopped before it replied");
            answer.await.unwrap_or_else(|_| Err(lost()))
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        let listening = self.hub.listeners().contains_key(&self.address);
        Box::pin(async move { if listening { Ok(()) } else { Err(self.unreachable()) } })
    }
}

/// An entry and an operation without settings.
#[derive(Debug)]
pub struct MemorySpec {
    address: Address,
    binding: Arc<Binding>,
    body: WriteFormat,
}

impl MemorySpec {
    /// For the listener with this address.
    ///
    /// # Panics
    /// Never: the path is valid.
    #[must_use]
    pub fn new(listener: &str) -> Self {
        let path = PathTemplate::parse("/").expect("a fixed path");
        let address = Address { listener: listener.into(), method: "SEND".into(), path, headers: Vec::new() };
        Self { address, binding: Arc::default(), body: WriteFormat::json() }
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
