//! The members of the cluster and the options of this instance, as checked.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crossdock_tls::MutualTls;
use crossdock_zab::{Config, LogId, ServerId};
use tokio::sync::Semaphore;

use crate::address::Address;
use crate::wal;

/// An instance of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The address where it listens for other instances. A name needs TLS, as it does not identify a connection.
    pub address: Address,
    /// Whether it is to be a voter of a new cluster; otherwise it is an observer.
    pub votes: bool,
}

/// Limits of what waits in memory, in bytes unless stated otherwise. None may be 0.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Commands that are not answered yet; further ones wait.
    pub commands: usize,
    /// The same for commands with reserved capacity.
    pub reserved_commands: usize,
    /// Writes to the log. From there on, nothing is accepted.
    pub log: usize,
    /// Transactions that are not applied yet, at least 2. From there on, no commands without reserved capacity are accepted
    /// until half of them are applied.
    pub behind: usize,
    /// The same, without those that were committed before this instance followed. From there on, nothing is accepted.
    pub behind_max: usize,
    /// The number of messages for one other instance. If there are more, its connection is reopened.
    pub messages: usize,
}

impl Limits {
    /// Whether an instance can work with them.
    fn are_usable(&self) -> bool {
        let of_semaphores = [self.commands, self.reserved_commands, self.messages];
        of_semaphores.iter().all(|limit| (1..=Semaphore::MAX_PERMITS).contains(limit))
            && self.log >= 1
            && self.behind >= 2
            && self.behind_max >= 1
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commands: 128 << 20,
            reserved_commands: 4 << 20,
            log: 128 << 20,
            behind: 64 << 20,
            behind_max: 256 << 20,
            messages: 20_000,
        }
    }
}

/// The options of this instance.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the cluster; connections from other clusters are refused.
    pub cluster: String,
    /// This instance.
    pub id: ServerId,
    /// The instances that this one connects to, and itself. Which of them vote is decided by the membership in the log;
    /// the list only matters for that when a cluster is formed.
    pub members: BTreeMap<ServerId, Member>,
    /// The folder of the log and snapshots.
    pub data: PathBuf,
    /// Creates the log if there is none, as one that may form a cluster with the members that vote. An instance that
    /// lost its log recovers from the others all the same; but one that is alone forms another, empty cluster.
    pub create: bool,
    /// Mutual TLS between instances, each with a certificate for [`Settings::certificate_name`]. Without it, a
    /// connection is identified by its source address alone.
    pub tls: Option<MutualTls>,
    /// Permits members on other machines without TLS. Otherwise, all addresses must be loopback addresses.
    pub is_network_trusted: bool,
    /// The unit of all timeouts.
    pub tick: Duration,
    /// Maximum number of transactions between two snapshots.
    pub snapshot_every: u64,
    /// Bytes of transactions between two snapshots, with their overhead in memory; more if the last snapshot is larger.
    pub snapshot_bytes: usize,
    /// How long a command waits to find out whether it was executed, after the leader was lost.
    pub outcome_timeout: Duration,
    /// Bytes of a snapshot that are written, or sent, per second.
    pub snapshot_rate: u64,
    /// The options of the log.
    pub log: wal::Options,
    /// Limits of what waits in memory.
    pub limits: Limits,
    /// The protocol versions that it speaks: those of this release, or fewer.
    pub versions: RangeInclusive<u32>,
}

impl Settings {
    /// An instance with the default timeouts and limits.
    #[must_use]
    pub fn new(cluster: &str, id: ServerId, members: BTreeMap<ServerId, Member>, data: PathBuf) -> Self {
        Self {
            cluster: cluster.to_owned(),
            id,
            members,
            data,
            create: false,
            tls: None,
            is_network_trusted: false,
            tick: Duration::from_millis(20),
            snapshot_every: 1_000_000,
            snapshot_bytes: 256 << 20,
            outcome_timeout: Duration::from_secs(10),
            snapshot_rate: 64 << 20,
            log: wal::Options::default(),
            limits: Limits::default(),
            versions: crate::wire::VERSIONS,
        }
    }

    /// The name in the certificate of an instance, such as `2.shop`.
    #[must_use]
    pub fn certificate_name(&self, id: ServerId) -> String {
        format!("{id}.{}", self.cluster)
    }

    /// Checks what would keep the instance from working.
    ///
    /// # Errors
    /// This server is not a member, no member votes, or a limit is 0 or too large; see [`Settings::check_network`].
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.members.contains_key(&self.id) {
            return Err(format!("server {} is not one of the members", self.id));
        }
        if !self.members.values().any(|member| member.votes) {
            return Err("no member votes".to_owned());
        }
        if !self.limits.are_usable() {
            return Err(format!("a limit is 0 or too large: {:?}", self.limits));
        }
        self.check_network()
    }

    /// Checks the members' addresses where connections are not authenticated.
    ///
    /// # Errors
    /// An address that needs TLS or a trusted network, or a mix of address families.
    fn check_network(&self) -> Result<(), String> {
        if self.tls.is_some() {
            return Ok(());
        }
        let mut addresses = Vec::new();
        for (id, member) in &self.members {
            let ip = member.address.ip().ok_or_else(|| {
                format!(
                    "server {id} is at {}, and names need TLS: without it, addresses identify members",
                    member.address
                )
            })?;
            addresses.push((id, ip));
        }
        let has_v4 = addresses.iter().any(|(_, ip)| ip.is_ipv4());
        if has_v4 && addresses.iter().any(|(_, ip)| ip.is_ipv6()) {
            return Err(
                "without TLS, members are identified by their addresses: use IPv4 for all of them, or IPv6 for all"
                    .to_owned(),
            );
        }
        if self.is_network_trusted {
            return Ok(());
        }
        match self.members.iter().find(|(_, member)| !member.address.ip().is_some_and(|ip| ip.is_loopback())) {
            Some((id, member)) => Err(format!(
                "server {id} is at {}, which other machines can reach: configure TLS, or declare the network as trusted",
                member.address
            )),
            None => Ok(()),
        }
    }

    /// Maximum bytes of messages that wait for a peer: what a follower that has fallen behind may be sent in one go, and
    /// proposals until a quorum has them.
    pub(crate) fn queue_bytes(&self) -> usize {
        let config = self.zab(LogId(0), false);
        (2 * config.outstanding_bytes_max).saturating_add(4 * config.payload_max)
    }

    /// The configuration of the core for this instance's log, which may form a cluster if it `founds`.
    pub(crate) fn zab(&self, log: LogId, founds: bool) -> Config {
        let mut config = Config::new(self.id, log);
        config.payload_max = config.payload_max.min(self.log.payload_max());
        if founds {
            config.founders = self.members.iter().filter(|(_, member)| member.votes).map(|(id, _)| *id).collect();
        }
        config
    }

    pub(crate) fn identity(&self) -> wal::Identity {
        // FNV-1a: only equality matters, and it must be the same on every machine.
        let hash = self
            .cluster
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        wal::Identity { cluster: hash, server: self.id.0 }
    }
}
