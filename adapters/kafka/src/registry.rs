//! Schema registries: the schema of a value, by the number in front of it (the wire format and API of Confluent's registry).

mod cache;
mod client;
mod frame;
mod json_schema;
mod schema;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::{BodyType, Code, EndpointVerdict, Fault, Format, Limits};
use crossdock_offload::{INLINE_LEN, Priority, offload};
use crossdock_ports::AdapterError;
use serde_json::Value as Json;

pub(crate) use self::client::unusable;

use self::cache::{Cache, Entry};
use self::client::Client;
use self::json_schema::JsonSchema;
use self::schema::{Definition, Reference, Schema, definition};
use crate::config::RegistryAccess;
use crate::mapping::escaped;
use crate::received::TypedValue;
use crate::shared::SharedByKey;

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
pub(crate) type Registries = SharedByKey<u64, Registry>;

impl Registries {
    /// The registry with this address and login; created on first use.
    ///
    /// # Errors
    /// [`AdapterError::Settings`] if a file of its settings is unusable.
    pub(crate) fn registry(&self, access: &RegistryAccess) -> Result<Arc<Registry>, AdapterError> {
        self.get_or_open(access.fingerprint, || Registry::open(access).map(Arc::new))
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
    check: Check,
    /// What stands in front of the value.
    pub(crate) prefix: Vec<u8>,
}

#[derive(Debug)]
enum Check {
    /// The value is converted by its type.
    Type(Arc<dyn BodyType>),
    /// The value is JSON, and checked.
    Json(Arc<JsonSchema>),
}

impl Writer {
    /// The type of the value; `None` for JSON.
    pub(crate) fn of_type(&self) -> Option<&dyn BodyType> {
        match &self.check {
            Check::Type(of_type) => Some(&**of_type),
            Check::Json(_) => None,
        }
    }

    /// Checks an encoded value, as far as its type has not.
    ///
    /// # Errors
    /// INVALID_ARGUMENT with the field that does not match the schema.
    pub(crate) async fn check(&self, value: &Bytes) -> Result<(), Fault> {
        match &self.check {
            Check::Type(_) => Ok(()),
            Check::Json(schema) => check(Arc::clone(schema), value).await,
        }
    }
}

/// Checks a JSON value; a long one on the thread pool.
async fn check(schema: Arc<JsonSchema>, value: &Bytes) -> Result<(), Fault> {
    if value.len() <= INLINE_LEN {
        return schema.check(value);
    }
    let value = value.clone();
    offload(Priority::New, move || schema.check(&value)).await
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
    pub(crate) async fn read(self: &Arc<Self>, value: &Bytes) -> Result<TypedValue, Fault> {
        let (id, rest) = frame::split(value)?;
        match &*self.schema(id).await? {
            Schema::Avro(of_type) => {
                let of_type = Arc::clone(of_type) as Arc<dyn BodyType>;
                Ok(TypedValue { value: rest, format: Format::Avro, of_type: Some(of_type) })
            }
            Schema::Protobuf(file) => {
                let (path, rest) = frame::split_path(&rest)?;
                let of_type = file
                    .message_at(&path)
                    .ok_or_else(|| invalid(format!("the schema {id} has no message at the position {path:?}")))?;
                Ok(TypedValue { value: rest, format: Format::Protobuf, of_type: Some(of_type) })
            }
            Schema::Json(schema) => {
                check(Arc::clone(schema), &rest).await?;
                Ok(TypedValue { value: rest, format: Format::Json, of_type: None })
            }
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
                Ok(Writer { format: Format::Avro, check: Check::Type(of_type), prefix: frame::prefix(id) })
            }
            Schema::Protobuf(file) => {
                let missing = || unfit(&format!("it has no message `{}`", message.unwrap_or_default()));
                let (path, of_type) = file.message(message).ok_or_else(missing)?;
                let mut prefix = frame::prefix(id);
                frame::append_path(&path, &mut prefix);
                Ok(Writer { format: Format::Protobuf, check: Check::Type(of_type), prefix })
            }
            Schema::Json(schema) => {
                let check = Check::Json(Arc::clone(schema));
                Ok(Writer { format: Format::Json, check, prefix: frame::prefix(id) })
            }
        }
    }

    async fn schema(self: &Arc<Self>, id: u32) -> Result<Arc<Schema>, Fault> {
        if let Some(schema) = self.by_id.get(&id) {
            return Ok(schema);
        }
        let registry = Arc::clone(self);
        // In the background: what a caller asked for is known to the next one, even if the caller leaves.
        let finding = tokio::spawn(async move { registry.find(id).await });
        finding.await.unwrap_or_else(|_| Err(unusable("asking it failed")))
    }

    async fn find(&self, id: u32) -> Result<Arc<Schema>, Fault> {
        if let Some(failed) = self.failed.get(&id).filter(|failed| Instant::now() < failed.until) {
            return Err(failed.fault);
        }
        let entry = self.by_id.entry(&id);
        let mut known = entry.lock().await;
        if let Some(schema) = &*known {
            return Ok(Arc::clone(schema));
        }
        // Somebody else has asked meanwhile.
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
                *self.failed.entry(&id).lock().await = Some(Failed::new(&fault));
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

    /// The number of a version of a subject. One that has expired is used until the answer is there.
    async fn version(self: &Arc<Self>, subject: &str, version: Option<u32>) -> Result<u32, Fault> {
        let key = (subject.to_owned(), version);
        let entry = self.by_version.entry(&key);
        if let Ok(mut known) = entry.try_lock()
            && let Some(Ok(known)) = &mut *known
        {
            let now = Instant::now();
            if known.until.is_some_and(|until| until <= now) {
                // Nobody else asks meanwhile, or soon after a failure.
                known.until = Some(now + UNKNOWN_TIME);
                let (registry, entry) = (Arc::clone(self), Arc::clone(&entry));
                drop(tokio::spawn(async move {
                    if let Ok(found) = registry.ask_version(&key.0, version).await {
                        *entry.lock().await = Some(Ok(found));
                    }
                }));
            }
            return Ok(known.id);
        }
        let registry = Arc::clone(self);
        let finding = tokio::spawn(async move { registry.find_version(&key, &entry).await });
        finding.await.unwrap_or_else(|_| Err(unusable("asking it failed")))
    }

    async fn find_version(
        &self,
        (subject, version): &(String, Option<u32>),
        entry: &Entry<Result<Version, Failed>>,
    ) -> Result<u32, Fault> {
        let mut known = entry.lock().await;
        match &*known {
            // Somebody else has asked meanwhile.
            Some(Ok(known)) => return Ok(known.id),
            Some(Err(failed)) if Instant::now() < failed.until => return Err(failed.fault.clone()),
            _ => {}
        }
        let found = self.ask_version(subject, *version).await;
        *known = Some(found.clone().map_err(|fault| Failed::new(&fault)));
        found.map(|version| version.id)
    }

    async fn ask_version(&self, subject: &str, version: Option<u32>) -> Result<Version, Fault> {
        let number = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = format!("/subjects/{}/versions/{number}", escaped(subject));
        let missing = || unusable(&format!("it has no version {number} of the subject `{subject}`"));
        let reply = self.client.get(&path).await?.ok_or_else(missing)?;
        let id = reply.get("id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| unusable("its answer has no `id`"))?;
        Ok(Version { id, until: version.is_none().then(|| Instant::now() + VERSION_TIME) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_version_is_used_while_the_registry_does_not_answer() {
        // It takes connections and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", silent.local_addr().expect("an address"));
        let endpoint = crossdock_transport::Endpoint::parse(&url).expect("a URL");
        let access = RegistryAccess { endpoint, tls: None, login: None, limits: Arc::default(), fingerprint: 1 };
        let registry = Arc::new(Registry::open(&access).expect("valid settings"));
        let key = ("orders".to_owned(), None);
        let expired = Version { id: 7, until: Some(Instant::now()) };
        *registry.by_version.entry(&key).try_lock().expect("free") = Some(Ok(expired));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for _ in 0..3 {
                let found = tokio::time::timeout(Duration::from_secs(1), registry.version("orders", None)).await;
                assert_eq!(found.expect("at once").expect("known"), 7);
            }
            let unknown = tokio::time::timeout(Duration::from_millis(100), registry.version("orders", Some(1)));
            assert!(unknown.await.is_err(), "nothing is known of it");
        });
    }
}
