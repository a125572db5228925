//! Mutual TLS between instances.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use crossdock_cluster::register::{self, Change, Command, Register};
use crossdock_cluster::{Address, Client, Member, Node, Replica, Settings};
use crossdock_tls::MutualTls;
use crossdock_zab::{Role, ServerId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

const PATIENCE: Duration = Duration::from_secs(20);

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Writes the TLS files of an instance: a certificate by `issuer` for `name`, and the trusted authority.
fn files(folder: &Path, file: &str, name: &str, issuer: &Authority, trusted: &Authority) -> MutualTls {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let path = |kind: &str| folder.join(format!("{file}.{kind}"));
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    std::fs::write(path("pem"), certificate.pem()).expect("a file");
    std::fs::write(path("key"), key.serialize_pem()).expect("a file");
    std::fs::write(path("ca"), trusted.pem()).expect("a file");
    MutualTls { cert: path("pem"), key: path("key"), ca: path("ca") }
}

/// Three instances, of which the first ones form a cluster.
fn settings(folder: &Path, voters: u64) -> Vec<Settings> {
    let address = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let members: BTreeMap<ServerId, Member> =
        (1..=3).map(|id| (ServerId(id), Member { address: address().into(), votes: id <= voters })).collect();
    let one = |id: &ServerId| {
        let mut settings = Settings::new("shop", *id, members.clone(), folder.join(id.to_string()));
        settings.create = true;
        settings.log.segment_len = 1 << 20;
        settings
    };
    members.keys().map(one).collect()
}

fn start(settings: &Settings) -> (Node, Replica<Register>) {
    register::start(settings).expect("it starts")
}

/// Whether it is connected to the third instance.
fn connected((_, client): &(Node, Replica<Register>)) -> bool {
    client.status().peers.iter().any(|peer| peer.id == ServerId(3) && peer.is_connected)
}

async fn settled(client: &Client) -> Role {
    let settled = client.until(|status| status.role != Role::Looking);
    tokio::time::timeout(PATIENCE, settled).await.expect("in time").expect("it runs").role
}

#[tokio::test]
async fn instances_with_certificates_form_a_cluster_and_take_renewed_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let mut settings = settings(folder.path(), 3);
    for one in &mut settings {
        let (file, name) = (format!("tls-{}", one.id), format!("{}.shop", one.id));
        one.tls = Some(files(folder.path(), &file, &name, &ours, &ours));
    }
    let mut nodes: Vec<_> = settings.iter().map(start).collect();
    for node in &nodes {
        settled(&node.1).await;
    }
    let set = Command::payload("a", Change::Set(Bytes::from_static(b"1")));
    nodes[0].1.propose(set).await.expect("it is done");
    // The certificate is renewed and one instance restarts; the others keep running.
    files(folder.path(), "tls-1", "1.shop", &ours, &ours);
    nodes.remove(2).0.stop();
    nodes.push(start(&settings[2]));
    settled(&nodes[2].1).await;
    assert_eq!(nodes[2].1.read().await.expect("it is read").get("a"), b"1");
}

/// The names of pods in a cluster of containers: they are resolved whenever an instance connects.
#[tokio::test]
async fn instances_find_one_another_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = authority("ours");
    let mut all = settings(folder.path(), 3);
    for one in &mut all {
        let (file, name) = (format!("tls-{}", one.id), format!("{}.shop", one.id));
        one.tls = Some(files(folder.path(), &file, &name, &ours, &ours));
        for member in one.members.values_mut() {
            let Address::Ip(address) = member.address else { panic!("an IP address") };
            member.address = Address::Name { host: "localhost".to_owned(), port: address.port() };
        }
    }
    let nodes: Vec<_> = all.iter().map(start).collect();
    for node in &nodes {
        settled(&node.1).await;
        assert!(node.0.address().ip().is_unspecified(), "{}", node.0.address());
    }
    let mut open = all[0].clone();
    open.tls = None;
    let refused = register::start(&open).err().expect("it does not start");
    assert!(refused.to_string().contains("names need TLS"), "{refused}");
}

#[tokio::test]
async fn an_instance_with_a_wrong_certificate_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, others) = (authority("ours"), authority("others"));
    for (case, name, issuer) in
        [("stranger", "3.shop", &others), ("another", "2.shop", &ours), ("nobody", "3.store", &ours)]
    {
        let mut settings = settings(&folder.path().join(case), 2);
        std::fs::create_dir_all(folder.path().join(case)).expect("a folder");
        for one in &mut settings[..2] {
            let (file, name) = (format!("{case}-{}", one.id), format!("{}.shop", one.id));
            one.tls = Some(files(folder.path(), &file, &name, &ours, &ours));
        }
        settings[2].tls = Some(files(folder.path(), &format!("{case}-3"), name, issuer, &ours));
        let nodes: Vec<_> = settings.iter().map(start).collect();
        let good = [settled(&nodes[0].1).await, settled(&nodes[1].1).await];
        assert!(good.iter().any(|role| matches!(role, Role::Leading(_))), "{case}: {good:?}");
        // The third was refused for as long as the others took to elect a leader.
        for node in &nodes[..2] {
            assert!(!connected(node), "{case}");
        }
        assert_eq!(nodes[2].1.status().role, Role::Looking, "{case}");
    }
    // An instance without TLS.
    let mut settings = settings(&folder.path().join("plain"), 2);
    for one in &mut settings[..2] {
        let (file, name) = (format!("plain-{}", one.id), format!("{}.shop", one.id));
        one.tls = Some(files(folder.path(), &file, &name, &ours, &ours));
    }
    let nodes: Vec<_> = settings.iter().map(start).collect();
    settled(&nodes[0].1).await;
    assert_eq!(nodes[2].1.status().role, Role::Looking);
    assert!(nodes[..2].iter().all(|node| !connected(node)));
}
