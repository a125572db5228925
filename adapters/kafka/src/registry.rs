//! Schema registries: the schema of a value, by the number in front of it (the wire format and API of Confluent's registry).

mod cache;
mod client;
mod frame;
mod schema;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::{BodyType, Code, EndpointVerdict, Fault, Format, Limits};
use crossdock_ports::AdapterError;
use serde_json::Value as Json;

pub(crate) use self::client::unusable;

use self::cache::Cache;
use self::client::Client;
use self::schema::{Definition, Reference, Schema, definition};
use crate::config::RegistryAccess;
use crate::mapping::escaped;
use crate::received::Typed;

/// How long the newest version of a subject is used before the registry is asked again.
const VERSION_TIME: Duration = Duration::from_secs(300);
/// How long the registry is not asked again for what it does not know.
const UNKNOWN_TIME: Duration = Duration::from_secs(30);
/// How long it is not asked again after it could not be asked: all that wait for the same answer share the failure.
const UNREACHABLE_TIME: Duration = Duration::from_secs(1);
/// For a schema with all that it refers to.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);
/// The most schemas that a schema refers to, directly or not.
const REFERENCES_MAX: usize = 100;
/// The maximum length of a schema with all that it refers to, in bytes.
const SCHEMA_LEN_MAX: usize = 1 << 20;

/// All registries of the process.
#[derive(Debug, Default)]
pub(crate) struct Registries(Mutex<HashMap<u64, Weak<Registry>>>);

impl Registries {
    /// The registry with this address and login; created on first use.
    ///
    /// # Errors
    /// [`AdapterError::Settings`] if a file of its settings is unusable.
    pub(crate) fn registry(&self, access: &RegistryAccess) -> Result<Arc<Registry>, AdapterError> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, registry| registry.strong_count() > 0);
        if let Some(registry) = open.get(&access.fingerprint).and_then(Weak::upgrade) {
            return Ok(registry);
        }
        let registry = Arc::new(Registry::open(access)?);
        open.insert(access.fingerprint, Arc::downgrade(&registry));
        Ok(registry)
    }
}

/// A registry with the schemas that were used last. What is asked for is kept even if nobody waits for it any more.
pub(crate) struct Registry {
    client: Client,
    /// Part of the identity of types: logins may see different schemas under the same number.
    fingerprint: u64,
    /// Schemas never change.
    by_id: Cache<u32, Arc<Schema>>,
    /// Apart, so that they do not displace schemas.
    failed: Cache<u32, Failed>,
    /// Versions of subjects.
    by_version: Cache<(String, Option<u32>), Result<Version, Failed>>,
    limits: Arc<Limits>,
}

/// What the registry does not know, or could not be asked for.
#[derive(Debug, Clone)]
struct Failed {
    fault: Fault,
    /// When it is asked for again.
    until: Instant,
}

impl Failed {
    fn new(fault: &Fault) -> Self {
        let time = if fault.code == Code::Unavailable { UNREACHABLE_TIME } else { UNKNOWN_TIME };
        Self { fault: fault.clone(), until: Instant::now() + time }
    }
}

/// The number of a version of a subject.
#[derive(Debug, Clone, Copy)]
struct Version {
    id: u32,
    /// When it is asked for again; `None` if it never changes.
    until: Option<Instant>,
}

/// How a value is written.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) format: Format,
    pub(crate) of_type: Arc<dyn BodyType>,
    /// What stands in front of the value.
    pub(crate) prefix: Vec<u8>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry {:?}", self.client)
    }
}

/// A record that cannot be read.
fn invalid(problem: String) -> Fault {
    Fault::caller(Code::InvalidArgument, "SCHEMA", problem).logged()
}

impl Registry {
    fn open(access: &RegistryAccess) -> Result<Self, AdapterError> {
        Ok(Self {
            client: Client::new(access)?,
            fingerprint: access.fingerprint,
            by_id: Cache::default(),
            failed: Cache::default(),
            by_version: Cache::default(),
            limits: Arc::clone(&access.limits),
        })
    }

    /// Finds the schema of a received value.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is no number in front of the value, or the registry does not know it or has an invalid schema for it; UNAVAILABLE if
    /// the registry cannot be reached or refuses the login.
    pub(crate) async fn read(self: &Arc<Self>, value: &Bytes) -> Result<Typed, Fault> {
        let (id, rest) = frame::split(value)?;
        match &*self.schema(id).await? {
            Schema::Avro(of_type) => {
                let of_type = Arc::clone(of_type) as Arc<dyn BodyType>;
                Ok(Typed { value: rest, format: Format::Avro, of_type: Some(of_type) })
            }
            Schema::Protobuf(file) => {
                let (path, rest) = frame::split_path(&rest)?;
                let of_type = file
                    .message_at(&path)
                    .ok_or_else(|| invalid(format!("the schema {id} has no message at the position {path:?}")))?;
                Ok(Typed { value: rest, format: Format::Protobuf, of_type: Some(of_type) })
            }
            Schema::Json => Ok(Typed { value: rest, format: Format::Json, of_type: None }),
        }
    }

    /// Finds the schema to write values of a subject by; the newest version if none is given. `message` is the full name of a protobuf message; the first
    /// one of the schema without it.
    ///
    /// # Errors
    /// UNAVAILABLE if the registry cannot be reached, refuses the login, or does not know the subject or version; INTERNAL if values cannot be written by
    /// its schema.
    pub(crate) async fn writer(
        self: &Arc<Self>,
        subject: &str,
        version: Option<u32>,
        message: Option<&str>,
    ) -> Result<Writer, Fault> {
        let unfit = |problem: &str| {
            let problem = format!("values cannot be written by the schema of the subject `{subject}`: {problem}");
            Fault::new(Code::Internal, "SCHEMA", problem).with_endpoint_verdict(EndpointVerdict::None).logged()
        };
        let id = self.version(subject, version).await?;
        let schema = self.schema(id).await.map_err(|fault| match fault.code {
            Code::Unavailable => fault,
            _ => unfit(&fault.message),
        })?;
        match &*schema {
            Schema::Avro(of_type) => {
                let of_type = Arc::clone(of_type) as Arc<dyn BodyType>;
                Ok(Writer { format: Format::Avro, of_type, prefix: frame::prefix(id) })
            }
            Schema::Protobuf(file) => {
                let missing = || unfit(&format!("it has no message `{}`", message.unwrap_or_default()));
                let (path, of_type) = file.message(message).ok_or_else(missing)?;
                let mut prefix = frame::prefix(id);
                frame::append_path(&path, &mut prefix);
                Ok(Writer { format: Format::Protobuf, of_type, prefix })
            }
            // What it requires cannot be checked.
            Schema::Json => Err(unfit("it is a JSON Schema")),
        }
    }

    async fn schema(self: &Arc<Self>, id: u32) -> Result<Arc<Schema>, Fault> {
        if let Some(schema) = self.by_id.get(&id) {
            return Ok(schema);
        }
        let registry = Arc::clone(self);
        in_background(async move { registry.find(id).await }).await
    }

    async fn find(&self, id: u32) -> Result<Arc<Schema>, Fault> {
        if let Some(failed) = self.failed.get(&id).filter(|failed| Instant::now() < failed.until) {
            return Err(failed.fault);
        }
        let entry = self.by_id.entry(id);
        let mut known = entry.lock().await;
        if let Some(schema) = &*known {
            return Ok(Arc::clone(schema));
        }
        // Somebody else may have asked meanwhile.
        if let Some(failed) = self.failed.get(&id).filter(|failed| Instant::now() < failed.until) {
            return Err(failed.fault);
        }
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(id)).await;
        match fetched.unwrap_or_else(|_| Err(unusable("its schemas do not arrive in time"))) {
            Ok((schema, len)) => {
                *known = Some(Arc::clone(&schema));
                self.by_id.charge(&id, len);
                Ok(schema)
            }
            Err(fault) => {
                *self.failed.entry(id).lock().await = Some(Failed::new(&fault));
                self.by_id.remove(&id);
                Err(fault)
            }
        }
    }

    /// Asks for a schema and those that it refers to; returns it with their length in bytes.
    async fn fetch(&self, id: u32) -> Result<(Arc<Schema>, usize), Fault> {
        let reply = self.client.get(&format!("/schemas/ids/{id}")).await?;
        let reply = reply.ok_or_else(|| invalid(format!("the schema registry has no schema {id}")))?;
        let mut root = definition("", &reply).map_err(|problem| problem.of(id))?;
        let mut len = root.text.len();
        // Depth first, in their order, as Confluent's clients do: the first one with a name counts.
        let mut open: Vec<Reference> = std::mem::take(&mut root.references).into_iter().rev().collect();
        let mut others: Vec<Definition> = Vec::new();
        loop {
            if others.len() > REFERENCES_MAX || len > SCHEMA_LEN_MAX {
                let problem =
                    format!("the schema {id} has more than {REFERENCES_MAX} references or {SCHEMA_LEN_MAX} bytes");
                return Err(invalid(problem));
            }
            let Some(reference) = open.pop() else { break };
            if others.iter().any(|other| other.name == reference.name) {
                continue;
            }
            let path = format!("/subjects/{}/versions/{}", escaped(&reference.subject), reference.version);
            // It exists, as the schema does.
            let missing =
                || unusable(&format!("it does not have `{}`, to which schema {id} refers", reference.subject));
            let reply = self.client.get(&path).await?.ok_or_else(missing)?;
            let mut other = definition(&reference.name, &reply).map_err(|problem| problem.of(id))?;
            open.extend(std::mem::take(&mut other.references).into_iter().rev());
            len += other.text.len();
            others.push(other);
        }
        let origin = format!("schema {id} of {} {:x}", self.client.address(), self.fingerprint);
        let limits = Arc::clone(&self.limits);
        // Compiling takes milliseconds.
        let compiled = tokio::task::spawn_blocking(move || Schema::compile(&root, &others, &origin, limits)).await;
        match compiled.unwrap_or_else(|_| Err("it cannot be compiled".to_owned())) {
            Ok(schema) => Ok((Arc::new(schema), len)),
            Err(problem) => Err(invalid(format!("the schema {id} is invalid: {problem}"))),
        }
    }

    /// The number of a version of a subject.
    async fn version(self: &Arc<Self>, subject: &str, version: Option<u32>) -> Result<u32, Fault> {
        let (key, now) = ((subject.to_owned(), version), Instant::now());
        let (registry, asked) = (Arc::clone(self), key.clone());
        let ask = in_background(async move { registry.find_version(asked).await });
        match self.by_version.get(&key) {
            Some(Ok(known)) => {
                if known.until.is_some_and(|until| until <= now) {
                    // It is still valid, and used until the answer is there.
                    drop(tokio::spawn(ask));
                }
                Ok(known.id)
            }
            Some(Err(failed)) if now < failed.until => Err(failed.fault),
            _ => ask.await,
        }
    }

    async fn find_version(&self, key: (String, Option<u32>)) -> Result<u32, Fault> {
        let entry = self.by_version.entry(key.clone());
        let mut known = entry.lock().await;
        let now = Instant::now();
        // Somebody else may have asked meanwhile.
        match &*known {
            Some(Ok(known)) if known.until.is_none_or(|until| now < until) => return Ok(known.id),
            Some(Err(failed)) if now < failed.until => return Err(failed.fault.clone()),
            _ => {}
        }
        let (subject, version) = key;
        let found = self.ask_version(&subject, version).await;
        let until = |time| version.is_none().then(|| Instant::now() + time);
        *known = Some(match (&found, &*known) {
            (Ok(id), _) => Ok(Version { id: *id, until: until(VERSION_TIME) }),
            (Err(_), Some(Ok(Version { id, .. }))) => Ok(Version { id: *id, until: until(UNKNOWN_TIME) }),
            (Err(fault), _) => Err(Failed::new(fault)),
        });
        found
    }

    async fn ask_version(&self, subject: &str, version: Option<u32>) -> Result<u32, Fault> {
        let number = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = format!("/subjects/{}/versions/{number}", escaped(subject));
        let missing = || unusable(&format!("it has no version {number} of the subject `{subject}`"));
        let reply = self.client.get(&path).await?.ok_or_else(missing)?;
        let id = reply.get("id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| unusable("its answer has no `id`"))
    }
}

/// Completes also if the caller leaves, so that what it asked for is known to the next one.
async fn in_background<T: Send + 'static>(
    asking: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, Fault> {
    tokio::spawn(asking).await.unwrap_or_else(|_| Err(unusable("asking it failed")))
}
