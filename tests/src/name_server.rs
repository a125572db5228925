//! A DNS server in its own network namespace, which is configured to use it. Needs root, `ip` and `dnsmasq`.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::until;

/// IPv6 addresses of the namespace's loopback interface.
pub const IPV6: [&str; 2] = ["fd00:cd::1", "fd00:cd::2"];

/// A namespace whose DNS server answers for names below `.test`. Deleted on drop.
pub struct NameServer {
    namespace: String,
    folder: TempDir,
    ttl_s: u32,
    process: Option<Child>,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl NameServer {
    /// Creates the namespace and moves this thread, and threads it spawns later, there. The server is not started yet; its answers will have
    /// a TTL of `ttl_s` seconds.
    ///
    /// # Panics
    /// If that is not permitted.
    #[must_use]
    pub fn enter(ttl_s: u32) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let namespace = format!("crossdock-dns-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        ip(&format!("netns add {namespace}"));
        let this = Self { namespace, folder: tempfile::tempdir().expect("a folder"), ttl_s, process: None };
        ip(&format!("-n {} link set lo up", this.namespace));
        for address in IPV6 {
            ip(&format!("-n {} addr add {address}/128 dev lo", this.namespace));
        }
        let settings = this.settings();
        std::fs::create_dir_all(&settings).expect("root");
        std::fs::write(settings.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            .expect("a file");
        std::fs::write(settings.join("hosts"), "127.0.0.1 localhost\n").expect("a file");
        this.set(&[]);
        let file = File::open(format!("/run/netns/{}", this.namespace)).expect("a namespace");
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
        this
    }

    /// The folder whose files `ip netns exec` mounts over those in `/etc`.
    fn settings(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.namespace)
    }

    fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// The command prefix that runs a command in the namespace.
    #[must_use]
    pub fn command(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespace]
    }

    /// Replaces all names and their addresses. Names that are not listed do not exist.
    ///
    /// # Panics
    /// If the server cannot be notified.
    pub fn set(&self, names: &[(&str, &[&str])]) {
        let lines =
            names.iter().flat_map(|(name, addresses)| addresses.iter().map(move |one| format!("{one} {name}\n")));
        std::fs::write(self.hosts(), lines.collect::<String>()).expect("a file");
        if let Some(process) = &self.process {
            let pid = Pid::from_raw(i32::try_from(process.id()).expect("a number")).expect("a process");
            kill_process(pid, Signal::HUP).expect("it runs");
        }
    }

    /// Replaces the entries of the namespace's `/etc/hosts` other than `localhost`, also for running programs.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set_hosts_file(&self, text: &str) {
        std::fs::write(self.settings().join("hosts"), format!("127.0.0.1 localhost\n{text}")).expect("a file");
    }

    /// Starts the server.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn start(&mut self) {
        let [program, arguments @ ..] = self.command();
        let mut command = Command::new(program);
        command.args(arguments).args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]);
        command.args([
            "--no-hosts",
            "--user=root",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--local=/test/",
        ]);
        command.arg(format!("--addn-hosts={}", self.hosts().display())).arg(format!("--local-ttl={}", self.ttl_s));
        command.arg(format!("--pid-file={}", self.folder.path().join("pid").display()));
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("dnsmasq starts"));
        until("the DNS server to answer", answers);
    }

    /// Stops the server; queries remain unanswered.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Whether the DNS server of this thread's namespace answers queries.
fn answers() -> bool {
    // A query for the A records of `a.test` (RFC 1035 §4.1).
    const QUERY: &[u8] = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";
    let query = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
        socket.connect("127.0.0.1:53")?;
        socket.send(QUERY)?;
        socket.recv(&mut [0; 512])
    };
    query().is_ok()
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).output();
        let _ = std::fs::remove_dir_all(self.settings());
    }
}
