//! The contract of engines of coordination: what each of them guarantees, checked with real servers. Prints a table of engines and guarantees.

mod contract;
mod gateways;
mod instances;
mod logins;

use std::fmt::Write as _;
use std::time::Duration;

use crossdock_engines::Kind;

use self::contract::{GUARANTEES, Verdict};
use self::instances::Instances;

/// The time to live of sessions, and that with servers in Java, whose elections take longer on a busy machine.
const TTL: Duration = Duration::from_secs(4);
const EXTERNAL_TTL: Duration = Duration::from_secs(6);

/// The verdicts of an engine, in the order of the guarantees.
fn verdicts(mut instances: Instances) -> (String, Vec<Verdict>) {
    let name = format!("{} {}", instances.row.name, instances.version);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let verdicts = GUARANTEES.iter().map(|guarantee| guarantee.check(&runtime, &mut instances)).collect();
    (name, verdicts)
}

fn table(columns: &[(String, Vec<Verdict>)]) -> String {
    let mut text = String::from("| guarantee |");
    for (name, _) in columns {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(columns.len()));
    for (at, guarantee) in GUARANTEES.iter().enumerate() {
        let _ = write!(text, "\n| {} |", guarantee.name);
        for (_, verdicts) in columns {
            let _ = write!(text, " {} |", verdicts[at].word());
        }
    }
    text
}

fn check(instances: Vec<Instances>) {
    let columns: Vec<_> = std::thread::scope(|scope| {
        let checking: Vec<_> = instances.into_iter().map(|one| scope.spawn(|| verdicts(one))).collect();
        checking.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    println!("{}", table(&columns));
    let mut failed = Vec::new();
    for (name, verdicts) in &columns {
        for (guarantee, verdict) in GUARANTEES.iter().zip(verdicts) {
            if let Verdict::Failed(problem) = verdict {
                failed.push(format!("{name}: {}: {problem}", guarantee.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn the_embedded_engine_keeps_the_contract() {
    check(vec![Instances::embedded(TTL)]);
}

#[test]
#[ignore = "needs ZooKeeper, etcd and Redis; tests/run installs them"]
fn external_engines_keep_the_contract() {
    let kinds = [Kind::Zookeeper, Kind::Etcd, Kind::Redis];
    check(kinds.into_iter().map(|kind| Instances::external(kind, EXTERNAL_TTL)).collect());
}

/// The least session of Consul is longer.
#[test]
#[ignore = "needs Consul, which takes minutes to compile: `tests/services/services install consul`"]
fn consul_keeps_the_contract() {
    check(vec![Instances::external(Kind::Consul, Duration::from_secs(10))]);
}
