//! What realtime processes have that is not published.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use henge_engine::Error;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::body::Parameters;
use super::super::{Answer, Api};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GiveUpParameters {
    accept_loss: bool,
}

/// Has queries do without the rows that a realtime process alone has: it is gone for good.
pub(super) async fn give_up(
    State(api): State<Arc<Api>>,
    Path((name, server)): Path<(String, String)>,
    Parameters(parameters): Parameters<GiveUpParameters>,
) -> Answer<Json<Value>> {
    if !parameters.accept_loss {
        return Err(Error::conflict(format!(
            "rows of `{name}` that are not published are with realtime process `{server}` alone: start it again; or, with \
             `acceptLoss=true`, queries do without them"
        ))
        .into());
    }
    let given_up = api.database.give_up_sinks(&name, &server).await?;
    match given_up {
        0 => Err(Error::not_found(format!("realtime process `{server}` has no rows of `{name}`")).into()),
        given_up => Ok(Json(json!({ "dataSource": name, "server": server, "sinks": given_up }))),
    }
}
