//! Neither source nor data exceeds the limits on stack, memory (64 MiB) and time.

use std::time::{Duration, Instant};

use crossdock_expression::{Budget, Environment, FixedHost, Program, Type, Val, Variable};
use crossdock_message::{Decimal, Record, Value};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Time to spend a whole budget.
const TIME_MAX: Duration = if cfg!(debug_assertions) { Duration::from_secs(8) } else { Duration::from_millis(400) };
const BYTES_MAX: usize = 64 << 20;

fn environment() -> Environment {
    Environment { variables: vec![Variable { name: "x".into(), ty: Type::Dyn }], ..Environment::default() }
}

/// Runs `work` with the default stack of a Rust thread, 2 MiB.
fn on_a_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, work).expect("a thread");
        thread.join().expect("no overflow");
    });
}

fn towers() -> Vec<String> {
    let tower = |rows: usize, suffix: &str| {
        let row = |inner: String, count: usize| format!("({inner}{})", suffix.repeat(count));
        (1..=rows).fold("x".to_owned(), row)
    };
    let nested = |open: &str, close: &str, levels: usize| format!("{}x{}", open.repeat(levels), close.repeat(levels));
    let mut sources =
        vec![tower(49, "+1"), tower(45, ".a"), tower(45, "[0]"), tower(45, ".a()"), "-".repeat(2000) + "1"];
    for levels in [40, 44, 60, 5000] {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{1:", "}"),
            ("!", ""),
            ("optional.of(", ")"),
            ("[1].map(a,", ")"),
            ("x?x:", ""),
            ("x.f(", ")"),
        ] {
            sources.push(nested(open, close, levels));
        }
    }
    sources
}

#[test]
fn no_source_overflows_the_stack() {
    on_a_small_stack(|| {
        for source in towers() {
            if let Ok(program) = Program::compile(&source, &Environment { is_unchecked: true, ..environment() }) {
                let inputs: Vec<_> = program.inputs().iter().map(|_| Some(Val::Int(1))).collect();
                let _ = program.evaluate(
                    &inputs,
                    &Budget::new(Instant::now() + Duration::from_secs(60)),
                    &FixedHost::default(),
                );
            }
        }
    });
}

#[test]
fn no_source_takes_long_to_check() {
    let binds = (1..24)
        .rev()
        .fold("1".to_owned(), |body, level| format!("cel.bind(a{level},{{optional.of(a{0}):a{0}}},{body})", level - 1));
    let lists =
        (1..40).rev().fold("1".to_owned(), |body, level| format!("cel.bind(a{level},[[a{0},a{0}]],{body})", level - 1));
    let many = |one: &str| format!("[{}]", vec![one; 2000].join(","));
    let sources = [
        format!("cel.bind(a0,1,{binds})"),
        format!("cel.bind(a0,1,{lists})"),
        many("[]"),
        many("size(x)"),
        many("q"),
        many("x.a"),
        format!("[1].map({},{})", "n".repeat(6000), many("q")),
    ];
    for source in &sources {
        let begun = Instant::now();
        let _ = Program::compile(source, &environment());
        assert!(begun.elapsed() < TIME_MAX, "{} … took {:?}", &source[..60], begun.elapsed());
    }
}

/// A message of about a megabyte whose fields are expensive in different ways.
fn message() -> Value {
    let text = |len: usize, one: &str| Value::from(one.repeat(len).as_str());
    let long_number =
        |number: usize| Decimal::new(format!("{number}{}.5", "7".repeat(990))).map(Value::Decimal).expect("a number");
    let keys: Record =
        (0..5000).map(|at| (crossdock_message::ByteString::from(format!("key{at:05}")), Value::Int(at))).collect();
    [
        ("zeros", text(1 << 20, "0")),
        ("wide", text(1 << 18, "é")),
        ("m", Value::Record(keys)),
        ("d", long_number(1)),
        ("ds", Value::List((1..500).map(long_number).collect())),
        ("l", Value::List((0..20_000).map(Value::Int).collect())),
        ("ts", Value::List((0..5000).map(|at| Value::from(format!("{}{at}", "k".repeat(100)).as_str())).collect())),
    ]
    .into_iter()
    .collect::<Record>()
    .into()
}

#[test]
fn no_data_exceeds_the_budget() {
    let message = message();
    // Nested loops that only the budget ends.
    let repeated = |body: &str| format!("lists.range(1000).all(a, lists.range(1000).all(b, {body}))");
    let mut sources: Vec<String> = [
        "has(x.m.key04999)",
        "x.?m.?key04999.hasValue()",
        "x.m['key04999'] > 0",
        "int(x.zeros) == 0 || true",
        "double(x.zeros) == 0.0 || true",
        "-x.d < 0",
        "x.d != 1",
        "x.d / 7 > 1",
        "x.d * x.d > 1",
        "round(x.d, -2) > 1",
        "sum([x.d, x.d]) > 1",
        "math.greatest(x.d, x.d) > 1",
        "x.d in [1, 2]",
        "!(x.zeros in x.m)",
        "x.zeros != x.wide",
        "x.zeros < x.wide",
        "x.zeros.contains('0000001') || true",
        "x.wide.charAt(200000) != ''",
        "x.zeros.matches('^[0-9a-f]+$')",
        "x.zeros.matches('(0*)*1') || true",
        "'a'.matches('\\\\w{' + string(a) + '}') || true",
        "x.zeros.replace('0', '1') != ''",
        "x.zeros.split('').size() > 0",
        "x.l.map(y, y).size() > 0",
        "x.l.sort().size() > 0",
        "x.ts.sort().size() > 0",
        "x.ts.distinct().size() > 0",
        "x.ds.distinct().size() > 0",
        "x.ds == x.ds",
        "x.ds.sort().size() > 0",
        "x.ts.groupBy(t, t).size() > 0",
        "sets.contains(x.ts, x.ts)",
        "x.m.keys().size() > 0",
        "x.m.merge(x.m).size() > 0",
        "'%s'.format([x.l]).size() > 0",
        "'%x'.format([x.zeros]).size() > 0",
        "base64.encode(bytes(x.zeros)).size() > 0",
        "sha256(x.zeros).size() > 0",
        "timestamp('2024-01-01T00:00:00Z').getFullYear('Europe/Berlin') > 0",
        "formatTime(timestamp(0), '%A %B %c') != ''",
        "optional.of(optional.of(1)).hasValue()",
        "[{}, {}, {}, {}].size() > 0",
        "[[[[]]]].flatten(3).size() == 0",
    ]
    .iter()
    .map(|body| repeated(body))
    .collect();
    sources.push(repeated(&vec!["true"; 1500].join("&&")));
    sources.extend(
        [
            "x.l.map(a, optional.of(optional.of(optional.of(optional.of(a)))))",
            "x.l.map(a, x.l.map(b, {}))",
            "x.l.map(a, x.l)",
            "x.l.map(a, x.zeros + string(a))",
            "lists.range(90000).groupBy(i, string(i))",
            "lists.range(250000).distinct()",
            "sets.equivalent(lists.range(400000), lists.range(400000))",
            "lists.range(8000).map(i, i % 2 == 0 ? x.zeros + 'a' : x.zeros + 'b').sort().size()",
            "x.l.map(a, x.l.map(b, x.l))",
            "x.l.transformMap(i, v, [v, v, v, v])",
            "x.l.map(a, '%s'.format([x.l]))",
        ]
        .map(str::to_owned),
    );
    let mut slow = Vec::new();
    for source in &sources {
        let program =
            Program::compile(source, &environment()).unwrap_or_else(|problems| panic!("{source}: {problems:?}"));
        let inputs: Vec<_> = program.inputs().iter().map(|_| Some(Val::data(&message, false))).collect();
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        MEMORY.reset_peak_usage();
        let (before, begun) = (MEMORY.current_usage(), Instant::now());
        let result = program.evaluate(&inputs, &budget, &FixedHost::default());
        let (took, bytes) = (begun.elapsed(), MEMORY.peak_usage() - before);
        drop(result);
        if took > TIME_MAX || bytes > BYTES_MAX {
            slow.push(format!("{took:?}, {} MiB, charged {:?}: {source}", bytes >> 20, budget.used()));
        }
    }
    assert!(slow.is_empty(), "limits exceeded:\n{}", slow.join("\n"));
}
