//! Which server of a cluster answers for a supervisor: the realtime process that runs it.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use henge_catalog::realtime::supervisor::SupervisorSpec;
use henge_catalog::store::{ServerRecord, SupervisorRecord};
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};

use super::super::supervisor::PATH;
use super::{Node, no_taker, sent_to};

/// Specs are short.
const MAX_SPEC_BYTES: usize = 16 << 20;

/// Where a request is answered.
pub(super) enum Place {
    /// By the coordinator: it concerns all of them, or what is recorded.
    Coordinator(Request),
    /// By this process, which is a realtime process as well.
    Here(Request),
    /// By another one; this says so.
    Elsewhere(Response),
}

/// Where a request that came to the coordinator that leads is answered. A spec that is submitted is read for whose it is.
pub(super) async fn place(node: &Node, request: Request) -> Result<Place> {
    let rest = request.uri().path().trim_start_matches(PATH).trim_matches('/').to_owned();
    let parts = rest.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
    match parts.as_slice() {
        [] if request.method() == Method::POST => {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, MAX_SPEC_BYTES)
                .await
                .map_err(|error| Error::invalid_input("the spec cannot be read").with_source(error))?;
            // What is wrong with it is told by who takes it.
            let id = serde_json::from_slice(&body).ok().and_then(|json| SupervisorSpec::from_json(&json).ok());
            let id = id.map(|(spec, _)| spec.id).unwrap_or_default();
            let runner = match runner(node, &id).await? {
                Some(runner) => runner,
                None => least_busy(node).await?,
            };
            Ok(at(node, &runner, Request::from_parts(head, Body::from(body))))
        }
        [] | ["history" | "suspendAll" | "resumeAll" | "terminateAll"] | [_, "history"] => {
            Ok(Place::Coordinator(request))
        }
        [id, ..] => {
            let id = percent_decoded(id);
            match runner(node, &id).await? {
                Some(runner) => Ok(at(node, &runner, request)),
                None => Err(nobody(node, &id).await?),
            }
        }
    }
}

fn percent_decoded(part: &str) -> String {
    // As the part of a query it is decoded; a plus stands for itself here.
    let query = format!("x={}", part.replace('+', "%2B"));
    let url = format!("http://x/?{query}");
    let decoded = reqwest::Url::parse(&url).ok();
    let decoded = decoded.and_then(|url| url.query_pairs().next().map(|(_, value)| value.into_owned()));
    decoded.unwrap_or_else(|| part.to_owned())
}

/// The realtime process that holds the lease of a supervisor.
async fn runner(node: &Node, id: &str) -> Result<Option<ServerRecord>> {
    let Some(watcher) = &node.watcher else { return Ok(None) };
    let holder = node.store()?.lease_holder(&SupervisorRecord::lease_role(id)).await?;
    let name = holder.as_deref().and_then(|holder| holder.split('/').next()).unwrap_or_default();
    Ok(watcher.servers("realtime").into_iter().find(|server| server.name == name))
}

/// The realtime process that runs the fewest.
async fn least_busy(node: &Node) -> Result<ServerRecord> {
    let Some(watcher) = &node.watcher else { return Err(no_taker()) };
    let store = node.store()?;
    let mut servers = watcher.servers("realtime");
    servers.retain(|server| server.plan_version == node.server.plan_version);
    let mut holders = Vec::new();
    for record in store.supervisors().await? {
        holders.extend(store.lease_holder(&SupervisorRecord::lease_role(&record.id)).await?);
    }
    let runs = |server: &ServerRecord| {
        holders.iter().filter(|holder| holder.split('/').next() == Some(server.name.as_str())).count()
    };
    servers.sort_by_cached_key(|server| (runs(server), server.name.clone()));
    servers.into_iter().next().ok_or_else(no_taker)
}

async fn nobody(node: &Node, id: &str) -> Result<Error> {
    let records = node.store()?.supervisors().await?;
    Ok(match records.iter().any(|record| record.id == id) {
        true => {
            let message = format!(
                "no realtime process of this cluster runs supervisor `{id}` just now; one takes it within half a minute, \
                 if there is one"
            );
            Error::new(Category::ServiceUnavailable, Persona::User, message).retryable(true)
        }
        false => Error::not_found(format!("there is no supervisor `{id}`")),
    })
}

/// Sends a client to a server, or keeps its request if it is this one.
fn at(node: &Node, server: &ServerRecord, request: Request) -> Place {
    if server.name == node.server.name {
        return Place::Here(request);
    }
    sent_to(node, &server.name, request.uri()).map_or_else(|| Place::Coordinator(request), Place::Elsewhere)
}
