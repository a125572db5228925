//! The output of `crossdock check` for broken settings, as golden files: every error has a position and a help text.
//! `CROSSDOCK_BLESS=1 cargo test` regenerates the files.

use std::path::Path;
use std::process::Command;

use crossdock_tests::{crossdock, repository};

const LISTENERS: &str = "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } } }\n";
const BROKER: &str = "version: 1\nlisteners: { broker: { amqp: { url: \"amqp://127.0.0.1\" } } }\n";
const TOPICS: &str = "version: 1\nlisteners: { topics: { kafka: { brokers: \"127.0.0.1:9092\", group: g } } }\n";
const CLUSTER: &str = "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } } }\ncluster: {}\n";
const ENGINE: &str = "version: 1
listeners: { public: { http: { bind: \"127.0.0.1:0\" } }, broker: { amqp: { url: \"amqp://127.0.0.1\" } } }
coordination: { engine: redis, endpoints: [ \"127.0.0.1:6379\" ] }
";
const LISTENERS_AND_GRPC: &str = "version: 1
cluster: {}
listeners:
  public: { http: { bind: \"127.0.0.1:0\" } }
  internal: { grpc: { bind: \"127.0.0.1:0\" } }
  broker: { amqp: { url: \"amqp://127.0.0.1\" } }
";

fn check(folder: &Path, format: &str) -> (i32, String) {
    let output = Command::new(crossdock())
        .args(["check", "--format", format, "."])
        .current_dir(folder)
        .output()
        .expect("the command runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code().expect("a code"), text)
}

#[test]
fn each_broken_file_is_reported_with_a_position_and_a_fix() {
    let golden = repository().join("tests/golden/check");
    let mut cases: Vec<_> =
        std::fs::read_dir(&golden).expect("golden files").map(|entry| entry.expect("a file").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() >= 15, "there are only {} broken files", cases.len());
    let bless = std::env::var_os("CROSSDOCK_BLESS").is_some();
    let mut differing = Vec::new();
    for case in cases {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("routes")).expect("a folder");
        let text = std::fs::read_to_string(&case).expect("a file");
        let name = case.file_stem().expect("a name").to_string_lossy().into_owned();
        if name.starts_with("main-") {
            std::fs::write(folder.path().join("crossdock.yaml"), &text).expect("settings");
        } else {
            let listeners = match name.split('-').next() {
                Some("typed") => LISTENERS_AND_GRPC,
                Some("queues") => BROKER,
                Some("topics") => TOPICS,
                Some("clustered") => CLUSTER,
                Some("engine") => ENGINE,
                _ => LISTENERS,
            };
            std::fs::write(folder.path().join("crossdock.yaml"), listeners).expect("settings");
            std::fs::write(folder.path().join("routes/broken.yaml"), &text).expect("routes");
            for contract in ["shop.proto", "broken.proto"] {
                std::fs::copy(golden.join(contract), folder.path().join(contract)).expect("a contract");
            }
        }
        let (code, shown) = check(folder.path(), "human");
        assert_eq!(code, 1, "{name}: {shown}");
        assert!(shown.contains(" --> ") && shown.contains('^'), "{name}: no position:\n{shown}");
        assert!(shown.contains("help: "), "{name}: no help text:\n{shown}");
        let expected = case.with_extension("txt");
        if bless {
            std::fs::write(&expected, &shown).expect("a golden file");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != shown {
            differing.push(format!("{name}:\n{shown}"));
        }
    }
    assert!(differing.is_empty(), "differ from their golden files:\n{}", differing.join("\n"));
}

#[test]
fn errors_are_printed_as_json_and_as_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("crossdock.yaml"), LISTENERS).expect("settings");
    std::fs::write(folder.path().join("routes/broken.yaml"), "version: 1\nrouts: {}\n").expect("routes");
    let (code, lines) = check(folder.path(), "short");
    assert_eq!(
        (code, lines.as_str()),
        (1, "./routes/broken.yaml:2:1: error[unknown-key]: unknown key `routs` in a route file; write `routes`\n")
    );
    let (code, json) = check(folder.path(), "json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, &json[0]["line"], &json[0]["code"]), (1, &2.into(), &"unknown-key".into()));
}

#[test]
fn shipped_settings_and_examples_are_valid_and_pass_their_tests() {
    let root = repository();
    let mut folders = vec![root.join("config")];
    for entry in std::fs::read_dir(root.join("examples")).expect("examples") {
        let folder = entry.expect("a folder").path().join("config");
        if folder.is_dir() {
            folders.push(folder);
        }
    }
    assert!(folders.len() >= 3, "{folders:?}");
    for folder in folders {
        for command in ["check", "test"] {
            let output =
                Command::new(crossdock()).arg(command).arg(&folder).current_dir(&root).output().expect("it runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command} {}:\n{text}", folder.display());
            assert!(command == "check" || text.contains(" passed, 0 failed") && !text.contains("\n0 passed"), "{text}");
        }
    }
}

#[test]
fn yaml_blocks_in_the_documentation_are_valid() {
    let mut checked = 0;
    for document in [
        "README.md",
        "src/routing/README.md",
        "src/cluster/README.md",
        "src/coordination/README.md",
        "src/engines/README.md",
        "adapters/grpc/README.md",
        "adapters/queue/README.md",
    ] {
        let text = std::fs::read_to_string(repository().join(document)).expect(document);
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::create_dir(folder.path().join("routes")).expect("a folder");
            let main = if block.contains("\nlisteners:") { block } else { LISTENERS_AND_GRPC };
            std::fs::create_dir(folder.path().join("contracts")).expect("a folder");
            let contract = "contracts/stock.proto";
            std::fs::copy(repository().join("config").join(contract), folder.path().join(contract))
                .expect("a contract");
            std::fs::write(folder.path().join("crossdock.yaml"), main).expect("settings");
            if main != block {
                std::fs::write(folder.path().join("routes/block.yaml"), block).expect("routes");
            }
            let (code, shown) = check(folder.path(), "human");
            assert_eq!(code, 0, "{document}:\n{shown}");
            if block.contains("\ntests:") {
                let test =
                    Command::new(crossdock()).args(["test", "."]).current_dir(folder.path()).output().expect("it runs");
                assert!(test.status.success(), "{document}: {}", String::from_utf8_lossy(&test.stdout));
            }
            checked += 1;
        }
    }
    assert!(checked >= 6, "{checked} blocks were checked");
}

#[test]
fn the_committed_schemas_are_up_to_date() {
    let schema = Command::new(crossdock()).args(["schema", "routes"]).output().expect("it runs");
    let committed = std::fs::read_to_string(repository().join("schemas/routes.schema.json")).expect("a schema");
    // Not assert_eq: `git diff` shows differences of thousands of lines better.
    assert!(schema.stdout == committed.as_bytes(), "regenerate: crossdock schema routes > schemas/routes.schema.json");
    let settings = Command::new(crossdock()).args(["schema", "settings"]).output().expect("it runs");
    let committed = std::fs::read_to_string(repository().join("schemas/crossdock.schema.json")).expect("a schema");
    assert_eq!(
        String::from_utf8_lossy(&settings.stdout),
        committed,
        "regenerate: crossdock schema settings > schemas/crossdock.schema.json"
    );
}

#[test]
fn secrets_are_never_printed() {
    let canary = "c4n4ry-5ecret";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("crossdock.yaml"), LISTENERS).expect("settings");
    let routes = "version: 1
services:
  s:
    http:
      url: \"http://127.0.0.1:1\"
      headers: { authorization: \"Bearer ${env:CANARY}\" }
      operations: { g: { get: /x } }
routes:
  r: { from: { http: { listen: public, get: /x } }, steps: [ { call: s.g } ] }
";
    for (name, text) in [
        ("good", routes.to_owned()),
        ("broken", routes.replace("call: s.g", "call: s.h")),
        ("literal", routes.replace("${env:CANARY}", canary)),
    ] {
        std::fs::write(folder.path().join("routes/r.yaml"), &text).expect("routes");
        for command in [vec!["check", "--format", "short", "."], vec!["explain", "--config", ".", "r"]] {
            let output = Command::new(crossdock())
                .args(&command)
                .env("CANARY", canary)
                .current_dir(folder.path())
                .output()
                .expect("it runs");
            let shown = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(!shown.contains(canary), "{name}, {command:?}: {shown}");
            if name == "literal" && command[0] == "check" {
                assert!(shown.contains("literal-secret"), "{shown}");
            }
        }
    }
}
