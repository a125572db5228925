//! A file that is deleted unless somebody keeps it.

use std::path::{Path, PathBuf};

use crate::platform::files;

/// A file that is deleted on drop, unless it is kept: a connection or a request may end at any await between its first byte
/// and its use, and nothing else knows of the file before the next start. It need not exist yet.
#[derive(Debug)]
pub(crate) struct TemporaryFile(Option<PathBuf>);

impl TemporaryFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// The caller deletes the file.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = files::remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_keeps_is_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let [dropped, kept] = ["dropped", "kept"].map(|name| folder.path().join(name));
        for path in [&dropped, &kept] {
            std::fs::write(path, b"state").expect("a disk");
        }
        drop(TemporaryFile::new(dropped.clone()));
        assert_eq!(TemporaryFile::new(kept.clone()).keep(), kept);
        assert!(!dropped.exists() && kept.exists());
    }
}
