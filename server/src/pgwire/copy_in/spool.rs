//! Rows that are kept until all have come: a few in memory, many on the disk where queries spill to.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::{SpillFile, SpillWriter};
use henge_engine::session::error_from_datafusion;
use henge_engine::{Error, Result};

/// What is kept in memory.
const MEMORY_BYTES: usize = 4 << 20;

/// The batches again, in their order.
pub(super) struct Spool {
    held: std::vec::IntoIter<RecordBatch>,
    /// Those that came before the ones that are held. The file is gone once nobody has it any more.
    written: Option<Written>,
}

impl Spool {
    /// Takes all of `rows`; fails with the first that is an error.
    pub(super) fn take(rows: impl Iterator<Item = Result<RecordBatch>>, disk: &Arc<DiskManager>) -> Result<Self> {
        let (mut held, mut bytes) = (Vec::new(), 0);
        let mut spilled: Option<Spilled> = None;
        for batch in rows {
            let batch = batch?;
            bytes += batch.get_array_memory_size();
            held.push(batch);
            if bytes <= MEMORY_BYTES {
                continue;
            }
            if spilled.is_none() {
                spilled = Some(Spilled::new(&held[0].schema(), disk)?);
            }
            if let Some(spilled) = &mut spilled {
                held.drain(..).try_for_each(|batch| spilled.writer.write(&batch)).map_err(unwritten)?;
            }
            bytes = 0;
        }
        let written = spilled.map(Spilled::read).transpose()?;
        Ok(Self { held: held.into_iter(), written })
    }
}

impl Iterator for Spool {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Result<RecordBatch>> {
        if let Some((reader, _)) = &mut self.written {
            if let Some(batch) = reader.next() {
                return Some(batch.map_err(unwritten));
            }
            self.written = None;
        }
        self.held.next().map(Ok)
    }
}

type Written = (StreamReader<BufReader<File>>, Arc<dyn SpillFile>);

struct Spilled {
    writer: StreamWriter<Box<dyn SpillWriter>>,
    file: Arc<dyn SpillFile>,
}

impl Spilled {
    fn new(schema: &SchemaRef, disk: &Arc<DiskManager>) -> Result<Self> {
        let file = disk.create_tmp_file("rows of a COPY").map_err(error_from_datafusion)?;
        let writer = file.open_writer().map_err(error_from_datafusion)?;
        Ok(Self { writer: StreamWriter::try_new(writer, schema).map_err(unwritten)?, file })
    }

    fn read(self) -> Result<Written> {
        let mut writer = self.writer.into_inner().map_err(unwritten)?;
        writer.finish().map_err(error_from_datafusion)?;
        let path = self.file.path().ok_or_else(|| Error::defensive("a spilled file without a path"))?;
        let file = File::open(path).map_err(|error| unwritten(error.into()))?;
        Ok((StreamReader::try_new(BufReader::new(file), None).map_err(unwritten)?, self.file))
    }
}

fn unwritten(error: arrow::error::ArrowError) -> Error {
    error_from_datafusion(error.into()).context("rows of a COPY", "temporary file")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::execution::runtime_env::RuntimeEnv;

    use super::*;

    #[test]
    fn rows_come_back_in_their_order_from_memory_and_disk() {
        let disk = Arc::clone(&RuntimeEnv::default().disk_manager);
        for batches in [0, 1, 3, 50] {
            let batch = |at: i64| {
                let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(at * 50_000..(at + 1) * 50_000));
                Ok(RecordBatch::try_from_iter([("n", numbers)]).unwrap())
            };
            let spool = Spool::take((0..batches).map(batch), &disk).unwrap();
            assert_eq!(spool.written.is_some(), batches > 10);
            let mut next = 0;
            for batch in spool {
                for number in batch.unwrap().column(0).as_primitive::<Int64Type>().values() {
                    assert_eq!(*number, next);
                    next += 1;
                }
            }
            assert_eq!(next, batches * 50_000);
        }
    }

    #[test]
    fn a_row_that_is_wrong_ends_it() {
        let disk = Arc::clone(&RuntimeEnv::default().disk_manager);
        let rows = [Err(Error::invalid_input("wrong"))];
        assert!(Spool::take(rows.into_iter(), &disk).is_err());
    }
}
