//! The servers of a cluster among themselves: who is there, who serves which segment, who leads.
//!
//! Servers find each other by the metadata database, where each registers itself. Historicals and realtime processes are
//! asked, over HTTP, for what they serve; an open question that gets no answer is how a dead one is noticed. Every request bears the secret of
//! the cluster.
//!
//! Invariants: nobody acts on a coordinator's word but the one with the greatest epoch; what somebody believes of another
//! server never changes what is published.

mod brokers;
mod coordinator;
mod orders;
mod peers;
mod placement;
mod registration;
mod watcher;

pub use brokers::FollowedBrokers;
pub use coordinator::{Coordinator, CoordinatorOptions, Run};
pub use peers::{Peers, SECRET_HEADER, Shown};
pub use placement::{ServedPlacement, ServedSegments, ServedTails};
pub use registration::Registration;
pub use watcher::Watcher;
