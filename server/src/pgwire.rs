//! The PostgreSQL front door: the protocol to a session and back. Plans nothing and knows no data.
//!
//! One task a connection on the wire's runtime; planning, executing and encoding run on the runtime for queries, so
//! that a busy query starves no connection. Results go through a bounded channel, as encoded bytes: a client that
//! reads slowly stops its query, never fills memory.
//!
//! Invariants: one [`Session`](henge_engine::session::Session) per connection; nothing a client sends ends more than
//! its own connection; a query that is cancelled, timed out or left by its client is aborted, not abandoned.
//!
//! The crate `pgwire` is used for its messages to the client; see `frontend` for why not for those from it.

mod command;
mod connection;
mod copy;
mod copy_in;
mod cursor;
mod encode;
mod error;
mod extended;
mod frontend;
#[cfg(test)]
mod fuzz;
mod listener;
mod literal;
mod parameter;
mod password;
mod placeholder;
mod registry;
mod running;
mod setting;
mod simple;
mod startup;
mod text_cast;

#[cfg(test)]
mod tests;

pub use crate::pg_catalog::Extent;
pub(crate) use encode::{Columns, Values, Zone};
pub use listener::{Door, Front, Rows, Sessions, serve};
pub(crate) use setting::Settings;
pub(crate) use text_cast::install as install_text;
