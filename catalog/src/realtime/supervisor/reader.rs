use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use henge_engine::ingest::stream::{Polled, RecordSupplier};
use henge_engine::{Error, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

use super::judge::Positions;
use super::text::{Text, Writer};
use super::{Appended, Supervisor};

/// Records that are parsed together, at most.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_RECORDS: usize = 20_000;
/// How long a record waits for others at most: queries are to see it at once.
const LINGER: Duration = Duration::from_millis(20);
/// How often it is looked whether reading is to end.
const WAIT: Duration = Duration::from_millis(100);
/// How often it is looked whether there is room again.
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// Why a reader ended by itself.
#[derive(Debug)]
pub enum Ending {
    /// Was told to.
    Stopped,
    /// The record that is next of a partition is not there.
    OutOfRange,
    /// More rows could not be parsed than may be; those of the last batch are not taken.
    TooManyParseExceptions(Vec<String>),
    Failed(Error),
}

/// A thread that reads some partitions of a topic. Ends with this.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    told: Mutex<bool>,
    wake: Condvar,
}

impl Stop {
    fn is_told(&self) -> bool {
        *self.told.lock()
    }

    fn tell(&self) {
        *self.told.lock() = true;
        self.wake.notify_all();
    }

    /// Waits so long, unless it is told before.
    fn wait(&self, time: Duration) {
        let mut told = self.told.lock();
        if !*told {
            self.wake.wait_for(&mut told, time);
        }
    }
}

impl Reader {
    /// Reads from these offsets on, and says on `ended` how that ended.
    pub fn start(
        supervisor: Arc<Supervisor>,
        mut supplier: Box<dyn RecordSupplier>,
        from: Positions,
        ended: UnboundedSender<Ending>,
    ) -> Result<Self> {
        let stop = Arc::new(Stop::default());
        let told = Arc::clone(&stop);
        let read = move || {
            let outcome = supplier.assign(&from).and_then(|()| read(&supervisor, supplier.as_mut(), &told));
            // Who started it may be gone.
            let _ = ended.send(outcome.unwrap_or_else(Ending::Failed));
        };
        let thread = std::thread::Builder::new()
            .name("henge-reader".to_owned())
            .spawn(read)
            .map_err(|error| Error::runtime_failure("a thread that reads cannot be started").with_source(error))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Has it end. What it read is appended.
    pub fn tell_to_stop(&self) {
        self.stop.tell();
    }

    /// Waits for its end. Blocks.
    pub fn join(mut self) {
        self.stop.tell();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread that reads panicked");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.tell();
    }
}

fn read(supervisor: &Supervisor, supplier: &mut dyn RecordSupplier, stop: &Stop) -> Result<Ending> {
    loop {
        if stop.is_told() {
            return Ok(Ending::Stopped);
        }
        if !supervisor.has_room() {
            supervisor.wake.notify_one();
            stop.wait(ROOM_WAIT);
            continue;
        }
        let mut writer = Writer::new(&supervisor.format, &supervisor.spec.io_config.topic);
        let interrupted = fill(&mut writer, supplier);
        for text in writer.texts {
            if let Some(ending) = take(supervisor, text, stop)? {
                return Ok(ending);
            }
        }
        match interrupted {
            Some(Polled::OutOfRange) => return Ok(Ending::OutOfRange),
            Some(Polled::Trouble(error)) => supervisor.lost_contact(&error),
            _ => {}
        }
    }
}

/// Takes what is there, and waits for the first of it. Returns what was not a record.
fn fill(writer: &mut Writer<'_>, supplier: &mut dyn RecordSupplier) -> Option<Polled> {
    let mut wait = WAIT;
    let mut began = None;
    while writer.num_bytes() < BATCH_BYTES && writer.num_records() < BATCH_RECORDS {
        match supplier.poll(wait, &mut |record| writer.add(record)) {
            Polled::Record => {
                let began = *began.get_or_insert_with(Instant::now);
                if began.elapsed() > LINGER {
                    return None;
                }
                wait = Duration::ZERO;
            }
            Polled::Nothing => return None,
            other => return Some(other),
        }
    }
    None
}

/// Parses and shows records. Waits while there is no room for them.
fn take(supervisor: &Supervisor, text: Text, stop: &Stop) -> Result<Option<Ending>> {
    if text.num_records() == 0 {
        return Ok(None);
    }
    let staged = supervisor.parse(&text)?;
    if staged.granules().len() > supervisor.streams.limits.granules && text.num_records() > 1 {
        let (first, second) = text.halves();
        return Ok(match take(supervisor, first, stop)? {
            None => take(supervisor, second, stop)?,
            ending => ending,
        });
    }
    if supervisor.would_be_too_bad(&staged) {
        let topic = &supervisor.spec.io_config.topic;
        return Ok(Some(Ending::TooManyParseExceptions(
            staged.bad_rows.iter().map(|bad| text.told(topic, bad)).collect(),
        )));
    }
    let reached = text.reached();
    while supervisor.append(&staged, &reached)? == Appended::NoRoom {
        if stop.is_told() {
            return Ok(Some(Ending::Stopped));
        }
        supervisor.hand_off_early();
        stop.wait(ROOM_WAIT);
    }
    supervisor.count(&text, &staged);
    Ok(None)
}

impl Supervisor {
    /// Whether memory is there for more rows.
    fn has_room(&self) -> bool {
        self.streams.memory_bytes() <= self.streams.limits.memory_bytes.saturating_mul(2)
    }
}
