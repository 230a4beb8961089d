use std::fs::File;
use std::io::Read;

use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::error::{Error, Result};

/// Rows of a batch: as many as are decoded under an input's lock at a time.
const BATCH_ROWS: usize = 8192;

/// Reads a Parquet file batch by batch.
pub(super) fn open(file: File, name: &str) -> Result<ParquetRecordBatchReader> {
    let failed = |e| Error::invalid_input(format!("`{name}` is not a Parquet file that can be read")).with_source(e);
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?.with_batch_size(BATCH_ROWS).build().map_err(failed)
}

/// The rest of a stream as a temporary file, for a format that is read from its end.
pub(super) fn to_file(mut read: Box<dyn Read + Send>, name: &str) -> Result<File> {
    let failed = |e| Error::runtime_failure(format!("`{name}` cannot be kept in a temporary file")).with_source(e);
    let mut file = tempfile::tempfile().map_err(failed)?;
    std::io::copy(&mut read, &mut file).map_err(failed)?;
    Ok(file)
}
