//! Rows that a broker is given with `INSERT`: a realtime process takes them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use henge_catalog::Database;
use henge_catalog::realtime::to_arrow;
use henge_engine::error::Category;
use henge_engine::model::SegmentUid;
use henge_engine::session::{RowWriter, Session, SessionOptions};
use henge_engine::{Error, Result};

use super::all::DatabaseSessions;
use crate::cluster::Peers;
use crate::http::{Node, no_taker};
use crate::pgwire::{Extent, Rows, Sessions};

/// How often rows are sent; under their key they are taken once.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

/// The sessions of a broker.
#[derive(Debug)]
pub(super) struct BrokerSessions {
    pub(super) database: DatabaseSessions,
    pub(super) writer: Arc<SentOn>,
}

/// Sends rows on to where they are taken.
#[derive(Debug)]
pub(super) struct SentOn {
    pub(super) database: Database,
    pub(super) node: Arc<Node>,
    pub(super) peers: Peers,
}

#[async_trait]
impl Sessions for BrokerSessions {
    fn open(&self, options: SessionOptions) -> Result<Session> {
        let writer = Some(Arc::clone(&self.writer) as _);
        Ok(self.database.0.session(SessionOptions { writer, ..options }))
    }

    fn extent(&self, data_source: &str) -> Option<Extent> {
        self.database.extent(data_source)
    }

    async fn append(&self, data_source: &str, rows: Rows) -> Result<u64> {
        self.database.append(data_source, rows).await
    }
}

#[async_trait]
impl RowWriter for SentOn {
    async fn insert(&self, data_source: &str, rows: Vec<RecordBatch>) -> Result<u64> {
        let taker = self.node.taker(data_source).ok_or_else(no_taker)?;
        let key = format!("insert {}", SegmentUid::new(self.database.now(), rand::random()));
        let rows = bytes::Bytes::from(to_arrow(&rows)?);
        let mut tries = 1;
        loop {
            match self.peers.rows(&taker, data_source, rows.clone(), &key).await {
                Err(error) if tries < TRIES && is_passing(&error) => {
                    tracing::warn!(%error, "rows are sent to a realtime process again");
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                Err(error) if is_passing(&error) => {
                    return Err(error.with_hint("whether the rows were taken is not known"));
                }
                outcome => return outcome,
            }
        }
    }
}

/// Whether the same request may do better in a moment.
fn is_passing(error: &Error) -> bool {
    matches!(error.category(), Category::ServiceUnavailable | Category::CapacityExceeded)
}
