//! `crossdock demo --cluster`: three instances in this process, a lock that is handed over, and an ordered stream that survives the death of the
//! leader.

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use crossdock_cluster::{Member, Settings};
use crossdock_gateway::{ClusterConfig, Config, Gateway, LoadError, Running, adapters, read_folder};
use crossdock_http::client::{Request, send};
use crossdock_zab::ServerId;
use serde_json::{Value, json};

const INSTANCES: u64 = 3;
const SESSION: Duration = Duration::from_secs(1);
const ITEMS: usize = 30;
const ACCOUNTS: usize = 5;
const BOOKINGS: usize = 60;
/// Bookings of an account after which the leader is killed.
const BEFORE_DEATH: usize = 20;
const WAIT: Duration = Duration::from_secs(30);

/// A service that knows nothing of locks: its stock is read and written back, and its ledger records what it is sent.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    left: usize,
    booked: HashMap<String, Vec<usize>>,
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it on a free port; it runs until the process exits.
    fn start(&self) -> std::io::Result<SocketAddr> {
        let data = web::Data::new(self.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .route("/stock", web::get().to(read_stock))
                .route("/stock", web::put().to(write_stock))
                .route("/book", web::post().to(book))
        });
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0")?;
        let address = server.addrs().first().copied().ok_or_else(|| std::io::Error::other("no address"))?;
        actix_rt::spawn(server.run());
        Ok(address)
    }
}

async fn read_stock(service: web::Data<Service>) -> HttpResponse {
    let left = service.state().left;
    // Long enough for another caller to read the same.
    actix_rt::time::sleep(Duration::from_millis(2)).await;
    HttpResponse::Ok().json(json!({ "left": left }))
}

async fn write_stock(service: web::Data<Service>, body: web::Json<Value>) -> HttpResponse {
    service.state().left = number(&body["left"]);
    HttpResponse::Ok().json(json!({}))
}

async fn book(service: web::Data<Service>, body: web::Json<Value>) -> HttpResponse {
    let account = body["account"].as_str().unwrap_or_default().to_owned();
    service.state().booked.entry(account).or_default().push(number(&body["n"]));
    HttpResponse::Ok().json(json!({}))
}

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

fn routes(service: SocketAddr) -> String {
    format!(
        "version: 1
services:
  shop:
    http: {{ url: \"http://{service}\", operations: {{ read: {{ get: /stock }}, write: {{ put: /stock }}, book: {{ post: /book }} }} }}
routes:
  take:
    from: {{ http: {{ listen: public, post: /take }} }}
    steps: [ {{ lock: {{ name: stock, steps: [ {{ call: shop.read }}, {{ map: {{ left: res.left - 1 }} }}, {{ call: shop.write }} ] }} }} ]
  book:
    from: {{ http: {{ listen: public, post: /book }} }}
    order: {{ by: req.account, scope: cluster, answer: accepted }}
    steps: [ {{ call: shop.book }} ]
"
    )
}

/// A temporary folder, which is deleted with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Instance {
    id: u64,
    public: String,
    running: Running,
}

/// Runs the demonstration; whether everything was as it should be.
pub(super) async fn demonstrate() -> Result<bool, String> {
    let service = Service::default();
    service.state().left = ITEMS;
    let address = service.start().map_err(|error| format!("failed to start the sample service: {error}"))?;
    let folder = Folder(std::env::temp_dir().join(format!("crossdock-demo-{}", std::process::id())));
    let mut instances = start(&folder.0, address).await?;
    let is_first_right = hand_over(&instances, &service).await?;
    let is_second_right = outlive_leader(&mut instances, &service).await?;
    for instance in instances {
        instance.running.stop().await;
    }
    Ok(is_first_right && is_second_right)
}

async fn start(folder: &Path, service: SocketAddr) -> Result<Vec<Instance>, String> {
    let mut members = BTreeMap::new();
    for id in 1..=INSTANCES {
        let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = bound.map_err(|problem| format!("no free port: {problem}"))?.into();
        members.insert(ServerId(id), Member { address, votes: true });
    }
    let mut starting = Vec::new();
    for id in 1..=INSTANCES {
        let folder = folder.join(id.to_string());
        let main = "version: 1\nworkers: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } } }\ncluster: {}\n";
        let written = std::fs::create_dir_all(folder.join("routes"))
            .and_then(|()| std::fs::write(folder.join("crossdock.yaml"), main))
            .and_then(|()| std::fs::write(folder.join("routes/shop.yaml"), routes(service)));
        written.map_err(|problem| format!("cannot write to `{}`: {problem}", folder.display()))?;
        let mut settings = Settings::new("demo", ServerId(id), members.clone(), folder.join("data"));
        settings.create = true;
        settings.log.segment_len = 1 << 20;
        let source = move || read(&folder, &settings);
        // Each waits for a majority.
        starting.push(async move { (id, Gateway::new(adapters()).start_with(source).await) });
    }
    let mut instances = Vec::new();
    for (id, started) in futures_util::future::join_all(starting).await {
        let running = started.map_err(|error| error.to_string())?;
        let public = running.listener("public").ok_or("there is no listener")?.to_owned();
        println!("instance {id} at http://{public}");
        instances.push(Instance { id, public, running });
    }
    Ok(instances)
}

fn read(folder: &Path, settings: &Settings) -> Result<Config, LoadError> {
    let mut config = read_folder(folder, &adapters())?;
    config.coordination = None;
    config.cluster = Some(ClusterConfig { settings: settings.clone(), session: SESSION, api: None });
    Ok(config)
}

/// Sends a request until it is answered with this status; the number of other answers.
async fn post(addresses: &[String], at: usize, target: &str, body: &str, status: u16) -> Result<usize, String> {
    let begun = Instant::now();
    let content_type = ("content-type".to_owned(), "application/json".to_owned());
    let headers: Vec<_> = (!body.is_empty()).then_some(content_type).into_iter().collect();
    let mut others = 0;
    loop {
        let address = &addresses[(at + others) % addresses.len()];
        let request = Request { method: "POST", target, headers: headers.clone(), body };
        match send(address, &request).await {
            Ok(response) if response.status == status => return Ok(others),
            Ok(response) if begun.elapsed() > WAIT => return Err(format!("{}: {}", response.status, response.body)),
            Err(problem) if begun.elapsed() > WAIT => return Err(problem),
            _ => others += 1,
        }
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
}

fn addresses(instances: &[Instance]) -> Vec<String> {
    instances.iter().map(|instance| instance.public.clone()).collect()
}

async fn hand_over(instances: &[Instance], service: &Service) -> Result<bool, String> {
    println!("\n── A lock that all instances share");
    println!(
        "   {ITEMS} callers of all instances take one of {ITEMS} items each, from a service that is read and written back"
    );
    let (addresses, begun) = (addresses(instances), Instant::now());
    let takes = (0..ITEMS).map(|at| post(&addresses, at, "/take", "", 200));
    futures_util::future::try_join_all(takes).await?;
    let left = service.state().left;
    println!("   {left} are left, after {} hand-overs in {:.0} ms", ITEMS - 1, begun.elapsed().as_secs_f64() * 1e3);
    println!("   {}", if left == 0 { "passed: no update was lost" } else { "FAILED: updates were lost" });
    Ok(left == 0)
}

async fn outlive_leader(instances: &mut Vec<Instance>, service: &Service) -> Result<bool, String> {
    println!("\n── An ordered stream that survives the death of the leader");
    let leader = instances.iter().position(|instance| instance.running.leads()).ok_or("there is no leader")?;
    let killed = instances.remove(leader);
    println!("   {BOOKINGS} bookings for each of {ACCOUNTS} accounts, one after another, through all instances");
    let mut all = addresses(instances);
    let others = all.clone();
    all.insert(leader, killed.public.clone());
    book_all(&all, 0..BEFORE_DEATH).await?;
    println!("   instance {} leads, and is killed", killed.id);
    let begun = Instant::now();
    killed.running.kill().await;
    let refused = book_all(&others, BEFORE_DEATH..BOOKINGS).await?;
    println!("   the others go on; {refused} attempts were refused meanwhile, and sent again");
    let booked = || -> usize {
        let state = service.state();
        state.booked.values().map(|numbers| numbers.iter().collect::<std::collections::BTreeSet<_>>().len()).sum()
    };
    while booked() < ACCOUNTS * BOOKINGS && begun.elapsed() < WAIT {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    let state = service.state();
    let in_order = state.booked.values().all(|numbers| numbers.is_sorted());
    let sent: usize = state.booked.values().map(Vec::len).sum();
    let distinct = state.booked.values().map(|of| of.iter().collect::<std::collections::BTreeSet<_>>().len());
    let distinct: usize = distinct.sum();
    println!(
        "   {distinct} of {} are booked, {} of them twice, all {:.1} s after the death",
        ACCOUNTS * BOOKINGS,
        sent - distinct,
        begun.elapsed().as_secs_f64()
    );
    let is_right = in_order && distinct == ACCOUNTS * BOOKINGS;
    println!(
        "   {}",
        if is_right {
            "passed: none is lost, each account is in order"
        } else {
            "FAILED: a booking is lost or out of order"
        }
    );
    Ok(is_right)
}

/// Books these numbers for all accounts, one after another for each; the number of attempts that were refused.
async fn book_all(addresses: &[String], numbers: std::ops::Range<usize>) -> Result<usize, String> {
    let accounts = (0..ACCOUNTS).map(|account| {
        let numbers = numbers.clone();
        async move {
            let mut refused = 0;
            for n in numbers {
                let body = json!({ "account": format!("account {account}"), "n": n }).to_string();
                refused += post(addresses, account + n, "/book", &body, 202).await?;
            }
            Ok::<_, String>(refused)
        }
    });
    Ok(futures_util::future::try_join_all(accounts).await?.into_iter().sum())
}
