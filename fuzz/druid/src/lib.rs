//! The rooms of the engine that read segments, compiled without the others: `error`, `model` and `segment` use nothing
//! above them, so the fuzzers are built in minutes, without DataFusion. The files beside this one are links.

pub mod error;
pub mod model;
pub mod segment;

pub use error::{Error, Result};
