//! Rows that are pushed: acknowledged once they are durable, shown at once, handed off as segments later.
//!
//! A [`Stream`] is a data source that rows are pushed to. Each has a directory with its spec and its write-ahead log, and
//! one thread that writes the log and shows what is in it, so that rows are shown in the order in which they are durable.
//!
//! Invariants: a row is shown only after it is durable, and acknowledged only after it is shown; what a request adds, it
//! adds as a whole; a request that comes again under its key adds nothing; of the log only what is published is removed.
//! Rows of topics have a log already, where they come from: see [`supervisor`].
//! Publishes nothing itself: what is to be published is handed to the database as a [`Closed`] generation.

mod committer;
mod entry;
mod sink;
mod spec;
mod status;
mod stream;
mod streams;
pub mod supervisor;
mod tails;
#[cfg(test)]
mod tests;
mod window;

pub use committer::Closed;
pub use entry::{OnError, PushKey, from_arrow, to_arrow};
pub use sink::Sink;
pub use spec::{PushIoConfig, PushSpec, PushTuning};
pub use status::{StreamState, StreamStatus};
pub use stream::{Payload, Push, Pushed, Stream};
pub use streams::{Found, Limits, Reached, Streams};
pub use tails::{Brokers, Tails};
