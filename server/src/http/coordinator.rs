//! `/druid/coordinator/v1`: what there is, whether it is loaded, and where; rules, and what is set while a cluster runs.
//!
//! A process that does everything is coordinator and historical in one.

mod cluster;
mod rules;
mod sinks;

pub(super) use cluster::progress;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use henge_catalog::view::{DataSourceView, ViewedSegment};
use henge_engine::Error;
use henge_engine::model::{Interval, SegmentId, ShardSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{JsonBody, Parameters};
use super::{Answer, Api};

/// The tier of the one server, as Druid names it.
const TIER: &str = "_default_tier";

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/leader", get(leader))
        .route("/isLeader", get(is_leader))
        .route("/loadstatus", get(load_status))
        .route("/loadqueue", get(load_queue))
        .route("/servers", get(servers))
        .route("/datasources", get(data_sources))
        .route("/datasources/{name}", get(data_source).post(mark_all_used).delete(mark_all_unused))
        .route("/datasources/{name}/intervals", get(intervals))
        .route("/datasources/{name}/segments", get(segments))
        .route("/datasources/{name}/segments/{id}", get(segment).post(mark_one_used).delete(mark_one_unused))
        .route("/datasources/{name}/loadstatus", get(load_status_of))
        .route("/datasources/{name}/markUnused", post(mark_unused))
        .route("/datasources/{name}/markUsed", post(mark_used))
        .route("/metadata/datasources", get(names))
        .route("/tiers", get(cluster::tiers))
        .route("/servers/{name}", get(cluster::server))
        .route("/servers/{name}/segments", get(cluster::server_segments))
        .route("/datasources/{name}/realtime/{server}/giveUp", post(sinks::give_up))
        .route("/datasources/{name}/confirmDrop", post(cluster::confirm_drop))
        .route("/rules", get(rules::all))
        .route("/rules/history", get(rules::history))
        .route("/rules/{name}", get(rules::of).post(rules::set))
        .route("/rules/{name}/history", get(rules::history_of))
        .route("/config", get(rules::config).post(rules::set_config))
        .route("/config/history", get(rules::config_history))
        .route("/metadata/datasources/{name}", get(data_source))
        .route("/metadata/datasources/{name}/segments", get(segments))
        .route("/metadata/datasources/{name}/segments/{id}", get(segment))
}

/// How much is told. A parameter without a value counts.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    simple: Option<String>,
    full: Option<String>,
}

async fn leader(State(api): State<Arc<Api>>) -> String {
    format!("http://{}", api.database.server_name())
}

async fn is_leader() -> Json<Value> {
    Json(json!({ "leader": true }))
}

/// How many visible segments of a data source there are, and how many of them are not on this machine.
fn loaded(view: &DataSourceView) -> (usize, usize) {
    let segments = view.segments();
    let missing = segments.iter().filter(|segment| !segment.segment.is_here()).count();
    (segments.len(), missing)
}

fn status(all: usize, missing: usize) -> Value {
    json!(100.0 * (all - missing) as f64 / all.max(1) as f64)
}

/// In percent; with `simple` or `full`, how many segments are still to be loaded.
async fn load_status(State(api): State<Arc<Api>>, Parameters(detail): Parameters<Detail>) -> Json<Value> {
    if let Some(coordinator) = &api.coordinator {
        return Json(cluster::load_status(coordinator, &detail));
    }
    let views = api.database.data_sources();
    let missing = || views.iter().map(|view| (view.name().to_owned(), json!(loaded(view).1)));
    Json(match (&detail.simple, &detail.full) {
        (_, Some(_)) => json!({ TIER: missing().collect::<BTreeMap<_, _>>() }),
        (Some(_), None) => json!(missing().collect::<BTreeMap<_, _>>()),
        (None, None) => {
            let status = views.iter().map(|view| {
                let (all, missing) = loaded(view);
                (view.name().to_owned(), status(all, missing))
            });
            json!(status.collect::<BTreeMap<_, _>>())
        }
    })
}

async fn load_status_of(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    if let Some(coordinator) = &api.coordinator {
        return Ok(Json(cluster::load_status_of(coordinator, &name)?));
    }
    let view = api.database.data_source(&name)?;
    let (all, missing) = loaded(&view);
    Ok(Json(json!({ name: status(all, missing) })))
}

/// The segments that are on their way to this machine, and how many bytes they have.
async fn load_queue(State(api): State<Arc<Api>>, Parameters(detail): Parameters<Detail>) -> Json<Value> {
    if let Some(coordinator) = &api.coordinator {
        return Json(cluster::load_queue(coordinator, &detail));
    }
    let views = api.database.data_sources();
    let segments = views.iter().flat_map(|view| view.segments());
    let missing = segments.filter(|segment| !segment.segment.is_here()).collect::<Vec<_>>();
    let queue = match detail.simple {
        Some(_) => json!({
            "segmentsToLoad": missing.len(),
            "segmentsToDrop": 0,
            "segmentsToLoadSize": missing.iter().map(|segment| segment.record.size_bytes).sum::<u64>(),
            "segmentsToDropSize": 0,
        }),
        None => json!({
            "segmentsToLoad": missing.iter().map(|segment| segment.id.to_string()).collect::<Vec<_>>(),
            "segmentsToDrop": [],
        }),
    };
    Json(json!({ api.database.server_name(): queue }))
}

async fn servers(State(api): State<Arc<Api>>, Parameters(detail): Parameters<Detail>) -> Json<Value> {
    if let Some(coordinator) = &api.coordinator {
        return Json(cluster::servers(coordinator, &detail));
    }
    let host = api.database.server_name();
    if detail.simple.is_none() && detail.full.is_none() {
        return Json(json!([host]));
    }
    let views = api.database.data_sources();
    let bytes: u64 = views.iter().map(|view| sum_bytes(&view.segments())).sum();
    Json(json!([{ "host": host, "tier": TIER, "type": "historical", "priority": 0, "currSize": bytes }]))
}

async fn names(State(api): State<Arc<Api>>) -> Json<Value> {
    if let Some(coordinator) = &api.coordinator {
        return Json(json!(cluster::names(coordinator)));
    }
    Json(api.database.data_sources().iter().map(|view| json!(view.name())).collect())
}

async fn data_sources(State(api): State<Arc<Api>>, Parameters(detail): Parameters<Detail>) -> Json<Value> {
    if detail.simple.is_none() && detail.full.is_none() {
        return names(State(api)).await;
    }
    Json(api.database.data_sources().iter().map(|view| described(view)).collect())
}

async fn data_source(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    let view = api.database.data_source(&name)?;
    let mut described = described(&view);
    if let Some(coordinator) = &api.coordinator {
        cluster::add_tiers(coordinator, &name, &mut described);
    }
    Ok(Json(described))
}

fn sum_bytes(segments: &[Arc<ViewedSegment>]) -> u64 {
    segments.iter().map(|segment| segment.record.size_bytes).sum()
}

fn described(view: &DataSourceView) -> Value {
    let segments = view.segments();
    let (bytes, count) = (sum_bytes(&segments), segments.len());
    let start = segments.iter().map(|segment| segment.id.interval.start()).min();
    let end = segments.iter().map(|segment| segment.id.interval.end()).max();
    json!({
        "name": view.name(),
        "properties": {},
        "segments": {
            "count": count,
            "size": bytes,
            "replicatedSize": bytes,
            "minTime": start.map(|time| time.to_string()),
            "maxTime": end.map(|time| time.to_string()),
        },
        "tiers": { TIER: { "segmentCount": count, "size": bytes } },
    })
}

/// The newest first.
async fn intervals(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    let segments = api.database.data_source(&name)?.segments();
    let mut intervals = segments.iter().map(|segment| segment.id.interval).collect::<Vec<Interval>>();
    intervals.sort_unstable_by(|a, b| b.cmp(a));
    intervals.dedup();
    Ok(Json(intervals.iter().map(|interval| json!(interval.to_string())).collect()))
}

/// Ids, or, with `full`, what is recorded.
async fn segments(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(detail): Parameters<Detail>,
) -> Answer<Json<Value>> {
    let segments = api.database.data_source(&name)?.segments();
    Ok(Json(match detail.full {
        None => segments.iter().map(|segment| json!(segment.id.to_string())).collect(),
        Some(_) => segments.iter().map(|segment| recorded(segment)).collect(),
    }))
}

fn recorded(segment: &ViewedSegment) -> Value {
    let record = &segment.record;
    let shard_spec: &ShardSpec = &record.shard_spec;
    json!({
        "dataSource": record.id.data_source,
        "interval": record.id.interval.to_string(),
        "version": record.id.version,
        "loadSpec": record.load_spec,
        "shardSpec": shard_spec,
        "size": record.size_bytes,
        "num_rows": record.num_rows,
        "identifier": record.id.to_string(),
    })
}

/// Which segments of a data source are meant: all within an interval, or some by their ids.
enum Meant {
    Within(Interval),
    Ids(Vec<SegmentId>),
}

impl Meant {
    fn from_json(name: &str, body: &Value) -> Result<Self, Error> {
        if let Some(ids) = body.get("segmentIds").and_then(Value::as_array) {
            let id = |id: &Value| SegmentId::parse(name, id.as_str().unwrap_or_default());
            return ids.iter().map(id).collect::<Result<Vec<_>, _>>().map(Self::Ids);
        }
        let interval = body.get("interval").and_then(Value::as_str).ok_or_else(|| {
            Error::invalid_input("which segments are meant? write `{\"interval\": \"2013-08-01/2013-08-02\"}`")
        })?;
        interval.parse().map(Self::Within)
    }

    /// Marks them unused; their bytes stay.
    async fn mark_unused(self, api: &Api, name: &str) -> Answer<Json<Value>> {
        let changed = match self {
            Self::Within(interval) => {
                api.database.data_source(name)?;
                api.database.mark_unused(name, interval).await?
            }
            Self::Ids(ids) => {
                api.database.mark_segments_unused(name, &ids).await?;
                ids.len()
            }
        };
        Ok(Json(json!({ "numChangedSegments": changed })))
    }

    async fn mark_used(self, api: &Api, name: &str) -> Answer<Json<Value>> {
        let changed = match self {
            Self::Within(interval) => api.database.mark_used(name, interval, None).await?,
            Self::Ids(ids) => api.database.mark_used(name, Interval::ETERNITY, Some(&ids)).await?,
        };
        Ok(Json(json!({ "numChangedSegments": changed })))
    }
}

async fn mark_unused(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Answer<Json<Value>> {
    Meant::from_json(&name, &body)?.mark_unused(&api, &name).await
}

async fn mark_used(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Answer<Json<Value>> {
    Meant::from_json(&name, &body)?.mark_used(&api, &name).await
}

async fn mark_all_used(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    Meant::Within(Interval::ETERNITY).mark_used(&api, &name).await
}

async fn mark_all_unused(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    Meant::Within(Interval::ETERNITY).mark_unused(&api, &name).await
}

async fn mark_one_used(State(api): State<Arc<Api>>, Path((name, id)): Path<(String, String)>) -> Answer<Json<Value>> {
    Meant::Ids(vec![SegmentId::parse(&name, &id)?]).mark_used(&api, &name).await
}

async fn mark_one_unused(State(api): State<Arc<Api>>, Path((name, id)): Path<(String, String)>) -> Answer<Json<Value>> {
    Meant::Ids(vec![SegmentId::parse(&name, &id)?]).mark_unused(&api, &name).await
}

/// What is published of one segment, and which historicals serve it.
async fn segment(State(api): State<Arc<Api>>, Path((name, id)): Path<(String, String)>) -> Answer<Json<Value>> {
    let segments = api.database.data_source(&name)?.segments();
    let found = segments.iter().find(|segment| segment.id.to_string() == id);
    let found = found.ok_or_else(|| Error::not_found(format!("`{name}` has no segment `{id}` that is used")))?;
    let servers = match &api.coordinator {
        Some(coordinator) => cluster::holders(coordinator, found.record.uid),
        None => vec![api.database.server_name()],
    };
    Ok(Json(json!({ "metadata": recorded(found), "servers": servers })))
}
