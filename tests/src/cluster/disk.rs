//! A disk of an instance's own, that can be made to stall.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a file. It is unmounted when this is dropped. Needs root.
pub struct Disk {
    /// Where it is mounted.
    pub path: PathBuf,
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().expect("a program");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Disk {
    /// A disk of so many bytes, mounted at `path`.
    ///
    /// # Panics
    /// Where that is not allowed.
    #[must_use]
    pub fn mount(path: PathBuf, bytes: u64) -> Self {
        let image = path.with_extension("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("a file");
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        std::fs::create_dir_all(&path).expect("a folder");
        run("mount", &[Path::new("-oloop"), &image, &path]);
        Self { path }
    }

    /// Whoever writes or syncs waits from now on.
    ///
    /// # Panics
    /// Where that is not allowed.
    pub fn freeze(&self) {
        run("fsfreeze", &[Path::new("-f"), &self.path]);
    }

    /// All that waited goes on.
    ///
    /// # Panics
    /// Where it was not frozen.
    pub fn thaw(&self) {
        run("fsfreeze", &[Path::new("-u"), &self.path]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may be frozen where a test has failed.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.path).output();
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
