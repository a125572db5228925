//! Gateways as instances of a cluster, configured by their settings alone.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossdock_tests::{call, crossdock, exchange, free_address, until};
use serde_json::Value;

struct Instance {
    folder: tempfile::TempDir,
    admin: String,
    child: Option<Child>,
}

impl Instance {
    fn new(id: usize, members: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let admin = free_address().to_string();
        let settings = format!(
            "version: 1
listeners: {{ public: {{ http: {{ bind: \"127.0.0.1:0\" }} }} }}
admin: {{ bind: \"{admin}\" }}
cluster: {{ name: test, id: {id}, members: {members} }}
"
        );
        std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
        Self { folder, admin, child: None }
    }

    fn command(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(crossdock()).args(arguments).arg("--config").arg(self.folder.path()).output();
        let output = output.expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Creates the log.
    fn init(&self, options: &[&str]) {
        let (is_success, output) = self.command(&[&["cluster", "init"], options].concat());
        assert!(is_success && output.contains("created"), "{output}");
    }

    /// The ids of the voters, as this instance knows them.
    fn voters(&self) -> Vec<u64> {
        let status = self.status().unwrap_or_default();
        let voters = status["membership"]["voters"].as_array().into_iter().flatten();
        voters.filter_map(|voter| voter["id"].as_u64()).collect()
    }

    fn start(&mut self) {
        let mut command = Command::new(crossdock());
        command.arg("run").arg("--config").arg(self.folder.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn status(&self) -> Option<Value> {
        let (is_success, text) = self.command(&["cluster", "status", "--json", "--admin", &self.admin]);
        is_success.then(|| serde_json::from_str(&text).expect("JSON"))
    }

    fn has_role(&self, role: &str) -> bool {
        self.status().is_some_and(|status| status["role"] == role)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cluster(count: usize) -> Vec<Instance> {
    let members: Vec<String> = (1..=count).map(|id| format!("{id}: \"{}\"", free_address())).collect();
    let members = format!("{{ {} }}", members.join(", "));
    (1..=count).map(|id| Instance::new(id, &members)).collect()
}

fn leader(instances: &[Instance]) -> usize {
    let mut found = None;
    until("a leader", || {
        found = instances.iter().position(|instance| instance.child.is_some() && instance.has_role("leading"));
        found.is_some()
    });
    found.expect("a leader")
}

#[test]
fn three_gateways_form_a_cluster_and_survive_the_loss_of_their_leader() {
    let mut instances = cluster(3);
    let (is_success, output) = instances[0].command(&["run"]);
    assert!(!is_success && output.contains("crossdock cluster init --bootstrap"), "{output}");
    for instance in &mut instances {
        instance.init(&["--bootstrap"]);
        instance.start();
    }
    let (is_success, output) = instances[0].command(&["cluster", "init"]);
    assert!(!is_success && output.contains("already has a log"), "{output}");
    let (is_success, output) = instances[0].command(&["cluster", "init", "--lost"]);
    assert!(!is_success && output.contains("already has a log"), "{output}");
    let first = leader(&instances);
    let status = instances[first].status().expect("it runs");
    until("the other instances to follow", || {
        (0..3).filter(|index| *index != first).all(|index| {
            instances[index].status().is_some_and(|other| {
                (&other["role"], &other["leader"], &other["epoch"])
                    == (&"following".into(), &status["id"], &status["epoch"])
            })
        })
    });
    let other = (first + 1) % 3 + 1;
    let mut metrics = String::new();
    until("the leader to report that they follow", || {
        metrics = call(&instances[first].admin, "GET", "/metrics", "").body;
        metrics.contains(&format!("crossdock_cluster_peer_lag{{peer=\"{other}\"}} 0\n"))
    });
    let has = |line: &str| metrics.lines().any(|other| other == line);
    assert!(has("crossdock_cluster_leading 1") && has("crossdock_cluster_connected 2"), "{metrics}");
    assert!(metrics.contains("crossdock_cluster_log_seconds_bucket{le=\"+Inf\"}"), "{metrics}");
    let (_, table) = instances[first].command(&["cluster", "status"]);
    assert!(table.starts_with("ID") && table.contains("leading") && table.contains(&format!("{other}:0")), "{table}");
    let begun = Instant::now();
    instances[first].kill();
    let second = leader(&instances);
    println!("a new leader after {:?}, as reported by `cluster status`", begun.elapsed());
    assert_ne!(first, second);
    let epoch = |index: usize| instances[index].status().expect("it runs")["epoch"].as_u64();
    assert!(epoch(second) > status["epoch"].as_u64());
    // The first leader loses its disk.
    std::fs::remove_dir_all(instances[first].folder.path().join("data")).expect("its data");
    instances[first].init(&["--lost"]);
    instances[first].start();
    until("the first leader to follow", || instances[first].has_role("following"));
    let second = leader(&instances);
    // It transfers leadership on request, and only then.
    let (is_success, output) = instances[first].command(&["cluster", "transfer"]);
    assert!(!is_success && output.contains(&format!("instance {} does", second + 1)), "{output}");
    let (is_success, output) = instances[second].command(&["cluster", "transfer", &(first + 1).to_string()]);
    assert!(is_success, "{output}");
    until("it to lead", || instances[first].has_role("leading"));
    until("the other to follow", || instances[second].has_role("following"));
    let second = first;
    // Without a quorum there is no leader.
    for index in (0..3).filter(|index| *index != second) {
        instances[index].kill();
    }
    until("the last instance to step down", || instances[second].has_role("looking"));
}

#[test]
fn a_cluster_grows_from_one_to_three_and_shrinks_again() {
    let addresses: Vec<String> = (1..=3).map(|id| format!("{id}: \"{}\"", free_address())).collect();
    let others = format!("{{ {} }}, observers: {{ {}, {} }}", addresses[0], addresses[1], addresses[2]);
    let mut instances: Vec<Instance> = (1..=3).map(|id| Instance::new(id, &others)).collect();
    let (is_success, output) = instances[1].command(&["cluster", "init", "--bootstrap"]);
    assert!(!is_success && output.contains("this instance is an observer"), "{output}");
    instances[0].init(&["--bootstrap"]);
    instances[0].start();
    until("it to lead", || instances[0].has_role("leading"));
    let (is_success, output) = instances[0].command(&["cluster", "add", "2"]);
    assert!(!is_success && output.contains("list it in `observers`"), "{output}");
    for instance in &mut instances[1..] {
        instance.init(&[]);
        instance.start();
    }
    for (instance, id) in instances.iter().zip(1..).skip(1) {
        until("it to observe", || instance.has_role("observing"));
        // Any instance takes the request.
        until("it to be added", || instance.command(&["cluster", "add", &format!("{id}")]).0);
        until("it to follow", || instance.has_role("following"));
    }
    assert_eq!(instances[2].voters(), [1, 2, 3]);
    let check = |instances: &[Instance]| {
        let admins = instances.iter().flat_map(|instance| ["--admin", &instance.admin]);
        instances[1].command(&["cluster", "check"].into_iter().chain(admins).collect::<Vec<_>>())
    };
    let mut output = String::new();
    until("all to agree", || {
        let (is_success, text) = check(&instances);
        output = text;
        is_success
    });
    assert!(output.contains("history   the same through") && output.contains("on 3 of 3 instances"), "{output}");
    instances[0].kill();
    let (is_success, output) = check(&instances);
    assert!(!is_success && output.contains(&format!("{} does not answer", instances[0].admin)), "{output}");
    assert!(output.contains("peers_disconnected"), "{output}");
    let second = leader(&instances);
    assert_ne!(second, 0, "a majority of three");
    let (is_success, output) = instances[second].command(&["cluster", "remove", &(second + 1).to_string()]);
    assert!(!is_success && output.contains("transfer leadership first"), "{output}");
    until("1 to be removed", || instances[second].command(&["cluster", "remove", "1"]).0);
    assert_eq!(instances[second].voters(), [2, 3]);
    instances[0].start();
    until("1 to observe", || instances[0].has_role("observing"));
    let third = 3 - second;
    let ids = [(third + 1).to_string(), "1".to_owned()];
    until("1 to vote again", || instances[second].command(&["cluster", "replace", &ids[0], &ids[1]]).0);
    until("it to follow", || instances[0].has_role("following") && instances[third].has_role("observing"));
    assert_eq!(instances[second].voters(), [1, second as u64 + 1]);
    let (is_success, output) = instances[second].command(&["cluster", "replace", &ids[0], &ids[1]]);
    assert!(!is_success && output.contains("is not a voter"), "{output}");
    // A web page cannot do that.
    let admin = &instances[second].admin;
    let posted = |media_type: &str, body: &str| {
        let len = body.len();
        let head = format!("POST /api/v1/cluster HTTP/1.1\r\nHost: {admin}\r\nContent-Type: {media_type}\r\n");
        let request = format!("{head}Content-Length: {len}\r\n\r\n{body}");
        exchange(admin, request.as_bytes(), 1).0.first().map(|reply| reply.status)
    };
    assert_eq!(posted("text/plain", r#"{"remove": 2}"#), Some(415));
    assert_eq!(posted("application/json", r#"{"remove": "2"}"#), Some(400));
    assert_eq!(instances[second].voters(), [1, second as u64 + 1]);
}

#[test]
fn a_cluster_is_backed_up_restored_and_made_anew_from_a_single_log() {
    let mut instances = cluster(3);
    for instance in &mut instances {
        instance.init(&["--bootstrap"]);
        instance.start();
    }
    let first = leader(&instances);
    for index in (0..3).filter(|index| *index != first) {
        until("the others to follow", || instances[index].has_role("following"));
    }
    let follower = (first + 1) % 3;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup").display().to_string();
    let (is_success, output) = instances[follower].command(&["cluster", "snapshot", "save", &file]);
    assert!(is_success && output.contains("saved everything through"), "{output}");
    let (is_success, output) = instances[follower].command(&["cluster", "snapshot", "save", &file]);
    assert!(!is_success && output.contains("exists already"), "{output}");
    let shown = Command::new(crossdock()).args(["cluster", "snapshot", "status", &file]).output().expect("it runs");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let id = instances[first].status().unwrap_or_default()["membership"]["cluster"].clone();
    let id = id.as_str().expect("an id");
    assert!(shown.contains("is intact") && shown.contains(id) && shown.contains("voters    1 2 3"), "{shown}");
    // Nothing is left of it in the folder of the instance.
    let left = std::fs::read_dir(instances[follower].folder.path().join("data/cluster")).expect("a folder");
    let left: Vec<_> = left.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|name| name.contains("backup")), "{left:?}");

    // As another cluster.
    let members = format!("{{ 1: \"{}\" }}", free_address());
    let mut restored = Instance::new(1, &members);
    let (is_success, output) = restored.command(&["cluster", "snapshot", "restore", &file]);
    assert!(is_success && output.contains("has the id") && !output.contains(id), "{output}");
    let (is_success, output) = restored.command(&["cluster", "snapshot", "restore", &file]);
    assert!(!is_success && output.contains("already has a log"), "{output}");
    restored.start();
    until("it to lead", || restored.has_role("leading"));
    assert_eq!(restored.voters(), [1]);

    // Two of three logs are lost.
    instances.iter_mut().for_each(Instance::kill);
    let (is_success, output) = instances[follower].command(&["cluster", "force-new"]);
    assert!(!is_success && output.contains("is missing from then on"), "{output}");
    let (is_success, output) = instances[follower].command(&["cluster", "force-new", "--confirm-loss"]);
    assert!(is_success && output.contains("later transactions may be missing"), "{output}");
    instances.iter_mut().for_each(Instance::start);
    until("it to lead", || instances[follower].has_role("leading"));
    assert_eq!(instances[follower].voters(), [follower as u64 + 1]);
    // The others belong to the old cluster, and are no danger to the new one.
    let others = [(follower + 1) % 3, (follower + 2) % 3];
    until("the old voters to go on alone", || others.iter().any(|index| instances[*index].has_role("leading")));
    assert!(others.iter().all(|index| instances[*index].voters() == [1, 2, 3]));
    assert_eq!(instances[follower].voters(), [follower as u64 + 1]);
}

#[test]
fn invalid_cluster_settings_are_rejected() {
    let check = |cluster: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = format!("version: 1\nlisteners: {{}}\ncluster: {cluster}\n");
        std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
        let output = Command::new(crossdock()).arg("check").arg(folder.path()).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for (cluster, problem) in [
        ("{ id: 1, observers: { 1: \"127.0.0.1:7101\" } }", "a cluster needs at least one member"),
        ("{ members: { 1: \"127.0.0.1:7101\" } }", "is required with `members`"),
        ("{ id: 0 }", "is required with `members`"),
        ("{ id: 4, members: { 1: \"127.0.0.1:7101\" } }", "listed neither in `members`"),
        ("{ id: 1, members: { one: \"127.0.0.1:7101\" } }", "an instance number must be an integer of at least 1"),
        ("{ id: 1, members: { 1: \"0.0.0.0:7101\" } }", "other machines can reach this address"),
        ("{ id: 1, members: { 1: \"here\" } }", "an instance needs an IP address or a host name, and a port"),
        ("{ id: 1, members: { 1: \"gateway-0.example:7101\" } }", "a host name needs `tls`"),
        ("{ id: 1, tick: 1ms, members: { 1: \"127.0.0.1:7101\" } }", "`tick` must be between 5ms and 1s"),
        ("{ id: 1, members: { 1: \"127.0.0.1:7101\" }, observers: { 1: \"127.0.0.1:7102\" } }", "is listed twice"),
    ] {
        let (is_success, output) = check(cluster);
        assert!(!is_success && output.contains(problem) && output.contains("help: "), "{cluster}: {output}");
    }
    let (is_success, output) = check("{ id: 1, members: { 1: \"127.0.0.1:7101\" } }");
    assert!(is_success, "{output}");
}

#[test]
fn a_single_gateway_forms_a_cluster() {
    let mut instances = cluster(1);
    let (is_success, output) = instances[0].command(&["run"]);
    assert!(!is_success && output.contains("check that its volume is mounted"), "{output}");
    instances[0].init(&["--bootstrap"]);
    instances[0].start();
    until("it to lead", || instances[0].has_role("leading"));
    assert!(Path::new(instances[0].folder.path()).join("data/cluster").is_dir());
    let begun = Instant::now();
    instances[0].kill();
    instances[0].start();
    until("it to lead again", || instances[0].has_role("leading"));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(instances[0].status().expect("it runs")["epoch"], 2);
    // The same without configured members.
    instances[0].kill();
    let file = instances[0].folder.path().join("crossdock.yaml");
    let settings = std::fs::read_to_string(&file).expect("settings");
    let (before, _) = settings.split_once("cluster:").expect("a cluster");
    std::fs::write(&file, format!("{before}cluster: {{ name: test }}\n")).expect("settings");
    instances[0].start();
    until("it to lead without members", || instances[0].has_role("leading"));
    assert_eq!(instances[0].status().expect("it runs")["epoch"], 3, "the log is kept");
}

#[test]
fn cluster_bench_prints_a_row_per_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(crossdock());
    command.args(["cluster", "bench", "--outstanding", "1,8", "--seconds", "1", "--size", "10", "--data"]);
    let output = command.arg(folder.path()).output().expect("it runs");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(rows.len(), 2, "{table}");
    for row in rows {
        let writes = row.split_whitespace().nth(1).and_then(|writes| writes.parse::<u64>().ok());
        assert!(writes > Some(0), "{table}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "its temporary files are deleted");
}
