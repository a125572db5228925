//! `crossdock-simulator`: many runs, and rules broken on purpose.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use crossdock_simulator::{Options, Planted, Violation, run};

/// Runs clusters under faults, one run a seed, and stops at the first rule that does not hold.
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
    planted: bool,
    /// Only the rule of this name.
    #[arg(long, requires = "planted")]
    rule: Option<String>,
    /// Tell how often each message came in each phase.
    #[arg(long)]
    coverage: bool,
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
    if arguments.planted { planted(&arguments) } else { honest(&arguments) }
}

fn honest(arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let threads = arguments.threads.max(1);
    let results: Vec<Result<Sum, Violation>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut sum = Sum::default();
                    let mut seed = arguments.first + thread;
                    while seed < arguments.first + arguments.seeds {
                        let report = run(seed, &Options::default())?;
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
                tell(&violation, arguments.trace);
                return ExitCode::FAILURE;
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
    ExitCode::SUCCESS
}

/// Makes the run again, and prints the end of what happened.
fn tell(violation: &Violation, lines: usize) {
    if let Err(again) = run(violation.seed, &Options { trace: true, ..Options::default() }) {
        let skipped = again.trace.len().saturating_sub(lines);
        for line in &again.trace[skipped..] {
            println!("{line}");
        }
    }
    println!("seed {}, step {}: {}", violation.seed, violation.steps, violation.problem);
}

fn planted(arguments: &Arguments) -> ExitCode {
    let mut ending = ExitCode::SUCCESS;
    println!("| rule broken | seeds until it was noticed | as |\n| --- | ---: | --- |");
    let wanted = |rule: &Planted| arguments.rule.as_ref().is_none_or(|name| *name == format!("{rule:?}"));
    for rule in Planted::ALL.into_iter().filter(wanted) {
        let options = Options { planted: Some(rule), ..Options::default() };
        let seeds = arguments.first..arguments.first + arguments.seeds;
        match seeds.clone().find_map(|seed| run(seed, &options).err()) {
            Some(found) => println!("| {rule:?} | {} | {} |", found.seed - arguments.first + 1, found.problem),
            None => {
                println!("| {rule:?} | more than {} | |", arguments.seeds);
                ending = ExitCode::FAILURE;
            }
        }
    }
    ending
}
