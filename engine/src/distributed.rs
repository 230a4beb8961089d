//! Queries over several processes: plans cut into stages, scans routed to where segments are served.
//!
//! Owns what a broker asks about who serves what ([`SegmentPlacement`]), what a worker asks about what it has
//! ([`LocalSegments`]), what travels between them, and the rules that make of a plan one whose scans run where their
//! segments are. All use of `datafusion-distributed` is behind this room. Opens no socket: whoever can, hands in
//! channels.
//!
//! Invariants: each segment of a query is read by exactly one worker, or the query fails; a worker that lacks a segment
//! fails, it never answers with fewer rows; a plan goes only to workers of this [`PLAN_VERSION`].

mod assign;
mod attempt;
mod broker;
mod channel;
mod codec;
mod failure;
mod guard;
mod header;
mod leaf;
mod local;
mod placement;
mod remote_segment;
mod route;
mod running;
mod stand_in;
mod wire;
mod worker;

pub use self::broker::BrokerParts;
pub(crate) use self::broker::{Broker, Figures, Held, Query, Shape, display, is_boundary, is_distributed};
pub use self::channel::{
    BoxCloneSyncChannel, GetWorkerInfoRequest, WorkerChannel, WorkerChannels, create_worker_client,
};
pub use self::leaf::SegmentLeafExec;
pub use self::local::{LocalSegments, MemorySegments};
pub use self::placement::{MemoryPlacement, Replica, SegmentPlacement, ServedBy, WorkerUrl};
pub use self::remote_segment::{RemoteSegment, RowCount};
pub use self::worker::{QueryGuard, QueryWorker};

/// What travels between processes, so that versions can be rolled through a cluster: a broker plans only onto workers
/// that announce the same. The number is raised whenever the meaning of what travels changes.
pub const PLAN_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/1");
