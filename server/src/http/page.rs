//! `/`: what there is, for a person with a browser.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Html;

use super::Api;
use crate::pg_catalog::DATABASE;

pub(super) async fn page(State(api): State<Arc<Api>>) -> Html<String> {
    let mut rows = String::new();
    for view in api.database.data_sources() {
        // Writing to a string cannot fail.
        let _ = write!(rows, "<tr><td>{}</td><td>{}</td></tr>", escaped(view.name()), view.segments().len());
    }
    let (host, port, version) = (api.pg.ip(), api.pg.port(), env!("CARGO_PKG_VERSION"));
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Henge</title>\
         <style>body{{font:16px system-ui;margin:3em auto;max-width:40em}}td,th{{padding:.2em 1em .2em 0;text-align:left}}\
         code{{background:#eee;padding:.2em .4em}}</style>\
         <h1>Henge {version}</h1><p>Connect with <code>psql -h {host} -p {port} -d {DATABASE} -U {DATABASE}</code></p>\
         <table><tr><th>Data source</th><th>Segments</th></tr>{rows}</table>"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
