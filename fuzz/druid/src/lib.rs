//! The rooms of the engine that read segments, compiled without the others: `error`, `model`, `segment` and `widened` use nothing
//! above them, so the fuzzers are built in minutes, without DataFusion. The files beside this one are links.

pub mod error;
pub mod model;
pub mod segment;
mod widened;

pub use error::{Error, Result};
