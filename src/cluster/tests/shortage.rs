//! An instance that may open no more files: its log waits instead of failing. In a process of its own, as the limit is
//! that of the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::time::Duration;

use crossdock_cluster::register::{Change, Command, Register};
use crossdock_cluster::{Member, Node, RequestError, Settings};
use crossdock_zab::{Role, ServerId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a write waits before it tries again.
const WAIT: Duration = Duration::from_millis(500);

/// Sets how many files this process may open; returns the limit before.
fn set_limit(limit: Option<u64>) -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: before.maximum }).expect("a limit");
    before.current
}

/// Opens files until this process may open no more.
fn use_up_files() -> Vec<File> {
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).take(512).collect();
    assert!(files.len() < 512, "files can still be opened");
    files
}

#[tokio::test]
async fn writes_wait_for_file_descriptors_and_the_instance_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let members: BTreeMap<_, _> = [(ServerId(1), Member { address, votes: true })].into();
    let mut settings = Settings::new("test", ServerId(1), members, folder.path().to_owned());
    settings.create = true;
    settings.log.segment_len = 64 << 10;
    let node = Node::start(&settings, Box::new(Register::default())).expect("it starts");
    let mut client = node.client();
    let leads = client.until(|status| matches!(status.role, Role::Leading(_)));
    tokio::time::timeout(PATIENCE, leads).await.expect("in time").expect("it runs");

    let usual = set_limit(Some(256));
    let write =
        |number: u32| client.propose(Command::payload(&format!("k{number}"), Change::Set(vec![7; 10_000].into())));
    // Whoever holds all the others, the log has those that it needs.
    let held = use_up_files();
    for number in 0..40 {
        let written = tokio::time::timeout(PATIENCE, write(number)).await.expect("in time");
        written.map(drop).expect("done");
    }
    drop(held);

    // Now it cannot even open the one that it has closed.
    set_limit(Some(3));
    let mut done = 40;
    let waiting = loop {
        let mut waiting = Box::pin(write(done));
        match tokio::time::timeout(WAIT, &mut waiting).await {
            Ok(answer) => answer.map(drop).expect("done"),
            Err(_) => break waiting,
        }
        done += 1;
        assert!(done < 70, "five segments were written without a file descriptor");
    };
    assert!(done >= 46, "the spare segment was not used: {done} writes");
    assert_eq!(client.status().stopped, None);
    set_limit(usual);
    let answer = tokio::time::timeout(PATIENCE, waiting).await.expect("it continues");
    answer.map(drop).expect("done");
    for number in done + 1..done + 20 {
        write(number).await.map(drop).expect("done");
    }

    // Ending does not wait for file descriptors.
    set_limit(Some(3));
    let ended = tokio::spawn({
        let client = client.clone();
        async move {
            for number in 0..30 {
                client.propose(Command::payload(&format!("k{number}"), Change::Set(vec![7; 10_000].into()))).await?;
            }
            Ok::<_, RequestError>(())
        }
    });
    tokio::time::sleep(WAIT).await;
    tokio::task::spawn_blocking(move || node.stop()).await.expect("no panic");
    assert!(ended.await.expect("no panic").is_err(), "the last write was not done");
    set_limit(usual);

    let node = Node::start(&settings, Box::new(Register::default())).expect("the log is whole");
    let last = node.client().status().last.counter;
    assert!(last >= done + 20, "{last} transactions of at least {}", done + 20);
}
