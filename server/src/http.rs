//! The HTTP front door: JSON to a call and back. Paths are Druid's.

mod body;
mod coordinator;
mod listener;
mod login;
mod metrics;
mod node;
mod page;
mod push;
mod sql;
mod status;
mod supervisor;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use henge_catalog::Database;
use henge_engine::Error;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::listener::Encryption;
use self::listener::{Caller, Encrypting};
pub use self::node::Node;
pub(crate) use self::node::no_taker;
use crate::auth::Auth;
use crate::auth::tls::Tls;
use crate::cluster::Coordinator;
use crate::error::{http_status, public_message};

/// What the endpoints share.
#[derive(Debug)]
pub struct Api {
    database: Database,
    queries: Handle,
    pg: SocketAddr,
    auth: Arc<Auth>,
    tls: Option<Tls>,
    /// Of a cluster; otherwise this process is coordinator and historical in one.
    coordinator: Option<Coordinator>,
    /// Tasks that were submitted here; they end with the server.
    tasks: Mutex<JoinSet<()>>,
}

impl Api {
    pub(crate) fn new(
        database: Database,
        queries: Handle,
        pg: SocketAddr,
        auth: Arc<Auth>,
        tls: Option<Tls>,
    ) -> Arc<Self> {
        Arc::new(Self { database, queries, pg, auth, tls, coordinator: None, tasks: Mutex::default() })
    }

    /// What a realtime process answers: pushes. Its door is the server's.
    pub(crate) fn of_realtime(database: Database, queries: Handle, auth: Arc<Auth>) -> Arc<Self> {
        let pg = SocketAddr::from(([0, 0, 0, 0], 0));
        Arc::new(Self { database, queries, pg, auth, tls: None, coordinator: None, tasks: Mutex::default() })
    }

    /// What a coordinator answers while it leads. Its door is the server's.
    pub(crate) fn of_coordinator(
        database: Database,
        queries: Handle,
        auth: Arc<Auth>,
        coordinator: Coordinator,
    ) -> Arc<Self> {
        let pg = SocketAddr::from(([0, 0, 0, 0], 0));
        let coordinator = Some(coordinator);
        Arc::new(Self { database, queries, pg, auth, tls: None, coordinator, tasks: Mutex::default() })
    }
}

/// Serves requests until `shutdown`.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) {
    let encryption = Encryption { people: api.tls.clone(), peers: None };
    serve_router(listener, encryption, router(api), shutdown).await;
}

/// The same for a server of a cluster.
pub(crate) async fn serve_node(
    listener: TcpListener,
    encryption: Encryption,
    node: Arc<Node>,
    shutdown: CancellationToken,
) {
    serve_router(listener, encryption, node::router(node), shutdown).await;
}

async fn serve_router(listener: TcpListener, encryption: Encryption, router: Router, shutdown: CancellationToken) {
    let listener = Encrypting { listener, encryption, arriving: JoinSet::new() };
    let service = router.into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        result = async { served.await } => {
            if let Err(error) = result {
                tracing::error!("the HTTP door closed: {error}");
            }
        }
        // A client that keeps its connection open does not keep the server.
        () = async {
            shutdown.cancelled().await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        } => {}
    }
}

fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/status", get(status::status))
        .route("/status/health", get(status::health))
        .route("/druid/v2/sql", post(sql::sql))
        .route("/druid/v2/sql/", post(sql::sql))
        .route("/druid/indexer/v1/task", post(task::submit))
        .route("/druid/indexer/v1/tasks", get(task::list))
        .route("/druid/indexer/v1/task/{id}", get(task::payload))
        .route("/druid/indexer/v1/task/{id}/status", get(task::status))
        .route("/druid/indexer/v1/task/{id}/reports", get(task::reports))
        .route("/druid/indexer/v1/task/{id}/shutdown", post(task::shutdown))
        .nest(supervisor::PATH, supervisor::router())
        .merge(pushes())
        .nest("/druid/coordinator/v1", coordinator::router())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&api), login::check))
        .with_state(api)
}

/// Rows as they come.
fn pushes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/push/{dataSource}", post(push::push).get(push::status).layer(DefaultBodyLimit::disable()))
        .route("/v1/push/{dataSource}/spec", get(push::spec).put(push::declare).post(push::declare))
        .route("/v1/push/{dataSource}/handoff", post(push::hand_off))
        .route("/metrics", get(metrics::metrics))
}

/// The door of a realtime process.
fn realtime_router(api: Arc<Api>) -> Router {
    pushes()
        .nest(supervisor::PATH, supervisor::router())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&api), login::check))
        .with_state(api)
}

async fn not_found() -> Failure {
    Failure(Error::not_found("there is nothing at this path"))
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure(Error::invalid_input(format!("`{}` does not take {method}", uri.path())))
}

/// An error as an answer, in the shape of Druid's.
#[derive(Debug)]
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = &self.0;
        let status = StatusCode::from_u16(http_status(error)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut message = public_message(error);
        if let Some(hint) = error.hint() {
            message = format!("{message}; {hint}");
        }
        let body = json!({
            "error": "druidException",
            "errorCode": format!("{:?}", error.category()),
            "persona": format!("{:?}", error.persona()).to_uppercase(),
            "category": format!("{:?}", error.category()),
            "errorMessage": message,
            "context": error.position().map(|place| json!({"line": place.line, "column": place.column})),
        });
        (status, Json(body)).into_response()
    }
}

type Answer<T> = std::result::Result<T, Failure>;
