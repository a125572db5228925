//! Who votes: the first membership, changes of it, lost logs, and instances that do not belong together.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crossdock_cluster::{Client, Member, RequestError, Settings, Stopped, init};
use crossdock_zab::{MemberChange, Refusal, Role, ServerId};

use super::{Instance, PATIENCE, append, free_address, has_leader, read, start};

/// How long nothing happens that must not happen.
const QUIET: Duration = Duration::from_millis(700);

/// Addresses of instances, and the settings that some of them have.
struct Plan {
    folder: tempfile::TempDir,
    addresses: Vec<std::net::SocketAddr>,
}

impl Plan {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, addresses: (0..count).map(|_| free_address()).collect() }
    }

    fn data(&self, id: u64) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// The settings of an instance that lists these voters.
    fn settings(&self, id: u64, voters: impl IntoIterator<Item = u64>) -> Settings {
        let address = |id: u64| self.addresses[usize::try_from(id - 1).expect("small")];
        let mut members: BTreeMap<ServerId, Member> =
            voters.into_iter().map(|id| (ServerId(id), Member { address: address(id).into(), votes: true })).collect();
        members.entry(ServerId(id)).or_insert(Member { address: address(id).into(), votes: false });
        let mut settings = Settings::new("test", ServerId(id), members, self.data(id));
        settings.create = true;
        settings.log.segment_len = 1 << 20;
        settings
    }

    fn start(&self, id: u64, voters: impl IntoIterator<Item = u64>) -> Instance {
        start(&self.settings(id, voters))
    }
}

/// Changes the voters, as soon as that is possible.
async fn change(client: &Client, change: MemberChange) {
    let changed = async {
        loop {
            match client.change_members(change).await {
                Ok(_) | Err(RequestError::Refused(Refusal::AlreadyVotes)) => return,
                Err(RequestError::Ended) => panic!("the instance has ended"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.unwrap_or_else(|_| panic!("{change:?} takes too long"));
}

fn voters(client: &Client) -> Vec<u64> {
    let membership = client.status().membership;
    membership.iter().flat_map(|membership| membership.voters.keys().map(|server| server.0)).collect()
}

/// Waits until an instance votes with the log that it has, as another one knows.
async fn votes(client: &Client, other: &Client) {
    let (id, log) = (client.status().id, client.status().log);
    let other = other.clone();
    let until =
        other.until(|status| status.membership.as_ref().is_some_and(|membership| membership.is_voter(id, log))).await;
    until.expect("it runs");
}

/// The same, if both run.
async fn votes_in_time(client: &Client, other: &Client) {
    let voted = tokio::time::timeout(PATIENCE, votes(client, other)).await;
    assert_eq!(voted, Ok(()), "{:#?}, {:#?}", client.status(), other.status());
}

#[tokio::test]
async fn a_cluster_is_formed_by_all_its_founders_and_never_by_a_majority() {
    let plan = Plan::new(3);
    let first: Vec<Instance> = (1..=2).map(|id| plan.start(id, 1..=3)).collect();
    tokio::time::sleep(QUIET).await;
    for node in &first {
        let status = node.client().status();
        assert_eq!((status.role, status.phase, status.membership), (Role::Looking, "new", None));
    }
    let third = plan.start(3, 1..=3);
    for node in first.iter().chain([&third]) {
        has_leader(&node.client()).await;
        assert_eq!(voters(&node.client()), [1, 2, 3]);
    }
}

/// Instances 2 and 3 are new and list three voters, while 1 has been a cluster of its own for long.
#[tokio::test]
async fn a_cluster_of_one_grows_to_three_and_shrinks_again_without_losing_a_write() {
    let plan = Plan::new(3);
    let node = plan.start(1, [1]);
    for item in 0..5 {
        append(&node.client(), "list", &format!("old-{item}")).await;
    }
    node.stop();
    let (two, three) = (plan.start(2, 1..=3), plan.start(3, 1..=3));
    tokio::time::sleep(QUIET).await;
    assert_eq!((two.client().status().role, three.client().status().role), (Role::Looking, Role::Looking));
    let one = plan.start(1, 1..=3);
    let old = "old-0\nold-1\nold-2\nold-3\nold-4\n";
    for node in [&two, &three] {
        has_leader(&node.client()).await;
        assert_eq!(read(&node.client(), "list").await, old);
        assert!(matches!(node.client().status().role, Role::Observing(ServerId(1), _)));
    }
    // Any instance takes the request.
    change(&two.client(), MemberChange::Add(ServerId(2))).await;
    change(&one.client(), MemberChange::Add(ServerId(3))).await;
    votes_in_time(&three.client(), &two.client()).await;
    append(&three.client(), "list", "of three").await;
    one.stop();
    append(&two.client(), "list", "without 1").await;
    let one = plan.start(1, 1..=3);
    let expected = format!("{old}of three\nwithout 1\n");
    for node in [&one, &two, &three] {
        has_leader(&node.client()).await;
        assert_eq!(read(&node.client(), "list").await, expected);
        assert_eq!(voters(&node.client()), [1, 2, 3]);
    }
    // It shrinks to one that is not the first one.
    has_leader(&two.client()).await;
    let transferred = async {
        while !matches!(two.client().status().role, Role::Leading(_)) {
            for node in [&one, &three] {
                node.client().transfer_leadership(Some(ServerId(2))).await.expect("it runs");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, transferred).await.expect("2 leads");
    let refused = two.client().change_members(MemberChange::Remove(ServerId(2))).await;
    assert_eq!(refused, Err(RequestError::Refused(Refusal::Leads)));
    change(&three.client(), MemberChange::Remove(ServerId(1))).await;
    let removed = one.client().change_members(MemberChange::Remove(ServerId(1))).await;
    assert_eq!(removed, Err(RequestError::Refused(Refusal::NoVoter)));
    change(&one.client(), MemberChange::Remove(ServerId(3))).await;
    one.stop();
    three.stop();
    append(&two.client(), "list", "alone").await;
    assert_eq!(voters(&two.client()), [2]);
    assert_eq!(read(&two.client(), "list").await, format!("{expected}alone\n"));
}

/// 3 is restarted with five members, and 4 and 5 are new; they do not reach 1 and 2.
#[tokio::test]
async fn instances_with_other_member_lists_have_no_majority_of_their_own() {
    let mut plan = Plan::new(5);
    let mut nodes: Vec<Instance> = (1..=3).map(|id| plan.start(id, 1..=3)).collect();
    for item in 0..3 {
        append(&nodes[0].client(), "list", &format!("old-{item}")).await;
    }
    nodes.pop().expect("3").stop();
    let reachable = plan.addresses.clone();
    (plan.addresses[0], plan.addresses[1]) = (free_address(), free_address());
    let others: Vec<Instance> = (3..=5).map(|id| plan.start(id, 1..=5)).collect();
    append(&nodes[0].client(), "list", "left").await;
    tokio::time::sleep(QUIET).await;
    for node in &others {
        assert_eq!(node.client().status().role, Role::Looking, "{}", node.client().status().id);
    }
    assert_eq!(voters(&others[0].client()), [1, 2, 3]);
    // Once they reach the others, they follow.
    others.into_iter().for_each(Instance::stop);
    plan.addresses = reachable;
    let three = plan.start(3, 1..=5);
    append(&three.client(), "list", "right").await;
    assert_eq!(read(&nodes[0].client(), "list").await, "old-0\nold-1\nold-2\nleft\nright\n");
}

/// An unmounted volume, and an operator who just starts the instance again.
#[tokio::test]
async fn a_voter_with_another_log_votes_again_once_it_has_recovered_everything() {
    let plan = Plan::new(3);
    let mut nodes: Vec<Option<Instance>> = (1..=3).map(|id| Some(plan.start(id, 1..=3))).collect();
    let client = |nodes: &[Option<Instance>], index: usize| nodes[index].as_ref().expect("it runs").client();
    for round in 0..3 {
        let lost = round % 3;
        let id = lost as u64 + 1;
        append(&client(&nodes, lost), "list", &format!("before-{round}")).await;
        let before = client(&nodes, lost).status().log;
        nodes[lost].take().expect("it runs").stop();
        let kept = plan.folder.path().join(format!("unmounted-{round}"));
        std::fs::rename(plan.data(id), &kept).expect("its data");
        nodes[lost] = Some(plan.start(id, 1..=3));
        votes_in_time(&client(&nodes, lost), &client(&nodes, (lost + 1) % 3)).await;
        assert_ne!(client(&nodes, lost).status().log, before);
        // The volume is back: its log has become the one that is lost.
        nodes[lost].take().expect("it runs").stop();
        append(&client(&nodes, (lost + 1) % 3), "list", &format!("between-{round}")).await;
        std::fs::rename(plan.data(id), plan.folder.path().join(format!("second-{round}"))).expect("its data");
        std::fs::rename(&kept, plan.data(id)).expect("its data");
        nodes[lost] = Some(plan.start(id, 1..=3));
        votes_in_time(&client(&nodes, lost), &client(&nodes, (lost + 1) % 3)).await;
        assert_eq!(client(&nodes, lost).status().log, before);
    }
    let expected: String = (0..3).map(|round| format!("before-{round}\nbetween-{round}\n")).collect();
    for index in 0..3 {
        assert_eq!(read(&client(&nodes, index), "list").await, expected);
    }
}

#[tokio::test]
async fn an_instance_that_was_initialized_to_join_forms_no_cluster() {
    let plan = Plan::new(1);
    let mut settings = plan.settings(1, [1]);
    settings.create = false;
    init(&settings, false).expect("a new log");
    let node = start(&settings);
    tokio::time::sleep(QUIET).await;
    assert_eq!((node.client().status().role, node.client().status().phase), (Role::Looking, "new"));
}

#[tokio::test]
async fn a_second_instance_with_the_same_id_is_refused() {
    let plan = Plan::new(3);
    let nodes: Vec<Instance> = (1..=3).map(|id| plan.start(id, 1..=3)).collect();
    for node in &nodes {
        has_leader(&node.client()).await;
    }
    let third = nodes[2].client().status();
    // It has another address, so that it can listen at all, and dials the others as 3.
    let mut settings = plan.settings(3, 1..=3);
    settings.data = plan.folder.path().join("second");
    settings.members.get_mut(&ServerId(3)).expect("3").address = free_address().into();
    let second = start(&settings);
    append(&nodes[0].client(), "list", "meanwhile").await;
    tokio::time::sleep(QUIET).await;
    assert_eq!((second.client().status().role, second.client().status().membership), (Role::Looking, None));
    assert_eq!(nodes[2].client().status().membership, third.membership);
    assert_eq!(read(&nodes[2].client(), "list").await, "meanwhile\n");
}

/// Clusters that were formed apart have the same name and ids.
#[tokio::test]
async fn instances_of_two_clusters_with_the_same_name_do_not_connect() {
    let plan = Plan::new(2);
    for id in 1..=2 {
        let node = plan.start(id, [id]);
        append(&node.client(), "list", &format!("of {id}")).await;
        node.stop();
    }
    let nodes: Vec<Instance> = (1..=2).map(|id| plan.start(id, 1..=2)).collect();
    for node in &nodes {
        has_leader(&node.client()).await;
    }
    tokio::time::sleep(QUIET).await;
    for (node, id) in nodes.iter().zip(1_u64..) {
        let status = node.client().status();
        assert!(matches!(status.role, Role::Leading(_)), "{status:?}");
        assert!(status.peers.iter().all(|peer| !peer.is_connected), "{status:?}");
        assert_eq!(read(&node.client(), "list").await, format!("of {id}\n"));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("a file").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a file");
    }
}

/// All three data folders are copied, both copies go on, and one instance of the first joins two of the second: its
/// history has the zxids of the others, but not their transactions.
#[tokio::test]
async fn an_instance_with_another_history_stops_and_says_where_it_differs() {
    // Both copies have to elect their leader in the same epoch, which they do nearly always.
    for _ in 0..10 {
        let plan = Plan::new(3);
        let all = || -> Vec<Instance> { (1..=3).map(|id| plan.start(id, 1..=3)).collect() };
        let nodes = all();
        append(&nodes[0].client(), "list", "common").await;
        nodes.into_iter().for_each(Instance::stop);
        let copy_of = |id: u64| plan.folder.path().join(format!("copy-{id}"));
        (1..=3).for_each(|id| copy(&plan.data(id), &copy_of(id)));
        let nodes = all();
        append(&nodes[0].client(), "list", "first").await;
        let first = nodes[0].client().status().last;
        nodes.into_iter().for_each(Instance::stop);
        for id in 2..=3 {
            std::fs::remove_dir_all(plan.data(id)).expect("its data");
            std::fs::rename(copy_of(id), plan.data(id)).expect("its copy");
        }
        let nodes: Vec<Instance> = (2..=3).map(|id| plan.start(id, 1..=3)).collect();
        append(&nodes[0].client(), "list", "other").await;
        if nodes[0].client().status().last != first {
            continue;
        }
        let one = plan.start(1, 1..=3);
        let client = one.client();
        let stopped = client.until(|status| status.stopped.is_some());
        let status = tokio::time::timeout(PATIENCE, stopped).await.expect("in time").expect("it runs");
        let Some(Stopped::Protocol(fatal)) = status.stopped else { panic!("{status:?}") };
        assert!(fatal.to_string().contains(&format!("different at {first}")), "{fatal}");
        append(&nodes[1].client(), "list", "more").await;
        assert_eq!(read(&nodes[0].client(), "list").await, "common\nother\nmore\n");
        return;
    }
    panic!("the copies never had the same epoch");
}
