//! What a coordinator that leads knows of its cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use henge_catalog::coordination::Step;
use henge_catalog::inventory::{Health, ServerView};
use henge_catalog::timeline::GroupKind;
use henge_catalog::view::ViewedSegment;
use henge_engine::model::SegmentUid;
use henge_engine::{Error, Result};
use serde_json::{Value, json};

use super::super::body::Parameters;
use super::super::{Answer, Api};
use super::Detail;
use crate::cluster::Coordinator;

/// What is to be served: all used segments that nothing newer hides.
fn wanted(coordinator: &Coordinator) -> Vec<(Arc<ViewedSegment>, bool)> {
    let view = coordinator.database().view();
    let active = view.segments().into_iter().map(|(segment, is_hidden)| (segment, is_hidden, true));
    let dormant = view.dormant().into_iter().map(|(segment, is_hidden)| (segment, is_hidden, false));
    let wanted =
        active.chain(dormant).filter(|(segment, is_hidden, _)| !is_hidden && segment.record.kind() == GroupKind::Data);
    wanted.map(|(segment, _, is_active)| (segment, is_active)).collect()
}

/// How many segments of each data source there are, and how many of them queries cannot have.
pub(crate) fn progress(coordinator: &Coordinator) -> BTreeMap<String, (usize, usize)> {
    let segments = wanted(coordinator);
    let inventory = coordinator.watcher().inventory();
    let mut loaded: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (segment, is_active) in segments {
        let (all, missing) = loaded.entry(segment.id.data_source.clone()).or_default();
        *all += 1;
        *missing += usize::from(!is_active || inventory.holders(segment.record.uid).is_empty());
    }
    loaded
}

pub(super) fn names(coordinator: &Coordinator) -> Vec<String> {
    progress(coordinator).into_keys().collect()
}

pub(super) fn load_status(coordinator: &Coordinator, detail: &Detail) -> Value {
    let loaded = progress(coordinator);
    match (&detail.simple, &detail.full) {
        (_, Some(_)) => json!(coordinator.latest().missing),
        (Some(_), None) => loaded.into_iter().map(|(name, (_, missing))| (name, json!(missing))).collect(),
        (None, None) => loaded.into_iter().map(|(name, (all, missing))| (name, super::status(all, missing))).collect(),
    }
}

pub(super) fn load_status_of(coordinator: &Coordinator, name: &str) -> Result<Value> {
    let (all, missing) = progress(coordinator)
        .remove(name)
        .ok_or_else(|| Error::not_found(format!("there is no data source `{name}`")))?;
    Ok(json!({ name: super::status(all, missing) }))
}

/// The historicals that serve a segment.
pub(super) fn holders(coordinator: &Coordinator, uid: SegmentUid) -> Vec<String> {
    coordinator.watcher().inventory().holders(uid).iter().map(ToString::to_string).collect()
}

/// The segments by their bytes.
fn by_uid(coordinator: &Coordinator) -> BTreeMap<SegmentUid, Arc<ViewedSegment>> {
    wanted(coordinator).into_iter().map(|(segment, _)| (segment.record.uid, segment)).collect()
}

/// What each historical is loading and dropping.
pub(super) fn load_queue(coordinator: &Coordinator, detail: &Detail) -> Value {
    let known = by_uid(coordinator);
    let mut queues: BTreeMap<String, [Vec<SegmentUid>; 2]> = coordinator
        .watcher()
        .inventory()
        .servers()
        .map(|view| (view.server.name.clone(), Default::default()))
        .collect();
    for (server, uid, step) in coordinator.under_way() {
        let [loads, drops] = queues.entry(server.to_string()).or_default();
        match step {
            Step::Loading => loads.push(uid),
            Step::Dropping => drops.push(uid),
            Step::Failed => {}
        }
    }
    let bytes = |uids: &[SegmentUid]| {
        uids.iter().filter_map(|uid| known.get(uid)).map(|segment| segment.record.size_bytes).sum::<u64>()
    };
    // What is dropped may be known no more.
    let name = |uid: &SegmentUid| known.get(uid).map_or_else(|| uid.to_string(), |segment| segment.id.to_string());
    let queue = |[loads, drops]: [Vec<SegmentUid>; 2]| match detail.simple {
        Some(_) => json!({
            "segmentsToLoad": loads.len(),
            "segmentsToDrop": drops.len(),
            "segmentsToLoadSize": bytes(&loads),
            "segmentsToDropSize": bytes(&drops),
        }),
        None => json!({
            "segmentsToLoad": loads.iter().map(name).collect::<Vec<_>>(),
            "segmentsToDrop": drops.iter().map(name).collect::<Vec<_>>(),
        }),
    };
    queues.into_iter().map(|(server, lists)| (server, queue(lists))).collect()
}

fn described(view: &ServerView) -> Value {
    let health = match view.health(Instant::now()) {
        Health::Alive if view.is_leaving => "leaving",
        Health::Alive => "alive",
        Health::Suspect => "suspect",
        Health::Dead => "dead",
    };
    json!({
        "host": view.server.name,
        "tier": view.server.tier,
        "type": "historical",
        "priority": 0,
        "currSize": view.used_bytes,
        "maxSize": view.server.max_bytes,
        "segments": view.served().len(),
        "health": health,
        "version": view.server.version,
    })
}

pub(super) fn servers(coordinator: &Coordinator, detail: &Detail) -> Value {
    let inventory = coordinator.watcher().inventory();
    match detail.simple.is_none() && detail.full.is_none() {
        true => inventory.servers().map(|view| json!(view.server.name)).collect(),
        false => inventory.servers().map(described).collect(),
    }
}

fn of_cluster(api: &Api) -> Result<&Coordinator> {
    api.coordinator.as_ref().ok_or_else(|| {
        Error::unsupported("this server does everything by itself: it has no tiers, rules or other servers")
    })
}

pub(super) async fn tiers(State(api): State<Arc<Api>>) -> Answer<Json<Value>> {
    let inventory = of_cluster(&api)?.watcher().inventory();
    let tiers: BTreeSet<&str> = inventory.servers().map(|view| view.server.tier.as_str()).collect();
    Ok(Json(json!(tiers)))
}

pub(super) async fn server(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    let inventory = of_cluster(&api)?.watcher().inventory();
    let view = inventory.server(&name).ok_or_else(|| Error::not_found(format!("there is no server `{name}`")))?;
    Ok(Json(described(view)))
}

/// The ids of what a historical serves.
pub(super) async fn server_segments(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(_): Parameters<Detail>,
) -> Answer<Json<Value>> {
    let coordinator = of_cluster(&api)?;
    let known = by_uid(coordinator);
    let inventory = coordinator.watcher().inventory();
    let view = inventory.server(&name).ok_or_else(|| Error::not_found(format!("there is no server `{name}`")))?;
    let mut ids = view.served().filter_map(|uid| known.get(&uid)).map(|s| s.id.to_string()).collect::<Vec<_>>();
    ids.sort_unstable();
    Ok(Json(json!(ids)))
}

/// Lets the rules take away what was held back of a data source.
pub(super) async fn confirm_drop(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Answer<Json<Value>> {
    let coordinator = of_cluster(&api)?;
    let held_back = coordinator.latest().held_back;
    let held = held_back.iter().find(|(data_source, ..)| *data_source == name);
    let (_, dropped, of) = held.ok_or_else(|| Error::not_found(format!("nothing of `{name}` is held back")))?;
    coordinator.confirm(&name);
    Ok(Json(json!({ "numDroppedSegments": dropped, "of": of })))
}

/// Where the replicas of a data source are.
pub(super) fn add_tiers(coordinator: &Coordinator, name: &str, described: &mut Value) {
    let segments = wanted(coordinator).into_iter().filter(|(segment, _)| segment.id.data_source == name);
    let inventory = coordinator.watcher().inventory();
    let mut tiers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (segment, _) in segments {
        for view in inventory.holders(segment.record.uid).iter().filter_map(|name| inventory.server(name)) {
            let (count, bytes) = tiers.entry(view.server.tier.clone()).or_default();
            *count += 1;
            *bytes += segment.record.size_bytes;
        }
    }
    let replicated: u64 = tiers.values().map(|(_, bytes)| bytes).sum();
    described["segments"]["replicatedSize"] = json!(replicated);
    let tier = |(tier, (count, bytes)): (String, (u64, u64))| (tier, json!({ "segmentCount": count, "size": bytes }));
    described["tiers"] = tiers.into_iter().map(tier).collect();
}
