//! Server reflection, `grpc.reflection.v1` and `v1alpha`, which are the same messages: questions about descriptors, and
//! their answers from contracts.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, SourceFile};
use prost::Message as _;

/// Where questions are asked, the newer one first.
pub(crate) const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    pub(crate) host: String,
    #[prost(oneof = "Question", tags = "3, 4, 5, 6, 7")]
    pub(crate) question: Option<Question>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Question {
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
    #[prost(oneof = "Answer", tags = "4, 5, 6, 7")]
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "5")]
    Extensions(Extensions),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ErrorAnswer),
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
pub(crate) struct ErrorAnswer {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

const NOT_FOUND: i32 = 5;

/// What can be asked about.
#[derive(Default)]
pub(crate) struct Described {
    services: Vec<String>,
    contracts: Vec<Arc<Contract>>,
}

impl Described {
    /// Adds a service that is served, with its contract.
    pub(crate) fn add(&mut self, service: &str, contract: Arc<Contract>) {
        self.add_name(service);
        if !self.contracts.iter().any(|known| Arc::ptr_eq(known, &contract)) {
            self.contracts.push(contract);
        }
    }

    /// Adds a service without a contract of its own.
    pub(crate) fn add_name(&mut self, service: &str) {
        if !self.services.iter().any(|known| known == service) {
            self.services.push(service.to_owned());
        }
    }

    /// The answer to one question; nothing where it cannot be read.
    pub(crate) fn answer(&self, question: &Bytes) -> Option<Vec<u8>> {
        let request = Request::decode(question.clone()).ok()?;
        let answer = match &request.question {
            Some(Question::ListServices(_)) => Some(Answer::Services(Services {
                services: self.services.iter().map(|name| ServiceName { name: name.clone() }).collect(),
            })),
            Some(Question::FileByFilename(name)) => self.files(|file| file.name == *name),
            Some(Question::FileContainingSymbol(symbol)) => {
                // A field or a value of an enumeration stands in the file of what it belongs to.
                let outer = symbol.rsplit_once('.').map(|(outer, _)| outer);
                self.files(|file| file.symbols.contains(symbol))
                    .or_else(|| self.files(|file| file.symbols.iter().any(|known| Some(known.as_str()) == outer)))
            }
            Some(Question::FileContainingExtension(extension)) => self.files(|file| {
                let same = |(of, number): &(String, u32)| {
                    *of == extension.containing_type && i32::try_from(*number) == Ok(extension.number)
                };
                file.extensions.iter().any(same)
            }),
            Some(Question::AllExtensionNumbersOfType(name)) => self.extensions(name),
            None => None,
        };
        let not_found = || Answer::Error(ErrorAnswer { code: NOT_FOUND, message: "it is not known here".to_owned() });
        let response = Response {
            valid_host: request.host.clone(),
            original_request: Some(request),
            answer: Some(answer.unwrap_or_else(not_found)),
        };
        Some(response.encode_to_vec())
    }

    /// The file that holds what is asked for, and all that it imports.
    fn files(&self, holds: impl Fn(&SourceFile) -> bool) -> Option<Answer> {
        let (contract, file) = self
            .contracts
            .iter()
            .find_map(|contract| Some((contract, contract.files().iter().find(|file| holds(file))?)))?;
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
        Some(Answer::Files(Files { descriptors }))
    }

    fn extensions(&self, name: &str) -> Option<Answer> {
        self.contracts.iter().find(|contract| contract.find_record(name).is_some())?;
        let files = self.contracts.iter().flat_map(|contract| contract.files());
        let all = files.flat_map(|file| &file.extensions).filter(|(of, _)| of == name);
        let numbers = all.filter_map(|(_, number)| i32::try_from(*number).ok()).collect();
        Some(Answer::Extensions(Extensions { base_type: name.to_owned(), numbers }))
    }
}
