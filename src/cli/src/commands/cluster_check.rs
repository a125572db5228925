//! `crossdock cluster check`: whether running instances are one healthy cluster.

use std::collections::BTreeSet;
use std::path::Path;

use crossdock_cluster::wall_clock_millis;
use serde_json::Value;

use super::routes::{admin_of, fetch};
use crate::outcome::{Failure, Outcome, on_local_runtime};

/// Clocks that differ by more are a problem: leases are granted by the clock of the leader.
const CLOCK_TOLERANCE_MS: u64 = 500;

/// An instance that has answered.
struct Instance {
    address: String,
    status: Value,
    /// How far its clock is ahead of this machine's, in milliseconds; the request took twice the second.
    clock: (i64, i64),
}

impl Instance {
    fn text(&self, name: &str) -> String {
        match &self.status[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }

    /// The last transaction that it has applied.
    fn applied(&self) -> Option<(u32, u32)> {
        let (epoch, counter) = self.status["applied"].as_str()?.split_once(':')?;
        Some((epoch.parse().ok()?, counter.parse().ok()?))
    }
}

pub(super) fn check(admin: Vec<String>, config: &Path) -> Outcome {
    let named = if admin.is_empty() { vec![None] } else { admin.into_iter().map(Some).collect() };
    let gateways: Vec<_> = named.into_iter().map(|admin| admin_of(admin, config)).collect::<Result<_, _>>()?;
    let problems = on_local_runtime(async move {
        let mut problems = Vec::new();
        let mut instances = Vec::new();
        for (address, token) in &gateways {
            match ask(address, token.as_deref()).await {
                Ok(instance) => instances.push((instance, token.clone())),
                Err(_) => problems.push(format!("{address} does not answer")),
            }
        }
        problems.extend(compare(instances.iter().map(|(instance, _)| instance)));
        problems.extend(compare_histories(&instances).await);
        problems
    })?;
    for problem in &problems {
        println!("problem   {problem}");
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Failed) }
}

fn now_ms() -> i64 {
    i64::try_from(wall_clock_millis()).unwrap_or(i64::MAX)
}

async fn ask(address: &str, token: Option<&str>) -> Result<Instance, Failure> {
    let before = now_ms();
    let body = fetch(address, token, "/api/v1/cluster").await?;
    let half = (now_ms() - before) / 2;
    let status: Value = serde_json::from_str(&body).map_err(|error| Failure::Error(format!("{address}: {error}")))?;
    let clock = status["time_ms"].as_i64().map_or(0, |time| time - before - half);
    Ok(Instance { address: address.to_owned(), status, clock: (clock, half) })
}

/// Prints what each instance says, and returns what is wrong.
fn compare<'i>(instances: impl Iterator<Item = &'i Instance>) -> Vec<String> {
    let instances: Vec<&Instance> = instances.collect();
    let mut problems = Vec::new();
    for instance in &instances {
        let Instance { address, clock: (ahead, half), .. } = instance;
        let (id, role, applied) = (instance.text("id"), instance.text("role"), instance.text("applied"));
        println!("instance  {id} at {address}: {role}, applied {applied}, clock {ahead:+} ms (±{half} ms)");
        for alarm in instance.status["alarms"].as_array().into_iter().flatten() {
            problems.push(format!("instance {id}: {}", alarm.as_str().unwrap_or("an alarm")));
        }
        if ahead.unsigned_abs() > CLOCK_TOLERANCE_MS + half.unsigned_abs() {
            problems.push(format!("instance {id}: its clock differs from this machine's by {ahead} ms"));
        }
    }
    let asked: Vec<String> = instances.iter().map(|instance| instance.text("id")).collect();
    if asked.iter().collect::<BTreeSet<_>>().len() < asked.len() {
        problems.push("an instance is named twice".to_owned());
    }
    let voters =
        instances.iter().flat_map(|instance| instance.status["membership"]["voters"].as_array().into_iter().flatten());
    let voters: BTreeSet<String> = voters.map(|voter| voter["id"].to_string()).collect();
    for missing in voters.iter().filter(|voter| !asked.contains(voter)) {
        problems.push(format!("instance {missing} votes and was not asked: name its address with `--admin`"));
    }
    let leaders = instances.iter().filter(|instance| instance.status["role"] == "leading").count();
    if leaders > 1 {
        problems.push(format!("{leaders} instances say that they lead; one of them may be about to notice otherwise"));
    }
    for (name, what) in [
        ("membership", "voters, or clusters"),
        ("epoch", "epochs"),
        ("leader", "leaders"),
        ("release", "releases of the gateway"),
    ] {
        let found: BTreeSet<String> = instances.iter().map(|instance| instance.status[name].to_string()).collect();
        if found.len() > 1 {
            let each = instances.iter().map(|instance| format!("{}: {}", instance.text("id"), instance.status[name]));
            problems.push(format!("the instances have different {what}: {}", each.collect::<Vec<_>>().join("; ")));
        }
    }
    problems
}

/// Compares the hashes over the histories through the last transaction that all have applied.
async fn compare_histories(instances: &[(Instance, Option<String>)]) -> Vec<String> {
    let applied: Option<Vec<_>> = instances.iter().map(|(instance, _)| instance.applied()).collect();
    let Some((epoch, counter)) = applied.and_then(|applied| applied.into_iter().min()) else {
        return vec!["the histories are not compared: an instance does not say what it has applied".to_owned()];
    };
    let target = format!("/api/v1/cluster/history?at={epoch}:{counter}");
    let (mut hashes, mut known, mut problems) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (instance, token) in instances {
        let answered = fetch(&instance.address, token.as_deref(), &target).await.ok();
        let answer: Option<Value> = answered.and_then(|body| serde_json::from_str(&body).ok());
        let id = instance.text("id");
        match answer.as_ref().and_then(|answer| answer["hash"].as_str()) {
            Some(hash) => {
                known.push(format!("{id}: {hash}"));
                hashes.insert(hash.to_owned());
            }
            None => {
                problems
                    .push(format!("instance {id} is not compared: {epoch}:{counter} is not in its memory any more"));
            }
        }
    }
    if hashes.len() > 1 {
        problems.push(format!("the histories through {epoch}:{counter} differ: {}", known.join("; ")));
    } else if known.len() > 1 {
        println!("history   the same through {epoch}:{counter} on {} of {} instances", known.len(), instances.len());
    }
    problems
}
