//! Henge, an analytics database with Druid's architecture on DataFusion and Arrow, as a library.
//!
//! [`Database`] is the database in a directory: the very one that `henge server --data-dir` serves. Segments, pushdown
//! and aggregation over them can also be had in a DataFusion session of your own, with [`install`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use henge::arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
//! use henge::model::DataSchema;
//! use henge::{Database, Existing, IngestRun};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! let database = Database::open(directory.path()).await?;
//! let edits = RecordBatch::try_from_iter([
//!     ("time", Arc::new(TimestampMillisecondArray::from(vec![1_375_315_200_000, 1_375_318_800_000])) as _),
//!     ("page", Arc::new(StringArray::from(vec!["Stonehenge", "Druid"])) as _),
//!     ("added", Arc::new(Int64Array::from(vec![17, 25])) as _),
//! ])?;
//! let schema = DataSchema::new("edits", "time");
//! database.ingest_batches(schema, Existing::Keep, [edits], IngestRun::default()).await?;
//!
//! let rows = database.sql("SELECT page, added FROM edits WHERE added > 20").await?;
//! assert_eq!(rows[0].num_rows(), 1);
//! database.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Without the default feature `server` no network protocol is built.

pub use arrow;
pub use datafusion;

pub use henge_catalog::database::{Existing, Holder, IngestRun, KillReport, Opening};
pub use henge_catalog::{Clock, Database, DatabaseBuilder, SystemClock};
pub use henge_engine::error::{Category, Persona};
pub use henge_engine::session::{QueryLimits, STACK_BYTES, Session, SessionOptions, SqlDialect};
pub use henge_engine::{Error, Result, ingest, install, model, segment, storage, table};

/// Rows that are pushed to a [`Database`]: durable when acknowledged, seen at once, handed off later.
pub use henge_catalog::database::HandOff;
pub use henge_catalog::realtime;

/// Catalogs and schemas for DataFusion: data sources, `sys`, `information_schema`.
pub use henge_catalog::provider;
