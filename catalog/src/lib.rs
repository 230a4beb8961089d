//! Henge's catalog: which segments exist, who should serve them, who may decide.
//!
//! Owns the metadata, the timeline made of it, publishing, and the embedded database. Decides nothing about rows.

pub mod timeline;
