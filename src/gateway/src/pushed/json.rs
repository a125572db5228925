//! The files of a generation as JSON: an object with the content of each path in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::config::PushedFiles;

pub(crate) fn files_to_json(files: &PushedFiles) -> Value {
    files.iter().map(|(path, content)| (path.clone(), Value::String(STANDARD.encode(content)))).collect()
}

/// `None` if it is something else.
pub(crate) fn files_from_json(files: &Value) -> Option<PushedFiles> {
    let file =
        |(path, content): (&String, &Value)| Some((path.clone(), STANDARD.decode(content.as_str()?).ok()?.into()));
    files.as_object()?.iter().map(file).collect()
}
