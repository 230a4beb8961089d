//! Who asks: HTTP's basic authentication, once there are users.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};

use super::{Api, Failure};

/// Asked by load balancers, and tells nothing.
const OPEN: &str = "/status/health";

/// The name that somebody proved to have.
#[derive(Clone, Debug)]
pub(super) struct Login(pub(super) String);

/// Lets requests through that may come in.
pub(super) async fn check(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.uri().path() == OPEN {
        return next.run(request).await;
    }
    match login(&api, request.headers()).await {
        Ok(Some(login)) => {
            request.extensions_mut().insert(login);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => {
            let mut response = Failure(error).into_response();
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"henge\""));
            response
        }
    }
}

async fn login(api: &Api, headers: &HeaderMap) -> Result<Option<Login>> {
    let Some((name, password)) = credentials(headers) else {
        return match api.auth.is_open().await? {
            true => Ok(None),
            false => Err(Error::new(Category::Unauthorized, Persona::User, "a user and a password are needed")
                .with_hint("send them by HTTP's basic authentication")),
        };
    };
    api.auth.check(&name, &password).await?;
    Ok(Some(Login(name)))
}

fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_string(), password.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_may_hold_colons() {
        let mut headers = HeaderMap::new();
        assert_eq!(credentials(&headers), None);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("basic YW15OnNlczphbWU="));
        assert_eq!(credentials(&headers), Some(("amy".to_string(), "ses:ame".to_string())));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer YW15OnNlc2FtZQ=="));
        assert_eq!(credentials(&headers), None);
    }
}
