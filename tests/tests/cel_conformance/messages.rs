//! Messages of the tests: read by their contract, as bodies are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Arity, Contract, EnumId, Field, Files, Kind, RecordId, Scalar, Special, TypeRef, compile};
use crossdock_expression::{EnumInfo, RecordInfo, Type, Val};
use crossdock_message::{Limits, Value};

/// What the messages of the tests are of.
const FILES: [&str; 3] = [
    "cel/expr/conformance/proto2/test_all_types.proto",
    "cel/expr/conformance/proto2/test_all_types_extensions.proto",
    "cel/expr/conformance/proto3/test_all_types.proto",
];

/// The contract of the messages.
pub(crate) struct Messages(Arc<Contract>);

/// A folder that imports are looked for in.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        match std::fs::read(self.0.join(name)) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Messages {
    /// Compiles the contract that is in that folder.
    pub(crate) fn compile(folder: &Path) -> Self {
        Self(Arc::new(compile(&FILES, &Folder(folder.to_owned())).expect("the contract of the messages")))
    }

    /// A message of that type; nothing where the contract has no such type.
    pub(crate) fn read(&self, name: &str, bytes: &Bytes) -> Option<Result<Val<'static>, String>> {
        let of = TypeRef::new(Arc::clone(&self.0), self.0.find_record(name)?);
        let value = of.decode(bytes, &Limits::default());
        Some(value.map_err(|error| error.to_string()).map(|value| {
            // The tests are there until the process ends.
            let value: &'static Value = Box::leak(Box::new(value));
            Val::data(value, false)
        }))
    }

    /// The type of messages of that name; nothing where the contract has none.
    pub(crate) fn type_of(&self, name: &str) -> Option<Type> {
        Some(of_record(&self.0, self.0.find_record(name)?))
    }
}

// As the gateway shows contracts to the checker (`src/routing/src/expression/contract.rs`).

#[derive(Debug)]
struct OfContract {
    contract: Arc<Contract>,
    id: RecordId,
}

#[derive(Debug)]
struct Enumeration {
    contract: Arc<Contract>,
    id: EnumId,
}

impl RecordInfo for OfContract {
    fn name(&self) -> &str {
        &self.contract.record(self.id).name
    }

    fn field(&self, name: &str) -> Option<Type> {
        self.contract.record(self.id).field(name).map(|field| of_field(&self.contract, field))
    }

    fn field_names(&self) -> Vec<String> {
        self.contract.record(self.id).field_names().map(str::to_owned).collect()
    }
}

impl EnumInfo for Enumeration {
    fn name(&self) -> &str {
        &self.contract.enumeration(self.id).name
    }

    fn value_names(&self) -> Vec<String> {
        self.contract.enumeration(self.id).values.iter().map(|(name, _)| name.to_string()).collect()
    }
}

fn of_record(contract: &Arc<Contract>, id: RecordId) -> Type {
    let record = contract.record(id);
    match record.special {
        Special::None => Type::Record(Arc::new(OfContract { contract: Arc::clone(contract), id })),
        Special::Time => Type::Time,
        Special::Duration => Type::Duration,
        Special::Wrapper => match record.fields.first().map(|field| field.kind) {
            Some(Kind::Scalar(scalar)) => Type::Wrapper(Arc::new(of_scalar(scalar))),
            _ => Type::Dyn,
        },
        _ => Type::Dyn,
    }
}

fn of_field(contract: &Arc<Contract>, field: &Field) -> Type {
    let one = match field.kind {
        Kind::Scalar(scalar) => of_scalar(scalar),
        Kind::Enum(id) => Type::Enum(Arc::new(Enumeration { contract: Arc::clone(contract), id })),
        Kind::Record(id) => of_record(contract, id),
    };
    match field.arity {
        Arity::Many => Type::list(one),
        Arity::Map => Type::map(Type::Text, one),
        _ => one,
    }
}

fn of_scalar(scalar: Scalar) -> Type {
    match scalar {
        Scalar::Bool => Type::Bool,
        Scalar::String => Type::Text,
        Scalar::Bytes => Type::Bytes,
        Scalar::Float | Scalar::Double => Type::Double,
        _ => Type::Int,
    }
}
