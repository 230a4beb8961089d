//! `/status`.

use axum::Json;
use serde_json::{Value, json};

pub(super) async fn status() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "modules": [] }))
}

pub(super) async fn health() -> Json<bool> {
    Json(true)
}
