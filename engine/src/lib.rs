//! Henge's engine: rows in, segments kept, Arrow batches out.
//!
//! Owns the segment format, ingestion up to a finished segment, and the DataFusion table, operators and rules
//! that answer queries over segments. It opens no sockets of its own, knows no metadata database, and is handed
//! the time. Rooms, lowest first: [`error`], [`model`], [`segment`], `aggregate` and `function`, `exec`, `table`,
//! `optimizer` and, with the feature of that name, `distributed`, `session`; beside them [`ingest`] and [`storage`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// The builder of Druid's segments in `tests/` names this crate as strangers do.
#[cfg(test)]
extern crate self as henge_engine;

pub mod aggregate;
#[cfg(feature = "distributed")]
pub mod distributed;
pub mod error;
pub mod exec;
pub mod function;
pub mod ingest;
pub mod model;
pub mod optimizer;
pub mod segment;
pub mod session;
pub mod storage;
pub mod table;
mod widened;

pub use error::{Error, Result};
pub use session::install;
