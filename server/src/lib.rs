//! Everything a stranger can reach: PostgreSQL's and HTTP's front doors, configuration, the command line.
//!
//! Decides nothing about data: it asks the catalog and the engine. Rooms, lowest first: [`error`], [`config`],
//! `auth`, [`pgwire`] with its `pg_catalog`, [`http`], [`stream`], [`role`], [`command`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod cluster;
pub mod command;
pub mod config;
pub mod error;
pub mod grpc;
pub mod http;
mod pg_catalog;
pub mod pgwire;
pub mod role;
pub mod stream;
