use crate::{Diagnostics, Duration, FromNode, Named, OneOrMany, Reader, Resolve, Secret, Size, parse};

crate::choices! {
    /// How to pick an endpoint.
    enum Balance {
        /// In turn.
        RoundRobin = "round_robin",
        /// The least busy.
        Least = "least_outstanding",
    }
}

crate::settings! {
    /// a service
    struct Service {
        /// Its address.
        url: OneOrMany<String>,
        /// How long to wait.
        timeout: Duration = Duration(std::time::Duration::from_secs(5)),
        /// Maximum body size.
        max: Option<Size>,
        /// Concurrent calls.
        concurrency: usize = 64,
        /// How to pick.
        balance: Balance = Balance::RoundRobin,
        /// Whether to check.
        strict: bool = false,
        /// A token.
        token: Option<Secret>,
    }

    /// a file
    struct File {
        /// Services.
        services: Named<Service>,
    }
}

struct Fixed;

impl Resolve for Fixed {
    fn env(&self, name: &str) -> Result<String, String> {
        if name == "TOKEN" { Ok("s3cret".into()) } else { Err(format!("the environment has no `{name}`")) }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("cannot read `{path}`"))
    }
}

fn read(text: &str) -> (Option<File>, String) {
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("a.yaml", text);
    let file = parse(source, &mut diagnostics)
        .and_then(|node| File::from_node(&node, &mut Reader::new(&mut diagnostics, &Fixed)));
    (file, diagnostics.render_short())
}

#[test]
fn a_valid_file_is_read_with_defaults() {
    let (file, problems) = read(
        "services:\n  a: { url: \"http://x\", timeout: 250ms, max: 64KiB, token: 'Bearer ${env:TOKEN} ${req.x}' }\n  b:\n    url: [x, y]\n    balance: least_outstanding\n",
    );
    assert_eq!(problems, "");
    let file = file.expect("a file");
    let service = file.services.get("a").expect("a");
    assert_eq!(service.timeout.0.as_millis(), 250);
    assert_eq!(service.max, Some(Size(65_536)));
    assert_eq!(service.concurrency, 64);
    let token = service.token.as_ref().expect("a token");
    assert_eq!((token.reveal(), token.literal), ("Bearer s3cret ${req.x}", false));
    assert!(!format!("{file:?}").contains("s3cret"));
    let second = file.services.get("b").expect("b");
    assert_eq!((second.url.0.len(), second.balance.word(), second.strict), (2, "least_outstanding", false));
}

#[test]
fn all_errors_are_reported_with_position_and_help() {
    let (file, problems) = read(
        "services:\n  a:\n    ulr: x\n    timeout: 5\n    strict: yes\n    balance: round-robin\n    concurrency: many\n    max: 1MB\n    token: ${env:NONE}\n    url: x\n    url: y\n  b: &b\n    timeout: 1s\n  c: *b\nroutes: {}\n",
    );
    assert!(file.is_none());
    let expected = "\
a.yaml:3:5: error[unknown-key]: unknown key `ulr` in a service; write `url`
a.yaml:4:14: error[duration]: `5` is not a duration; write the unit: `5ms`, `5s`, `5m` or `5h`
a.yaml:5:13: error[wrong-kind]: expected true or false, found a scalar; write `true` or `false`, without quotes
a.yaml:6:14: error[choice]: `round-robin` is not a valid value; write `round_robin`
a.yaml:7:18: error[number]: `many` is not an integer from 0 to 18446744073709551615; write digits only
a.yaml:8:10: error[size]: `1MB` is not a size; write an integer and its unit: `512B`, `64KiB`, `1MiB`, `2GiB`
a.yaml:9:12: error[placeholder]: the environment has no `NONE`; set it, or write a default: `${env:NONE:-…}`
a.yaml:11:5: error[duplicate-key]: duplicate key `url`; it is already on line 10; keep one of them
";
    assert!(problems.starts_with(expected), "{problems}");
    for (line, code) in [(13, "missing-key"), (14, "yaml-anchor"), (15, "unknown-key")] {
        let found =
            problems.lines().any(|problem| problem.starts_with(&format!("a.yaml:{line}:")) && problem.contains(code));
        assert!(found, "no {code} on line {line} in\n{problems}");
    }
}

#[test]
fn invalid_yaml_is_reported_at_the_place_of_the_error() {
    let (_, problems) = read("services:\n  a: [x\n");
    assert!(problems.starts_with("a.yaml:2:6: error[yaml]"), "{problems}");
    let (_, problems) = read("");
    assert!(problems.contains("error[empty-file]"), "{problems}");
    let deep = format!("services: {}{}", "[".repeat(1000), "]".repeat(1000));
    assert!(read(&deep).1.contains("error[yaml]"));
}

#[test]
fn rendered_errors_show_the_line_and_carets() {
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("a.yaml", "a: 1\nservce: x\n");
    let node = parse(source, &mut diagnostics).expect("a map");
    assert!(File::from_node(&node, &mut Reader::new(&mut diagnostics, &Fixed)).is_none() || diagnostics.has_errors());
    let rendered = diagnostics.render(false);
    assert!(rendered.contains(" --> a.yaml:2:1"), "{rendered}");
    assert!(rendered.contains("servce: x\n  | ^^^^^^"), "{rendered}");
}

#[test]
fn the_schema_lists_required_keys() {
    let schema = File::schema();
    let service = &schema["properties"]["services"]["additionalProperties"];
    assert_eq!(service["required"], serde_json::json!(["url"]));
    assert_eq!(service["additionalProperties"], serde_json::json!(false));
    assert_eq!(service["properties"]["timeout"]["description"], "How long to wait.");
}
