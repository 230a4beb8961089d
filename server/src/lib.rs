//! Everything a stranger can reach: PostgreSQL's and HTTP's front doors, configuration, the command line.
//!
//! Decides nothing about data: it asks the catalog and the engine. Rooms, lowest first: [`error`], [`pgwire`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod error;
mod pg_catalog;
pub mod pgwire;
