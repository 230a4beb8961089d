use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use super::lines::{LineOptions, LineReader};
use super::{Chunk, Content, Input, Rows, compression, parquet};
use crate::error::{Error, Result};
use crate::ingest::spec::InputFormat;

/// The inputs of an ingestion, shared by its threads.
pub(crate) struct Inputs {
    options: LineOptions,
    /// Bytes read as stored, compressed or not.
    bytes_read: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<(usize, Input)>,
    open: Vec<Arc<Share>>,
}

/// An input that is being read.
pub(crate) struct Share {
    number: usize,
    name: Arc<str>,
    reader: Mutex<Reader>,
}

enum Reader {
    /// To be opened by the first to read it.
    Closed(Option<Input>),
    Lines(Box<LineReader>),
    Batches {
        batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
        row: u64,
    },
    Ended,
}

impl Inputs {
    pub(crate) fn new(inputs: Vec<Input>, options: LineOptions) -> Self {
        let state = State { waiting: inputs.into_iter().enumerate().collect(), open: Vec::new() };
        Self { options, bytes_read: Arc::default(), state: Mutex::new(state) }
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The next rows for a thread; `None` when all inputs are read. `mine` is the input it reads by preference.
    pub(crate) fn next(&self, mine: &mut Option<Arc<Share>>) -> Result<Option<Chunk>> {
        loop {
            let share = match mine.take() {
                Some(share) => share,
                None => match self.pick() {
                    Some(share) => share,
                    None => return Ok(None),
                },
            };
            let chunk = share.next(self)?;
            if let Some(chunk) = chunk {
                *mine = Some(share);
                return Ok(Some(chunk));
            }
            self.state.lock().open.retain(|open| !Arc::ptr_eq(open, &share));
        }
    }

    /// An input nobody has begun, or else one to help with.
    fn pick(&self) -> Option<Arc<Share>> {
        let mut state = self.state.lock();
        match state.waiting.pop_front() {
            Some((number, input)) => {
                let name = Arc::clone(&input.name);
                let share = Arc::new(Share { number, name, reader: Mutex::new(Reader::Closed(Some(input))) });
                state.open.push(Arc::clone(&share));
                Some(share)
            }
            None => state.open.first().cloned(),
        }
    }

    fn open(&self, input: Input) -> Result<Reader> {
        let name = input.name;
        let is_parquet = matches!(input.format, InputFormat::Parquet { .. });
        let read: Box<dyn Read + Send> = match input.content {
            Content::Batches(batches) => return Ok(Reader::Batches { batches, row: 1 }),
            Content::File(path) => {
                let file = File::open(&path)
                    .map_err(|e| Error::invalid_input(format!("file `{name}` cannot be opened")).with_source(e))?;
                if is_parquet {
                    self.bytes_read.fetch_add(input.size_bytes.unwrap_or(0), Ordering::Relaxed);
                    return batches(file, &name);
                }
                Box::new(file)
            }
            Content::Open(open) => open()?,
        };
        let read = Counted { read, bytes: Arc::clone(&self.bytes_read) };
        let read = compression::decompressed(read, &name)?;
        if is_parquet {
            return batches(parquet::to_file(read, &name)?, &name);
        }
        Ok(Reader::Lines(Box::new(LineReader::new(read, name, &input.format, self.options)?)))
    }
}

fn batches(file: File, name: &str) -> Result<Reader> {
    let name = name.to_owned();
    let batches = parquet::open(file, &name)?
        .map(move |batch| batch.map_err(|e| Error::runtime_failure(format!("`{name}` cannot be read")).with_source(e)));
    Ok(Reader::Batches { batches: Box::new(batches), row: 1 })
}

impl Share {
    fn next(&self, inputs: &Inputs) -> Result<Option<Chunk>> {
        let mut reader = self.reader.lock();
        if let Reader::Closed(input) = &mut *reader {
            let input = input.take();
            *reader = Reader::Ended;
            if let Some(input) = input {
                *reader = inputs.open(input)?;
            }
        }
        let next = match &mut *reader {
            Reader::Lines(lines) => lines.next()?,
            Reader::Batches { batches, row } => batches.next().transpose()?.map(|batch| {
                let first = *row;
                *row += batch.num_rows() as u64;
                (first, Rows::Batch(batch))
            }),
            Reader::Closed(_) | Reader::Ended => None,
        };
        if next.is_none() {
            *reader = Reader::Ended;
        }
        Ok(next.map(|(line, rows)| Chunk { input: self.number, name: Arc::clone(&self.name), line, rows }))
    }
}

/// Counts the bytes that pass.
struct Counted {
    read: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.read.read(out)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
