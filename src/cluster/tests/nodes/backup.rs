//! Backups, and clusters that are made from them or from a single log.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use crossdock_cluster::backup::{self, BackupError};
use crossdock_cluster::register::{Change, Command};
use crossdock_cluster::{Client, Member, Proposal, Settings, init, wal};
use crossdock_zab::{MemberChange, Role, ServerId};

use super::{Cluster, PATIENCE, append, free_address, has_leader, read, start};

/// The settings of an instance of another cluster with these members, of whom the first votes.
fn settings(folder: &Path, id: u64, members: &BTreeMap<ServerId, Member>) -> Settings {
    let mut settings = Settings::new("test", ServerId(id), members.clone(), folder.join(format!("new-{id}")));
    settings.log.segment_len = 1 << 20;
    settings
}

fn members(count: u64) -> BTreeMap<ServerId, Member> {
    (1..=count).map(|id| (ServerId(id), Member { address: free_address().into(), votes: id == 1 })).collect()
}

async fn until_it_observes(client: &Client) {
    let observes = client.until(|status| matches!(status.role, Role::Observing(..)));
    tokio::time::timeout(PATIENCE, observes).await.expect("in time").expect("it runs");
}

#[tokio::test]
async fn a_backup_of_a_busy_cluster_is_restored_as_another_cluster() {
    let cluster = Cluster::start(3, 0, |settings| settings.snapshot_every = 100);
    let leader = cluster.leader().await;
    let follower = cluster.client((leader + 1) % 3);
    has_leader(&follower).await;
    let client = cluster.client(leader);
    let id = client.open_client().await.expect("there is room");
    let numbered = |number: u64| {
        let payload = Command::payload("numbered", Change::Append(Bytes::from(number.to_string())));
        Proposal::new(payload).numbered(id, number)
    };
    let first = client.propose_as(numbered(1)).await.expect("executed");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20 {
        let client = client.clone();
        writers.spawn(async move {
            for item in 0..100 {
                append(&client, &format!("list-{writer}"), &item.to_string()).await;
            }
        });
    }
    let begun = client.until(|status| status.applied.counter > 500);
    tokio::time::timeout(PATIENCE, begun).await.expect("in time").expect("it runs");
    append(&client, "acknowledged", "before").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    let (zxid, len) = follower.save(file.clone()).await.expect("it follows").expect("a disk");
    append(&client, "acknowledged", "after").await;
    writers.join_all().await;
    let (other_zxid, _) = client.propose(Command::payload("last", Change::Set(Bytes::new()))).await.expect("done");

    let found = backup::inspect(&file).expect("it is intact");
    assert_eq!((found.summary.point.zxid, std::fs::metadata(&file).expect("a file").len()), (zxid, len));
    let old = client.status().membership.expect("it is formed");
    assert_eq!(found.summary.membership.as_ref(), Some(&old));

    // One instance has it, two others are added.
    let members = members(3);
    let all: Vec<Settings> = (1..=3).map(|id| settings(folder.path(), id, &members)).collect();
    let made = backup::restore(&all[0], &file).expect("a new log");
    assert!(made.last == zxid && made.cluster != old.cluster);
    let again = backup::restore(&all[0], &file);
    assert!(matches!(again, Err(BackupError::Log(wal::Error::Exists(_)))), "{again:?}");
    for other in &all[1..] {
        init(other, false).expect("a new log");
    }
    let nodes: Vec<_> = all.iter().map(start).collect();
    has_leader(&nodes[0].client()).await;
    for (id, node) in (2..=3).zip(&nodes[1..]) {
        until_it_observes(&node.client()).await;
        nodes[0].client().change_members(MemberChange::Add(ServerId(id))).await.expect("it follows");
    }
    for node in &nodes {
        let client = node.client();
        assert_eq!(read(&client, "acknowledged").await, "before\n");
        for writer in 0..20 {
            // A prefix of what was written.
            let list = read(&client, &format!("list-{writer}")).await;
            let items: Vec<String> = (0..list.lines().count()).map(|item| format!("{item}\n")).collect();
            assert_eq!(list, items.concat());
        }
    }
    // Numbered commands are known, and zxids exceed all that the old cluster has handed out since.
    assert_eq!(nodes[1].client().propose_as(numbered(1)).await, Ok(first));
    let (new_zxid, _) = nodes[2].client().propose_as(numbered(2)).await.expect("executed");
    assert!(new_zxid > other_zxid, "{new_zxid} follows {other_zxid}");
}

#[tokio::test]
async fn a_damaged_backup_is_not_restored() {
    let cluster = Cluster::start(1, 0, |_| {});
    let client = cluster.client(cluster.leader().await);
    append(&client, "list", "item").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("backup");
    client.save(file.clone()).await.expect("it leads").expect("a disk");
    let no_folder = client.save(folder.path().join("missing/backup")).await.expect("it leads");
    assert!(no_folder.is_err_and(|problem| problem.contains("missing/backup")));
    let intact = std::fs::read(&file).expect("a file");
    let members = members(1);
    let settings = settings(folder.path(), 1, &members);
    for at in 0..intact.len() {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, damaged).expect("a file");
        let refused = backup::restore(&settings, &file);
        assert!(matches!(refused, Err(BackupError::Log(wal::Error::DamagedSnapshot(_)))), "byte {at}: {refused:?}");
        std::fs::write(&file, &intact[..at]).expect("a file");
        assert!(backup::restore(&settings, &file).is_err(), "the first {at} bytes");
    }
    std::fs::write(&file, intact).expect("a file");
    backup::restore(&settings, &file).expect("nothing was left of the attempts");
}

#[tokio::test]
async fn one_log_of_three_becomes_a_new_cluster() {
    let mut cluster = Cluster::start(3, 0, |_| {});
    let leader = cluster.leader().await;
    for index in 0..3 {
        has_leader(&cluster.client(index)).await;
        append(&cluster.client(index), "list", &index.to_string()).await;
    }
    let expected = read(&cluster.client(leader), "list").await;
    let last = cluster.client(leader).status().last;
    let there = cluster.client(leader).applied(last).await;
    assert!(there.is_ok());
    for node in &mut cluster.nodes {
        node.take().expect("it runs").stop();
    }
    // Two logs are lost.
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for index in others {
        std::fs::remove_dir_all(&cluster.settings[index].data).expect("a folder");
        cluster.settings[index].create = false;
        init(&cluster.settings[index], false).expect("a new log");
    }
    let made = backup::force_new_cluster(&cluster.settings[leader]).expect("its log is whole");
    assert_eq!(made.last, last);
    let again = backup::force_new_cluster(&cluster.settings[leader]);
    assert!(matches!(again, Err(BackupError::Alone(_))), "{again:?}");
    for index in 0..3 {
        cluster.restart(index);
    }
    let client = cluster.client(leader);
    has_leader(&client).await;
    assert_eq!(read(&client, "list").await, expected);
    for index in others {
        until_it_observes(&cluster.client(index)).await;
        let id = ServerId(index as u64 + 1);
        client.change_members(MemberChange::Add(id)).await.expect("it follows");
        assert_eq!(read(&cluster.client(index), "list").await, expected);
    }
    append(&cluster.client(others[0]), "list", "after").await;
    assert_eq!(client.status().membership.map(|membership| membership.voters.len()), Some(3));
}
