//! `crossdock explain`.

use std::path::Path;

use crossdock_message::Code;
use crossdock_ports::Capabilities;
use crossdock_routing::steps::Flow;
use crossdock_routing::{OwnerLock, Plan, Step};
use crossdock_settings::nearest;

use crate::outcome::{Failure, Outcome};
use crossdock_gateway::adapters;
use crossdock_gateway::read_folder;

pub(super) fn explain(name: &str, folder: &Path) -> Outcome {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.to_string().trim_end());
        Failure::Failed
    })?;
    let Some(route) = config.plan.route(name) else {
        let names = config.plan.routes.iter().map(|route| &*route.name);
        let help = nearest(name, names).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        return Err(Failure::Error(format!("there is no route `{name}`{help}")));
    };
    println!("route {name}");
    for (at, entry) in route.entries.iter().enumerate() {
        println!("  accepts   {}", entry.describe());
        if let Some(OwnerLock { name, is_partitioned }) = route.owner_locks.get(at).and_then(Option::as_ref) {
            let divided = if *is_partitioned { ", divided evenly among the instances" } else { "" };
            println!(
                "            read by one instance of the cluster at a time, which holds the lock `{name}`{divided}"
            );
        }
        let binding = entry.binding();
        if !binding.params.is_empty() {
            let params: Vec<&str> = binding.params.iter().map(|param| &**param).collect();
            println!("            path and query fields: {}", params.join(", "));
        }
        println!("            provides {}", describe_capabilities(entry.capabilities()));
    }
    if let Some(delivery) = route.delivery {
        println!("  delivery  {}", delivery.word());
    }
    for (policy, line) in route.policies.describe() {
        println!("  {policy:<9} {line}");
    }
    if !route.headers.request.is_empty() {
        println!("  forwards  {} to services", route.headers.request.join(", "));
    }
    if !route.headers.response.is_empty() {
        println!("  forwards  {} to the caller", route.headers.response.join(", "));
    }
    println!("  steps");
    steps(&route.steps, &config.plan, 4);
    for rule in &route.errors {
        let on = if rule.on.is_empty() { "any error".to_owned() } else { join_codes(&rule.on) };
        let code = rule.code.map_or_else(|| "the same code".to_owned(), |code| code.to_string());
        println!("  errors    {on} becomes {code}");
    }
    Ok(())
}

/// The capabilities of an entry.
fn describe_capabilities(capabilities: Capabilities) -> String {
    let texts = [
        (capabilities.replies, "replies", "no replies"),
        (capabilities.acknowledges, "acknowledgement after processing", "no acknowledgement after processing"),
        (capabilities.ordered, "ordering", "no ordering"),
    ];
    texts.map(|(given, yes, no)| if given { yes } else { no }).join(", ")
}

fn join_codes(codes: &[Code]) -> String {
    codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(", ")
}

fn steps(list: &[Step], plan: &Plan, indent: usize) {
    for step in list {
        let line = format!("{:<9} {}", step.name(), step.describe(plan));
        println!("{:indent$}{}", "", line.trim_end());
        let (Flow::Chooses { blocks, .. } | Flow::Branches(blocks)) = step.flow() else { continue };
        for block in blocks {
            if let Some(label) = block.label {
                println!("{:width$}{label}", "", width = indent + 2);
            }
            steps(block.steps, plan, indent + 4);
        }
    }
}
