use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use henge_engine::ingest::Cancellation;
use henge_engine::ingest::live::{LiveIndex, RowParser};
use henge_engine::model::SegmentUid;
use henge_engine::storage::{Disk, LocalDisk, crash_point};
use henge_engine::{Error, Result};
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::committer::Closed;
use super::sink::Sink;
use super::spec::PushSpec;
use super::stream::Stream;
use crate::clock::Clock;
use crate::view::{Generation, View};

const SPEC_FILE: &str = "spec.json";

/// Bounds of all streams.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Rows that are not published are moved to files beyond this; requests are sent away beyond twice as much.
    pub memory_bytes: usize,
    /// Of one stream's log: requests are refused beyond.
    pub wal_bytes: u64,
    /// Of all requests that wait for the log.
    pub pending_bytes: usize,
    /// Granules that rows may lie in that are not published: more are handed off first.
    pub granules: usize,
    /// Requests that are parsed at one time.
    pub threads: usize,
    /// Where rows are moved to that have no room in memory.
    pub spill_dir: PathBuf,
}

/// What all streams of a process share.
#[derive(Debug)]
pub struct Streams {
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) view: Arc<View>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    by_name: RwLock<BTreeMap<String, Arc<Stream>>>,
    pending_bytes: AtomicUsize,
    pub(super) parsing: Semaphore,
    /// Unlike numbers for generations.
    next_generation: AtomicU64,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Up to here queries read segments: the log need not have it.
    pub settled: u64,
    /// Up to here it is published.
    pub published: u64,
}

/// A stream on disk.
#[derive(Debug)]
pub struct Found {
    pub id: String,
    pub spec: PushSpec,
}

impl Streams {
    /// Streams below `dir`, which is made when missing. Opens none.
    pub fn new(
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        view: Arc<View>,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Arc<Self>> {
        disk.create_dir_durably(&dir).map_err(|error| cannot_use(&dir, error))?;
        Ok(Arc::new(Self {
            dir,
            disk,
            view,
            clock,
            parsing: Semaphore::new(limits.threads.max(1)),
            limits,
            by_name: RwLock::default(),
            pending_bytes: AtomicUsize::new(0),
            next_generation: AtomicU64::new(1),
        }))
    }

    /// The streams that earlier processes declared.
    pub fn find(&self) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in self.disk.list(&self.dir).map_err(|error| cannot_use(&self.dir, error))? {
            let id = entry.name.to_string_lossy().into_owned();
            let path = self.dir.join(&id).join(SPEC_FILE);
            // A stream that was only being declared has no spec, and no rows.
            if !entry.is_dir || !self.disk.exists(&path).map_err(|error| cannot_use(&path, error))? {
                continue;
            }
            let mut text = String::new();
            let mut file = self.disk.open(&path).map_err(|error| cannot_use(&path, error))?;
            file.read_to_string(&mut text).map_err(|error| cannot_use(&path, error))?;
            let spec = PushSpec::from_json(&text).map_err(|error| error.context("file", path.display()))?;
            found.push(Found { id, spec });
        }
        Ok(found)
    }

    /// Writes down a stream that is new, or a new spec of one that is there.
    pub fn write(&self, id: &SegmentUid, spec: &PushSpec) -> Result<Found> {
        self.write_spec(&id.to_string(), spec)
    }

    fn write_spec(&self, id: &str, spec: &PushSpec) -> Result<Found> {
        let dir = self.dir.join(id);
        let failed = |error| cannot_use(&dir, error);
        let text = serde_json::to_string_pretty(spec)
            .map_err(|error| Error::defensive("a spec is no JSON").with_source(error))?;
        self.disk.create_dir_durably(&dir).map_err(failed)?;
        let begun = dir.join("spec.begun");
        if self.disk.exists(&begun).map_err(failed)? {
            self.disk.remove_file(&begun).map_err(failed)?;
        }
        let mut file = self.disk.create(&begun).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync()).map_err(failed)?;
        self.disk.rename(&begun, &dir.join(SPEC_FILE)).and_then(|()| self.disk.sync_dir(&dir)).map_err(failed)?;
        Ok(Found { id: id.to_owned(), spec: spec.clone() })
    }

    pub fn get(&self, data_source: &str) -> Option<Arc<Stream>> {
        self.by_name.read().get(data_source).map(Arc::clone)
    }

    /// In the order of their names.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.by_name.read().values().map(Arc::clone).collect()
    }

    /// Opens a stream that was published up to `position`: reads its log and shows what is not published. Blocks.
    pub fn open(self: &Arc<Self>, found: Found, position: u64) -> Result<Arc<Stream>> {
        self.open_from(found, Reached { settled: position, published: position }).map(|(stream, _)| stream)
    }

    /// The same of a stream of which queries do not read all that is published from segments: that is shown too, as a
    /// generation of its own.
    pub fn open_from(self: &Arc<Self>, found: Found, reached: Reached) -> Result<(Arc<Stream>, Option<Closed>)> {
        let name = found.spec.data_schema.data_source.clone();
        let opened = Stream::open(Arc::clone(self), found, reached).map_err(|error| error.context("stream", &name))?;
        self.by_name.write().insert(name, Arc::clone(&opened.0));
        Ok(opened)
    }

    /// Takes back what [`Streams::write`] wrote of a stream that was never opened.
    pub fn unwrite(&self, found: &Found) -> Result<()> {
        let path = self.dir.join(&found.id).join(SPEC_FILE);
        self.disk.remove_file(&path).map_err(|error| cannot_use(&path, error))
    }

    /// Ends a stream's thread; what is in its log stays. What was sent before is answered first. Blocks.
    pub fn close(&self, data_source: &str) {
        let stream = self.by_name.write().remove(data_source);
        if let Some(stream) = stream {
            stream.stop();
        }
    }

    /// Lets go of all streams without waiting for their threads, which end by themselves.
    pub fn forget_all(&self) {
        self.by_name.write().clear();
    }

    /// Takes a spec in place of that of a stream, all of whose rows were handed off. Blocks.
    pub fn redeclare(self: &Arc<Self>, stream: &Stream, spec: &PushSpec) -> Result<Arc<Stream>> {
        let (name, core) = (stream.name(), &stream.core);
        self.close(name);
        let position = core.published_position.load(Ordering::Relaxed);
        let generation = Arc::clone(&core.generation.read());
        self.view.close_generation(name, generation.number);
        let found = self.write_spec(&core.id, spec);
        // Without the new spec, the old one goes on.
        let (found, failed) = match found {
            Ok(found) => (found, None),
            Err(error) => (Found { id: core.id.clone(), spec: core.spec.clone() }, Some(error)),
        };
        let opened = self.open(found, position)?;
        failed.map_or(Ok(opened), Err)
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn memory_bytes(&self) -> usize {
        let generations = self.view.generations();
        generations.iter().map(|generation| generation.index.memory_bytes()).sum()
    }

    pub fn is_short_of_memory(&self) -> bool {
        self.memory_bytes() > self.limits.memory_bytes
    }

    /// Moves the oldest rows of a generation to files until there is room enough. Returns how many chunks that were.
    pub fn spill(&self, generation: &Generation, is_enough: impl Fn() -> bool) -> Result<u64> {
        let dir = self.limits.spill_dir.join(format!("realtime-{}", generation.number));
        let mut moved = 0;
        while !is_enough() {
            if moved == 0 {
                LocalDisk.create_dir_durably(&dir).map_err(|error| cannot_use(&dir, error))?;
                generation.removes_at_its_end(&dir);
            }
            if !generation.index.spill_one(&dir, &Cancellation::default())? {
                break;
            }
            crash_point("chunk.written");
            moved += 1;
        }
        Ok(moved)
    }

    /// A generation of a stream's rows, which is not shown yet.
    pub(super) fn open_generation(&self, sink: &Sink, parser: &RowParser) -> Arc<Generation> {
        let number = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let index = LiveIndex::new(parser);
        Arc::new(Generation::new(&sink.data_source, sink.uid, number, self.clock.now(), index))
    }
}

/// A share of the bytes that may wait.
#[derive(Debug)]
pub(super) struct Room {
    streams: Arc<Streams>,
    bytes: usize,
}

impl Room {
    /// `None` if others have it. One request always fits.
    pub(super) fn take(streams: Arc<Streams>, bytes: usize) -> Option<Self> {
        let limit = streams.limits.pending_bytes;
        let taken = streams.pending_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
            (pending == 0 || pending + bytes <= limit).then_some(pending + bytes)
        });
        taken.is_ok().then_some(Self { streams, bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.streams.pending_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn cannot_use(path: &Path, error: std::io::Error) -> Error {
    Error::runtime_failure(format!("`{}` cannot be used", path.display())).with_source(error)
}
