//! Henge's catalog: which segments exist, who should serve them, who may decide.
//!
//! Owns the metadata, the timeline made of it, publishing, and the embedded database. Decides nothing about rows.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod assignment;
mod clock;
pub mod coordination;
pub mod database;
pub mod historical;
pub mod inventory;
pub mod lease;
pub mod provider;
pub mod publish;
pub mod realtime;
pub mod rule;
pub mod store;
pub mod timeline;
pub mod view;

pub use clock::{Clock, SystemClock};
pub use database::{Database, DatabaseBuilder};
