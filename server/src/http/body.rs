//! Bodies and query strings of requests, read so that what is wrong with them is told as any other error.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use henge_engine::Error;
use serde::de::DeserializeOwned;

use super::Failure;

/// A body of JSON. Its content type must say so: a web page can make a browser send any other to this machine.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(unreadable(&rejection).into()),
        }
    }
}

fn unreadable(rejection: &JsonRejection) -> Error {
    // Its source says where in the text; the rejection itself begins with words about Rust types.
    let detail = || std::error::Error::source(rejection).map_or_else(|| rejection.to_string(), innermost);
    match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            Error::invalid_input("the body must be JSON, sent with the header `content-type: application/json`")
        }
        JsonRejection::JsonSyntaxError(_) => Error::invalid_input(format!("the body is not JSON: {}", detail())),
        JsonRejection::JsonDataError(_) => {
            Error::invalid_input(format!("the body is not what is expected here: {}", detail()))
        }
        other if other.status().as_u16() == 413 => Error::capacity_exceeded("the body is too long"),
        _ => Error::invalid_input(format!("the body cannot be read: {}", detail())),
    }
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// The parameters after a path.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let Query(parameters) = read.map_err(|rejection| {
            let detail = std::error::Error::source(&rejection).map_or_else(|| rejection.to_string(), innermost);
            Error::invalid_input(format!("a parameter of the path is not what is expected: {detail}"))
        })?;
        Ok(Self(parameters))
    }
}
