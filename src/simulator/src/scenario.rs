//! The scenario of a run: the cluster, its faults and its clients. It is drawn from the seed in advance, so that
//! leaving out one part does not change the others.

use std::collections::BTreeMap;

use crossdock_zab::{Config, LogId, ServerId};
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::faults::{Fault, Faults, MILLI, Micros, SECOND};
use crate::plan::{Part, Plan};

/// Duration of the fault phase.
pub(crate) const FAULT_TIME: Micros = 10 * SECOND;
/// How long clients continue after the fault phase.
const AFTERWARDS: Micros = 700 * MILLI;
/// The number of writes per server that a crash may interrupt.
const WRITES: u32 = 2000;

/// The number of the first `Lies` fault, above those of all other occurrences.
const LIES_FROM: u32 = 1 << 21;
/// The number of the first change of the voters.
const MEMBERS_FROM: u32 = 1 << 22;

/// The purpose of a random stream. Separate streams keep the parts of the world independent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Scenario,
    Server(usize),
    /// The nth connection between two servers.
    Connection(usize, usize, u32),
    Occurrence(u32),
    Lies,
    Sparse,
    Members,
}

/// The random number generator of a stream.
pub(crate) fn rng_for(seed: u64, stream: Stream) -> ChaCha8Rng {
    let number = match stream {
        Stream::Scenario => 0,
        Stream::Server(server) => 1 << 40 | server as u64,
        Stream::Connection(a, b, nth) => 2 << 40 | (a as u64) << 36 | (b as u64) << 32 | u64::from(nth),
        Stream::Occurrence(number) => 3 << 40 | u64::from(number),
        Stream::Lies => 4 << 40,
        Stream::Sparse => 5 << 40,
        Stream::Members => 6 << 40,
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// A fault or a client request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Occurrence {
    Fault(Fault),
    Request,
}

/// The scenario of a run.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) config: Config,
    pub(crate) voters: usize,
    pub(crate) observers: usize,
    /// The servers are new, and form a cluster.
    pub(crate) forms: bool,
    pub(crate) faults: Faults,
    /// The drift of each server's clock, in per mille.
    pub(crate) drift: Vec<i64>,
    /// Faults and requests with their times, by number.
    pub(crate) occurrences: BTreeMap<u32, (Micros, Occurrence)>,
    /// The numbers of the crashes that interrupt a server's nth write.
    pub(crate) crashes_in_write: BTreeMap<(usize, u32), u32>,
    /// Pairs of servers that stay disconnected after the faults.
    pub(crate) apart: Vec<(usize, usize)>,
}

impl Scenario {
    pub(crate) fn draw(plan: &Plan) -> Self {
        let mut rng = rng_for(plan.seed, Stream::Scenario);
        let mut faults = Faults::draw(&mut rng);
        let voters = [1, 3, 3, 3, 5][rng.random_range(0..5)];
        // With an injected bug, a run must only show violations of that bug.
        let sparse = (plan.rule.is_none() && !plan.without.contains(&Part::Sparse)).then(|| draw_sparse(plan.seed));
        let sparse = sparse.flatten();
        let is_sparse = sparse.is_some();
        let voters = sparse.as_ref().map_or(voters, |(voters, _)| *voters);
        let observers = usize::from(rng.random_bool(0.3));
        let mut config = config(&mut rng, &mut faults);
        let drift_max = if rng.random_bool(0.5) { rng.random_range(1..150) } else { 0 };
        let drift = (0..voters + observers).map(|_| rng.random_range(-drift_max..=drift_max)).collect();
        let apart = (voters > 1 && rng.random_bool(0.3)).then(|| {
            let one = rng.random_range(0..voters);
            (one, (one + rng.random_range(1..voters)) % voters)
        });
        let apart = sparse.map_or_else(|| apart.into_iter().collect(), |(_, apart)| apart);
        let mut happens = draw_occurrences(&mut rng, &faults);
        happens.sort_by_key(|(at, _)| *at);
        let numbered = (0..).zip(happens);
        let lies = if plan.rule.is_none() && !is_sparse { draw_lies(plan.seed) } else { Vec::new() };
        let (forms, changes) = draw_members(plan.seed);
        if forms {
            config.founders = (0..voters).map(|index| ServerId(index as u64 + 1)).collect();
        }
        let numbered = numbered.chain((LIES_FROM..).zip(lies)).chain((MEMBERS_FROM..).zip(changes));
        let mut occurrences = separate(numbered.collect(), plan.seed);
        occurrences.retain(|number, _| plan.has(*number));
        let crashes_in_write = draw_crashes(&mut rng, &faults, voters + observers);
        let mut this = Self { config, voters, observers, forms, faults, drift, occurrences, crashes_in_write, apart };
        this.crashes_in_write.retain(|_, number| plan.has(*number));
        this.config.injected_bug = plan.rule;
        for part in &plan.without {
            this.leave_out(*part);
        }
        this
    }

    fn leave_out(&mut self, part: Part) {
        match part {
            Part::Together => self.faults.together = 0,
            Part::Late => self.faults.late = 0,
            Part::Drift => self.drift.fill(0),
            Part::Latency => self.faults.latency_max = 2 * MILLI,
            Part::Disk => self.faults.disk_max = 3 * MILLI,
            Part::Bandwidth => self.faults.bandwidth = None,
            Part::Chaos => self.config.random_elections = false,
            Part::Observers => {
                self.observers = 0;
                self.drift.truncate(self.voters);
            }
            Part::Apart => self.apart.clear(),
            // It was not drawn.
            Part::Sparse => {}
            Part::Forming => self.forms = false,
            Part::Members => {
                let is_one =
                    |what: &Occurrence| matches!(what, Occurrence::Fault(Fault::ChangeMembers | Fault::FindDisk));
                self.occurrences.retain(|_, (_, what)| !is_one(what));
            }
            Part::Lies => {
                self.occurrences.retain(|_, (_, what)| !matches!(what, Occurrence::Fault(Fault::Lies)));
            }
        }
    }
}

fn config(rng: &mut ChaCha8Rng, faults: &mut Faults) -> Config {
    let mut config = Config::new(ServerId(0), LogId(0));
    config.outstanding_max = rng.random_range(1..100);
    config.sync_batch = rng.random_range(1..20);
    config.retained = rng.random_range(0..40);
    if rng.random_bool(0.3) {
        // Let the limits in bytes take effect before those in numbers.
        config.outstanding_bytes_max = rng.random_range(1_000..50_000);
        config.sync_batch_bytes = rng.random_range(1..10_000);
        config.retained_bytes = rng.random_range(0..20_000);
        config.payload_max = rng.random_range(100..2_000);
    }
    if rng.random_bool(0.3) {
        config.reads_max = rng.random_range(1..5);
    }
    if rng.random_bool(0.3) {
        config.counter_max = rng.random_range(2..60);
    }
    config.random_elections = rng.random_bool(0.4);
    if config.random_elections && rng.random_bool(0.5) {
        // Followers switch between candidates.
        faults.cut = Some(rng.random_range(15 * MILLI..200 * MILLI));
        faults.partition = Some(rng.random_range(300 * MILLI..2 * SECOND));
    }
    if rng.random_bool(0.3) {
        config.sync_ticks = rng.random_range(10..200);
    }
    if rng.random_bool(0.5) {
        // Followers soon know how long their leader may be silent, and are often wrong.
        config.window_ticks = rng.random_range(5..50);
        config.quick_ticks = rng.random_range(3..config.sync_ticks);
    }
    config
}

/// Draws all faults and requests.
fn draw_occurrences(rng: &mut ChaCha8Rng, faults: &Faults) -> Vec<(Micros, Occurrence)> {
    let mut happens = Vec::new();
    let kinds = faults.means().into_iter().map(|(fault, mean)| (Occurrence::Fault(fault), mean, FAULT_TIME));
    let requests = (Occurrence::Request, Some(faults.request), FAULT_TIME + AFTERWARDS);
    for (what, mean, until) in kinds.chain([requests]) {
        let Some(mean) = mean else { continue };
        let mut at = 0;
        loop {
            // Uniform between zero and twice the mean.
            at += rng.random_range(0..=2 * mean);
            if at >= until {
                break;
            }
            happens.push((at, what));
        }
    }
    happens
}

/// Draws, in three of ten runs, a number of voters and the pairs of them that stay disconnected after the faults. One
/// of them keeps connections to a quorum.
fn draw_sparse(seed: u64) -> Option<(usize, Vec<(usize, usize)>)> {
    let mut rng = rng_for(seed, Stream::Sparse);
    if !rng.random_bool(0.3) {
        return None;
    }
    let voters = rng.random_range(3..=7);
    let mut order: Vec<usize> = (0..voters).collect();
    order.shuffle(&mut rng);
    let (hub, reached) = (order[0], &order[1..=voters / 2]);
    let share = [0.3, 0.7, 1.0][rng.random_range(0..3)];
    let mut apart = Vec::new();
    for a in 0..voters {
        for b in 0..a {
            let is_kept = (a == hub && reached.contains(&b)) || (b == hub && reached.contains(&a));
            if !is_kept && rng.random_bool(share) {
                apart.push((a, b));
            }
        }
    }
    Some((voters, apart))
}

/// Draws, in three of ten runs each, whether the servers are new, and changes of the voters and lost logs that come
/// back.
fn draw_members(seed: u64) -> (bool, Vec<(Micros, Occurrence)>) {
    let mut rng = rng_for(seed, Stream::Members);
    let forms = rng.random_bool(0.3);
    let mut happens = Vec::new();
    for (fault, least) in [(Fault::ChangeMembers, 100 * MILLI), (Fault::FindDisk, 500 * MILLI)] {
        if !rng.random_bool(0.3) {
            continue;
        }
        let mean = rng.random_range(least..3 * SECOND);
        let mut at = rng.random_range(0..=2 * mean);
        while at < FAULT_TIME {
            happens.push((at, Occurrence::Fault(fault)));
            at += rng.random_range(0..=2 * mean);
        }
    }
    (forms, happens)
}

/// Keeps lost logs and changes of the voters apart, by more than anything can be delayed. A voter that loses its log
/// while it is added, or while another one is removed, may cost the quorum: that is one failure too many.
fn separate(mut occurrences: BTreeMap<u32, (Micros, Occurrence)>, seed: u64) -> BTreeMap<u32, (Micros, Occurrence)> {
    let (early, late) = (3 * SECOND, FAULT_TIME - 2 * SECOND);
    let changes_first = seed.is_multiple_of(2);
    let is_change = |what: &Occurrence| matches!(what, Occurrence::Fault(Fault::ChangeMembers));
    let is_loss = |what: &Occurrence| matches!(what, Occurrence::Fault(Fault::LoseDisk | Fault::FindDisk));
    if occurrences.values().any(|(_, what)| is_change(what)) && occurrences.values().any(|(_, what)| is_loss(what)) {
        occurrences.retain(|_, (at, what)| match (is_change(what), is_loss(what)) {
            (false, false) => true,
            (is_change, _) if is_change == changes_first => *at < early,
            _ => *at > late,
        });
    }
    occurrences
}

/// Draws when servers start to send bogus numbers, in three of ten runs.
fn draw_lies(seed: u64) -> Vec<(Micros, Occurrence)> {
    let mut rng = rng_for(seed, Stream::Lies);
    if !rng.random_bool(0.3) {
        return Vec::new();
    }
    let mean = rng.random_range(200 * MILLI..4 * SECOND);
    let mut lies = Vec::new();
    let mut at = rng.random_range(0..=2 * mean);
    while at < FAULT_TIME {
        lies.push((at, Occurrence::Fault(Fault::Lies)));
        at += rng.random_range(0..=2 * mean);
    }
    lies
}

fn draw_crashes(rng: &mut ChaCha8Rng, faults: &Faults, servers: usize) -> BTreeMap<(usize, u32), u32> {
    let mut crashes = BTreeMap::new();
    let Some(mean) = 1000_u32.checked_div(faults.crash_in_write) else { return crashes };
    // Their numbers are above those of occurrences with a time.
    let mut number = 1 << 20;
    for server in 0..servers {
        let mut write = 0;
        while write < WRITES {
            write += rng.random_range(1..=2 * mean);
            crashes.insert((server, write), number);
            number += 1;
        }
    }
    crashes
}
