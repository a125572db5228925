//! Programs of others, installed by the project's scripts into a cache of this user.

use std::path::PathBuf;
use std::process::Command;

use crate::repository;

/// The cache folder of one kind of peers, set up by `tests/peers/KIND/setup.sh`, which does nothing where all is there.
///
/// # Panics
/// When the script fails.
#[must_use]
pub fn peers(kind: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let folder = cache.join("crossdock-tests").join(kind);
    std::fs::create_dir_all(&folder).expect("a cache folder");
    let script = repository().join("tests/peers").join(kind).join("setup.sh");
    let status = Command::new("bash").arg(&script).arg(&folder).status().expect("bash runs");
    assert!(status.success(), "{} could not set up its peers", script.display());
    folder
}
