//! A private disk of an instance that can be made to stall.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a file, unmounted on drop. Needs root.
pub struct Disk {
    /// The mount point.
    pub path: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().expect("a program");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Disk {
    /// Mounts a disk of `bytes` bytes at `path`.
    ///
    /// # Panics
    /// If that is not permitted.
    #[must_use]
    pub fn mount(path: PathBuf, bytes: u64) -> Self {
        let image = path.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("a file");
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        std::fs::create_dir_all(&path).expect("a folder");
        run("mount", &[Path::new("-oloop"), &image, &path]);
        Self { path }
    }

    /// Makes writes and syncs block until [`Disk::thaw`].
    ///
    /// # Panics
    /// If that is not permitted.
    pub fn freeze(&self) {
        run("fsfreeze", &[Path::new("-f"), &self.path]);
    }

    /// Lets blocked writes and syncs continue.
    ///
    /// # Panics
    /// If the disk was not frozen.
    pub fn thaw(&self) {
        run("fsfreeze", &[Path::new("-u"), &self.path]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failed test may leave it frozen.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.path).output();
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
