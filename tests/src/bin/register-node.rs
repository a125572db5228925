//! An instance of a cluster that replicates the register, for tests. Clients send lines:
//!
//! ```text
//! register-node ID FOLDER CLIENTS 1=127.0.0.1:7101,2=… [founders=1,2] [large] [tls=FOLDER] [versions=2-3]
//!
//! founders   the members that form the cluster, if not all of them
//! large      use the default snapshot interval and segment size, not the small ones for tests
//! tls        use ID.pem, ID.key and ca.pem in that folder
//! versions   supported versions of the protocol between instances
//!
//! NUMBER set KEY VALUE       → NUMBER done | NUMBER refused | NUMBER unknown
//! NUMBER cas KEY OLD VALUE   → NUMBER done | NUMBER not-done | …         OLD is - if the register must be empty
//! NUMBER append KEY ITEM     → NUMBER done | NUMBER refused | NUMBER unknown
//! NUMBER read KEY            → NUMBER value ITEM,ITEM,… | NUMBER refused
//! NUMBER status              → NUMBER leading | NUMBER following | …
//! NUMBER syncs               → NUMBER syncs COUNT
//! NUMBER add ID              → NUMBER done | NUMBER refused | NUMBER unknown
//! NUMBER remove ID           → NUMBER done | NUMBER refused | NUMBER unknown
//! NUMBER transfer ID         → NUMBER done
//! NUMBER voters              → NUMBER voters ID,ID,…
//! NUMBER describe            → NUMBER, and the role, the phase, the history, the voters and the peers as text
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use crossdock_cluster::register::{self, Change, Command, CompareAndSet, DONE, Register};
use crossdock_cluster::{Client, Member, Replica, RequestError, Settings};
use crossdock_tls::MutualTls;
use crossdock_zab::{MemberChange, Role, ServerId};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// As in the gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers that are written together.
const ANSWERS_MAX: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [id, folder, clients, members, options @ ..] = arguments.as_slice() else {
        return Err("ID FOLDER CLIENTS MEMBERS [large] [tls=FOLDER] [versions=FIRST-LAST]".into());
    };
    let mut all = BTreeMap::new();
    for member in members.split(',') {
        let (id, address) = member.split_once('=').ok_or("ID=ADDRESS")?;
        all.insert(ServerId(id.parse()?), Member { address: address.parse()?, votes: true });
    }
    let mut settings = Settings::new("register", ServerId(id.parse()?), all, folder.into());
    settings.create = true;
    settings.snapshot_every = 500;
    settings.log.segment_len = 1 << 20;
    for option in options {
        let defaults = Settings::new("register", settings.id, BTreeMap::new(), folder.into());
        match option.split_once('=') {
            Some(("founders", ids)) => {
                for (id, member) in &mut settings.members {
                    member.votes = ids.split(',').any(|founder| founder.parse() == Ok(id.0));
                }
            }
            None if option == "large" => {
                (settings.snapshot_every, settings.log) = (defaults.snapshot_every, defaults.log);
            }
            Some(("tls", files)) => {
                let file = |name: &str| Path::new(files).join(name);
                let (cert, key) = (file(&format!("{id}.pem")), file(&format!("{id}.key")));
                settings.tls = Some(MutualTls { cert, key, ca: file("ca.pem") });
            }
            Some(("versions", range)) => {
                let (first, last) = range.split_once('-').ok_or("FIRST-LAST")?;
                settings.versions = first.parse()?..=last.parse()?;
            }
            _ => return Err(format!("unknown option `{option}`").into()),
        }
    }
    let (node, register) = register::start(&settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let serving = tokio::spawn(serve(clients.parse()?, register));
        tokio::select! {
            ended = serving => return Ok(ended?.map_err(|problem| problem.to_string())?),
            _ = terminated.recv() => {}
        }
        node.shut_down().await;
        Ok(())
    })
}

async fn serve(address: SocketAddr, client: Replica<Register>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(handle(stream, client.clone()));
    }
}

async fn handle(stream: TcpStream, client: Replica<Register>) {
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let (answers, mut pending_answers) = mpsc::channel::<String>(1000);
    let writer = tokio::spawn(async move {
        let mut ready = Vec::new();
        while pending_answers.recv_many(&mut ready, ANSWERS_MAX).await > 0 {
            // Others that are ready follow now.
            tokio::task::yield_now().await;
            while ready.len() < ANSWERS_MAX
                && let Ok(answer) = pending_answers.try_recv()
            {
                ready.push(answer);
            }
            let text: String = ready.drain(..).collect();
            if write.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    while let Ok(Some(line)) = lines.next_line().await {
        let (client, answers) = (client.clone(), answers.clone());
        tokio::spawn(async move {
            let answer = answer(&client, &line).await;
            let _ = answers.send(answer).await;
        });
    }
    writer.abort();
}

async fn answer(client: &Replica<Register>, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let number = words.first().copied().unwrap_or("?");
    let outcome = match words.get(1..).unwrap_or_default() {
        ["append", key, item] => change(client, key, Change::Append(Bytes::copy_from_slice(item.as_bytes()))).await,
        ["cas", key, old, value] => {
            let expected = (*old != "-").then(|| Bytes::copy_from_slice(old.as_bytes()));
            let value = Bytes::copy_from_slice(value.as_bytes());
            change(client, key, Change::CompareAndSet(CompareAndSet { expected, value })).await
        }
        ["set", key, value] => change(client, key, Change::Set(Bytes::copy_from_slice(value.as_bytes()))).await,
        ["read", key] => match client.read().await {
            Ok(values) => format!("value {}", String::from_utf8_lossy(values.get(key)).trim_end().replace('\n', ",")),
            Err(_) => "refused".to_owned(),
        },
        ["status"] => match client.status().role {
            Role::Looking => "looking",
            Role::Leading(_) => "leading",
            Role::Following(..) => "following",
            Role::Observing(..) => "observing",
        }
        .to_owned(),
        ["syncs"] => format!("syncs {}", client.status().syncs),
        ["add", id] => change_members(client, id, MemberChange::Add).await,
        ["remove", id] => change_members(client, id, MemberChange::Remove).await,
        ["transfer", id] => match client.transfer_leadership(id.parse().ok().map(ServerId)).await {
            Ok(()) => "done".to_owned(),
            Err(_) => "unknown".to_owned(),
        },
        ["describe"] => {
            let status = client.status();
            let membership = status.membership.as_ref().map(|membership| (&membership.voters, &membership.replacing));
            let peers: Vec<_> = status.peers.iter().map(|peer| (peer.id, peer.is_connected, peer.lag)).collect();
            let (role, phase, last, stopped) = (status.role, status.phase, status.last, &status.stopped);
            format!("{role:?} {phase} {last} {membership:?} {peers:?} {stopped:?}")
        }
        ["voters"] => {
            let membership = client.status().membership;
            let voters = membership.iter().flat_map(|membership| membership.voters.keys());
            format!("voters {}", voters.map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
        _ => "unknown-command".to_owned(),
    };
    format!("{number} {outcome}\n")
}

async fn change(client: &Replica<Register>, key: &str, change: Change) -> String {
    let outcome = match client.propose(Command::payload(key, change)).await {
        Ok((_, answer)) if answer == DONE => "done",
        Ok(_) => "not-done",
        Err(problem) => failed(problem),
    };
    outcome.to_owned()
}

async fn change_members(client: &Client, id: &str, change: impl FnOnce(ServerId) -> MemberChange) -> String {
    let Ok(id) = id.parse() else { return "unknown-command".to_owned() };
    client.change_members(change(ServerId(id))).await.map_or_else(failed, |_| "done").to_owned()
}

fn failed(problem: RequestError) -> &'static str {
    match problem {
        RequestError::Refused(_) | RequestError::ReadOnly | RequestError::Lost => "refused",
        RequestError::Unknown | RequestError::Client(_) | RequestError::Ended => "unknown",
    }
}
