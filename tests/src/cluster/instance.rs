//! One instance, as a process.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::until_within;

/// For an answer; what takes longer may be done or not.
const PATIENCE: Duration = Duration::from_millis(300);
/// For instances to agree on a leader, on a machine that does other things as well.
const SETTLING: Duration = Duration::from_secs(20);

/// An instance of a cluster whose machine is a register: a process that is started, ended, frozen. It ends with this.
pub struct Instance {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// For its environment.
    pub environment: Vec<(String, String)>,
    /// The folder of its log.
    pub data: PathBuf,
    /// Where clients find it.
    pub clients: SocketAddr,
    /// The process, while it runs.
    pub child: Option<Child>,
}

impl Instance {
    /// Starts the process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self) {
        let (program, arguments) = self.command.split_first().expect("a command");
        let mut command = Command::new(program);
        command.args(arguments).envs(self.environment.iter().cloned());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("it starts"));
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes the log; the next start begins one in its place.
    ///
    /// # Panics
    /// When there is none.
    pub fn lose_log(&mut self) {
        std::fs::remove_dir_all(&self.data).expect("a log");
        if !self.command.iter().any(|argument| argument == "lost") {
            self.command.push("lost".to_owned());
        }
    }

    /// Asks the process to end, and waits for it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn end(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("it runs");
        until_within(SETTLING, "the process to end", || child.try_wait().is_ok_and(|ended| ended.is_some()));
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
            assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
        }
    }

    /// What it is: `leading`, `following`, `looking`; nothing where it does not answer.
    #[must_use]
    pub fn role(&self) -> String {
        let answer = Line::open(self.clients).and_then(|mut line| line.ask("0 status").ok());
        answer.unwrap_or_default().strip_prefix("0 ").unwrap_or_default().to_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The instance that leads, once one does.
///
/// # Panics
/// When none does in time.
#[must_use]
pub fn leader(instances: &[Instance]) -> usize {
    let mut found = None;
    until_within(SETTLING, "a leader", || {
        found = instances.iter().position(|instance| instance.child.is_some() && instance.role() == "leading");
        found.is_some()
    });
    found.expect("a leader")
}

/// Waits until one instance leads and all others follow.
///
/// # Panics
/// When they do not in time.
pub fn wait_until_all_follow(instances: &[Instance]) {
    until_within(SETTLING, "all to follow", || {
        // One that led before may take a moment to learn that it does not any more.
        let roles: Vec<String> = instances.iter().map(Instance::role).collect();
        let of = |role: &str| roles.iter().filter(|other| *other == role).count();
        of("leading") == 1 && of("following") == instances.len() - 1
    });
}

/// A connection of a client.
pub struct Line {
    write: TcpStream,
    read: BufReader<TcpStream>,
}

impl Line {
    /// A connection with an instance; nothing where there is none in time.
    #[must_use]
    pub fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { write: stream.try_clone().ok()?, read: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Where there is none in time: whether it was done is not known.
    pub fn ask(&mut self, question: &str) -> std::io::Result<String> {
        self.write.write_all(format!("{question}\n").as_bytes())?;
        let mut answer = String::new();
        match self.read.read_line(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}
