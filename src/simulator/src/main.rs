//! `crossdock-simulator`: many runs, runs with injected bugs, exhaustive searches, and traces of single runs.

use std::collections::BTreeMap;
use std::iter::StepBy;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use crossdock_simulator::{InjectedBug, Plan, Scope, Violation, coordination, rule, run, search, shrink};

/// Runs clusters under faults, one run per seed, and stops at the first violation, which it reduces to a small run.
#[derive(Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The number of seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The number of threads.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Trace lines to print before a violation.
    #[arg(long, default_value_t = 60)]
    trace: usize,
    /// Inject each bug, and report how many seeds it takes to detect it.
    #[arg(long)]
    injected: bool,
    /// Only the injected bug with this name.
    #[arg(long)]
    rule: Option<String>,
    /// Print how often each message was received in each phase.
    #[arg(long)]
    coverage: bool,
    /// A folder for the smallest run of each violation, which tests repeat.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Search small scopes exhaustively, for this many seconds each; with `--rule`, inject that bug.
    #[arg(long, value_name = "SECONDS")]
    exhaustive: Option<u64>,
    /// Execute the run in this plan file and print its trace.
    #[arg(long, value_name = "FILE", conflicts_with = "injected")]
    plan: Option<PathBuf>,
    /// Run coordination, on an ideal log, instead of clusters.
    #[arg(long, conflicts_with_all = ["plan", "exhaustive", "keep", "coverage", "rule"])]
    coordination: bool,
}

#[derive(Default)]
struct Totals {
    steps: u64,
    committed: usize,
    reads: usize,
    epochs: usize,
    changes: usize,
    apart: usize,
    unelectable: usize,
    coverage: BTreeMap<(&'static str, &'static str), u64>,
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.committed += other.committed;
        self.reads += other.reads;
        self.epochs += other.epochs;
        self.changes += other.changes;
        self.apart += other.apart;
        self.unelectable += other.unelectable;
        for (pair, count) in other.coverage {
            *self.coverage.entry(pair).or_default() += count;
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.plan {
        Some(file) => run_plan(file, arguments.trace),
        None if arguments.coordination && arguments.injected => Ok(injected_into_coordination(&arguments)),
        None if arguments.coordination => run_coordination(&arguments),
        None if arguments.exhaustive.is_some() => exhaustive(&arguments),
        None if arguments.injected => injected_bugs(&arguments),
        None => run_seeds(&arguments),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("crossdock-simulator: {problem}");
        ExitCode::from(2)
    })
}

/// Executes one plan and prints its trace.
fn run_plan(file: &Path, lines: usize) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let plan: Plan = text.parse().map_err(|problem| format!("{}: {problem}", file.display()))?;
    match run(&plan, true) {
        Ok(report) => {
            println!("no violation in {} steps, {} commits", report.steps, report.committed);
            Ok(ExitCode::SUCCESS)
        }
        Err(violation) => {
            print_violation(&violation, lines);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs the seeds on the threads, each of which takes every n-th one. Returns the result of each thread.
fn on_threads<T: Send>(arguments: &Arguments, run: impl Fn(StepBy<Range<u64>>) -> T + Sync) -> Result<Vec<T>, String> {
    let threads = usize::try_from(arguments.threads).unwrap_or(1).max(1);
    let end = arguments.first + arguments.seeds;
    std::thread::scope(|scope| {
        let seeds = (arguments.first..).take(threads).map(|first| (first..end).step_by(threads));
        let run = &run;
        let workers: Vec<_> = seeds.map(|seeds| scope.spawn(move || run(seeds))).collect();
        workers.into_iter().map(|worker| worker.join().map_err(|_| "a run panicked".to_owned())).collect()
    })
}

fn run_seeds(arguments: &Arguments) -> Result<ExitCode, String> {
    let begun = Instant::now();
    let results = on_threads(arguments, |seeds| {
        let mut sum = Totals::default();
        for seed in seeds {
            let report = run(&Plan::of(seed), false)?;
            sum.add(Totals {
                steps: report.steps,
                committed: report.committed,
                reads: report.reads,
                epochs: report.epochs,
                changes: report.changes,
                apart: report.apart,
                unelectable: report.unelectable,
                coverage: report.coverage,
            });
        }
        Ok::<_, Violation>(sum)
    })?;
    let mut sum = Totals::default();
    for result in results {
        match result {
            Ok(part) => sum.add(part),
            Err(violation) => {
                println!("seed {}: {}", violation.plan.seed, violation.problem);
                println!("searching for a smaller run …");
                let smallest = shrink(&violation);
                if let Err(found) = run(&smallest.plan, true) {
                    print_violation(&found, arguments.trace);
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
    println!(
        "{} steps, {} commits, {} reads, {} established epochs, {} changes of the voters",
        sum.steps, sum.committed, sum.reads, sum.epochs, sum.changes
    );
    println!("{} runs with disconnected servers, {} in which nobody was electable", sum.apart, sum.unelectable);
    println!("{} pairs of phase and message", sum.coverage.len());
    if arguments.coverage {
        for ((phase, message), count) in &sum.coverage {
            println!("{phase:<28} {message:<12} {count:>12}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the end of the trace and the plan to repeat the run.
fn print_violation(violation: &Violation, lines: usize) {
    let skipped = violation.trace.len().saturating_sub(lines);
    for line in &violation.trace[skipped..] {
        println!("{line}");
    }
    println!("\n# {}\n{}", violation.problem, violation.plan);
    println!("(save this to a file and repeat the run with `--plan FILE`)");
}

fn keep(folder: &Path, violation: &Violation) -> Result<(), String> {
    let plan = &violation.plan;
    let name = plan.rule.map_or_else(|| format!("seed-{}", plan.seed), |rule| format!("{rule:?}"));
    let file = folder.join(format!("{name}.txt"));
    std::fs::write(&file, format!("# {}\n{plan}", violation.problem))
        .map_err(|error| format!("{}: {error}", file.display()))
}

fn run_coordination(arguments: &Arguments) -> Result<ExitCode, String> {
    let begun = Instant::now();
    let reports = on_threads(arguments, |seeds| {
        let mut sum = coordination::Report::default();
        for seed in seeds {
            sum.add(&coordination::run(seed, None).map_err(|problem| format!("seed {seed}: {problem}"))?);
        }
        Ok::<_, String>(sum)
    })?;
    let mut sum = coordination::Report::default();
    for report in reports {
        match report {
            Ok(report) => sum.add(&report),
            Err(problem) => {
                println!("{problem}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let per_second = arguments.seeds as f64 / begun.elapsed().as_secs_f64();
    println!("{} seeds, 0 violations, {per_second:.0} seeds/s\n{sum:?}", arguments.seeds);
    Ok(ExitCode::SUCCESS)
}

fn injected_into_coordination(arguments: &Arguments) -> ExitCode {
    let mut ending = ExitCode::SUCCESS;
    println!("| injected bug | seeds until detection | detected as |\n| --- | ---: | --- |");
    for bug in coordination::InjectedBug::ALL {
        let mut seeds = arguments.first..arguments.first + arguments.seeds;
        match seeds.find_map(|seed| Some((seed, coordination::run(seed, Some(bug)).err()?))) {
            Some((seed, problem)) => println!("| {bug:?} | {} | {problem} |", seed - arguments.first + 1),
            None => {
                println!("| {bug:?} | more than {} | |", arguments.seeds);
                ending = ExitCode::FAILURE;
            }
        }
    }
    ending
}

/// Searches all small scopes.
fn exhaustive(arguments: &Arguments) -> Result<ExitCode, String> {
    let injected_bug = arguments.rule.as_deref().map(bug_named).transpose()?;
    let seconds = arguments.exhaustive.unwrap_or_default();
    let threads = usize::try_from(arguments.threads).unwrap_or(1).max(1);
    let mut ending = ExitCode::SUCCESS;
    println!("| scope | states | depth | seconds | |\n| --- | ---: | ---: | ---: | --- |");
    for (name, scope) in Scope::ALL {
        let scope = Scope { injected_bug, ..scope };
        let begun = Instant::now();
        let searched = search(scope, threads, Duration::from_secs(seconds));
        let whole = if searched.is_complete { "complete" } else { "incomplete" };
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

fn bug_named(name: &str) -> Result<InjectedBug, String> {
    rule(name).ok_or_else(|| {
        let names: Vec<_> = InjectedBug::ALL.iter().map(|rule| format!("{rule:?}")).collect();
        format!("unknown rule `{name}`: must be one of {}", names.join(", "))
    })
}

fn injected_bugs(arguments: &Arguments) -> Result<ExitCode, String> {
    let rules = match &arguments.rule {
        Some(name) => vec![bug_named(name)?],
        None => InjectedBug::ALL.to_vec(),
    };
    let mut ending = ExitCode::SUCCESS;
    println!(
        "| injected bug | seeds until detection | faults and requests needed | detected as |\n| --- | ---: | ---: | --- |"
    );
    for rule in rules {
        let mut seeds = arguments.first..arguments.first + arguments.seeds;
        let Some(found) = seeds.find_map(|seed| run(&Plan::of(seed).with_bug(rule), false).err()) else {
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
