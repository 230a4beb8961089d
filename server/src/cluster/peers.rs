use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use henge_catalog::historical::Orders;
use henge_catalog::inventory::{FeedPage, Position, SUSPECT};
use henge_catalog::realtime::supervisor::SupervisorStatus;
use henge_catalog::store::ServerRecord;
use henge_engine::error::{Category, Persona};
use henge_engine::{Error, Result};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::peer::PeerTls;
use crate::config::Secret;

/// The header that bears the secret of the cluster.
pub const SECRET_HEADER: &str = "x-henge-cluster-secret";

const CONNECT: Duration = Duration::from_secs(1);
/// How long a historical may take to take orders.
const ORDER: Duration = Duration::from_secs(30);

/// As of when a broker answers: what it has seen of the metadata database, and of each historical.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub revs: BTreeMap<String, u64>,
    pub positions: BTreeMap<String, Position>,
}

impl Shown {
    /// Whether whoever shows this has seen all that `other` says. Servers that it does not know it does not ask.
    pub fn has_seen(&self, other: &Self) -> bool {
        let revs = other.revs.iter().all(|(name, rev)| self.revs.get(name).is_some_and(|own| own >= rev));
        let seen = |(name, position): (&String, &Position)| match self.positions.get(name) {
            Some(own) if own.incarnation == position.incarnation => own.seq >= position.seq,
            _ => false,
        };
        revs && other.positions.iter().all(seen)
    }
}

/// Asks other servers of the cluster. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Gives up where nothing comes for a while.
    impatient: Client,
    patient: Client,
    secret: Option<Secret>,
}

impl Peers {
    /// With `tls` the others are asked encrypted, and each side shows its certificate.
    pub fn new(secret: Option<Secret>, tls: Option<&PeerTls>) -> Result<Self> {
        let build = |timeout| {
            let mut builder = Client::builder().connect_timeout(CONNECT).read_timeout(timeout);
            if let Some(tls) = tls {
                builder = builder.https_only(true).use_preconfigured_tls(tls.client());
            }
            let built = builder.redirect(reqwest::redirect::Policy::none()).no_proxy().build();
            built.map_err(|error| Error::runtime_failure("no HTTP client can be made").with_source(error))
        };
        Ok(Self { impatient: build(SUSPECT)?, patient: build(ORDER)?, secret })
    }

    /// What a historical serves that `known` does not have; waits a moment if there is nothing.
    pub async fn feed(&self, server: &ServerRecord, known: &Position) -> Result<FeedPage> {
        let url = url(server, "segments");
        let request =
            self.impatient.get(url).query(&[("incarnation", &known.incarnation)]).query(&[("seq", known.seq)]);
        self.answer(server, request).await
    }

    /// Has a historical load and drop segments.
    pub async fn order(&self, server: &ServerRecord, orders: &Orders) -> Result<()> {
        let request = self.patient.post(url(server, "orders")).json(orders);
        self.answer::<Value>(server, request).await.map(drop)
    }

    /// As of when a broker answers.
    pub async fn shown(&self, server: &ServerRecord) -> Result<Shown> {
        self.answer(server, self.impatient.get(url(server, "shown"))).await
    }

    /// Has a realtime process take rows, in Arrow, under a key by which it knows them if they come again.
    pub async fn rows(&self, server: &ServerRecord, data_source: &str, rows: Bytes, key: &str) -> Result<u64> {
        #[derive(Deserialize)]
        struct Taken {
            rows: u64,
        }
        let url = reqwest::Url::parse(&url(server, "rows/")).ok().and_then(|mut url| {
            url.path_segments_mut().ok()?.pop_if_empty().push(data_source);
            Some(url)
        });
        let url = url.ok_or_else(|| Error::invalid_input(format!("`{data_source}` cannot be part of an address")))?;
        let request = self.patient.post(url).query(&[("key", key)]).body(rows);
        self.answer::<Taken>(server, request).await.map(|taken| taken.rows)
    }

    /// How the supervisors are that a realtime process runs.
    pub async fn supervisors(&self, server: &ServerRecord) -> Result<Vec<SupervisorStatus>> {
        self.answer(server, self.impatient.get(url(server, "supervisors"))).await
    }

    /// Has a realtime process do something with all its supervisors, for somebody.
    pub async fn all_supervisors(&self, server: &ServerRecord, action: &str, by: &str) -> Result<()> {
        let request = self.patient.post(url(server, &format!("supervisors/{action}"))).query(&[("by", by)]);
        self.answer::<Value>(server, request).await.map(drop)
    }

    async fn answer<T: DeserializeOwned>(&self, server: &ServerRecord, request: RequestBuilder) -> Result<T> {
        let request = match &self.secret {
            Some(secret) => request.header(SECRET_HEADER, secret.text()),
            None => request,
        };
        let unreachable = |error| {
            Error::new(
                Category::ServiceUnavailable,
                Persona::Operator,
                format!("server `{}` does not answer", server.name),
            )
            .retryable(true)
            .with_source(error)
        };
        let response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            return Err(refused(server, response).await);
        }
        let body = response.bytes().await.map_err(unreachable)?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::runtime_failure(format!("server `{}` answers what this version does not understand", server.name))
                .with_source(error)
        })
    }
}

async fn refused(server: &ServerRecord, response: Response) -> Error {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    let message = body["errorMessage"].as_str().unwrap_or("no reason given").to_owned();
    let category = match status.as_u16() {
        // What somebody gave who wants to know what is wrong with it.
        400 => return Error::invalid_input(message),
        404 => Category::NotFound,
        503 => Category::ServiceUnavailable,
        401 | 403 => Category::Forbidden,
        409 => Category::Conflict,
        429 => Category::CapacityExceeded,
        _ => Category::RuntimeFailure,
    };
    Error::new(category, Persona::Operator, format!("server `{}` refuses: {message}", server.name))
}

fn url(server: &ServerRecord, path: &str) -> String {
    let scheme = if server.is_encrypted { "https" } else { "http" };
    format!("{scheme}://{}/internal/v1/{path}", server.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_seen_everything_is_behind() {
        let position = |seq| Position { incarnation: "x".to_owned(), seq };
        let shown = |rev, seq| Shown {
            revs: BTreeMap::from([("wiki".to_owned(), rev)]),
            positions: BTreeMap::from([("a:1".to_owned(), position(seq))]),
        };
        assert!(shown(2, 5).has_seen(&shown(2, 5)));
        assert!(shown(3, 6).has_seen(&shown(2, 5)));
        assert!(!shown(1, 6).has_seen(&shown(2, 5)));
        assert!(!shown(3, 4).has_seen(&shown(2, 5)));
        let anew = Position { incarnation: "y".to_owned(), seq: 9 };
        let anew = Shown { positions: BTreeMap::from([("a:1".to_owned(), anew)]), ..shown(3, 0) };
        assert!(!anew.has_seen(&shown(2, 5)), "another incarnation");
        assert!(!Shown::default().has_seen(&shown(1, 0)));
        assert!(Shown::default().has_seen(&Shown::default()));
    }
}
