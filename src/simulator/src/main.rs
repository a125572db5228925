//! `crossdock-simulator`: many runs, rules broken on purpose, and single runs told step by step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use crossdock_simulator::{InjectedBug, Plan, Scope, Violation, rule, run, search, shrink};

/// Runs clusters under faults, one run a seed, and stops at the first rule that does not hold: it is told by the smallest run that shows it.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Lines of what happened before a violation.
    #[arg(long, default_value_t = 60)]
    trace: usize,
    /// Break each rule on purpose, and tell how many seeds it takes to notice.
    #[arg(long)]
    injected: bool,
    /// Only the rule of this name.
    #[arg(long)]
    rule: Option<String>,
    /// Tell how often each message came in each phase.
    #[arg(long)]
    coverage: bool,
    /// A folder for the smallest run of each violation, where tests run it again.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Look at all that can happen to three servers within small scopes, for so many seconds each; with `--rule`, break that rule.
    #[arg(long, value_name = "SECONDS")]
    exhaustive: Option<u64>,
    /// Make the run that this file tells, and print what happens.
    #[arg(long, value_name = "FILE", conflicts_with = "injected")]
    plan: Option<PathBuf>,
}

#[derive(Default)]
struct Sum {
    steps: u64,
    committed: usize,
    reads: usize,
    epochs: usize,
    coverage: BTreeMap<(&'static str, &'static str), u64>,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.committed += other.committed;
        self.reads += other.reads;
        self.epochs += other.epochs;
        for (pair, count) in other.coverage {
            *self.coverage.entry(pair).or_default() += count;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.plan {
        Some(file) => single(file, arguments.trace),
        None if arguments.exhaustive.is_some() => exhaustive(&arguments),
        None if arguments.injected => injected_bugs(&arguments),
        None => honest(&arguments),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("crossdock-simulator: {problem}");
        ExitCode::from(2)
    })
}

/// One run, told.
fn single(file: &Path, lines: usize) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let plan: Plan = text.parse().map_err(|problem| format!("{}: {problem}", file.display()))?;
    match run(&plan, true) {
        Ok(report) => {
            println!("no violation in {} steps, {} commits", report.steps, report.committed);
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            tell(&violation, lines);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn honest(arguments: &Arguments) -> Result<ExitCode, String> {
    let begun = Instant::now();
    let threads = arguments.threads.max(1);
    let results: Vec<Result<Sum, Violation>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut sum = Sum::default();
                    let mut seed = arguments.first + thread;
                    while seed < arguments.first + arguments.seeds {
                        let report = run(&Plan::of(seed), false)?;
                        sum.add(Sum {
                            steps: report.steps,
                            committed: report.committed,
                            reads: report.reads,
                            epochs: report.epochs,
                            coverage: report.coverage,
                        });
                        seed += threads;
                    }
                    Ok(sum)
                })
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    let mut sum = Sum::default();
    for result in results {
        match result {
            Ok(part) => sum.add(part),
            Err(violation) => {
                println!("seed {}: {}", violation.plan.seed, violation.problem);
                println!("looking for a smaller run …");
                let smallest = shrink(&violation);
                if let Err(told) = run(&smallest.plan, true) {
                    tell(&told, arguments.trace);
                }
                if let Some(folder) = &arguments.keep {
                    keep(folder, &smallest)?;
                }
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let per_second = arguments.seeds as f64 / begun.elapsed().as_secs_f64();
    println!("{} seeds, 0 violations, {per_second:.0} seeds/s", arguments.seeds);
    println!("{} steps, {} commits, {} reads, {} established epochs", sum.steps, sum.committed, sum.reads, sum.epochs);
    println!("{} pairs of phase and message", sum.coverage.len());
    if arguments.coverage {
        for ((phase, message), count) in &sum.coverage {
            println!("{phase:<28} {message:<12} {count:>12}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the end of what happened, and how to have it again.
fn tell(violation: &Violation, lines: usize) {
    let skipped = violation.trace.len().saturating_sub(lines);
    for line in &violation.trace[skipped..] {
        println!("{line}");
    }
    println!("\n# {}\n{}", violation.problem, violation.plan);
    println!("(in a file, `--plan FILE` makes this run again)");
}

fn keep(folder: &Path, violation: &Violation) -> Result<(), String> {
    let plan = &violation.plan;
    let name = plan.rule.map_or_else(|| format!("seed-{}", plan.seed), |rule| format!("{rule:?}"));
    let file = folder.join(format!("{name}.txt"));
    std::fs::write(&file, format!("# {}\n{plan}", violation.problem))
        .map_err(|error| format!("{}: {error}", file.display()))
}

/// All states of small scopes.
fn exhaustive(arguments: &Arguments) -> Result<ExitCode, String> {
    let injected_bug = arguments.rule.as_deref().map(named).transpose()?;
    let seconds = arguments.exhaustive.unwrap_or_default();
    let threads = usize::try_from(arguments.threads).unwrap_or(1).max(1);
    let mut ending = ExitCode::SUCCESS;
    println!("| scope | states | steps deep | seconds | |\n| --- | ---: | ---: | ---: | --- |");
    for (name, scope) in Scope::ALL {
        let scope = Scope { injected_bug, ..scope };
        let begun = Instant::now();
        let searched = search(scope, threads, Duration::from_secs(seconds));
        let whole = if searched.is_whole { "all of them" } else { "not all of them" };
        let seconds = begun.elapsed().as_secs_f64();
        println!("| {name} | {} | {} | {seconds:.1} | {whole} |", searched.states, searched.depth);
        if let Some((problem, steps)) = searched.violation {
            for step in steps {
                println!("  {step:?}");
            }
            println!("  {problem}");
            ending = ExitCode::FAILURE;
        }
    }
    Ok(ending)
}

fn named(name: &str) -> Result<InjectedBug, String> {
    rule(name).ok_or_else(|| {
        let names: Vec<_> = InjectedBug::ALL.iter().map(|rule| format!("{rule:?}")).collect();
        format!("there is no rule `{name}`; there are {}", names.join(", "))
    })
}

fn injected_bugs(arguments: &Arguments) -> Result<ExitCode, String> {
    let rules = match &arguments.rule {
        Some(name) => vec![named(name)?],
        None => InjectedBug::ALL.to_vec(),
    };
    let mut ending = ExitCode::SUCCESS;
    println!(
        "| rule broken | seeds until it was noticed | faults and requests needed | as |\n| --- | ---: | ---: | --- |"
    );
    for rule in rules {
        let mut seeds = arguments.first..arguments.first + arguments.seeds;
        let Some(found) = seeds.find_map(|seed| run(&Plan::of(seed).breaking(rule), false).err()) else {
            println!("| {rule:?} | more than {} | | |", arguments.seeds);
            ending = ExitCode::FAILURE;
            continue;
        };
        let smallest = shrink(&found);
        let seeds = found.plan.seed - arguments.first + 1;
        println!("| {rule:?} | {seeds} | {} | {} |", smallest.happened.len(), smallest.problem);
        if let Some(folder) = &arguments.keep {
            keep(folder, &smallest)?;
        }
    }
    Ok(ending)
}
