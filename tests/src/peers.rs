//! Third-party programs that tests talk to, installed by `tests/peers/*/setup.sh` into the user's cache.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::{Gateway, repository};

/// The cache folder of one kind of peers, after running its setup script, which does nothing if all are installed.
///
/// # Panics
/// If the script fails.
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

/// A server process that prints its address; killed on drop.
pub struct Peer {
    child: Child,
    /// The address it listens on.
    pub address: String,
}

impl Peer {
    /// Starts the process and waits for a line with `127.0.0.1:PORT` on its standard output.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the peer starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut is_sent = false;
            // Read to the end, so that the peer never blocks on a full pipe.
            for line in lines.lines().map_while(Result::ok) {
                let port = line.split("127.0.0.1:").nth(1);
                let port = port.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
                if let Some(port) = port.filter(|port| !is_sent && !port.is_empty()) {
                    is_sent = sender.send(port).is_ok();
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

/// Runs a peer to completion; returns whether it succeeded, and its output.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run_peer(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the peer starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Runs the HTTP/2 attacks of `tests/peers/http2/abuse.py` against a listener; `arguments` follow the process id.
///
/// # Panics
/// If an attack succeeds.
pub fn abuse(gateway: &Gateway, listener: &str, arguments: &[&str]) {
    let address = gateway.listener(listener);
    let (host, port) = address.split_once(':').expect("a port");
    let mut command = Command::new("timeout");
    command.arg("400").arg("python3").arg(repository().join("tests/peers/http2/abuse.py"));
    command.args([host, port, &gateway.pid().to_string()]).args(arguments);
    let (is_success, output) = run_peer(&mut command);
    println!("{output}");
    assert!(is_success && output.contains(" passed, 0 failed"), "{output}");
}
