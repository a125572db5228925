//! An instance that may open no more files: its log goes on, or it accepts no commands until it can. In a process of its own, as the limit is
//! that of the process.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crossdock_cluster::register::{self, Change, Command};
use crossdock_cluster::{Member, RequestError, Settings};
use crossdock_zab::{Role, ServerId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(20);
/// Shorter than the interval at which the creation of a segment is tried again.
const WAIT: Duration = Duration::from_millis(800);

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
async fn an_instance_without_file_descriptors_accepts_no_commands_until_there_are_some() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let members: BTreeMap<_, _> = [(ServerId(1), Member { address: address.into(), votes: true })].into();
    let mut settings = Settings::new("test", ServerId(1), members, folder.path().to_owned());
    settings.create = true;
    settings.log.segment_len = 64 << 10;
    let (node, client) = register::start(&settings).expect("it starts");
    let leads = client.until(|status| matches!(status.role, Role::Leading(_)));
    tokio::time::timeout(PATIENCE, leads).await.expect("in time").expect("it runs");

    let usual = set_limit(Some(256));
    let write =
        |number: u32| client.propose(Command::payload(&format!("k{number}"), Change::Set(vec![7; 10_000].into())));
    // Even if all other descriptors are taken, the log has those that it needs.
    let held = use_up_files();
    for number in 0..40 {
        let written = tokio::time::timeout(PATIENCE, write(number)).await.expect("in time");
        written.map(drop).expect("done");
    }
    drop(held);

    // Now it cannot even open the one that it has closed.
    set_limit(Some(3));
    let mut done = 40;
    let refused = loop {
        match tokio::time::timeout(PATIENCE, write(done)).await.expect("it does not wait") {
            Ok(_) => done += 1,
            Err(problem) => break problem,
        }
        // A write that needs the next segment before its creation has failed would wait for it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(done < 70, "five segments were written without a file descriptor");
    };
    assert_eq!(refused, RequestError::ReadOnly);
    let lacking = client.until(|status| status.log_problem.is_some());
    tokio::time::timeout(PATIENCE, lacking).await.expect("in time").expect("it runs");
    let status = client.status();
    assert!(status.log_problem.is_some_and(|problem| problem.contains("open files")) && status.stopped.is_none());
    assert!(client.read().await.is_ok(), "it can be read");
    set_limit(usual);
    let found = client.until(|status| status.log_problem.is_none());
    tokio::time::timeout(PATIENCE, found).await.expect("in time").expect("it runs");
    for number in done..done + 20 {
        write(number).await.map(drop).expect("done");
    }

    // Ending does not wait for file descriptors.
    set_limit(Some(3));
    while write(0).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || node.stop()).await.expect("no panic");
    assert!(begun.elapsed() < WAIT, "it took {:?}", begun.elapsed());
    set_limit(usual);

    let (node, _) = register::start(&settings).expect("the log is whole");
    let last = node.client().status().last.counter;
    assert!(last >= done + 20, "{last} transactions of at least {}", done + 20);
}
