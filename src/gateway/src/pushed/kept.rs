//! The copy of the generation in force that an instance keeps, to start with while the cluster has no majority.
//!
//! The history in the log does not say what is in force without a majority: its last transactions may not be decided.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::json::{files_from_json, files_to_json};
use crate::actors::Pushed;
use crate::error::LoadError;

const FILE: &str = "routes-in-force.json";

/// Where the copy is.
#[derive(Debug, Clone)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    /// In the folder of a member's data.
    pub(crate) fn new(data: &Path) -> Self {
        Self(data.join(FILE))
    }

    /// Replaces the copy, durably: after a loss of power, it is the old or the new one.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) async fn write(&self, pushed: &Pushed) -> io::Result<()> {
        let (path, pushed) = (self.0.clone(), pushed.clone());
        tokio::task::spawn_blocking(move || {
            let content = json!({ "generation": pushed.number, "files": files_to_json(&pushed.files) });
            let new = path.with_extension("new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&content)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            File::open(path.parent().unwrap_or(&path))?.sync_all()
        })
        .await
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }

    /// The copy; `None` if there is none, because nothing was pushed.
    ///
    /// # Errors
    /// [`LoadError::Read`] if it cannot be read.
    pub(crate) fn read(&self) -> Result<Option<Pushed>, LoadError> {
        let bytes = match std::fs::read(&self.0) {
            Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(None),
            read => read,
        };
        bytes
            .and_then(|bytes| parse(&bytes))
            .map(Some)
            .map_err(|source| LoadError::Read { path: self.0.clone(), source })
    }
}

fn parse(bytes: &[u8]) -> io::Result<Pushed> {
    let content: Value = serde_json::from_slice(bytes)?;
    let number = content.get("generation").and_then(Value::as_u64);
    let (Some(number), Some(files)) = (number, content.get("files").and_then(files_from_json)) else {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is damaged"));
    };
    Ok(Pushed { number, files: Arc::new(files) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn the_last_copy_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::new(folder.path());
        assert!(kept.read().expect("no file").is_none());
        for number in [3, 4] {
            let content = vec![number, 0xFF];
            let files = Arc::new(BTreeMap::from([("routes/a.yaml".to_owned(), content.into())]));
            kept.write(&Pushed { number: number.into(), files }).await.expect("written");
        }
        let read = kept.read().expect("read").expect("a copy");
        assert_eq!((read.number, &read.files["routes/a.yaml"][..]), (4, &[4, 0xFF][..]));
        std::fs::write(folder.path().join(FILE), "{").expect("written");
        assert!(kept.read().is_err());
    }
}
