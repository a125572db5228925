//! Programs of others, installed by the project's scripts into a cache of this user.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Gateway, repository};

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

/// A program that says on its standard output where it listens; ended with the test, by its own id.
pub struct Peer {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Peer {
    /// Starts one; its first line with `127.0.0.1:PORT` says where it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the peer starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut told = false;
            // Read to the end, so that the peer never waits for its reader.
            for line in lines.lines().map_while(Result::ok) {
                let port = line.split("127.0.0.1:").nth(1);
                let port = port.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
                if let Some(port) = port.filter(|port| !told && !port.is_empty()) {
                    told = sender.send(port).is_ok();
                }
            }
        });
        let port = receiver.recv_timeout(std::time::Duration::from_secs(20)).expect("the peer listens");
        Self { child, address: format!("127.0.0.1:{port}") }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program that judges and tells; gives whether it was content, and what it told.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn judged(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the judge starts");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), told)
}

/// Abuses a listener of a gateway as only raw HTTP/2 can; the arguments are those behind the process's id.
///
/// # Panics
/// When an attack does harm.
pub fn abuse(gateway: &Gateway, listener: &str, arguments: &[&str]) {
    let address = gateway.listener(listener);
    let (host, port) = address.split_once(':').expect("a port");
    let mut command = Command::new("timeout");
    command.arg("400").arg("python3").arg(repository().join("tests/peers/http2/abuse.py"));
    command.args([host, port, &gateway.pid().to_string()]).args(arguments);
    let (good, told) = judged(&mut command);
    println!("{told}");
    assert!(good && told.contains(" passed, 0 failed"), "{told}");
}
