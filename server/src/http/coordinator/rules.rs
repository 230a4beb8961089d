//! Rules, and what else is set while a cluster runs. Who set it, and why, is asked of the headers that Druid's console
//! sends.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use henge_catalog::assignment::Guard;
use henge_catalog::coordination::{CoordinatorConfig, dropped_by};
use henge_catalog::rule::{DEFAULT_RULES, Load, Rule};
use henge_catalog::store::AuditEntry;
use henge_engine::Error;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::body::{JsonBody, Parameters};
use super::super::login::Login;
use super::super::{Answer, Api};
use super::Detail;
use crate::cluster::Coordinator;

const KIND: &str = "rules";
/// Entries of a history unless said.
const ENTRIES: usize = 25;

#[derive(Debug, Deserialize)]
pub(super) struct Count {
    count: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Force {
    force: Option<bool>,
}

fn of_cluster(api: &Api) -> henge_engine::Result<&Coordinator> {
    api.coordinator.as_ref().ok_or_else(|| {
        Error::unsupported("this server does everything by itself and keeps all that is used: it follows no rules")
    })
}

/// With those that apply where nothing is said.
async fn known(coordinator: &Coordinator) -> henge_engine::Result<BTreeMap<String, Vec<Rule>>> {
    let mut rules = coordinator.database().store().rules().await?;
    rules.entry(DEFAULT_RULES.to_owned()).or_insert_with(|| vec![Rule::LoadForever { load: Load::in_default_tier(2) }]);
    Ok(rules)
}

pub(super) async fn all(State(api): State<Arc<Api>>) -> Answer<Json<Value>> {
    Ok(Json(json!(known(of_cluster(&api)?).await?)))
}

/// Its own rules; with `full`, the default ones after them.
pub(super) async fn of(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(detail): Parameters<Detail>,
) -> Answer<Json<Value>> {
    let mut rules = known(of_cluster(&api)?).await?;
    let mut own = rules.remove(&name).unwrap_or_default();
    if detail.full.is_some() {
        own.extend(rules.remove(DEFAULT_RULES).unwrap_or_default());
    }
    Ok(Json(json!(own)))
}

/// Puts rules in place of a data source's. Rules that would take away much of what is there are refused unless that is
/// said to be meant.
pub(super) async fn set(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(force): Parameters<Force>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
    JsonBody(rules): JsonBody<Vec<Rule>>,
) -> Answer<Json<Value>> {
    let coordinator = of_cluster(&api)?;
    for rule in &rules {
        rule.check()?;
    }
    let dropped = much_dropped(coordinator, &name, &rules).await?;
    if let (Some((data_source, dropped, of)), false) = (dropped.first(), force.force == Some(true)) {
        return Err(Error::conflict(format!(
            "these rules would take away {dropped} of the {of} segments of `{data_source}`; if that is meant, send them \
             again with `?force=true`"
        ))
        .into());
    }
    let store = coordinator.database().store();
    let payload =
        serde_json::to_string(&rules).map_err(|error| Error::defensive("rules are not JSON").with_source(error))?;
    let audit = audit(&headers, login, &name, KIND, payload, store.now().await?);
    store.set_rules(&name, &rules, &audit).await?;
    for (data_source, ..) in &dropped {
        coordinator.confirm(data_source);
    }
    coordinator.run_soon();
    Ok(Json(json!({})))
}

/// The data sources of which new rules would drop more than goes without a word.
async fn much_dropped(
    coordinator: &Coordinator,
    name: &str,
    new: &[Rule],
) -> henge_engine::Result<Vec<(String, u64, u64)>> {
    let (rules, now) = (coordinator.database().store().rules().await?, coordinator.database().store().now().await?);
    let mut intervals: BTreeMap<String, Vec<henge_engine::model::Interval>> = BTreeMap::new();
    for (segment, is_hidden) in coordinator.database().view().segments() {
        if !is_hidden && (name == DEFAULT_RULES || segment.id.data_source == name) {
            intervals.entry(segment.id.data_source.clone()).or_default().push(segment.id.interval);
        }
    }
    let rules_of = |key: &str| rules.get(key).map_or(&[][..], Vec::as_slice);
    let mut much = Vec::new();
    for (data_source, intervals) in intervals {
        let own = if name == data_source { new } else { rules_of(&data_source) };
        let default = if name == DEFAULT_RULES { new } else { rules_of(DEFAULT_RULES) };
        let (dropped, of) = dropped_by(intervals.iter(), own, default, now);
        if !Guard::default().allows(dropped, of) {
            much.push((data_source, dropped, of));
        }
    }
    Ok(much)
}

fn audit(
    headers: &HeaderMap,
    login: Option<Extension<Login>>,
    key: &str,
    kind: &str,
    payload: String,
    created: henge_engine::model::Timestamp,
) -> AuditEntry {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    // A name that was proved is worth more than one that was said.
    let author = login.map(|Extension(Login(name))| name).or_else(|| header("x-druid-author"));
    AuditEntry {
        key: key.to_owned(),
        kind: kind.to_owned(),
        author: author.unwrap_or_default(),
        comment: header("x-druid-comment").unwrap_or_default(),
        created,
        payload,
    }
}

async fn entries(api: &Api, kind: &str, key: Option<&str>, count: Option<usize>) -> Answer<Json<Value>> {
    let store = of_cluster(api)?.database().store();
    Ok(Json(json!(store.audit(kind, key, count.unwrap_or(ENTRIES)).await?)))
}

pub(super) async fn history(State(api): State<Arc<Api>>, Parameters(count): Parameters<Count>) -> Answer<Json<Value>> {
    entries(&api, KIND, None, count.count).await
}

pub(super) async fn history_of(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Parameters(count): Parameters<Count>,
) -> Answer<Json<Value>> {
    entries(&api, KIND, Some(&name), count.count).await
}

pub(super) async fn config(State(api): State<Arc<Api>>) -> Answer<Json<CoordinatorConfig>> {
    Ok(Json(of_cluster(&api)?.config().await?))
}

/// What is not said gets its default.
pub(super) async fn set_config(
    State(api): State<Arc<Api>>,
    login: Option<Extension<Login>>,
    headers: HeaderMap,
    JsonBody(config): JsonBody<CoordinatorConfig>,
) -> Answer<Json<Value>> {
    let coordinator = of_cluster(&api)?;
    let now = coordinator.database().store().now().await?;
    let said = audit(&headers, login, "", "", String::new(), now);
    coordinator.set_config(&config, &said.author, &said.comment).await?;
    Ok(Json(json!({})))
}

pub(super) async fn config_history(
    State(api): State<Arc<Api>>,
    Parameters(count): Parameters<Count>,
) -> Answer<Json<Value>> {
    entries(&api, "coordinator.config", None, count.count).await
}
