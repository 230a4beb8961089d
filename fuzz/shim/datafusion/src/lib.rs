//! Of DataFusion, where the linked files look for it: the parser.

pub mod sql {
    pub use sqlparser;
}
