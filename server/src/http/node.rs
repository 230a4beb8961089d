//! A server of a cluster: what it says of itself, what the others ask it, and on to the doors of its roles.
//!
//! `/internal/v1/…` is for the cluster's own servers, which show its secret, and their certificates where it has some.

mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use henge_catalog::Database;
use henge_catalog::historical::{Historical, Orders};
use henge_catalog::inventory::{FeedPage, Position};
use henge_catalog::realtime::supervisor::SupervisorStatus;
use henge_catalog::store::{MetadataStore, ServerRecord};
use henge_engine::distributed::QueryWorker;
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::body::{JsonBody, Parameters};
use super::listener::Caller;
use super::supervisor::ForAll;
use super::{Answer, Api, Encryption, Failure};
use crate::auth::same;
use crate::cluster::{SECRET_HEADER, Shown, Watcher};
use crate::config::{Role, Secret};

/// An open question of who listens is answered after this long at the latest.
const FEED_WAIT: Duration = Duration::from_secs(1);
/// Orders may be long: each names all that is recorded of a segment.
const MAX_ORDERS_BYTES: usize = 256 << 20;

/// A server of a cluster.
#[derive(Debug)]
pub struct Node {
    pub server: ServerRecord,
    pub roles: Vec<Role>,
    pub secret: Option<Secret>,
    encryption: Encryption,
    pub historical: Option<Historical>,
    pub watcher: Option<Watcher>,
    state: RwLock<NodeState>,
}

#[derive(Debug, Default)]
struct NodeState {
    broker: Option<(Database, Router)>,
    realtime: Option<(Database, Router)>,
    /// While it leads.
    coordinator: Option<(Arc<Api>, Router)>,
    /// The name of the coordinator that leads, as far as is known.
    leader: Option<String>,
    is_leaving: bool,
    /// What computes parts of queries.
    worker: Option<Arc<QueryWorker>>,
}

impl Node {
    pub(crate) fn new(
        server: ServerRecord,
        roles: Vec<Role>,
        (secret, encryption): (Option<Secret>, Encryption),
        historical: Option<Historical>,
        watcher: Option<Watcher>,
    ) -> Arc<Self> {
        Arc::new(Self { server, roles, secret, encryption, historical, watcher, state: RwLock::default() })
    }

    /// Answers queries from here on.
    pub fn answer_queries(&self, database: Database, api: Arc<Api>) {
        self.state.write().broker = Some((database, super::router(api)));
    }

    /// Takes rows from here on.
    pub fn take_rows(&self, database: Database, api: Arc<Api>) {
        self.state.write().realtime = Some((database, super::realtime_router(api)));
    }

    /// The realtime process that takes rows of a data source: one that does already, and of those always the same, so
    /// that it knows a request that comes again.
    pub fn taker(&self, data_source: &str) -> Option<ServerRecord> {
        let sinks = self.state.read().broker.as_ref().map(|(database, _)| database.view().sinks(data_source));
        let mut takers = self.watcher.as_ref()?.servers("realtime");
        takers.retain(|taker| taker.plan_version == self.server.plan_version);
        let has = |taker: &ServerRecord| sinks.iter().flatten().any(|(sink, _)| sink.server == taker.name);
        takers.sort_by_cached_key(|taker| (!has(taker), taker.name.clone()));
        takers.into_iter().next()
    }

    fn realtime(&self) -> Result<Database> {
        let state = self.state.read();
        let database = state.realtime.as_ref().map(|(database, _)| database.clone());
        match self.roles.contains(&Role::Realtime) {
            true => database.ok_or_else(|| {
                let message = "this realtime process is reading its write-ahead log; try again in a moment";
                Error::new(Category::ServiceUnavailable, Persona::User, message).retryable(true)
            }),
            false => Err(Error::not_found("this server takes no rows")),
        }
    }

    /// Leads from here on, or no more.
    pub fn lead(&self, api: Option<Arc<Api>>) {
        let mut state = self.state.write();
        state.leader = api.as_ref().map(|_| self.server.name.clone());
        state.coordinator = api.map(|api| (Arc::clone(&api), super::router(api)));
    }

    /// The metadata database, while it leads.
    fn store(&self) -> Result<Arc<dyn MetadataStore>> {
        let state = self.state.read();
        let (api, _) = state.coordinator.as_ref().ok_or_else(no_leader)?;
        Ok(Arc::clone(api.database.store()))
    }

    /// Who leads now, as far as is known.
    pub fn set_leader(&self, leader: Option<String>) {
        self.state.write().leader = leader;
    }

    /// Tells whoever asks that this server is about to end.
    pub fn leave(&self) {
        self.state.write().is_leaving = true;
    }

    /// Computes parts of queries from here on.
    pub fn compute(&self, worker: Arc<QueryWorker>) {
        self.state.write().worker = Some(worker);
    }

    /// Whether it is the coordinator that leads.
    pub fn leads(&self) -> bool {
        self.state.read().coordinator.is_some()
    }

    fn leader(&self) -> Option<String> {
        self.state.read().leader.clone()
    }

    /// What it waits for before it can do its part; nothing if it can.
    fn waits_for(&self) -> Option<&'static str> {
        let state = self.state.read();
        if state.is_leaving {
            return Some("the end of what is running: this server is about to end");
        }
        if self.roles.contains(&Role::Realtime) && state.realtime.is_none() {
            return Some("its write-ahead log to be read");
        }
        if self.roles.contains(&Role::Broker) {
            if state.broker.is_none() {
                return Some("the metadata database");
            }
            if !self.watcher.as_ref().is_some_and(Watcher::is_ready) {
                return Some("historicals and realtime processes to say what they serve");
            }
        }
        None
    }

    fn shown(&self) -> Result<Shown> {
        let state = self.state.read();
        match (&state.broker, &self.watcher) {
            (Some((database, _)), Some(watcher)) => {
                Ok(Shown { revs: database.view().revs(), positions: watcher.inventory().positions() })
            }
            _ => Err(Error::not_found("this server answers no queries")),
        }
    }

    /// Whether it is a server of the cluster who asks.
    fn check_peer(&self, caller: Caller, headers: &HeaderMap) -> Result<()> {
        if self.encryption.peers.is_some() && !caller.is_peer {
            return Err(stranger("it takes a certificate of the cluster's authority"));
        }
        let Some(secret) = &self.secret else { return Ok(()) };
        let said = headers.get(SECRET_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
        match same(secret.text().as_bytes(), said) {
            true => Ok(()),
            false => Err(stranger("the cluster's secret is missing or wrong")),
        }
    }

    /// How people reach it, and other servers like it.
    fn scheme(&self) -> &'static str {
        if self.encryption.people.is_some() { "https" } else { "http" }
    }
}

fn stranger(why: &str) -> Error {
    Error::new(Category::Unauthorized, Persona::Admin, format!("this is for servers of this cluster: {why}"))
}

pub(super) fn router(node: Arc<Node>) -> Router {
    let internal = Router::new()
        .route("/segments", get(feed))
        .route("/orders", post(orders))
        .route("/shown", get(shown))
        .route("/rows/{dataSource}", post(rows))
        .route("/supervisors", get(supervisors))
        .route("/supervisors/{action}", post(all_supervisors))
        .layer(DefaultBodyLimit::max(MAX_ORDERS_BYTES))
        .layer(from_fn_with_state(Arc::clone(&node), check_peer));
    Router::new()
        .nest("/internal/v1", internal)
        .route("/status", get(status))
        .route("/status/health", get(super::status::health))
        .route("/status/ready", get(ready))
        .route("/status/selfDiscovered", get(ready))
        .route("/status/selfDiscovered/status", get(self_discovered))
        .route("/druid/historical/v1/loadstatus", get(historical_loaded))
        .route("/druid/historical/v1/readiness", get(ready))
        .route("/druid/broker/v1/loadstatus", get(broker_loaded))
        .route("/druid/broker/v1/readiness", get(ready))
        .route("/druid/coordinator/v1/leader", get(leader))
        .route("/druid/coordinator/v1/isLeader", get(is_leader))
        .route("/druid/indexer/v1/leader", get(leader))
        .route("/druid/indexer/v1/isLeader", get(is_leader))
        .fallback(on)
        .with_state(node)
}

async fn check_peer(
    State(node): State<Arc<Node>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match node.check_peer(caller, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Failure(error).into_response(),
    }
}

async fn feed(State(node): State<Arc<Node>>, Parameters(known): Parameters<Position>) -> Answer<Json<FeedPage>> {
    if let Some(historical) = &node.historical {
        return Ok(Json(historical.feed(&node.server, &known, FEED_WAIT).await));
    }
    let tails = node.realtime()?.tails().ok_or_else(|| Error::not_found("this server serves nothing"))?;
    Ok(Json(tails.feed(&node.server, &known, FEED_WAIT).await))
}

/// Under what rows are known if they come again.
#[derive(Debug, Deserialize)]
struct RowsParameters {
    key: String,
}

/// Takes rows that a broker was given with SQL.
async fn rows(
    State(node): State<Arc<Node>>,
    Path(data_source): Path<String>,
    Parameters(RowsParameters { key }): Parameters<RowsParameters>,
    body: Bytes,
) -> Answer<Json<Value>> {
    let taken = node.realtime()?.insert_arrow(&data_source, &body, &key).await?;
    Ok(Json(json!({ "rows": taken })))
}

/// How the supervisors are that run here.
async fn supervisors(State(node): State<Arc<Node>>) -> Answer<Json<Vec<SupervisorStatus>>> {
    Ok(Json(node.realtime()?.supervisors()))
}

/// For whom something is done.
#[derive(Debug, Deserialize)]
struct ByParameters {
    by: String,
}

async fn all_supervisors(
    State(node): State<Arc<Node>>,
    Path(action): Path<String>,
    Parameters(ByParameters { by }): Parameters<ByParameters>,
) -> Answer<Json<Value>> {
    ForAll::of_path(&action)?.obey(&node.realtime()?, &by).await?;
    Ok(Json(json!({})))
}

async fn orders(State(node): State<Arc<Node>>, JsonBody(orders): JsonBody<Orders>) -> Answer<Json<Value>> {
    let historical = node.historical.as_ref().ok_or_else(|| Error::not_found("this server is no historical"))?;
    historical.order(orders).await?;
    Ok(Json(json!({})))
}

async fn shown(State(node): State<Arc<Node>>) -> Answer<Json<Shown>> {
    Ok(Json(node.shown()?))
}

async fn status(State(node): State<Arc<Node>>) -> Json<Value> {
    let server = &node.server;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "modules": [],
        "roles": server.roles,
        "planVersion": server.plan_version,
        "started": server.started.to_string(),
        "waitsFor": node.waits_for(),
        "leader": node.leader(),
        "segments": node.historical.as_ref().map(Historical::num_served),
        "loading": node.historical.as_ref().map(Historical::num_loading),
        "onDemand": node.historical.as_ref().and_then(Historical::cold_figures),
        "queries": node.state.read().worker.as_ref().map(|worker| worker.num_running()),
    }))
}

/// Whether it does its part: 200, or 503 with what it waits for.
async fn ready(State(node): State<Arc<Node>>) -> Response {
    match node.waits_for() {
        None => Json(json!({ "ready": true })).into_response(),
        Some(waits_for) => {
            let body = json!({ "ready": false, "waitsFor": waits_for });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn self_discovered(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(json!({ "selfDiscovered": node.waits_for().is_none() }))
}

async fn historical_loaded(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(json!({ "cacheInitialized": node.historical.is_some() }))
}

async fn broker_loaded(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(json!({ "inventoryInitialized": node.waits_for().is_none() }))
}

async fn leader(State(node): State<Arc<Node>>) -> Answer<String> {
    let leader = node.leader().ok_or_else(|| no_leader().retryable(true))?;
    Ok(format!("{}://{leader}", node.scheme()))
}

/// As in Druid, 404 for one that does not lead, so that load balancers find the one that does.
async fn is_leader(State(node): State<Arc<Node>>) -> Response {
    let leads = node.leads();
    let status = if leads { StatusCode::OK } else { StatusCode::NOT_FOUND };
    (status, Json(json!({ "leader": leads }))).into_response()
}

fn no_leader() -> Error {
    Error::new(Category::ServiceUnavailable, Persona::User, "no coordinator leads just now; try again in a few seconds")
}

/// Whatever is no business of the server as such goes to the role it is for, here or elsewhere.
async fn on(State(node): State<Arc<Node>>, uri: Uri, request: Request) -> Response {
    let is_coordinators = uri.path().starts_with("/druid/coordinator/") || uri.path().starts_with("/druid/indexer/");
    let is_push = uri.path().starts_with("/v1/push/");
    let is_supervisors = uri.path().starts_with(super::supervisor::PATH);
    let (broker, coordinator, realtime, leader) = {
        let state = node.state.read();
        let [broker, realtime] = [&state.broker, &state.realtime].map(|role| Some(role.as_ref()?.1.clone()));
        let coordinator = state.coordinator.as_ref().map(|(_, router)| router.clone());
        (broker, coordinator, realtime, state.leader.clone())
    };
    let door = match realtime {
        Some(realtime) if is_push || uri.path() == "/metrics" => Some(realtime),
        // Where it coordinates as well, that is asked who runs what.
        Some(realtime) if is_supervisors && coordinator.is_none() => Some(realtime),
        None if is_push => return to_taker(&node, &uri),
        _ => None,
    };
    if let Some(door) = door {
        return match door.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
    }
    let (request, coordinator) = match coordinator {
        Some(coordinator) if is_supervisors => match supervisor::place(&node, request).await {
            Ok(supervisor::Place::Coordinator(request)) => (request, Some(coordinator)),
            Ok(supervisor::Place::Here(request)) => {
                let realtime = node.state.read().realtime.as_ref().map(|(_, router)| router.clone());
                (request, realtime)
            }
            Ok(supervisor::Place::Elsewhere(location)) => return location,
            Err(error) => return Failure(error).into_response(),
        },
        coordinator => (request, coordinator),
    };
    let door = match (is_coordinators, broker, coordinator) {
        (true, _, Some(coordinator)) => coordinator,
        (true, _, None) => return elsewhere(&node, leader, &uri),
        (false, Some(broker), _) => broker,
        (false, None, Some(coordinator)) => coordinator,
        (false, None, None) => return nothing_here(&node),
    };
    match door.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Sends a client to the realtime process that takes its rows; its request, with its body, comes again there.
fn to_taker(node: &Node, uri: &Uri) -> Response {
    if node.roles.contains(&Role::Realtime) {
        return node.realtime().map_or_else(|error| Failure(error).into_response(), |_| nothing_here(node));
    }
    let data_source = uri.path().trim_start_matches("/v1/push/").split('/').next().unwrap_or_default();
    let Some(taker) = node.taker(data_source) else {
        return Failure(no_taker()).into_response();
    };
    sent_to(node, &taker.name, uri).unwrap_or_else(|| Failure(no_taker()).into_response())
}

/// Has a client ask another server; its request, with its body, comes again there. `None` if the server's name is no
/// address.
fn sent_to(node: &Node, server: &str, uri: &Uri) -> Option<Response> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let location = HeaderValue::from_str(&format!("{}://{server}{path}", node.scheme())).ok()?;
    Some((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response())
}

/// Nobody takes rows.
pub(crate) fn no_taker() -> Error {
    Error::new(
        Category::ServiceUnavailable,
        Persona::User,
        "no realtime process of this cluster is there to take rows: start one with `henge server --role realtime`",
    )
}

/// Sends a client to the coordinator that leads; its request, with its body, comes again there.
fn elsewhere(node: &Node, leader: Option<String>, uri: &Uri) -> Response {
    let Some(leader) = leader.filter(|leader| *leader != node.server.name) else {
        return Failure(no_leader()).into_response();
    };
    sent_to(node, &leader, uri).unwrap_or_else(|| Failure(no_leader()).into_response())
}

fn nothing_here(node: &Node) -> Response {
    let roles = node.server.roles.join(", ");
    let error = match node.roles.contains(&Role::Coordinator) || node.roles.contains(&Role::Broker) {
        true => Error::new(
            Category::ServiceUnavailable,
            Persona::User,
            format!("this server ({roles}) is not ready, or does not lead; try again, or ask another one"),
        ),
        false => Error::not_found(format!("this server ({roles}) does not answer that; ask a broker")),
    };
    Failure(error).into_response()
}
