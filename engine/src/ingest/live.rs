//! Rows that are queried from the moment they are taken, until they are sealed into segments.
//!
//! A [`RowParser`] makes [`StagedRows`] of what came, all of it before any of it is shown; a [`LiveIndex`] takes them in
//! and shows them. Its rows lie in chunks: the last one grows, all others are immutable, and a query reads the immutable
//! ones where they are and a copy of the last. Who appends waits for that copy at most, and a query for nobody.
//!
//! Invariants: a snapshot holds every row that was appended before it, once, and none in part; what a snapshot returned
//! it returns again, whatever is appended; a sealed index holds the rows of its last snapshot.

mod index;
mod parse;
#[cfg(test)]
mod tests;

pub use index::{LiveIndex, LiveSegment, LiveSnapshot, SealOptions};
pub use parse::{ParseOptions, RowParser, StagedRows, split_array};
