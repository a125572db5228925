//! Decodes the messages in the tests with a contract, like bodies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, TypeRef};
use crossdock_expression::{Type, Val};
use crossdock_message::{Limits, Value};
use crossdock_proto::{Files, compile};
use crossdock_routing::expression::type_of_record;

/// The definitions of the messages in the tests.
const FILES: [&str; 3] = [
    "cel/expr/conformance/proto2/test_all_types.proto",
    "cel/expr/conformance/proto2/test_all_types_extensions.proto",
    "cel/expr/conformance/proto3/test_all_types.proto",
];

/// The contract of the messages.
pub(crate) struct Messages(Arc<Contract>);

/// The folder for imports.
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
    /// Compiles the contract in a folder.
    pub(crate) fn compile(folder: &Path) -> Self {
        Self(Arc::new(compile(&FILES, &Folder(folder.to_owned())).expect("the contract of the messages")))
    }

    /// Decodes a message; `None` if the contract does not define its type.
    pub(crate) fn read(&self, name: &str, bytes: &Bytes) -> Option<Result<Val<'static>, String>> {
        let of = TypeRef::new(Arc::clone(&self.0), self.0.find_record(name)?);
        let value = of.decode(bytes, &Limits::default());
        Some(value.map_err(|error| error.to_string()).map(|value| {
            // Leaked, as the tests live until the process exits.
            let value: &'static Value = Box::leak(Box::new(value));
            Val::data(value, false)
        }))
    }

    /// The type of a message; `None` if the contract does not define it.
    pub(crate) fn type_of(&self, name: &str) -> Option<Type> {
        Some(type_of_record(&self.0, self.0.find_record(name)?))
    }
}
