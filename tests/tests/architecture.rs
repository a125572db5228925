//! Checks the layers of ARCHITECTURE.md against the manifests: a crate depends only on lower layers, crates of one layer are independent,
//! and some external libraries are reserved for their owners.

use std::collections::{BTreeMap, BTreeSet};

use crossdock_tests::repository;

/// The layer of each crate; all adapters are in the same layer.
const LAYERS: &[(&str, u8)] = &[
    ("crossdock-message", 0),
    ("crossdock-settings", 0),
    ("crossdock-zab", 0),
    ("crossdock-contract", 1),
    ("crossdock-cloudevents", 1),
    ("crossdock-coordination", 1),
    ("crossdock-tls", 1),
    ("crossdock-expression", 1),
    ("crossdock-proto", 2),
    ("crossdock-ports", 2),
    ("crossdock-offload", 3),
    ("crossdock-delivery", 3),
    ("crossdock-stored", 3),
    ("crossdock-test-kit", 3),
    ("crossdock-transport", 3),
    ("crossdock-routing", 3),
    ("crossdock-simulator", 3),
    ("crossdock-cluster", 4),
    ("crossdock-http", 4),
    ("crossdock-grpc", 4),
    ("crossdock-amqp", 4),
    ("crossdock-kafka", 4),
    ("crossdock-queue", 4),
    ("crossdock-embedded", 5),
    ("crossdock-engines", 5),
    ("crossdock-api", 1),
    ("crossdock-client", 2),
    ("crossdock-api-server", 6),
    ("crossdock-gateway", 7),
    ("crossdock-cli", 8),
    ("crossdock-tests", 9),
    ("crossdock-examples", 10),
];

/// The crates that may use a library.
const OWNERS: &[(&str, &[&str])] = &[
    ("actix", &["crossdock-gateway"]),
    ("actix-web", &["crossdock-gateway", "crossdock-cli"]),
    ("actix-http", &["crossdock-http"]),
    ("actix-server", &["crossdock-transport"]),
    (
        "hyper",
        &[
            "crossdock-transport",
            "crossdock-http",
            "crossdock-grpc",
            "crossdock-kafka",
            "crossdock-api-server",
            "crossdock-engines",
        ],
    ),
    ("tonic", &["crossdock-api", "crossdock-api-server", "crossdock-client", "crossdock-engines", "crossdock-tests"]),
    ("h2", &["crossdock-grpc"]),
    ("hickory-resolver", &["crossdock-transport"]),
    ("protox", &["crossdock-proto"]),
    ("redis", &["crossdock-engines"]),
    ("zookeeper-client", &["crossdock-engines"]),
    (
        "prost",
        &[
            "crossdock-api",
            "crossdock-contract",
            "crossdock-coordination",
            "crossdock-proto",
            "crossdock-grpc",
            "crossdock-cluster",
            "crossdock-embedded",
            "crossdock-engines",
            "crossdock-simulator",
            "crossdock-stored",
            "crossdock-tests",
        ],
    ),
    ("apache-avro", &["crossdock-contract"]),
    ("jiff", &["crossdock-cli", "crossdock-expression"]),
    ("regex", &["crossdock-expression"]),
    ("quick-xml", &["crossdock-message"]),
    ("granit-parser", &["crossdock-settings"]),
    ("lapin", &["crossdock-amqp"]),
    ("async-rs", &["crossdock-amqp"]),
    ("rdkafka", &["crossdock-kafka"]),
    ("jsonschema", &["crossdock-kafka"]),
    ("rustls", &["crossdock-tls", "crossdock-transport"]),
    ("rand_chacha", &["crossdock-simulator"]),
    ("crc32c", &["crossdock-cluster", "crossdock-zab"]),
];

/// Crates without I/O: no executor, no network, no randomness.
const PURE: &[&str] = &[
    "crossdock-message",
    "crossdock-settings",
    "crossdock-contract",
    "crossdock-cloudevents",
    "crossdock-proto",
    "crossdock-ports",
    "crossdock-expression",
    "crossdock-routing",
    "crossdock-zab",
    "crossdock-coordination",
];
const IMPURE: &[&str] = &["tokio", "tokio-util", "actix", "actix-rt", "hyper", "mio", "notify", "rand"];

/// The folder and non-dev dependencies of each crate.
fn manifests() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found = BTreeMap::new();
    let root = repository();
    let mut folders: Vec<_> = ["src", "adapters"]
        .iter()
        .flat_map(|parent| std::fs::read_dir(root.join(parent)).expect(parent))
        .map(|entry| entry.expect("a folder").path())
        .collect();
    folders.extend([root.join("tests"), root.join("examples")]);
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        let name = manifest["package"]["name"].as_str().expect("a name").to_owned();
        let uses = manifest.get("dependencies").and_then(toml::Value::as_table);
        let uses = uses.map(|uses| uses.keys().cloned().collect()).unwrap_or_default();
        let folder = folder.file_name().expect("a name").to_string_lossy().into_owned();
        found.insert(name, (folder, uses));
    }
    found
}

/// Libraries that must not be in the closure of a crate's dependencies, tests excluded.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("crossdock-zab", &["tokio", "hyper", "rustls", "prost"]),
    ("crossdock-coordination", &["tokio", "hyper", "rustls"]),
    ("crossdock-cluster", &["hyper", "actix-server", "actix-web", "hickory-resolver", "protox", "lapin", "rdkafka"]),
    ("crossdock-message", &["tokio", "hyper"]),
    ("crossdock-settings", &["tokio", "hyper"]),
    ("crossdock-expression", &["tokio", "hyper", "protox"]),
    ("crossdock-contract", &["tokio", "hyper", "protox", "prost-reflect"]),
    ("crossdock-ports", &["tokio", "tokio-util", "protox", "prost-reflect"]),
];

/// The names of all crates that a crate is built with.
fn closure(name: &str) -> BTreeSet<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let names = String::from_utf8_lossy(&tree.stdout);
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(other, _)| *other == name).map(|(_, layer)| *layer)
}

#[test]
fn a_crate_is_named_after_its_folder_and_has_a_layer() {
    for (name, (folder, _)) in manifests() {
        assert_eq!(name, format!("crossdock-{folder}"));
        assert!(layer(&name).is_some(), "{name} has no layer: add it to ARCHITECTURE.md and here");
    }
}

#[test]
fn crates_depend_only_on_lower_layers() {
    for (name, (_, uses)) in manifests() {
        for used in uses.iter().filter(|used| used.starts_with("crossdock-")) {
            assert!(layer(used) < layer(&name), "{name} uses {used}, which is not in a lower layer");
        }
    }
}

#[test]
fn only_owners_depend_on_a_library() {
    for (name, (_, uses)) in manifests() {
        for (library, owners) in OWNERS {
            let allowed = owners.contains(&name.as_str());
            assert!(allowed || !uses.contains(*library), "{name} uses {library}, which is reserved for {owners:?}");
        }
    }
}

#[test]
fn pure_crates_have_no_executor_network_or_randomness() {
    let manifests = manifests();
    for name in PURE {
        for library in IMPURE {
            assert!(!manifests[*name].1.contains(*library), "{name} must not use {library}");
        }
    }
}

#[test]
fn closures_contain_nothing_forbidden() {
    for (name, forbidden) in FORBIDDEN {
        let closure = closure(name);
        assert!(closure.contains(*name), "the tree of {name} is there");
        for library in *forbidden {
            assert!(!closure.contains(*library), "{name} depends on {library}: `cargo tree -p {name} -i {library}`");
        }
    }
}

/// `cargo deny` checks the closure of wrappers, this test the manifests: they must agree.
#[test]
fn deny_and_this_test_name_the_same_owners() {
    let text = std::fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = text.parse().expect("TOML");
    let rules = deny["bans"]["deny"].as_array().expect("rules");
    let mut checked = 0;
    for rule in rules {
        let Some(wrappers) = rule.get("wrappers").and_then(toml::Value::as_array) else { continue };
        let library = rule["crate"].as_str().expect("a name");
        let owners = OWNERS.iter().find(|(owned, _)| *owned == library).map(|(_, owners)| owners.to_vec());
        let wrappers: Vec<&str> = wrappers.iter().filter_map(toml::Value::as_str).collect();
        assert_eq!(owners.as_deref(), Some(&wrappers[..]), "owners of {library}");
        checked += 1;
    }
    assert!(checked > 0);
}

#[test]
fn no_dependency_enables_arbitrary_precision() {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "features", "--invert", "serde_json"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout);
    assert!(tree.contains("serde_json"), "the tree contains serde_json");
    assert!(!tree.contains("arbitrary_precision"), "a dependency enables serde_json's arbitrary_precision");
}
