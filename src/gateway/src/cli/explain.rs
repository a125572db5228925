//! `crossdock explain`.

use std::path::Path;

use crossdock_adapter_api::Capabilities;
use crossdock_message::Code;
use crossdock_routing::{CallPlan, Plan, Step};
use crossdock_settings::nearest;

use super::{Ending, Failure};
use crate::config::adapters;
use crate::wiring::read_folder;

pub(super) fn explain(name: &str, folder: &Path) -> Ending {
    let config = read_folder(folder, &adapters()).map_err(|problem| {
        eprintln!("{}", problem.trim_end());
        Failure::Failed
    })?;
    let Some(route) = config.plan.route(name) else {
        let names = config.plan.routes.iter().map(|route| &*route.name);
        let help = nearest(name, names).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        return Err(Failure::Misuse(format!("there is no route `{name}`{help}")));
    };
    println!("route {name}");
    for entry in &route.entries {
        println!("  takes     {}", entry.describe());
        let binding = entry.binding();
        if !binding.params.is_empty() {
            let params: Vec<&str> = binding.params.iter().map(|param| &**param).collect();
            println!("            fields of the address: {}", params.join(", "));
        }
        let listener = config.listeners.iter().find(|listener| entry.address().listener == listener.name);
        if let Some(listener) = listener {
            println!("            gives {}", guarantees(listener.adapter.capabilities()));
        }
    }
    if let Some(delivery) = route.delivery {
        println!("  delivers  {}", delivery.word());
    }
    if let Some(by) = &route.order {
        println!("  order     by {}, in this instance", by.source());
    }
    if let Some(plan) = &route.idempotency {
        let (key, window) = (plan.key.source(), plan.window);
        println!("  once      by {key}, known for {window:?} or {} keys, in this instance", plan.keys_max);
    }
    println!("  deadline  {:?}, at most {:?}", route.deadline_default, route.deadline_max);
    if !route.carry.is_empty() {
        println!("  carries   {} to services", route.carry.join(", "));
    }
    if !route.carry_back.is_empty() {
        println!("  carries   {} back", route.carry_back.join(", "));
    }
    println!("  steps");
    steps(&route.steps, &config.plan, 4);
    for rule in &route.errors {
        let on = if rule.on.is_empty() { "any error".to_owned() } else { join_codes(&rule.on) };
        let code = rule.code.map_or_else(|| "the same code".to_owned(), |code| code.to_string());
        println!("  errors    {on} is answered with {code}");
    }
    Ok(())
}

/// An adapter's row of capabilities, in words.
fn guarantees(row: Capabilities) -> String {
    let words = [
        (row.replies, "a reply", "no reply"),
        (row.acknowledges, "acknowledgement after the work", "no acknowledgement after the work"),
        (row.ordered, "order", "no order"),
    ];
    words.map(|(given, yes, no)| if given { yes } else { no }).join(", ")
}

fn join_codes(codes: &[Code]) -> String {
    codes.iter().map(|code| code.name()).collect::<Vec<_>>().join(", ")
}

fn steps(list: &[Step], plan: &Plan, indent: usize) {
    for step in list {
        let text = match step {
            Step::Map(map) => match map.top_names() {
                Some(names) => format!("map       new body: {}", names.join(", ")),
                None => "map       new body from one expression".to_owned(),
            },
            Step::Set(headers) => {
                let names: Vec<&str> = headers.iter().map(|(name, _)| &**name).collect();
                format!("set       {}", names.join(", "))
            }
            Step::Require { that, code, .. } => format!("require   {} or {code}", that.source()),
            Step::Filter(that) => format!("filter    {} or it ends here", that.source()),
            Step::Multicast(_) => "multicast".to_owned(),
            Step::Split { items, name, at_once, .. } => {
                format!("split     {name} of {}, {at_once} at once", items.source())
            }
            Step::Call(call) => format!("call      {}", describe(call, plan)),
            Step::Send(call) => format!("send      {}", describe(call, plan)),
            Step::Enrich { call, name, .. } => format!("enrich    {name} from {}", describe(call, plan)),
            Step::Tap { call, .. } => format!("tap       {}", describe(call, plan)),
            Step::Respond { status, .. } => format!("respond   status {}", status.unwrap_or(200)),
            Step::Fault { code, .. } => format!("fault     {code}"),
            Step::Choice(_) => "choice".to_owned(),
        };
        println!("{:indent$}{text}", "");
        match step {
            Step::Multicast(branches) => {
                for branch in branches {
                    println!("{:width$}branch", "", width = indent + 2);
                    steps(branch, plan, indent + 4);
                }
            }
            Step::Split { steps: inner, .. } => steps(inner, plan, indent + 4),
            _ => {}
        }
        if let Step::Choice(branches) = step {
            for branch in branches {
                let when = branch
                    .when
                    .as_ref()
                    .map_or_else(|| "otherwise".to_owned(), |when| format!("when {}", when.source()));
                println!("{:width$}{when}", "", width = indent + 2);
                steps(&branch.steps, plan, indent + 4);
            }
        }
    }
}

fn describe(call: &CallPlan, plan: &Plan) -> String {
    let service = &plan.services[call.service];
    let retry = match service.retry.as_ref().filter(|_| call.retried) {
        None => "no retry".to_owned(),
        Some(retry) => format!("up to {} tries on {}", retry.attempts, join_codes(&retry.on)),
    };
    format!(
        "{}.{} ({} over {}; within {:?}, {retry}, {} at once, {} endpoint{})",
        service.name,
        call.operation_name,
        call.operation.describe(),
        service.adapter,
        service.timeout,
        service.concurrency,
        service.spec.endpoints().len(),
        if service.spec.endpoints().len() == 1 { "" } else { "s" },
    )
}
