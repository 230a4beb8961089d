//! Rows in, finished segments out. Never publishes.

pub mod source;
