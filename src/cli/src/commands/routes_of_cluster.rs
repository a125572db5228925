//! `crossdock routes --cluster`: the routes of all instances of a cluster.
//!
//! | sum over instances | formula |
//! | --- | --- |
//! | requests, in flight, failures, throughput | Σ of the instances |
//! | mean latency, of each phase | Σ mean · requests / Σ requests |
//! | quantiles of latency | of the sum of the histograms: the upper bound of the bucket |
//! | capacity | Σ of the instances: each limits its own concurrent calls |
//! | availability | 1 − Σ server-side failures / Σ requests |

use std::path::Path;

use serde_json::{Map, Value, json};

use super::routes::{exchange, print_columns, print_table};
use crate::outcome::{Failure, Outcome, on_local_runtime};
use crossdock_cluster::Address;
use crossdock_gateway::{adapters, read_settings};

/// The admin listeners of the instances, and their token.
fn instances_of(admin: Vec<String>, folder: &Path) -> Result<(Vec<String>, Option<String>), Failure> {
    if !admin.is_empty() {
        return Ok((admin, std::env::var("CROSSDOCK_ADMIN_TOKEN").ok()));
    }
    let config = read_settings(folder, &adapters()).map_err(|error| Failure::Error(error.to_string()))?;
    let missing = |what: &str| {
        Failure::Error(format!("the settings have no `{what}:`; pass the addresses with `--admin HOST:PORT`"))
    };
    let (address, token) = config.admin.ok_or_else(|| missing("admin"))?;
    let cluster = config.cluster.ok_or_else(|| missing("cluster"))?;
    let port = address.port();
    let addresses = cluster.settings.members.values().map(|member| match &member.address {
        Address::Ip(member) => std::net::SocketAddr::new(member.ip(), port).to_string(),
        Address::Name { host, .. } => format!("{host}:{port}"),
    });
    let mut addresses: Vec<String> = addresses.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.len() < cluster.settings.members.len() {
        let help =
            "several members have the same host; pass the addresses of all admin listeners with `--admin HOST:PORT`";
        return Err(Failure::Error(help.to_owned()));
    }
    Ok((addresses, token.map(|token| token.reveal().to_owned())))
}

pub(super) fn routes(admin: Vec<String>, folder: &Path, as_json: bool) -> Outcome {
    let (addresses, token) = instances_of(admin, folder)?;
    let asked = on_local_runtime(async {
        let mut answers = Vec::new();
        for address in &addresses {
            answers.push(exchange(address, token.as_deref(), "GET", "/api/v1/routes", "").await);
        }
        answers
    })?;
    let (mut instances, mut bodies) = (Vec::new(), Vec::new());
    for (address, answer) in addresses.iter().zip(asked) {
        let body = answer.and_then(|response| match response.status {
            200 => serde_json::from_str::<Value>(&response.body).map_err(|error| error.to_string()),
            status => Err(format!("it responded with status {status}")),
        });
        match body {
            Ok(body) => {
                instances.push(json!({ "admin": address, "generation": body["generation"] }));
                bodies.push(body);
            }
            Err(problem) => instances.push(json!({ "admin": address, "problem": problem })),
        }
    }
    if bodies.is_empty() {
        return Err(Failure::Error(format!("no instance answers: {}", Value::from(instances))));
    }
    let summed = json!({ "instances": instances, "routes": sum(&bodies) });
    if as_json {
        println!("{summed}");
        return Ok(());
    }
    print_table(&summed);
    println!();
    let head = ["INSTANCE", "ROUTES"].map(str::to_owned);
    let rows = instances.iter().map(|instance| {
        let of = match instance["problem"].as_str() {
            Some(problem) => format!("not counted: {problem}"),
            None => "counted".to_owned(),
        };
        [instance["admin"].as_str().unwrap_or_default().to_owned(), of]
    });
    print_columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    Ok(())
}

/// The routes of all instances, by name, in the order in which they are listed first.
fn sum(bodies: &[Value]) -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    let all: Vec<&Value> = bodies.iter().flat_map(|body| body["routes"].as_array().into_iter().flatten()).collect();
    for name in all.iter().filter_map(|route| route["name"].as_str()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| sum_route(&all.iter().filter(|route| route["name"] == name).copied().collect::<Vec<_>>()))
        .collect()
}

/// Rounds to three decimal places.
fn rounded(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

fn sum_route(of: &[&Value]) -> Value {
    let count = |key: &str| of.iter().filter_map(|route| route[key].as_u64()).sum::<u64>();
    let number = |key: &str| of.iter().filter_map(|route| route[key].as_f64()).sum::<f64>();
    let requests = count("requests");
    let mut failed = Map::new();
    for (code, failures) in of.iter().filter_map(|route| route["failed"].as_object()).flatten() {
        let before = failed.get(code).and_then(Value::as_u64).unwrap_or(0);
        failed.insert(code.clone(), json!(before + failures.as_u64().unwrap_or(0)));
    }
    let mean = |phase: &str| {
        let weighted =
            of.iter().filter_map(|route| Some(route["latency_ms"][phase].as_f64()? * route["requests"].as_f64()?));
        if requests == 0 { json!(0.0) } else { rounded(weighted.sum::<f64>() / requests as f64) }
    };
    let histogram = Histogram::sum(of);
    let has_capacity = of.iter().any(|route| route["capacity_per_s"].is_number());
    let availability = if requests == 0 { 1.0 } else { 1.0 - count("failed_server_side") as f64 / requests as f64 };
    let endpoints: Vec<Value> =
        of.iter().filter_map(|route| route["endpoints"].as_array()).flatten().cloned().collect();
    json!({
        "name": of[0]["name"],
        "from": of[0]["from"],
        "endpoints": endpoints,
        "requests": requests,
        "in_flight": count("in_flight"),
        "failed": failed,
        "failed_server_side": count("failed_server_side"),
        "throughput_per_s": rounded(number("throughput_per_s")),
        "latency_ms": {
            "mean": mean("mean"), "request": mean("request"), "processing": mean("processing"), "response": mean("response"),
            "p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99),
        },
        "capacity_per_s": has_capacity.then(|| rounded(number("capacity_per_s"))),
        "availability": rounded(availability),
    })
}

/// A sum of histograms with the same bounds.
#[derive(Default)]
struct Histogram {
    /// Upper bounds in milliseconds; the last count is that of longer durations.
    bounds: Vec<f64>,
    counts: Vec<u64>,
}

impl Histogram {
    fn sum(of: &[&Value]) -> Self {
        let mut sum = Self::default();
        for histogram in of.iter().map(|route| &route["latency_ms"]["histogram"]) {
            let bounds: Vec<f64> = histogram["le"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            let counts = histogram["counts"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            if sum.bounds.is_empty() {
                (sum.bounds, sum.counts) = (bounds, counts.collect());
            } else if sum.bounds == bounds {
                // Another release may have others.
                sum.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            }
        }
        sum
    }

    /// The upper bound of the bucket that contains the quantile.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let target = self.counts.iter().sum::<u64>() as f64 * quantile;
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += count;
            seen > 0 && seen as f64 >= target
        })?;
        // As an instance reports what is longer than all bounds.
        Some(self.bounds.get(at).copied().unwrap_or(u64::MAX as f64 / 1000.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(requests: u64, mean: f64, failed: u64, counts: [u64; 3]) -> Value {
        json!({
            "name": "a", "from": ["x"], "endpoints": [], "requests": requests, "in_flight": 1, "failed": { "internal": failed },
            "failed_server_side": failed, "throughput_per_s": 2.5, "capacity_per_s": 100.0, "availability": 0.0,
            "latency_ms": {
                "mean": mean, "request": 0.0, "processing": mean, "response": 0.0,
                "histogram": { "le": [1.0, 10.0], "counts": counts },
            },
        })
    }

    #[test]
    fn what_instances_report_is_summed_by_the_formulas() {
        let bodies = [
            json!({ "routes": [route(30, 1.0, 0, [30, 0, 0])] }),
            json!({ "routes": [route(10, 5.0, 4, [0, 10, 0])] }),
            json!({ "routes": [] }),
        ];
        let routes = sum(&bodies);
        let [of] = &routes[..] else { panic!("{routes:?}") };
        assert_eq!(
            (&of["requests"], &of["in_flight"], &of["failed"]),
            (&json!(40), &json!(2), &json!({ "internal": 4 }))
        );
        assert_eq!((&of["throughput_per_s"], &of["capacity_per_s"]), (&json!(5.0), &json!(200.0)));
        assert_eq!((&of["latency_ms"]["mean"], &of["availability"]), (&json!(2.0), &json!(0.9)));
        assert_eq!((&of["latency_ms"]["p50"], &of["latency_ms"]["p99"]), (&json!(1.0), &json!(10.0)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
