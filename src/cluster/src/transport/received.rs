//! The file of a snapshot that is being received.

use std::path::{Path, PathBuf};

/// A file that is deleted on drop, unless it is kept: the connection may end at any await between its first byte and its
/// use, and nothing else knows of the file before the next start.
#[derive(Debug)]
pub(crate) struct ReceivedFile(Option<PathBuf>);

impl ReceivedFile {
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

impl Drop for ReceivedFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
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
        drop(ReceivedFile::new(dropped.clone()));
        assert_eq!(ReceivedFile::new(kept.clone()).keep(), kept);
        assert!(!dropped.exists() && kept.exists());
    }
}
