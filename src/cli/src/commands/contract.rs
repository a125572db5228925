//! `crossdock contract`, and the contract arguments of other commands.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use crossdock_contract::{Contract, ProtoError, TypeRef, from_descriptor_set, show};
use crossdock_proto::{Files, compile};

use super::ShowAs;
use crate::outcome::{Failure, Outcome};

/// Finds files below include folders.
struct Folders<'a>(Vec<&'a Path>);

impl Files for Folders<'_> {
    fn read(&self, name: &str) -> Result<Option<Bytes>, String> {
        for folder in &self.0 {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(content) => return Ok(Some(content.into())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("cannot read `{}`: {error}", path.display())),
            }
        }
        Ok(None)
    }
}

/// Reads a contract: a `.proto` file, a descriptor set, or the address of a service with server reflection.
pub(super) fn read(source: &str, include: &[std::path::PathBuf]) -> Result<Arc<Contract>, Failure> {
    if source.starts_with("http://") || source.starts_with("https://") {
        let set = crossdock_grpc::reflect(source).map_err(|problem| failed(&format!("{source}: {problem}")))?;
        return from_descriptor_set(&set).map(Arc::new).map_err(|error| failed(&error.to_string()));
    }
    let path = Path::new(source);
    if path.extension().is_none_or(|extension| extension != "proto") {
        let content =
            std::fs::read(path).map_err(|error| Failure::Error(format!("cannot read `{source}`: {error}")))?;
        return from_descriptor_set(&content.into())
            .map(Arc::new)
            .map_err(|error| failed(&format!("{source}: {error}")));
    }
    let own_folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folders: Vec<&Path> =
        if include.is_empty() { vec![own_folder] } else { include.iter().map(std::path::PathBuf::as_path).collect() };
    let name =
        folders.iter().find_map(|folder| path.strip_prefix(folder).ok()).or_else(|| path.file_name().map(Path::new));
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !path.is_file() {
        return Err(Failure::Error(format!("there is no file `{source}`")));
    }
    compile(&[&name], &Folders(folders)).map(Arc::new).map_err(|error| failed(&with_position(&error)))
}

/// An error with its position.
fn with_position(error: &ProtoError) -> String {
    let Some(place) = &error.location else { return error.to_string() };
    let before = &place.text[..place.range.start.min(place.text.len())];
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().map_or(0, |start| start.chars().count());
    format!("{}:{line}:{column}: {}", place.file, error.problem)
}

/// The type with this name.
pub(super) fn type_named(contract: &Arc<Contract>, name: &str) -> Result<TypeRef, Failure> {
    let names = || contract.records().iter().map(|record| &*record.name);
    let missing = || {
        let help = crossdock_settings::nearest(name, names()).map(|meant| format!("; did you mean `{meant}`?"));
        Failure::Error(format!("the contract has no type `{name}`{}", help.unwrap_or_default()))
    };
    let id = contract.find_record(name).ok_or_else(missing)?;
    Ok(TypeRef::new(Arc::clone(contract), id))
}

fn failed(problem: &str) -> Failure {
    eprintln!("{problem}");
    Failure::Failed
}

pub(super) fn show_contract(source: &str, include: &[std::path::PathBuf], form: ShowAs) -> Outcome {
    let contract = read(source, include)?;
    match form {
        ShowAs::Outline => print!("{}", show::outline(&contract)),
        ShowAs::Proto => print!("{}", show::proto(&contract)),
        ShowAs::JsonSchema => println!("{:#}", show::json_schema(&contract)),
    }
    Ok(())
}
