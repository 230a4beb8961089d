//! Of the engine, where the linked files look for it: its errors.

pub mod error;

pub use error::{Error, Result};
