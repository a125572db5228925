//! Random routes and random bodies: evaluation is bounded in memory and time.
//! `CROSSDOCK_PAIRS=100000 cargo test --release --test generated_routes -- --nocapture` is a long run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossdock_message::{Body, Format, Limits, Message, json};
use crossdock_ports::Adapter;
use crossdock_routing::expression::{FixedHost, Meter, Request, Scope};
use crossdock_routing::{Inputs, ListenerInfo, Step, load};
use crossdock_settings::{Diagnostics, Resolve};
use crossdock_tests::fuzz::NoFiles;
use peak_alloc::PeakAlloc;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory limit of one evaluation, including the written body but not the message itself.
const MEMORY_MAX: usize = 64 << 20;
/// Time limit of one evaluation; longer for debug builds, which run in parallel with other tests.
const TIME_MAX: Duration =
    if cfg!(debug_assertions) { Duration::from_millis(2500) } else { Duration::from_millis(250) };
const BODY_LEN_MAX: usize = 1 << 20;

struct NoSources;

impl Resolve for NoSources {
    fn env(&self, _: &str) -> Result<String, String> {
        Err("there is no environment".into())
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Err("there are no files".into())
    }
}

/// A path into the message or into an item of an enclosing list.
fn path(random: &mut StdRng, items: usize) -> String {
    const PATHS: [&str; 11] = [
        "req",
        "req.t",
        "req.n",
        "req.l",
        "req.ll",
        "req.r",
        "req.o",
        "req.l[0]",
        "req.ll[1]",
        "req.r[0].a",
        "req.o.k7",
    ];
    if items > 0 && random.random_bool(0.5) {
        let item = format!("i{}", random.random_range(0..items));
        return if random.random_bool(0.5) { item } else { format!("{item}.a") };
    }
    PATHS[random.random_range(0..PATHS.len())].to_owned()
}

/// A path that is likely to be a list.
fn list(random: &mut StdRng, items: usize) -> String {
    const LISTS: [&str; 4] = ["req.l", "req.ll", "req.r", "req.ll[1]"];
    match random.random_range(0..10) {
        0 => path(random, items),
        1..4 if items > 0 => format!("i{}", items - 1),
        _ => LISTS[random.random_range(0..LISTS.len())].to_owned(),
    }
}

/// An expression over the message with at most `depth` levels of calls and loops. Most fail on most values; they must only stay within the
/// limits.
fn expression(random: &mut StdRng, items: usize, depth: usize) -> String {
    const CALLS: [&str; 34] = [
        "@.map(v, #)",
        "@.filter(v, size(string(v)) < 3)",
        "@.map(v, [v, v, #])",
        "@.map(v, {'a': v, 'b': #})",
        "sum(@.map(v, v * 1.10))",
        "avg(@)",
        "@.sort()",
        "@.sortBy(v, -v)",
        "@.distinct()",
        "@.groupBy(v, string(v))",
        "@.flatten().map(v, #)",
        "@.zip(@)",
        "@ + @",
        "@.reverse().slice(0, 3)",
        "@.map(v, string(v)).join(',')",
        "@.exists(v, v == #)",
        "@.transformMap(i, v, #)",
        "lists.range(size(@)).map(v, #)",
        "sets.equivalent(@, @)",
        "[#, #, #]",
        "{'x': #, 'y': #}",
        "# + #",
        "req.t + req.t + req.t",
        "req.t.replace('t', 'tt')",
        "req.t.replace('', '-').size()",
        "req.t.split('').size()",
        "req.t.matches('(t+)+x')",
        "'%s and %s'.format([#, @])",
        "base64.encode(bytes(req.t)) + hex.encode(sha256(req.t))",
        "req.n * req.n * req.n / 7",
        "round(req.n / 3, 20)",
        "optional.of(#).orValue(1)",
        "cel.bind(v, #, [v, v, v])",
        "req.o.keys().map(v, v + #)",
    ];
    if depth == 0 {
        return if random.random_bool(0.3) { "v".to_owned() } else { path(random, items) };
    }
    let call = CALLS[random.random_range(0..CALLS.len())];
    let mut source = String::new();
    for character in call.chars() {
        match character {
            '#' => source.push_str(&expression(random, items, depth - 1)),
            '@' => source.push_str(&list(random, items)),
            other => source.push(other),
        }
    }
    // Binds `v` outside of loops.
    format!("cel.bind(v, 1, {source})")
}

/// A map with at most `depth` levels of nested lists.
fn map(random: &mut StdRng, items: usize, depth: usize) -> String {
    let fields: Vec<String> = (0..random.random_range(1..5))
        .map(|number| {
            let nested = if random.random_bool(0.2) { ".x" } else { "" };
            if depth > 0 && random.random_bool(0.5) {
                let (list, inner) = (list(random, items), map(random, items + 1, depth - 1));
                return format!("f{number}{nested}?: {{ each: \"{list}\", as: i{items}, map: {inner} }}");
            }
            if random.random_bool(0.3) {
                let depth = random.random_range(1..4);
                return format!("f{number}{nested}: \"{}\"", expression(random, items, depth));
            }
            format!("f{number}{nested}?: \"{}\"", path(random, items))
        })
        .collect();
    format!("{{ {} }}", fields.join(", "))
}

fn route(random: &mut StdRng) -> String {
    let map = map(random, 0, 3);
    format!(
        "version: 1
services: {{ s: {{ http: {{ url: \"http://127.0.0.1:1\", operations: {{ p: {{ post: /p }} }} }} }} }}
routes:
  r:
    from: {{ http: {{ listen: public, post: /r }} }}
    steps:
      - map: {map}
      - require: {{ that: true, message: \"${{{}}} and ${{{}}}\" }}
      - call: s.p
",
        ["req.t", "req.n", "req.r[0].a"][random.random_range(0..3)],
        ["req.t", "req.n", "req"][random.random_range(0..3)]
    )
}

fn body(random: &mut StdRng) -> String {
    // Most bodies are small; the others have one part of nearly the maximum size.
    let large = random.random_range(0..8);
    let count = |random: &mut StdRng, part: usize, max: usize| {
        if large == part { max } else { random.random_range(0..20) }
    };
    let text = "t".repeat(count(random, 0, 900_000));
    let list = vec!["1"; count(random, 1, 190_000)].join(",");
    let lists = vec![format!("[{}]", vec!["2"; 400].join(",")); count(random, 2, 450)].join(",");
    let records = vec![format!("{{\"a\":\"{}\"}}", "r".repeat(30)); count(random, 3, 20_000)].join(",");
    let keys: Vec<String> = (0..count(random, 4, 9_999)).map(|number| format!("\"k{number}\":{number}")).collect();
    let keys = keys.join(",");
    format!("{{\"t\":\"{text}\",\"n\":1.50,\"l\":[{list}],\"ll\":[{lists}],\"r\":[{records}],\"o\":{{{keys}}}}}")
}

#[test]
fn no_route_exceeds_its_memory_and_time_bounds() {
    let pairs: u64 = std::env::var("CROSSDOCK_PAIRS").map_or(500, |text| text.parse().expect("a number"));
    let adapters: [Arc<dyn Adapter>; 1] = [Arc::new(crossdock_http::HttpAdapter)];
    let listeners = [ListenerInfo { name: "public".to_owned(), adapter: "http", transactions: None }];
    let limits = Limits::default();
    let (mut mapped, mut rejected, mut ill_typed, mut memory_max, mut time_max) = (0, 0, 0, 0, Duration::ZERO);
    for seed in 0..pairs {
        let mut random = StdRng::seed_from_u64(seed);
        let text = route(&mut random);
        let mut diagnostics = Diagnostics::new();
        let inputs = Inputs {
            adapters: &adapters,
            listeners: &listeners,
            resolve: &NoSources,
            files: &NoFiles,
            reflect: &|_| Err("reflection is unavailable".into()),
            limits: &limits,
            has_cluster: false,
            locks: None,
        };
        let plan = load(&[("r.yaml".to_owned(), text.clone())], &inputs, &mut diagnostics);
        let Some(plan) = plan else {
            // Only type errors of expressions are expected.
            let shown = diagnostics.render_short();
            assert!(
                shown.lines().all(|line| !line.contains("error[") || line.contains("error[expression]")),
                "{shown}\n{text}"
            );
            ill_typed += 1;
            continue;
        };
        let body = body(&mut random);
        assert!(body.len() <= BODY_LEN_MAX, "{} bytes of seed {seed}", body.len());
        let mut message = Message::new("m".into(), "public".into());
        message.body = Body::raw(bytes::Bytes::from(body).into(), Format::Json);
        message.body.value(&limits).expect("valid JSON");
        let route = &plan.routes[0];
        let request = Request { message, binding: Arc::clone(route.entries[0].binding()) };
        let begun = Instant::now();
        let meter = Meter::new(begun + Duration::from_secs(60));
        let scope = Scope {
            request: &request,
            current: &request.message,
            reply: None,
            variables: &[],
            item: None,
            host: &FixedHost::default(),
            meter: &meter,
            limits: &limits,
        };
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let mut faults = Vec::new();
        for step in &route.steps {
            match step {
                Step::Map(step) => match step.map.evaluate(&scope) {
                    Ok(value) => drop(json::write(&value).expect("a value that can be written as JSON")),
                    Err(fault) => faults.push(fault),
                },
                Step::Require(step) => faults.extend(step.message.render(&scope).err()),
                _ => {}
            }
        }
        let (memory, time) = (MEMORY.peak_usage().saturating_sub(before), begun.elapsed());
        for fault in &faults {
            let known = [
                "EXPRESSION",
                "NOT_A_LIST",
                "NO_TEXT",
                "FIELD_MISSING",
                "BODY_TOO_LARGE",
                "TOO_MUCH_MEMORY",
                "TOO_MUCH_WORK",
                "TEXT_TOO_LONG",
            ];
            assert!(known.contains(&fault.reason.as_str()), "seed {seed}: {fault}");
        }
        assert!(memory <= MEMORY_MAX, "seed {seed} takes {} MiB:\n{text}", memory >> 20);
        assert!(time <= TIME_MAX, "seed {seed} takes {time:?}:\n{text}");
        (memory_max, time_max) = (memory_max.max(memory), time_max.max(time));
        let exceeds_limit = faults
            .iter()
            .any(|fault| matches!(fault.reason.as_str(), "BODY_TOO_LARGE" | "TOO_MUCH_MEMORY" | "TOO_MUCH_WORK"));
        rejected += u64::from(exceeds_limit);
        mapped += u64::from(faults.is_empty());
    }
    println!(
        "{pairs} pairs: {ill_typed} ill-typed, {mapped} mapped, {rejected} rejected, at most {} MiB and {time_max:?}",
        memory_max >> 20
    );
    assert!(ill_typed < pairs / 3, "{ill_typed} routes are ill-typed");
    assert!(mapped > pairs / 20 && rejected > pairs / 50, "the generator stays below and exceeds the limits");
}
