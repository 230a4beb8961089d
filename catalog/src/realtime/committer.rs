use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

use bytes::Bytes;
use henge_engine::ingest::live::StagedRows;
use henge_engine::storage::{Log, crash_point};
use henge_engine::{Error, Result};
use tokio::sync::oneshot;

use super::entry::{Head, encode};
use super::status::{add, get};
use super::stream::{Core, added};
use super::streams::Room;
use super::window::{Added, Window};
use crate::view::Generation;

/// Requests are synced together, up to so many bytes and requests.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_REQUESTS: usize = 256;

/// What a stream's thread is asked to do, in the order in which it does it.
pub(super) enum Command {
    Append(Box<Append>),
    Rotate(oneshot::Sender<Result<Option<Closed>>>),
    /// It is published up to here.
    Published(u64, oneshot::Sender<()>),
    Stop,
}

/// A request whose rows were read.
pub(super) struct Append {
    pub(super) head: Head,
    pub(super) rows: Bytes,
    pub(super) staged: StagedRows,
    /// What was added, and whether that was so before.
    pub(super) answer: oneshot::Sender<Result<(Added, bool)>>,
    pub(super) _room: Room,
}

/// A generation that nothing is added to any more, and the entries whose rows it has: those after `from`, up to `to`.
#[derive(Debug)]
pub struct Closed {
    pub generation: Arc<Generation>,
    pub from: u64,
    pub to: u64,
}

/// Writes a stream's log and shows what is in it. Lives on a thread of its own.
pub(super) struct Committer {
    core: Arc<Core>,
    log: Log,
    window: Window,
    /// The last entry of generations that were closed.
    closed: u64,
}

impl Committer {
    pub(super) fn new(core: Arc<Core>, log: Log, window: Window, published: u64) -> Self {
        let committer = Self { core, log, window, closed: published };
        committer.tell();
        committer
    }

    /// Works until it is told to stop, or nobody is there to tell it.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None => match commands.recv() {
                    Ok(command) => command,
                    Err(_) => return,
                },
            };
            match command {
                Command::Append(first) => {
                    let group = collect(*first, commands, &mut next);
                    self.append(group);
                }
                // Who does not wait for an answer does not want it.
                Command::Rotate(answer) => drop(answer.send(self.rotate())),
                Command::Published(position, answer) => {
                    self.published(position);
                    let _ = answer.send(());
                }
                Command::Stop => return,
            }
            self.tell();
        }
    }

    fn tell(&self) {
        self.core.wal_bytes.store(self.log.size_bytes(), Ordering::Relaxed);
        self.core.wal_position.store(self.log.next() - 1, Ordering::Relaxed);
    }

    /// Makes requests durable, all with one sync, shows their rows, and answers.
    fn append(&mut self, group: Vec<Append>) {
        let Group { taken, known } = self.sort_out(group);
        let written = self.write(&taken);
        match written {
            Ok(first) => {
                for (number, request) in (first..).zip(taken) {
                    self.show(number, request);
                }
            }
            Err(error) => {
                tracing::error!(stream = self.core.name(), %error, "rows are not taken");
                *self.core.counts.last_error.lock() = Some(error.to_string());
                taken.into_iter().for_each(|request| drop(request.answer.send(Err(error.duplicate()))));
            }
        }
        for request in known {
            // Its first appearance may be one of those that were just written, or failed to be.
            let found = request.head.key.as_ref().and_then(|key| self.window.find(key));
            let answer = found.map(|added| (added, true)).ok_or_else(|| {
                Error::runtime_failure("the same request failed a moment ago; send it again").retryable(true)
            });
            add(&self.core.counts.duplicates, u64::from(answer.is_ok()));
            let _ = request.answer.send(answer);
        }
    }

    /// Parts requests that are new from those that came before, and answers those that cannot be taken.
    fn sort_out(&self, group: Vec<Append>) -> Group {
        let mut sorted = Group { taken: Vec::with_capacity(group.len()), known: Vec::new() };
        let generation = self.core.generation.read();
        let limit = self.core.streams.limits.granules;
        for request in group {
            if let Some(key) = &request.head.key {
                let comes_twice = sorted.taken.iter().any(|other| repeats(other.head.key.as_ref(), key));
                if comes_twice || self.window.find(key).is_some() {
                    sorted.known.push(request);
                    continue;
                }
            }
            let refused = match &generation.index {
                index if index.would_exceed(&request.staged, limit) => too_many_granules(),
                index if index.would_have_too_many_columns(&request.staged) => too_many_columns(),
                _ => {
                    sorted.taken.push(request);
                    continue;
                }
            };
            self.core.wake.notify_one();
            let _ = request.answer.send(Err(refused));
        }
        sorted
    }

    fn write(&mut self, taken: &[Append]) -> Result<u64> {
        if taken.is_empty() {
            return Ok(self.log.next());
        }
        let entries = taken.iter().map(|request| encode(&request.head, &request.rows)).collect::<Result<Vec<_>>>()?;
        let window = &self.window;
        let first = self.log.append(&entries, || window.to_bytes())?;
        add(&self.core.counts.syncs, 1);
        Ok(first)
    }

    fn show(&mut self, number: u64, request: Append) {
        let Append { head, rows, staged, answer, _room } = request;
        let generation = Arc::clone(&self.core.generation.read());
        let shown = generation.append(&staged, number, self.core.streams.clock.now());
        if let Err(error) = shown {
            // It is durable, and shown after the next start; until then more would be shown out of their order.
            *self.core.quarantine.lock() =
                Some(format!("rows that are durable could not be shown: {error}; start again"));
            let _ = answer.send(Err(error));
            return;
        }
        let added = added(number, &staged);
        if let Some(key) = &head.key {
            self.window.add(key, added);
        }
        self.core.counts.taken(&added, rows.len());
        if generation.index.num_rows() >= self.core.spec.tuning_config.max_total_rows
            || self.core.streams.is_short_of_memory()
        {
            self.core.wake.notify_one();
        }
        let _ = answer.send(Ok((added, false)));
    }

    /// Ends the generation and begins another one.
    fn rotate(&mut self) -> Result<Option<Closed>> {
        let (from, to) = (self.closed, self.log.next() - 1);
        if to <= from {
            return Ok(None);
        }
        let fresh = self.core.new_generation();
        let generation = Arc::clone(&self.core.generation.read());
        generation.index.close()?;
        self.core.streams.view.open_generation(Arc::clone(&fresh));
        *self.core.generation.write() = fresh;
        // The file can be removed once the generation is published.
        self.log.end_file();
        self.closed = to;
        crash_point("generation.closed");
        Ok(Some(Closed { generation, from, to }))
    }

    fn published(&mut self, position: u64) {
        crash_point("log.passed");
        self.core.published_position.store(position, Ordering::Relaxed);
        if let Err(error) = self.log.remove_up_to(position) {
            tracing::warn!(stream = self.core.name(), %error, "files of the log are removed later");
        }
        crash_point("log.removed");
        tracing::debug!(stream = self.core.name(), position, rows = get(&self.core.counts.rows), "handed off");
    }
}

struct Group {
    taken: Vec<Append>,
    /// Under keys that are known.
    known: Vec<Append>,
}

/// Whether a request of this key adds nothing after one of that.
fn repeats(earlier: Option<&super::PushKey>, key: &super::PushKey) -> bool {
    use super::PushKey::Producer;
    match (earlier, key) {
        (Some(Producer { producer: a, sequence: earlier }), Producer { producer: b, sequence }) => {
            a == b && sequence <= earlier
        }
        (earlier, key) => earlier == Some(key),
    }
}

/// The requests that wait, up to the next command of another kind.
fn collect(first: Append, commands: &Receiver<Command>, next: &mut Option<Command>) -> Vec<Append> {
    let mut bytes = first.rows.len();
    let mut group = VecDeque::from([first]);
    while bytes < GROUP_BYTES && group.len() < GROUP_REQUESTS {
        match commands.try_recv() {
            Ok(Command::Append(request)) => {
                bytes += request.rows.len();
                group.push_back(*request);
            }
            Ok(other) => {
                *next = Some(other);
                break;
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    group.into()
}

fn too_many_granules() -> Error {
    Error::capacity_exceeded("rows of too many segment granules wait to be handed off; send these again in a moment")
        .retryable(true)
}

fn too_many_columns() -> Error {
    Error::capacity_exceeded(
        "the rows that wait to be handed off have too many columns; list the dimensions wanted in a spec",
    )
}
