//! Panics on the data path: the caller gets INTERNAL, all permits are released, and the actor is restarted.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossdock_contract::Contracts;
use crossdock_message::{Body, ByteString, Code, Fault, Format, Limits, Message, RequestContext};
use crossdock_ports::{
    Adapter, AdapterError, EntryContext, EntrySpec, Head, Inbound, Ingress as _, ListenerSpec, LocalFuture, NoFields,
    OperationSpec, Outbound, Outcome, Schemas, ServiceSpec,
};
use crossdock_proto::Files;
use crossdock_routing::{Inputs, ListenerInfo};
use crossdock_settings::{Diagnostics, Node, Reader, Resolve};
use crossdock_test_kit::memory::MemorySpec;
use tokio::task::LocalSet;

use super::ingress::{DataArbiter, Opener};
use super::shard::Crash;
use crate::generation::{CurrentGeneration, Generation};
use crate::process::ProcessState;
use crate::stats::{Stats, get};

/// Echoes messages; panics if the body has the field `panic`.
struct Fragile;

#[derive(Debug)]
struct FragileService(Vec<String>);

impl ServiceSpec for FragileService {
    fn endpoints(&self) -> &[String] {
        &self.0
    }

    fn operations(&self) -> Vec<(ByteString, Arc<dyn OperationSpec>)> {
        vec![("call".into(), Arc::new(MemorySpec::new("here")))]
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl Outbound for Fragile {
    fn call<'a>(
        &'a self,
        _: &'a dyn OperationSpec,
        message: &'a Message,
        _: &'a [ByteString],
    ) -> LocalFuture<'a, Result<Message, Fault>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let value = message.body.value(&Limits::default())?;
            assert!(value.is_none_or(|value| value.get("panic").is_none()), "on purpose");
            Ok(message.clone())
        })
    }

    fn probe(&self) -> LocalFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

impl Adapter for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn schemas(&self) -> Schemas {
        Schemas { listener: true.into(), entry: true.into(), service: true.into() }
    }

    fn read_listener(&self, _: &Node, _: &mut Reader<'_>) -> Option<Arc<dyn ListenerSpec>> {
        None
    }

    fn read_entry(&self, _: &Node, _: EntryContext<'_>, _: &mut Reader<'_>) -> Option<Vec<Arc<dyn EntrySpec>>> {
        Some(vec![Arc::new(MemorySpec::new("here"))])
    }

    fn read_service(&self, _: &Node, _: &Contracts, _: &mut Reader<'_>) -> Option<Arc<dyn ServiceSpec>> {
        Some(Arc::new(FragileService(vec!["here".into()])))
    }

    fn open_inbound(&self, name: &str, _: &dyn ListenerSpec) -> Result<Box<dyn Inbound>, AdapterError> {
        Err(AdapterError::Settings(name.into()))
    }

    fn open_outbound(&self, _: &dyn ServiceSpec, _: usize) -> Result<Rc<dyn Outbound>, AdapterError> {
        Ok(Rc::new(Fragile))
    }
}

struct Nothing;

impl Files for Nothing {
    fn read(&self, _: &str) -> Result<Option<Bytes>, String> {
        Ok(None)
    }
}

impl Resolve for Nothing {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(name.into())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(path.into())
    }
}

const ROUTES: &str = "version: 1
services: { weak: { fragile: {}, concurrency: 3 } }
routes: { through: { from: { fragile: {} }, steps: [ { call: weak.call } ] } }
";

fn opener() -> Opener {
    let adapters: Arc<[Arc<dyn Adapter>]> = Arc::new([Arc::new(Fragile)]);
    let mut diagnostics = Diagnostics::new();
    let inputs = Inputs {
        adapters: &adapters,
        listeners: &[ListenerInfo { name: "here".into(), adapter: "fragile", transactions: None }],
        resolve: &Nothing,
        files: &Nothing,
        reflect: &|_| Err("there is no service".to_owned()),
        limits: &Limits::default(),
        has_cluster: false,
        locks: None,
    };
    let plan = crossdock_routing::load(&[("routes".into(), ROUTES.into())], &inputs, &mut diagnostics);
    let plan = plan.unwrap_or_else(|| panic!("{}", diagnostics.render(false)));
    let stats = Stats::new(Instant::now());
    let process = Arc::<ProcessState>::default();
    let generation = Generation::new(1, plan, Vec::new(), Limits::default(), &stats, &process);
    Opener { current: Arc::new(CurrentGeneration::new(generation)), stats, process, adapters, boot: 7 }
}

async fn call(arbiter: &DataArbiter, body: &'static str) -> Outcome {
    let mut context = RequestContext::new(arbiter.new_id(), Instant::now());
    let mut head = Head {
        context: &mut context,
        listener: "here",
        method: "SEND",
        path: "/",
        headers: &NoFields,
        is_accepted: false,
    };
    let admission = arbiter.admit(&mut head).expect("a route");
    let mut message = Message::new(context.id.clone(), "here".into());
    message.body = Body::raw(Bytes::from_static(body.as_bytes()).into(), Format::Json);
    admission.exchange.dispatch(message).await
}

fn code(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Failed(fault) => Some(fault.code),
        Outcome::Replied(_) | Outcome::Accepted => None,
    }
}

#[tokio::test]
async fn a_panic_in_a_call_is_internal_and_releases_its_permit() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let opener = opener();
            let arbiter = DataArbiter::new(&opener);
            for _ in 0..10 {
                assert_eq!(code(&call(&arbiter, "{\"panic\":1}").await), Some(Code::Internal));
                assert_eq!(code(&call(&arbiter, "{}").await), None);
            }
            let generation = opener.current.load();
            assert_eq!(generation.services[0].permits.available_permits(), 3);
            assert_eq!(get(&generation.services[0].stats.panics), 10);
            assert_eq!(get(&generation.services[0].stats.restarts), 0);
        })
        .await;
}

#[tokio::test]
async fn a_dead_actor_is_restarted_up_to_the_limit() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let opener = opener();
            let arbiter = DataArbiter::new(&opener);
            assert_eq!(code(&call(&arbiter, "{}").await), None);
            for _ in 0..10 {
                let shards = arbiter.shards(&opener.current.load()).expect("the actors");
                assert!(shards.address(0).send(Crash).await.is_err(), "the actor dies");
                assert_eq!(code(&call(&arbiter, "{}").await), None, "the next call restarts it");
            }
            let shards = arbiter.shards(&opener.current.load()).expect("the actors");
            assert!(shards.address(0).send(Crash).await.is_err(), "the actor dies once more");
            assert_eq!(code(&call(&arbiter, "{}").await), Some(Code::Unavailable), "and is not restarted");
            let generation = opener.current.load();
            assert_eq!(generation.services[0].permits.available_permits(), 3);
        })
        .await;
}

#[tokio::test]
async fn a_call_without_a_permit_is_refused_and_a_cancelled_one_releases_its_permit() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let opener = opener();
            let arbiter = DataArbiter::new(&opener);
            let generation = Arc::clone(&opener.current.load());
            let held: Vec<_> = (0..3)
                .map(|_| Arc::clone(&generation.services[0].permits).try_acquire_owned().expect("a permit"))
                .collect();
            assert_eq!(code(&call(&arbiter, "{}").await), Some(Code::ResourceExhausted));
            drop(held);
            for _ in 0..100 {
                let mut left = Box::pin(call(&arbiter, "{}"));
                assert!(futures_util::poll!(left.as_mut()).is_pending());
                drop(left);
                while generation.services[0].permits.available_permits() < 3 {
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(code(&call(&arbiter, "{}").await), None);
        })
        .await;
}
