//! Server reflection: `grpc.reflection.v1` and `v1alpha`, which share their messages, answered from contracts.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, SourceFile};
use prost::Message as _;

/// Paths of the methods, the newer version first.
pub(crate) const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
    #[prost(oneof = "MessageRequest", tags = "3, 4, 5, 6, 7")]
    pub(crate) query: Option<MessageRequest>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum MessageRequest {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(message, tag = "5")]
    FileContainingExtension(Extension),
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Extension {
    #[prost(string, tag = "1")]
    containing_type: String,
    #[prost(int32, tag = "2")]
    number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Response {
    #[prost(string, tag = "1")]
    pub(crate) valid_host: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) original_request: Option<Request>,
    #[prost(oneof = "MessageResponse", tags = "4, 5, 6, 7")]
    pub(crate) result: Option<MessageResponse>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum MessageResponse {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "5")]
    Extensions(Extensions),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(crate) descriptors: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Extensions {
    #[prost(string, tag = "1")]
    base_type: String,
    #[prost(int32, repeated, tag = "2")]
    numbers: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Services {
    #[prost(message, repeated, tag = "1")]
    pub(crate) services: Vec<ServiceName>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ServiceName {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ErrorResponse {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

const NOT_FOUND: i32 = 5;

/// The services and contracts that reflection exposes.
#[derive(Default)]
pub(crate) struct ReflectionIndex {
    services: Vec<String>,
    contracts: Vec<Arc<Contract>>,
}

impl ReflectionIndex {
    /// Adds a service with its contract.
    pub(crate) fn add(&mut self, service: &str, contract: Arc<Contract>) {
        self.add_service_name(service);
        if !self.contracts.iter().any(|known| Arc::ptr_eq(known, &contract)) {
            self.contracts.push(contract);
        }
    }

    /// Adds a service without a contract.
    pub(crate) fn add_service_name(&mut self, service: &str) {
        if !self.services.iter().any(|known| known == service) {
            self.services.push(service.to_owned());
        }
    }

    /// Answers one encoded request; `None` if it is malformed.
    pub(crate) fn answer(&self, request: &Bytes) -> Option<Vec<u8>> {
        let request = Request::decode(request.clone()).ok()?;
        let result = match &request.query {
            Some(MessageRequest::ListServices(_)) => Some(MessageResponse::Services(Services {
                services: self.services.iter().map(|name| ServiceName { name: name.clone() }).collect(),
            })),
            Some(MessageRequest::FileByFilename(name)) => self.find_files(|file| file.name == *name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                // A field or enum value is in the file of its enclosing symbol.
                let outer = symbol.rsplit_once('.').map(|(outer, _)| outer);
                self.find_files(|file| file.symbols.contains(symbol))
                    .or_else(|| self.find_files(|file| file.symbols.iter().any(|known| Some(known.as_str()) == outer)))
            }
            Some(MessageRequest::FileContainingExtension(extension)) => self.find_files(|file| {
                let is_match = |(extended, number): &(String, u32)| {
                    *extended == extension.containing_type && i32::try_from(*number) == Ok(extension.number)
                };
                file.extensions.iter().any(is_match)
            }),
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.extension_numbers(name),
            None => None,
        };
        let not_found = || MessageResponse::Error(ErrorResponse { code: NOT_FOUND, message: "not found".to_owned() });
        let response = Response {
            valid_host: request.host.clone(),
            original_request: Some(request),
            result: Some(result.unwrap_or_else(not_found)),
        };
        Some(response.encode_to_vec())
    }

    /// The first matching file, with all its imports.
    fn find_files(&self, matches: impl Fn(&SourceFile) -> bool) -> Option<MessageResponse> {
        let (contract, file) = self
            .contracts
            .iter()
            .find_map(|contract| Some((contract, contract.files().iter().find(|file| matches(file))?)))?;
        let mut names = vec![&file.name];
        let mut descriptors = Vec::new();
        let mut at = 0;
        while let Some(name) = names.get(at) {
            if let Some(file) = contract.files().iter().find(|file| file.name == **name) {
                descriptors.push(file.descriptor.clone());
                for import in &file.imports {
                    if !names.contains(&import) {
                        names.push(import);
                    }
                }
            }
            at += 1;
        }
        Some(MessageResponse::Files(Files { descriptors }))
    }

    fn extension_numbers(&self, name: &str) -> Option<MessageResponse> {
        self.contracts.iter().find(|contract| contract.find_record(name).is_some())?;
        let files = self.contracts.iter().flat_map(|contract| contract.files());
        let all = files.flat_map(|file| &file.extensions).filter(|(extended, _)| extended == name);
        let numbers = all.filter_map(|(_, number)| i32::try_from(*number).ok()).collect();
        Some(MessageResponse::Extensions(Extensions { base_type: name.to_owned(), numbers }))
    }
}
