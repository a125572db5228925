//! `contracts`.

use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, ProtoError, from_descriptor_set};
use crossdock_message::ByteString;
use crossdock_proto::{Files, compile};
use crossdock_settings::{FromNode as _, Key, Node, OneOrMany, Reader, Span, Spanned};

use super::{Loader, check_name};

crossdock_settings::settings! {
    /// a contract
    pub(crate) struct ContractSettings {
        /// `.proto` files, relative to the folder of crossdock.yaml.
        pub(crate) proto: Option<OneOrMany<Spanned<String>>>,
        /// Folders that are searched for imports; the folders of the files by default.
        pub(crate) include: Vec<String>,
        /// A descriptor set, as written by `protoc --include_imports --descriptor_set_out` and `buf build`.
        pub(crate) descriptor_set: Option<Spanned<String>>,
        /// The address of a service that supports reflection: `http://host:port`.
        pub(crate) reflection: Option<Spanned<String>>,
    }
}

/// Files below folders, by paths relative to them.
struct Included<'a> {
    files: &'a dyn Files,
    folders: Vec<String>,
}

impl Files for Included<'_> {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        if name.split('/').any(|part| part == ".." || part == "." || part.is_empty()) {
            return Ok(None);
        }
        for folder in &self.folders {
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            if let Some(content) = self.files.read(&path)? {
                return Ok(Some(content));
            }
        }
        Ok(None)
    }
}

impl Loader<'_> {
    pub(super) fn contract(&mut self, key: &Key, node: &Node, reader: &mut Reader<'_>) {
        check_name(key, "contract", reader);
        let Some(settings) = ContractSettings::from_node(node, reader) else { return };
        let ways = [settings.proto.is_some(), settings.descriptor_set.is_some(), settings.reflection.is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            let help = "write one of `proto: file.proto`, `descriptor_set: file` and `reflection: http://host:port`";
            reader.error("contract", node.span, "a contract has exactly one kind of source", help);
            return;
        }
        let read = match (&settings.proto, &settings.descriptor_set, &settings.reflection) {
            (Some(files), _, _) => self.compiled(&files.0, &settings.include, reader),
            (_, Some(file), _) => self.described(file, reader),
            (_, _, Some(address)) => self.reflected(address, reader),
            _ => None,
        };
        if let Some(contract) = read {
            self.contracts.add(ByteString::from(key.name.as_str()), Arc::new(contract));
        } else {
            self.contracts_failed = true;
        }
    }

    fn compiled(&self, files: &[Spanned<String>], include: &[String], reader: &mut Reader<'_>) -> Option<Contract> {
        let folder_of =
            |file: &Spanned<String>| file.value.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut folders: Vec<String> = include.iter().map(|folder| folder.trim_end_matches('/').to_owned()).collect();
        if folders.is_empty() {
            folders = files.iter().map(folder_of).collect();
            folders.dedup();
        }
        let mut names = Vec::new();
        for file in files {
            let inside = |folder: &&String| folder.is_empty() || file.value.starts_with(&format!("{folder}/"));
            let Some(folder) = folders.iter().find(inside) else {
                let help = "add its folder to `include`";
                let message = format!("`{}` is not below any folder of `include`", file.value);
                reader.error("contract", file.span, message, help);
                return None;
            };
            names.push(if folder.is_empty() { file.value.as_str() } else { &file.value[folder.len() + 1..] });
        }
        let span = files.first().map(|file| file.span)?;
        let included = Included { files: self.inputs.files, folders };
        compile(&names, &included).map_err(|error| report(&error, span, reader)).ok()
    }

    fn described(&self, file: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Contract> {
        let content = match self.inputs.files.read(&file.value) {
            Ok(Some(content)) => content,
            Ok(None) => {
                let help = "name a file relative to the folder of crossdock.yaml";
                reader.error("contract", file.span, format!("there is no file `{}`", file.value), help);
                return None;
            }
            Err(problem) => {
                reader.error("contract", file.span, problem, "");
                return None;
            }
        };
        from_descriptor_set(&content).map_err(|error| report(&error, file.span, reader)).ok()
    }

    fn reflected(&self, address: &Spanned<String>, reader: &mut Reader<'_>) -> Option<Contract> {
        match (self.inputs.reflect)(&address.value) {
            Ok(set) => from_descriptor_set(&set).map_err(|error| report(&error, address.span, reader)).ok(),
            Err(problem) => {
                let message = format!("reflection of `{}` failed: {problem}", address.value);
                let help = "start the service, or store its contract in a file: `descriptor_set: file`";
                reader.error("contract", address.span, message, help);
                None
            }
        }
    }
}

/// Reports an error at its position in the contract's file if that is known.
fn report(error: &ProtoError, span: Span, reader: &mut Reader<'_>) {
    match &error.location {
        Some(place) => {
            let source = reader.diagnostics.add_source(place.file.clone(), place.text.clone());
            let span = Span { source, start: place.range.start, end: place.range.end };
            let help = "fix the contract; imports are searched in `include`, relative to the folder of crossdock.yaml";
            reader.error("contract", span, error.problem.clone(), help);
        }
        None => {
            let help = "name files relative to the folder of crossdock.yaml; imports are searched in `include`";
            reader.error("contract", span, error.problem.clone(), help);
        }
    }
}
