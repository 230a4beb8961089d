//! `/`: what there is, for a person with a browser.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Html;
use henge_catalog::store::TaskRecord;

use super::Api;
use super::coordinator::progress;
use crate::cluster::Coordinator;
use crate::pg_catalog::DATABASE;

const STYLE: &str = "<style>body{font:16px system-ui;margin:3em auto;max-width:60em}\
    td,th{padding:.2em 1em .2em 0;text-align:left}code{background:#eee;padding:.2em .4em}</style>";

/// How many of the latest tasks are shown.
const TASKS: usize = 20;

pub(super) async fn page(State(api): State<Arc<Api>>) -> Html<String> {
    if let Some(coordinator) = &api.coordinator {
        let tasks = api.database.tasks(TASKS).await.unwrap_or_default();
        return Html(of_cluster(coordinator, &tasks));
    }
    let mut rows = String::new();
    for view in api.database.data_sources() {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<tr><td>{}</td><td>{}</td></tr>", escaped(view.name()), view.segments().len());
    }
    let (host, port, version) = (api.pg.ip(), api.pg.port(), env!("CARGO_PKG_VERSION"));
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Henge</title>\
         {STYLE}\
         <h1>Henge {version}</h1><p>Connect with <code>psql -h {host} -p {port} -d {DATABASE} -U {DATABASE}</code></p>\
         <table><tr><th>Data source</th><th>Segments</th></tr>{rows}</table>"
    ))
}

/// Is it loaded? Where?
fn of_cluster(coordinator: &Coordinator, tasks: &[TaskRecord]) -> String {
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5><title>Henge</title>{STYLE}\
         <h1>Henge {}</h1><p>This coordinator leads.</p>",
        env!("CARGO_PKG_VERSION")
    );
    let rows = progress(coordinator).into_iter().map(|(name, (all, missing))| {
        let percent = 100.0 * (all - missing) as f64 / all.max(1) as f64;
        format!("<tr><td>{}<td>{all}<td>{percent:.1} %", escaped(&name))
    });
    let rows = rows.collect::<String>();
    page += &format!("<h2>Is it loaded?</h2><table><tr><th>Data source<th>Segments<th>Loaded{rows}</table>");
    let (inventory, now) = (coordinator.watcher().inventory(), Instant::now());
    let rows = inventory.servers().map(|view| {
        let (name, tier) = (escaped(&view.server.name), escaped(&view.server.tier));
        let health = format!("{:?}", view.health(now)).to_lowercase();
        let (used, max) = (view.used_bytes >> 20, view.server.max_bytes >> 20);
        format!("<tr><td>{name}<td>{tier}<td>{health}<td>{}<td>{used} of {max} MB", view.served().len())
    });
    let rows = rows.collect::<String>();
    page += &format!("<h2>Where?</h2><table><tr><th>Historical<th>Tier<th>State<th>Segments<th>Cache{rows}</table>");
    let run = coordinator.latest();
    for (data_source, dropped, of) in &run.held_back {
        page += &format!(
            "<p>Rules would take away {dropped} of {of} segments of {}: nothing is taken away until that is confirmed.",
            escaped(data_source)
        );
    }
    for tier in &run.frozen_tiers {
        page += &format!("<p>Tier {} lost many servers at once: nobody is replaced there.", escaped(tier));
    }
    if run.unplaced > 0 {
        page += &format!("<p>{} replicas have no room anywhere.", run.unplaced);
    }
    if !tasks.is_empty() {
        let rows = tasks.iter().map(|task| {
            let error = task.error.as_deref().unwrap_or_default();
            format!("<tr><td>{}<td>{}<td>{}<td>{}", escaped(&task.id), task.created, task.status, escaped(error))
        });
        let rows = rows.collect::<String>();
        page += &format!("<h2>What is ingested?</h2><table><tr><th>Task<th>Handed in<th>Status<th>Error{rows}</table>");
    }
    for problem in coordinator.database().problems().all() {
        page += &format!("<p>{} is not served: {}", escaped(&problem.segment_id), escaped(&problem.reason));
    }
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
