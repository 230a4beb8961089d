//! What a process does: everything ([`all`]), or some of the roles of a cluster ([`cluster`]).

pub mod all;
mod broker;
pub mod cluster;
mod coordinator;
mod indexer;
mod realtime;
mod sent_on;
