//! The admin listener: liveness, readiness, metrics, listeners, routes, services, the cluster, its locks and queues. Only
//! requests to the cluster change anything.

mod api;
mod cluster;
mod families;
mod generations;
mod locks;
mod metrics;
mod queues;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use actix_web::dev::ServerHandle;
use actix_web::http::uri::Authority;
use actix_web::http::{StatusCode, header};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use crossdock_cluster::Client;
use crossdock_embedded::Engine;
use crossdock_ports::Adapter;
use subtle::ConstantTimeEq as _;

use self::api::{listener_statuses_json, listeners_json, routes_json, services_json};
use self::cluster::{alarms, cluster_json};
use self::locks::Listed;
use self::metrics::{CONTENT_TYPE, openmetrics};
use crate::actors::LastError;
use crate::generation::CurrentGeneration;
use crate::process::ProcessState;
use crate::stats::Stats;

/// Maximum length of a request that pushes routes: files of 3 MiB in base64, with their paths.
const PUSH_BODY_MAX: usize = 5 << 20;

/// The state that the admin listener exposes.
#[derive(Clone)]
pub(crate) struct AdminState {
    pub(crate) current: Arc<CurrentGeneration>,
    pub(crate) adapters: Arc<[Arc<dyn Adapter>]>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) process: Arc<ProcessState>,
    pub(crate) last_error: LastError,
    pub(crate) token: Option<String>,
    pub(crate) cluster: Option<Client>,
    pub(crate) api: Option<Arc<crossdock_api_server::Counts>>,
}

/// The running admin listener.
pub(crate) struct Admin {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Admin {
    pub(crate) fn open(address: SocketAddr, state: AdminState) -> std::io::Result<Self> {
        let state = web::Data::new(state);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(state.clone())
                .route("/livez", web::get().to(live))
                .route("/readyz", web::get().to(ready))
                .route("/metrics", web::get().to(metrics))
                .route("/api/v1/listeners", web::get().to(listeners))
                .route("/api/v1/routes", web::get().to(routes))
                .route("/api/v1/services", web::get().to(services))
                .route("/api/v1/cluster", web::get().to(cluster))
                .route("/api/v1/cluster", web::post().to(change_cluster))
                .route("/api/v1/cluster/history", web::get().to(cluster_history))
                .route("/api/v1/cluster/snapshot", web::post().to(save_cluster))
                .route("/api/v1/locks", web::get().to(locks))
                .route("/api/v1/locks", web::post().to(change_lock))
                .route("/api/v1/locks/hold", web::post().to(hold_lock))
                .service(
                    web::resource("/api/v1/routes/generations")
                        .route(web::get().to(generations))
                        .route(web::post().to(push_routes)),
                )
                .route("/api/v1/routes/files", web::get().to(route_files))
                .route("/api/v1/queues", web::get().to(queues))
                .route("/api/v1/queues", web::post().to(change_queue))
                .route("/api/v1/queues/dead", web::get().to(dead_letters))
                .route("/api/v1/sessions", web::get().to(sessions))
        })
        .workers(1)
        .disable_signals()
        .bind(address)?;
        let address = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Ok(Self { address, handle })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(self) {
        self.handle.stop(false).await;
    }
}

/// Checks access. With a token, the request must contain it. Without one, the Host must be a loopback address or `localhost`, which
/// prevents DNS rebinding from a web page.
fn authorize(request: &HttpRequest, state: &AdminState) -> Result<(), HttpResponse> {
    match &state.token {
        Some(token) => {
            let presented = request
                .headers()
                .get(header::AUTHORIZATION)
                .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            if presented.is_some_and(|presented| presented.ct_eq(token.as_bytes()).into()) {
                return Ok(());
            }
            Err(HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Bearer")).finish())
        }
        None => {
            // Not `Forwarded` or `X-Forwarded-Host`: any client can send those.
            let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
            if is_loopback_name(host) { Ok(()) } else { Err(HttpResponse::Forbidden().finish()) }
        }
    }
}

/// Whether the value of a Host header (RFC 9110 §7.2) is `localhost` or a loopback address, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback = name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_loopback && !host.contains('@')
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "live": true }))
}

async fn ready(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    let draining = state.current.is_draining();
    let last_error = state.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A probe needs no token, but errors are shown only to authorized callers.
    let shows_errors = authorize(&request, &state).is_ok();
    let body = serde_json::json!({
        "ready": !draining,
        "generation": state.current.load().number,
        "last_reload": { "ok": last_error.is_none(), "error": last_error.filter(|_| shows_errors) },
        // They do not affect readiness: if a broker is down, it is for all instances, and HTTP callers would find none.
        "listeners": listener_statuses_json(&state.process.listeners, shows_errors),
        // Without a quorum, only routes with locks fail, and say so.
        "cluster": state.cluster.as_ref().map(|cluster| serde_json::json!({ "alarms": alarms(&cluster.status()) })),
    });
    if draining { HttpResponse::ServiceUnavailable().json(body) } else { HttpResponse::Ok().json(body) }
}

async fn metrics(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    if let Err(refusal) = authorize(&request, &state) {
        return refusal;
    }
    match openmetrics(state) {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            HttpResponse::InternalServerError().finish()
        }
    }
}

async fn routes(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    match authorize(&request, &state) {
        Err(refusal) => refusal,
        Ok(()) => HttpResponse::Ok().json(routes_json(&state.stats, &state.current.load(), Instant::now())),
    }
}

async fn listeners(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    match authorize(&request, &state) {
        Err(refusal) => refusal,
        Ok(()) => HttpResponse::Ok().json(listeners_json(&state.process.listeners)),
    }
}

async fn services(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    match authorize(&request, &state) {
        Err(refusal) => refusal,
        Ok(()) => HttpResponse::Ok().json(services_json(&state.current.load(), &state.adapters, Instant::now())),
    }
}

async fn cluster(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    match (authorize(&request, &state), &state.cluster) {
        (Err(refusal), _) => refusal,
        (Ok(()), Some(cluster)) => HttpResponse::Ok().json(cluster_json(&cluster.status())),
        (Ok(()), None) => {
            HttpResponse::NotFound().json(serde_json::json!({ "error": "the settings have no `cluster:`" }))
        }
    }
}

/// The hash over the history through the transaction in the query, such as `at=3:17`.
async fn cluster_history(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    if let Err(refusal) = authorize(&request, &state) {
        return refusal;
    }
    let error = |problem: &str| serde_json::json!({ "error": problem });
    let Some(cluster) = &state.cluster else {
        return HttpResponse::NotFound().json(error("the settings have no `cluster:`"));
    };
    let at = request.query_string().strip_prefix("at=").unwrap_or_default();
    match self::cluster::hash_json(cluster, at).await {
        Some(hash) => HttpResponse::Ok().json(hash),
        None => HttpResponse::BadRequest().json(error("name a transaction, such as `?at=3:17`")),
    }
}

fn cluster_problem(status: u16, problem: &str) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(serde_json::json!({ "error": problem }))
}

/// The cluster, if the request may have an effect on it. A page in a browser of this machine can send neither without a
/// preflight request, which is not answered.
fn cluster_for_change(request: &HttpRequest, state: &AdminState) -> Result<Client, HttpResponse> {
    authorize(request, state)?;
    let is_json = request.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == "application/json");
    if !is_json || request.headers().contains_key(header::ORIGIN) {
        let problem = "the content type must be `application/json`, and the request must not come from a web page";
        return Err(cluster_problem(415, problem));
    }
    state.cluster.clone().ok_or_else(|| cluster_problem(404, "the settings have no `cluster:`"))
}

/// A backup of the state of the cluster. It is written to the disk first, so a web page must not be able to request it.
async fn save_cluster(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    let cluster = match cluster_for_change(&request, &state) {
        Ok(cluster) => cluster,
        Err(refusal) => return refusal,
    };
    match self::cluster::backup(cluster).await {
        Ok(body) => HttpResponse::Ok().content_type("application/octet-stream").body(body),
        Err((status, text)) => cluster_problem(status, &text),
    }
}

async fn change_cluster(request: HttpRequest, state: web::Data<AdminState>, body: web::Bytes) -> HttpResponse {
    let cluster = match cluster_for_change(&request, &state) {
        Ok(cluster) => cluster,
        Err(refusal) => return refusal,
    };
    match self::cluster::Request::parse(&body) {
        Some(wanted) => match self::cluster::execute(&cluster, wanted).await {
            Ok(done) => HttpResponse::Ok().json(done),
            Err((status, text)) => cluster_problem(status, &text),
        },
        None => cluster_problem(
            400,
            "send `{\"add\": 4}`, `{\"remove\": 4}`, `{\"replace\": {\"old\": 3, \"new\": 4}}`, `{\"transfer\": 2}` or `{\"transfer\": null}`",
        ),
    }
}

type Query = web::Query<BTreeMap<String, String>>;

/// Locks and sessions, if the request may see them.
fn coordination(request: &HttpRequest, state: &AdminState) -> Result<Engine, HttpResponse> {
    authorize(request, state)?;
    let missing = || {
        let of_engine = "the settings have no `cluster:`; the locks are in the engine of `coordination`";
        let message = if state.process.locks.is_some() { of_engine } else { "the settings have no `cluster:`" };
        cluster_problem(404, message)
    };
    state.process.coordination.clone().ok_or_else(missing)
}

/// Locks and sessions, if the request may change them.
fn coordination_for_change(request: &HttpRequest, state: &AdminState) -> Result<Engine, HttpResponse> {
    cluster_for_change(request, state)?;
    coordination(request, state)
}

fn json_or_problem(result: Result<serde_json::Value, (u16, String)>) -> HttpResponse {
    match result {
        Ok(body) => HttpResponse::Ok().json(body),
        Err((status, text)) => cluster_problem(status, &text),
    }
}

async fn locks(request: HttpRequest, state: web::Data<AdminState>, query: Query) -> HttpResponse {
    match (coordination(&request, &state), Listed::parse(&query)) {
        (Ok(engine), Some(listed)) => json_or_problem(self::locks::locks_json(&engine, &listed).await),
        (Err(refusal), _) => refusal,
        (Ok(_), None) => cluster_problem(400, "`limit` must be a number"),
    }
}

async fn sessions(request: HttpRequest, state: web::Data<AdminState>, query: Query) -> HttpResponse {
    match (coordination(&request, &state), Listed::parse(&query)) {
        (Ok(engine), Some(listed)) => json_or_problem(self::locks::sessions_json(&engine, &listed).await),
        (Err(refusal), _) => refusal,
        (Ok(_), None) => cluster_problem(400, "`limit` must be a number"),
    }
}

async fn generations(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    match coordination(&request, &state) {
        Ok(engine) => json_or_problem(self::generations::generations_json(&engine).await),
        Err(refusal) => refusal,
    }
}

async fn route_files(request: HttpRequest, state: web::Data<AdminState>, query: Query) -> HttpResponse {
    match coordination(&request, &state) {
        Ok(engine) => json_or_problem(self::generations::files_json(&engine, &query).await),
        Err(refusal) => refusal,
    }
}

async fn push_routes(request: HttpRequest, state: web::Data<AdminState>, body: web::Payload) -> HttpResponse {
    // Before the body is read, which may be large.
    let engine = match coordination_for_change(&request, &state) {
        Ok(engine) => engine,
        Err(refusal) => return refusal,
    };
    let body = match body.to_bytes_limited(PUSH_BODY_MAX).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return error.error_response(),
        Err(_) => return cluster_problem(413, "the files of a generation have at most 3 MiB"),
    };
    let Some(push) = self::generations::Push::parse(&body) else {
        let problem = "send `{\"files\": {\"routes/a.yaml\": BASE64}}`, `{\"rollback\": 2}` or `{\"promote\": 3}`, with `base`, `stage`, `author` and `comment` if needed; or `{\"withdraw\": 3}`";
        return cluster_problem(400, problem);
    };
    match self::generations::push(&engine, push).await {
        Ok(done) => HttpResponse::Ok().json(done),
        Err((status, report)) => {
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)).json(report)
        }
    }
}

async fn queues(request: HttpRequest, state: web::Data<AdminState>, query: Query) -> HttpResponse {
    match (coordination(&request, &state), Listed::parse(&query)) {
        (Ok(engine), Some(listed)) => json_or_problem(self::queues::queues_json(&engine, &listed).await),
        (Err(refusal), _) => refusal,
        (Ok(_), None) => cluster_problem(400, "`limit` must be a number"),
    }
}

async fn dead_letters(request: HttpRequest, state: web::Data<AdminState>, query: Query) -> HttpResponse {
    match coordination(&request, &state) {
        Ok(engine) => json_or_problem(self::queues::dead_letters_json(&engine, &query).await),
        Err(refusal) => refusal,
    }
}

async fn change_queue(request: HttpRequest, state: web::Data<AdminState>, body: web::Bytes) -> HttpResponse {
    let engine = match coordination_for_change(&request, &state) {
        Ok(engine) => engine,
        Err(refusal) => return refusal,
    };
    match self::queues::Change::parse(&body) {
        Some(change) => json_or_problem(self::queues::change(&engine, change).await),
        None => cluster_problem(
            400,
            "send `{\"queue\": \"route orders\", \"replay\": [17]}`, or `drop` instead, or `\"purge\": true`",
        ),
    }
}

async fn change_lock(request: HttpRequest, state: web::Data<AdminState>, body: web::Bytes) -> HttpResponse {
    let engine = match coordination_for_change(&request, &state) {
        Ok(engine) => engine,
        Err(refusal) => return refusal,
    };
    match self::locks::Change::parse(&body) {
        Some(change) => json_or_problem(self::locks::change(&engine, &change).await),
        None => cluster_problem(400, "send `{\"break\": \"stock/7\", \"reason\": \"…\"}`, or `revoke` instead"),
    }
}

/// Holds a lock for as long as the connection lasts.
async fn hold_lock(request: HttpRequest, state: web::Data<AdminState>, body: web::Bytes) -> HttpResponse {
    let engine = match coordination_for_change(&request, &state) {
        Ok(engine) => engine,
        Err(refusal) => return refusal,
    };
    let Some(hold) = self::locks::Hold::parse(&body) else {
        let keys = "`wait_ms`, `lease_ms`, `shared`, `permits` and `metadata`";
        return cluster_problem(400, &format!("send `{{\"lock\": \"stock/7\"}}`, with {keys} if needed"));
    };
    match self::locks::hold(&engine, hold).await {
        Ok(lines) => HttpResponse::Ok().content_type("application/x-ndjson").streaming(lines),
        Err((status, text)) => cluster_problem(status, &text),
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback_name;

    #[test]
    fn only_loopback_names_are_local() {
        for host in ["localhost", "localhost:9900", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:9900"] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "evil@localhost",
            "10.0.0.1:80",
            "[::2]",
            "::1:80",
            "[::1",
            "a b",
        ] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }
}
