//! A cluster that grows from one voter to five and shrinks again, over and over, while instances are killed and frozen
//! and clients write and read: no acknowledged write is lost, and the clients' history is linearizable.
//! `CROSSDOCK_ROUNDS` configures longer runs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossdock_tests::cluster::{Clients, Instance, LineClient};
use crossdock_tests::{free_address, until_within};

const INSTANCES: usize = 5;
/// Time limit for a change of the voters, with the fault during it.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an instance is down or frozen: longer than every timeout of an election.
const FAULT_TIME: Duration = Duration::from_millis(1_200);

/// What happens while the voters change.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    /// The leader is killed and restarted.
    KillLeader,
    /// The leader is frozen, then continues in the belief that it leads.
    FreezeLeader,
    /// The instance that is added or removed is killed and restarted.
    KillSubject,
    /// All instances are killed and restarted.
    KillAll,
}

const FAULTS: [Fault; 5] = [Fault::KillLeader, Fault::KillSubject, Fault::FreezeLeader, Fault::KillAll, Fault::None];

struct Cluster {
    instances: Vec<Instance>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Five instances, of which the first one founds the cluster alone.
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses: Vec<SocketAddr> = (0..INSTANCES).map(|_| free_address()).collect();
        let members: Vec<String> = addresses.iter().zip(1..).map(|(address, id)| format!("{id}={address}")).collect();
        let instance = |id: usize| {
            let (clients, data) = (free_address(), folder.path().join(id.to_string()));
            let program = env!("CARGO_BIN_EXE_register-node").to_owned();
            let arguments = [id.to_string(), data.display().to_string(), clients.to_string(), members.join(",")];
            let command = [program].into_iter().chain(arguments).chain(["founders=1".to_owned()]).collect();
            Instance { command, environment: Vec::new(), data, clients, child: None }
        };
        let mut instances: Vec<Instance> = (1..=INSTANCES).map(instance).collect();
        instances.iter_mut().for_each(Instance::start);
        Self { instances, _folder: folder }
    }

    fn leader(&self) -> Option<usize> {
        (0..INSTANCES).find(|index| self.instances[*index].role() == "leading")
    }

    fn request(&self, index: usize, line: &str) -> Option<String> {
        let answer = LineClient::open(self.instances[index].clients)?.request(&format!("0 {line}")).ok()?;
        answer.strip_prefix("0 ").map(str::to_owned)
    }

    /// The voters, as the leader knows them.
    fn voters(&self) -> Option<Vec<usize>> {
        let voters = self.request(self.leader()?, "voters")?;
        voters.strip_prefix("voters ")?.split(',').map(|id| id.parse().ok()).collect()
    }

    /// Makes progress toward a change; returns whether it is done. Any instance takes the request.
    fn advance(&self, id: usize, adds: bool, through: usize) -> bool {
        let Some(voters) = self.voters() else { return false };
        if voters.contains(&id) == adds {
            return true;
        }
        let leader = self.leader().map(|index| index + 1);
        if !adds && leader == Some(id) {
            if let Some(other) = voters.iter().find(|other| **other != id) {
                let _ = self.request(id - 1, &format!("transfer {other}"));
            }
            return false;
        }
        let _ = self.request(through, &format!("{} {id}", if adds { "add" } else { "remove" }));
        false
    }

    /// What each instance says about itself.
    fn describe(&self) -> String {
        let of = |index| format!("{}: {}\n", index + 1, self.request(index, "describe").unwrap_or_default());
        (0..INSTANCES).map(of).collect()
    }

    fn inject(&mut self, fault: Fault, subject: usize) -> Vec<usize> {
        let leader = self.leader().unwrap_or(0);
        let down = match fault {
            Fault::None | Fault::FreezeLeader => Vec::new(),
            Fault::KillLeader => vec![leader],
            Fault::KillSubject => vec![subject],
            Fault::KillAll => (0..INSTANCES).collect(),
        };
        for index in &down {
            self.instances[*index].kill();
        }
        if matches!(fault, Fault::FreezeLeader) {
            self.instances[leader].signal("STOP");
            return vec![leader];
        }
        down
    }

    fn heal(&mut self, fault: Fault, affected: &[usize]) {
        for index in affected {
            match fault {
                Fault::FreezeLeader => self.instances[*index].signal("CONT"),
                _ => self.instances[*index].start(),
            }
        }
    }
}

/// Which instance changes in a round: the cluster grows to five voters and shrinks to one that is another one each time.
/// A request whose answer was lost may be executed twice, so the number of voters is not that of the round.
fn change_of(round: usize, voters: &[usize], grows: bool) -> (usize, bool) {
    let adds = voters.len() == 1 || (grows && voters.len() < INSTANCES);
    let candidates: Vec<usize> = (1..=INSTANCES).filter(|id| voters.contains(id) != adds).collect();
    (candidates[(round * 7 + 3) % candidates.len()], adds)
}

#[test]
fn no_acknowledged_write_is_lost_while_the_cluster_grows_and_shrinks() {
    let rounds = std::env::var("CROSSDOCK_ROUNDS").map_or(8, |text| text.parse().expect("a number"));
    let mut cluster = Cluster::start();
    let addresses: Vec<_> = cluster.instances.iter().map(|instance| instance.clients).collect();
    until_within(CHANGE_TIME_MAX, "the founder to lead", || cluster.leader().is_some());
    let clients = Clients::start(&addresses);
    let mut longest = Duration::ZERO;
    let mut grows = true;
    for round in 0..rounds {
        let mut voters = Vec::new();
        until_within(CHANGE_TIME_MAX, "the voters", || {
            voters = cluster.voters().unwrap_or_default();
            !voters.is_empty()
        });
        let (id, adds) = change_of(round, &voters, grows);
        grows = adds;
        let fault = FAULTS[round % FAULTS.len()];
        // An instance is added once it observes; the request is sent while the fault lasts, too.
        let begun = Instant::now();
        cluster.advance(id, adds, round % INSTANCES);
        let affected = cluster.inject(fault, id - 1);
        let mut is_healed = false;
        let mut is_changed = false;
        until_within(CHANGE_TIME_MAX * 2, "the change of the voters", || {
            assert!(begun.elapsed() < CHANGE_TIME_MAX, "{fault:?}, {id}, adds {adds}:\n{}", cluster.describe());
            if !is_healed && begun.elapsed() > FAULT_TIME {
                cluster.heal(fault, &affected);
                is_healed = true;
            }
            is_changed = is_changed || cluster.advance(id, adds, (round + 1) % INSTANCES);
            is_healed && is_changed
        });
        until_within(CHANGE_TIME_MAX, "a write after the change", || clients.recovery_time(begun).is_some());
        longest = longest.max(begun.elapsed());
        println!(
            "round {round}: {} {id} during {fault:?}: {:.1?}",
            if adds { "add" } else { "remove" },
            begun.elapsed()
        );
    }
    let summary = clients.stop_and_verify();
    assert!(summary.acknowledged > 20 * rounds, "too few writes were acknowledged: {}", summary.acknowledged);
    println!(
        "{rounds} changes of the voters, {} writes acknowledged, lost 0; {} calls of a register: linearizable; the longest change took {longest:.1?}",
        summary.acknowledged, summary.register_calls
    );
}
