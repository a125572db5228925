//! One instance as a process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::until_within;

/// Time limit for a response; after it, the outcome is unknown.
const RESPONSE_TIME: Duration = Duration::from_millis(300);
/// Time limit for electing a leader, on a busy machine.
const SETTLE_TIME: Duration = Duration::from_secs(20);

/// An instance of a cluster that replicates a register: a `register-node` process, killed on drop.
pub struct Instance {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Additional environment variables.
    pub environment: Vec<(String, String)>,
    /// The folder of its log.
    pub data: PathBuf,
    /// The address for clients.
    pub clients: SocketAddr,
    /// The process while it runs.
    pub child: Option<Child>,
}

impl Instance {
    /// Starts the process.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&mut self) {
        let (program, arguments) = self.command.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(arguments).envs(self.environment.iter().cloned());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("it starts"));
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes the log; the next start creates another one.
    ///
    /// # Panics
    /// If there is no log.
    pub fn lose_log(&self) {
        std::fs::remove_dir_all(&self.data).expect("a log");
    }

    /// Terminates the process with SIGTERM and waits for its exit.
    ///
    /// # Panics
    /// If it does not exit in time.
    pub fn shut_down(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("it runs");
        until_within(SETTLE_TIME, "the process to exit", || child.try_wait().is_ok_and(|ended| ended.is_some()));
    }

    /// Sends a signal, given by its name such as `STOP`.
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
            assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
        }
    }

    /// Its role: `leading`, `following` or `looking`; empty if it does not respond.
    #[must_use]
    pub fn role(&self) -> String {
        let answer = LineClient::open(self.clients).and_then(|mut line| line.request("0 status").ok());
        answer.unwrap_or_default().strip_prefix("0 ").unwrap_or_default().to_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until an instance leads and returns its index.
///
/// # Panics
/// If none leads in time.
#[must_use]
pub fn leader(instances: &[Instance]) -> usize {
    let mut found = None;
    until_within(SETTLE_TIME, "a leader", || {
        found = instances.iter().position(|instance| instance.child.is_some() && instance.role() == "leading");
        found.is_some()
    });
    found.expect("a leader")
}

/// Waits until one instance leads and all others follow.
///
/// # Panics
/// If that does not happen in time.
pub fn wait_until_all_follow(instances: &[Instance]) {
    until_within(SETTLE_TIME, "all to follow", || {
        // A deposed leader may still report that it leads.
        let roles: Vec<String> = instances.iter().map(Instance::role).collect();
        let count = |role: &str| roles.iter().filter(|other| *other == role).count();
        count("leading") == 1 && count("following") == instances.len() - 1
    });
}

/// A client connection that sends lines.
pub struct LineClient {
    write: TcpStream,
    read: BufReader<TcpStream>,
}

impl LineClient {
    /// Connects to an instance; `None` if that fails or takes too long.
    #[must_use]
    pub fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, RESPONSE_TIME).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(RESPONSE_TIME)).ok()?;
        Some(Self { write: stream.try_clone().ok()?, read: BufReader::new(stream) })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// If no answer arrives in time; it is then unknown whether the request was executed.
    pub fn request(&mut self, request: &str) -> std::io::Result<String> {
        self.write.write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        match self.read.read_line(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}
