use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{RowParser, StagedRows};
use crate::error::Result;
use crate::ingest::buffer::{MAX_COLUMNS, RowBuffer};
use crate::ingest::merge::Merge;
use crate::ingest::plan::Plan;
use crate::ingest::row::Row;
use crate::ingest::run::{Run, RunColumn, Settled, joined};
use crate::ingest::{Cancellation, FinishedSegment, NoProgress};
use crate::model::{Granularity, Interval, SegmentSchema};
use crate::segment::Segment;

/// A chunk that has so many rows is closed: few enough to be copied for a query within a millisecond or two, enough to
/// be worth a segment's overhead.
const CHUNK_ROWS: usize = 32_768;

/// Rows that can be read while more are appended, by one thread at a time.
#[derive(Debug)]
pub struct LiveIndex {
    plan: Arc<Plan>,
    chunk_rows: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tail: RowBuffer,
    chunks: VecDeque<Arc<Chunk>>,
    /// Of all chunks that are closed.
    columns: Vec<RunColumn>,
    next_chunk: u64,
    rows: u64,
    granules: BTreeMap<Interval, u64>,
    /// Of all columns that were found.
    names: HashSet<String>,
    /// Counts the changes.
    version: u64,
    shown: Option<Arc<LiveSnapshot>>,
}

/// Rows that do not change any more.
#[derive(Debug)]
struct Chunk {
    number: u64,
    run: Run,
    memory_bytes: usize,
    is_on_disk: bool,
    /// As it is shown where its types are not those of all chunks.
    conformed: Mutex<Option<Conformed>>,
}

/// A chunk under a schema.
type Conformed = (Arc<SegmentSchema>, Arc<dyn Segment>);

/// All rows of an index at one moment.
#[derive(Debug)]
pub struct LiveSnapshot {
    /// The columns of all segments; one that a segment lacks is null there.
    pub schema: Arc<SegmentSchema>,
    /// In the order their rows came.
    pub segments: Vec<LiveSegment>,
    /// Another one whenever the rows are others.
    pub version: u64,
}

/// Some rows of an index.
#[derive(Clone, Debug)]
pub struct LiveSegment {
    pub number: u64,
    pub segment: Arc<dyn Segment>,
}

/// How an index is made into segments.
#[derive(Debug)]
pub struct SealOptions {
    /// Is there; files are put below it.
    pub work_dir: PathBuf,
    pub threads: usize,
    pub max_rows_per_segment: usize,
    /// Of the segments; as the spec says unless given.
    pub granularity: Option<Granularity>,
    pub cancel: Cancellation,
}

impl LiveIndex {
    /// An empty index of the rows that `parser` makes.
    pub fn new(parser: &RowParser) -> Self {
        Self::with_chunks_of(parser, CHUNK_ROWS)
    }

    /// The same with chunks of another size, for tests.
    pub fn with_chunks_of(parser: &RowParser, rows: usize) -> Self {
        let plan = Arc::clone(&parser.plan);
        let state = State {
            tail: RowBuffer::new(Arc::clone(&plan), &mut Row::default()),
            chunks: VecDeque::new(),
            columns: Vec::new(),
            next_chunk: 0,
            rows: 0,
            granules: BTreeMap::new(),
            names: HashSet::new(),
            version: 0,
            shown: None,
        };
        Self { plan, chunk_rows: rows.max(1), state: Mutex::new(state) }
    }

    /// Shows rows: all of them from here on, or on failure none. `batch` is greater than that of rows before.
    pub fn append(&self, rows: &StagedRows, batch: u64) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let is_full = {
            let mut state = self.state.lock();
            let batch = usize::try_from(batch).unwrap_or(usize::MAX);
            let mut absorbed = state.tail.absorb(&rows.buffer, batch);
            if absorbed.is_err() {
                // Too many columns for one chunk: they begin another.
                drop(state);
                self.close_chunk()?;
                state = self.state.lock();
                absorbed = state.tail.absorb(&rows.buffer, batch);
            }
            absorbed?;
            for name in rows.buffer.dimension_names() {
                if !state.names.contains(name) {
                    state.names.insert(name.to_owned());
                }
            }
            state.rows += rows.num_rows() as u64;
            for (granule, count) in &rows.granules {
                *state.granules.entry(*granule).or_default() += count;
            }
            state.version += 1;
            state.tail.num_rows() >= self.chunk_rows
        };
        if is_full { self.close_chunk() } else { Ok(()) }
    }

    /// Ends the chunk that grows. It is shown as it is until it has been sorted.
    fn close_chunk(&self) -> Result<()> {
        let (mut full, number) = {
            let mut state = self.state.lock();
            let Some(copy) = state.tail.copy()? else { return Ok(()) };
            let fresh = RowBuffer::new(Arc::clone(&self.plan), &mut Row::default());
            let full = std::mem::replace(&mut state.tail, fresh);
            let number = state.next_chunk;
            state.next_chunk += 1;
            state.columns = joined(state.columns.iter().chain(&copy.columns));
            state.chunks.push_back(Arc::new(Chunk::new(number, copy)));
            (full, number)
        };
        let Some(run) = full.take_run()? else { return Ok(()) };
        if self.plan.rollup {
            let (run, memory_bytes) = run.rolled_up()?;
            self.replace(Chunk { memory_bytes, ..Chunk::new(number, run) });
        } else {
            self.replace(Chunk::new(number, run));
        }
        Ok(())
    }

    fn replace(&self, chunk: Chunk) {
        let mut state = self.state.lock();
        let place = state.chunks.iter().position(|known| known.number == chunk.number);
        if let Some(place) = place {
            state.chunks[place] = Arc::new(chunk);
            state.version += 1;
        }
    }

    /// Ends the chunk that grows, after the last append.
    pub fn close(&self) -> Result<()> {
        self.close_chunk()
    }

    /// Moves the oldest chunk that is in memory to a file in `dir`. Returns whether there was one.
    pub fn spill_one(&self, dir: &std::path::Path, cancel: &Cancellation) -> Result<bool> {
        let oldest = {
            let state = self.state.lock();
            // One that is not sorted yet is about to be replaced.
            let is_ready = |chunk: &&Arc<Chunk>| !chunk.is_on_disk && !chunk.run.granules.is_empty();
            state.chunks.iter().find(is_ready).map(Arc::clone)
        };
        let Some(oldest) = oldest else { return Ok(false) };
        let run = oldest.run.clone().spill(&self.plan, &dir.join(format!("chunk-{}", oldest.number)), cancel)?;
        self.replace(Chunk { is_on_disk: true, ..Chunk::new(oldest.number, run) });
        Ok(true)
    }

    /// Rows that were appended.
    pub fn num_rows(&self) -> u64 {
        self.state.lock().rows
    }

    /// How many rows were appended to each segment granule.
    pub fn granules(&self) -> BTreeMap<Interval, u64> {
        self.state.lock().granules.clone()
    }

    pub fn num_granules(&self) -> usize {
        self.state.lock().granules.len()
    }

    /// Whether more granules than `limit` would have rows with these.
    pub fn would_exceed(&self, rows: &StagedRows, limit: usize) -> bool {
        let state = self.state.lock();
        let new = rows.granules.keys().filter(|granule| !state.granules.contains_key(granule)).count();
        state.granules.len() + new > limit
    }

    /// Whether there would be too many columns with these rows.
    pub fn would_have_too_many_columns(&self, rows: &StagedRows) -> bool {
        let state = self.state.lock();
        let new = rows.buffer.dimension_names().filter(|name| !state.names.contains(*name)).count();
        new > 0 && state.names.len() + new > MAX_COLUMNS
    }

    /// Bytes of memory held, apart from what was moved to files.
    pub fn memory_bytes(&self) -> usize {
        let state = self.state.lock();
        let in_memory = state.chunks.iter().filter(|chunk| !chunk.is_on_disk);
        state.tail.memory_bytes() + in_memory.map(|chunk| chunk.memory_bytes).sum::<usize>()
    }

    /// Counts the changes: what is shown differs only if this does.
    pub fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// All rows appended so far.
    pub fn snapshot(&self) -> Result<Arc<LiveSnapshot>> {
        let (chunks, columns, tail, tail_number, version, before) = {
            let state = self.state.lock();
            let before = state.shown.clone();
            if let Some(shown) = before.as_ref().filter(|shown| shown.version == state.version) {
                return Ok(Arc::clone(shown));
            }
            let chunks = state.chunks.iter().map(Arc::clone).collect::<Vec<_>>();
            (chunks, state.columns.clone(), state.tail.copy()?, state.next_chunk, state.version, before)
        };
        let tail_columns = tail.iter().flat_map(|tail| &tail.columns);
        let mut settled = Settled::of_columns(&self.plan, columns.iter().chain(tail_columns))?;
        if let Some(known) = before.filter(|before| before.schema == settled.schema) {
            settled.schema = Arc::clone(&known.schema);
        }
        let segments = chunks.iter().map(|chunk| {
            let segment = chunk.conformed(&settled)?;
            Ok(LiveSegment { number: chunk.number, segment })
        });
        let mut segments = segments.collect::<Result<Vec<_>>>()?;
        if let Some(tail) = tail {
            segments.push(LiveSegment { number: tail_number, segment: tail.conform(&settled)?.segment });
        }
        let snapshot = Arc::new(LiveSnapshot { schema: settled.schema, segments, version });
        let mut state = self.state.lock();
        if state.shown.as_ref().is_none_or(|shown| shown.version < version) {
            state.shown = Some(Arc::clone(&snapshot));
        }
        Ok(snapshot)
    }

    /// Writes all rows into segments, as a batch ingestion of them would. The index stays as it is.
    pub fn seal(&self, options: &SealOptions) -> Result<Vec<FinishedSegment>> {
        self.close_chunk()?;
        let runs = self.state.lock().chunks.iter().map(|chunk| chunk.run.clone()).collect::<Vec<_>>();
        let runs = runs.into_iter().map(|mut run| {
            if let Some(granularity) = &options.granularity {
                run.granules = run.granules_by(granularity)?;
            }
            Ok(run)
        });
        let merge = Merge {
            plan: &self.plan,
            segment_dir: options.work_dir.clone(),
            max_rows: options.max_rows_per_segment.max(1),
            threads: options.threads.max(1),
            progress: &NoProgress,
            cancel: &options.cancel,
        };
        merge.write(runs.collect::<Result<Vec<_>>>()?)
    }
}

impl Chunk {
    fn new(number: u64, run: Run) -> Self {
        Self { number, memory_bytes: run.segment.memory_bytes(), run, is_on_disk: false, conformed: Mutex::default() }
    }

    /// The rows with the types that all chunks together need.
    fn conformed(&self, settled: &Settled) -> Result<Arc<dyn Segment>> {
        let mut known = self.conformed.lock();
        if let Some((_, segment)) = known.as_ref().filter(|(schema, _)| *schema == settled.schema) {
            return Ok(Arc::clone(segment));
        }
        let segment = self.run.clone().conform(settled)?.segment;
        *known = Some((Arc::clone(&settled.schema), Arc::clone(&segment)));
        Ok(segment)
    }
}
