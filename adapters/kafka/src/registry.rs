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
use crossdock_message::{BodyType, Code, Fault, Format, Limits};
use crossdock_ports::AdapterError;
use serde_json::Value as Json;

pub(crate) use self::client::unusable;

use self::cache::Cache;
use self::client::Client;
use self::schema::{Definition, Schema};
use crate::config::RegistryAccess;

/// How long the newest version of a subject is used before the registry is asked again.
const VERSION_TIME: Duration = Duration::from_secs(300);
/// How long the registry is not asked again for what it does not know, and for a newer version after it could not be asked.
const UNKNOWN_TIME: Duration = Duration::from_secs(30);
/// How long it is not asked again after it could not be reached: all that wait for the same answer share the failure.
const UNREACHABLE_TIME: Duration = Duration::from_secs(1);
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

/// A registry with the schemas that were used last.
pub(crate) struct Registry {
    client: Client,
    /// Schemas never change.
    by_id: Cache<u32, Result<Arc<Schema>, Missing>>,
    /// Versions of subjects.
    by_version: Cache<(String, Option<u32>), Result<Version, Missing>>,
    limits: Arc<Limits>,
}

/// What the registry does not know, or could not be asked for.
#[derive(Debug, Clone)]
struct Missing {
    fault: Fault,
    /// When it is asked for again.
    until: Instant,
}

impl Missing {
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

/// A value without what stands in front of it, and its type.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) value: Bytes,
    pub(crate) format: Format,
    /// `None` for JSON, which says itself what it is.
    pub(crate) of_type: Option<Arc<dyn BodyType>>,
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

impl Registry {
    fn open(access: &RegistryAccess) -> Result<Self, AdapterError> {
        let client = Client::new(access)?;
        Ok(Self { client, by_id: Cache::default(), by_version: Cache::default(), limits: Arc::default() })
    }

    /// Finds the schema of a received value.
    ///
    /// # Errors
    /// INVALID_ARGUMENT if there is no number in front of the value, or the registry does not know it or has an invalid schema for it; UNAVAILABLE if
    /// the registry cannot be reached or refuses the login.
    pub(crate) async fn read(&self, value: &Bytes) -> Result<Typed, Fault> {
        let (id, rest) = frame::split(value)?;
        let schema = self.schema(id).await?;
        match &*schema {
            Schema::Avro(of_type) => {
                let of_type = Arc::clone(of_type) as Arc<dyn BodyType>;
                Ok(Typed { value: rest, format: Format::Avro, of_type: Some(of_type) })
            }
            Schema::Protobuf(file) => {
                let (path, rest) = frame::split_path(&rest)?;
                let of_type = file.message_at(&path).ok_or_else(|| {
                    let problem = format!("the schema {id} has no message at the position {path:?}");
                    Fault::caller(Code::InvalidArgument, "SCHEMA", problem)
                })?;
                Ok(Typed { value: rest, format: Format::Protobuf, of_type: Some(of_type) })
            }
            Schema::Json => Ok(Typed { value: rest, format: Format::Json, of_type: None }),
        }
    }

    /// Finds the schema to write values of a subject by; the newest version if none is given. `message` is the full name of a protobuf message; the first
    /// one of the schema without it.
    ///
    /// # Errors
    /// UNAVAILABLE if the registry cannot be reached, refuses the login, or does not know the subject or version; INTERNAL if its schema is invalid.
    pub(crate) async fn writer(
        &self,
        subject: &str,
        version: Option<u32>,
        message: Option<&str>,
    ) -> Result<Writer, Fault> {
        let id = self.version(subject, version).await?;
        let schema = self.schema(id).await.map_err(|fault| match fault.code {
            Code::Unavailable => fault,
            _ => unusable(&format!("the schema of the subject `{subject}` cannot be used: {}", fault.message)),
        })?;
        match &*schema {
            Schema::Avro(of_type) => {
                let of_type = Arc::clone(of_type) as Arc<dyn BodyType>;
                Ok(Writer { format: Format::Avro, of_type, prefix: frame::prefix(id) })
            }
            Schema::Protobuf(file) => {
                let found = file.message(message);
                let (path, of_type) = found.ok_or_else(|| {
                    unusable(&format!(
                        "the schema of the subject `{subject}` has no message `{}`",
                        message.unwrap_or("")
                    ))
                })?;
                let mut prefix = frame::prefix(id);
                frame::append_path(&path, &mut prefix);
                Ok(Writer { format: Format::Protobuf, of_type, prefix })
            }
            // What it requires cannot be checked.
            Schema::Json => {
                Err(unusable(&format!("values cannot be written by the JSON Schema of the subject `{subject}`")))
            }
        }
    }

    async fn schema(&self, id: u32) -> Result<Arc<Schema>, Fault> {
        let entry = self.by_id.entry(id);
        let mut known = entry.lock().await;
        match &*known {
            Some(Ok(schema)) => return Ok(Arc::clone(schema)),
            Some(Err(missing)) if Instant::now() < missing.until => return Err(missing.fault.clone()),
            _ => {}
        }
        let fetched = self.fetch(id).await;
        if let Ok((_, len)) = &fetched {
            self.by_id.charge(&id, *len);
        }
        let fetched = fetched.map(|(schema, _)| schema);
        *known = Some(fetched.clone().map_err(|fault| Missing::new(&fault)));
        fetched
    }

    /// Asks for a schema and those that it refers to; returns it with their length in bytes.
    async fn fetch(&self, id: u32) -> Result<(Arc<Schema>, usize), Fault> {
        let invalid = |problem: String| Fault::caller(Code::InvalidArgument, "SCHEMA", problem).logged();
        let reply = self.client.get(&format!("/schemas/ids/{id}")).await?;
        let reply = reply.ok_or_else(|| invalid(format!("the schema registry has no schema {id}")))?;
        let mut root =
            Definition::read("", &reply).map_err(|problem| invalid(format!("the schema {id}: {problem}")))?;
        let mut len = root.text.len();
        let mut open = std::mem::take(&mut root.references);
        let mut others: Vec<Definition> = Vec::new();
        let check = |others: usize, len: usize| {
            let problem =
                || format!("the schema {id} has more than {REFERENCES_MAX} references or {SCHEMA_LEN_MAX} bytes");
            if others > REFERENCES_MAX || len > SCHEMA_LEN_MAX { Err(invalid(problem())) } else { Ok(()) }
        };
        check(0, len)?;
        while let Some(reference) = open.pop() {
            if others.iter().any(|other| other.name == reference.name) {
                continue;
            }
            let path = format!("/subjects/{}/versions/{}", client::segment(&reference.subject), reference.version);
            let reply = self.client.get(&path).await?;
            let missing =
                || invalid(format!("the schema {id} refers to `{}`, which does not exist", reference.subject));
            let mut other = Definition::read(&reference.name, &reply.ok_or_else(missing)?)
                .map_err(|problem| invalid(format!("the schema {id}: `{}`: {problem}", reference.name)))?;
            open.append(&mut other.references);
            len += other.text.len();
            others.push(other);
            check(others.len(), len)?;
        }
        let origin = format!("schema {id} of {}", self.client.address());
        let limits = Arc::clone(&self.limits);
        // Compiling takes milliseconds.
        let compiled = tokio::task::spawn_blocking(move || Schema::compile(&root, &others, &origin, limits)).await;
        let compiled = compiled.unwrap_or_else(|_| Err("it cannot be compiled".to_owned()));
        match compiled {
            Ok(schema) => Ok((Arc::new(schema), len)),
            Err(problem) => Err(invalid(format!("the schema {id} is invalid: {problem}"))),
        }
    }

    /// The number of a version of a subject.
    async fn version(&self, subject: &str, version: Option<u32>) -> Result<u32, Fault> {
        let entry = self.by_version.entry((subject.to_owned(), version));
        let mut known = entry.lock().await;
        let now = Instant::now();
        match &*known {
            Some(Ok(known)) if known.until.is_none_or(|until| now < until) => return Ok(known.id),
            Some(Err(missing)) if now < missing.until => return Err(missing.fault.clone()),
            _ => {}
        }
        let found = self.ask_version(subject, version).await;
        *known = Some(match (&found, &*known) {
            (Ok(id), _) => Ok(Version { id: *id, until: version.is_none().then(|| Instant::now() + VERSION_TIME) }),
            // The version that is known is still valid.
            (Err(_), Some(Ok(Version { id, .. }))) => {
                Ok(Version { id: *id, until: Some(Instant::now() + UNKNOWN_TIME) })
            }
            (Err(fault), _) => Err(Missing::new(fault)),
        });
        match &*known {
            Some(Ok(known)) => Ok(known.id),
            _ => found,
        }
    }

    async fn ask_version(&self, subject: &str, version: Option<u32>) -> Result<u32, Fault> {
        let number = version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let path = format!("/subjects/{}/versions/{number}", client::segment(subject));
        let reply = self
            .client
            .get(&path)
            .await?
            .ok_or_else(|| unusable(&format!("it has no version {number} of the subject `{subject}`")))?;
        let id = reply.get("id").and_then(Json::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| unusable("its reply has no `id`"))
    }
}
