//! The values of one dimension, each with its ordinal.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use arrow::array::{Array, StringViewArray, StringViewBuilder};
use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};

use super::SegmentOrdinals;
use crate::error::Error;
use crate::segment::{Column, Dictionary, Segment, StringColumn};

/// Dimensions with more values than this, when they are first asked for, are numbered by all cores: each has shards of
/// its own, by the hash of a value.
const FEW_VALUES: usize = 1 << 16;

const SHARDS: usize = 8;

/// Dictionaries that are decoded at one time are numbered before more are: so many values together.
const VALUES_AT_ONCE: usize = 4 << 20;

/// Text is kept in buffers of this many bytes.
const BUFFER_BYTES: u32 = 1 << 20;

/// A segment, and its column of the dimension.
type Unnumbered = (Arc<dyn Segment>, Arc<dyn StringColumn>);

#[derive(Debug)]
pub(super) struct Dimension {
    column: String,
    /// Set when it is first known how many values there are.
    values: OnceLock<Values>,
    mapped: Mutex<HashMap<usize, Mapped>>,
    /// Held by who adds segments.
    adding: tokio::sync::Mutex<()>,
    reservation: MemoryReservation,
    held: AtomicUsize,
}

#[derive(Debug)]
struct Mapped {
    /// Keeps the address from being used again.
    segment: Weak<dyn Segment>,
    codes: Option<Arc<SegmentOrdinals>>,
    values: usize,
}

#[derive(Debug)]
struct Values {
    hasher: FixedState,
    shards: Vec<RwLock<Shard>>,
}

/// The values whose hash falls here. The ordinal of the one at place `i` of shard `s` of `n` is `i * n + s`.
#[derive(Debug)]
struct Shard {
    values: StringViewBuilder,
    len: u32,
    /// Half of the hash, and the place.
    places: HashTable<(u32, u32)>,
}

impl Shard {
    fn new() -> Self {
        Self { values: StringViewBuilder::new().with_fixed_block_size(BUFFER_BYTES), len: 0, places: HashTable::new() }
    }

    fn place(&mut self, hash: u32, value: &str) -> u32 {
        let Self { values, len, places } = self;
        let is_same =
            |(known, place): &(u32, u32)| *known == hash && values.get_value(*place as usize) == value.as_bytes();
        if let Some((_, place)) = places.find(spread(hash), is_same) {
            return *place;
        }
        let place = *len;
        values.append_value(value);
        *len += 1;
        places.insert_unique(spread(hash), (hash, place), |(hash, _)| spread(*hash));
        place
    }

    fn memory_bytes(&self) -> usize {
        self.values.allocated_size() + self.places.allocation_size()
    }
}

/// The table takes its buckets from the low bits and its tags from the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) | u64::from(hash) << 32
}

impl Values {
    fn new(shards: usize) -> Self {
        let mut made: Vec<_> = (0..shards).map(|_| Shard::new()).collect();
        // Ordinal 0, the null.
        made[0].values.append_value("");
        made[0].len = 1;
        let hasher = FixedState::with_seed(rand::random());
        Self { hasher, shards: made.into_iter().map(RwLock::new).collect() }
    }

    /// One more than the greatest ordinal.
    fn limit(&self) -> u32 {
        let count = self.shards.len() as u32;
        let ends = (0..).zip(&self.shards).filter_map(|(shard, values): (u32, _)| {
            let len = values.read().len;
            (len > 0).then(|| (len - 1) * count + shard + 1)
        });
        ends.max().unwrap_or(0)
    }

    fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().memory_bytes()).sum()
    }

    /// Numbers the values of shard `index`.
    fn number(&self, index: usize, decoded: &Decoded) -> Result<()> {
        let count = self.shards.len() as u32;
        let mut shard = self.shards[index].write();
        for code in decoded.first..decoded.values.len() {
            let hash = decoded.hashes[code];
            if self.shard_of(hash) != index {
                continue;
            }
            let place = shard.place(hash, decoded.values.value(code));
            let ordinal = place.checked_mul(count).and_then(|ordinal| ordinal.checked_add(index as u32));
            let ordinal = ordinal.filter(|ordinal| *ordinal < u32::MAX / 2).ok_or_else(|| {
                DataFusionError::ResourcesExhausted("a dimension has more than a billion values".to_owned())
            })?;
            decoded.ordinals[code].store(ordinal, Ordering::Relaxed);
        }
        Ok(())
    }

    fn shard_of(&self, hash: u32) -> usize {
        // The table uses low bits and the highest; shards are told by some between.
        (hash >> 16) as usize % self.shards.len()
    }
}

/// A segment's dictionary, being numbered.
#[derive(Debug)]
struct Decoded {
    /// The code of the first value that is not null.
    first: usize,
    values: Arc<StringViewArray>,
    hashes: Vec<u32>,
    /// By code.
    ordinals: Vec<AtomicU32>,
}

impl Decoded {
    fn of(dictionary: &dyn Dictionary, hasher: &FixedState) -> Result<Self> {
        let values = dictionary.values_once()?;
        let hashes = (0..values.len()).map(|code| (hasher.hash_one(values.value(code).as_bytes()) >> 20) as u32);
        Ok(Self {
            first: usize::from(dictionary.has_null()),
            hashes: hashes.collect(),
            ordinals: (0..values.len()).map(|_| AtomicU32::new(0)).collect(),
            values,
        })
    }
}

impl Dimension {
    pub(super) fn new(column: &str, pool: &Arc<dyn MemoryPool>) -> Self {
        Self {
            column: column.to_owned(),
            values: OnceLock::new(),
            mapped: Mutex::default(),
            adding: tokio::sync::Mutex::default(),
            reservation: MemoryConsumer::new("ordinals").register(pool),
            held: AtomicUsize::new(0),
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.values.get().map_or(1, Values::limit)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether most of the segments whose values it has are gone.
    pub(super) fn is_mostly_stale(&self) -> bool {
        let mapped = self.mapped.lock();
        let (mut live, mut gone) = (0, 0);
        for mapped in mapped.values() {
            *(if mapped.segment.strong_count() > 0 { &mut live } else { &mut gone }) += mapped.values;
        }
        gone > live && gone > FEW_VALUES
    }

    /// The ordinals of each segment's codes; those that are not known are given. `has_room` is asked before memory is
    /// taken for good.
    pub(super) async fn number(
        self: &Arc<Self>,
        segments: &[&Arc<dyn Segment>],
        threads: usize,
        has_room: impl Fn() -> bool,
    ) -> Result<Vec<Option<Arc<SegmentOrdinals>>>> {
        if let Some(all) = self.known(segments) {
            return Ok(all);
        }
        let _adding = self.adding.lock().await;
        let unknown = segments.iter().filter(|segment| self.known(&[**segment]).is_none());
        let mut columns = Vec::new();
        for segment in unknown {
            match open(&self.column, segment)? {
                Some(column) => columns.push((Arc::clone(segment), column)),
                None => self.remember(segment, None, 0),
            }
        }
        let total = columns.iter().map(|(_, column)| column.dictionary().cardinality()).sum::<usize>();
        let values = self.values.get_or_init(|| Values::new(if total > FEW_VALUES { SHARDS } else { 1 }));
        let mut rest = columns.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let fit = rest.iter().take_while(|(_, column)| {
                sum += column.dictionary().cardinality();
                sum <= VALUES_AT_ONCE
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            self.add(now, values.shards.len(), threads).await?;
            self.account(&has_room)?;
            rest = later;
        }
        self.known(segments).ok_or_else(|| Error::defensive("ordinals that were given are gone").into())
    }

    fn known(&self, segments: &[&Arc<dyn Segment>]) -> Option<Vec<Option<Arc<SegmentOrdinals>>>> {
        let mapped = self.mapped.lock();
        let codes = segments.iter().map(|segment| mapped.get(&address(segment)).map(|mapped| mapped.codes.clone()));
        codes.collect()
    }

    fn remember(&self, segment: &Arc<dyn Segment>, codes: Option<Arc<SegmentOrdinals>>, values: usize) {
        let mut mapped = self.mapped.lock();
        if mapped.len().is_power_of_two() {
            mapped.retain(|_, mapped| mapped.segment.strong_count() > 0);
        }
        // The values of one that others take the place of are theirs as well: they do not make the dimension stale.
        let values = if segment.is_passing() { 0 } else { values };
        mapped.insert(address(segment), Mapped { segment: Arc::downgrade(segment), codes, values });
    }

    /// Gives ordinals to the values of some segments, by several tasks: first each decodes dictionaries, then each
    /// numbers the values of some shards.
    async fn add(self: &Arc<Self>, columns: &[Unnumbered], shards: usize, threads: usize) -> Result<()> {
        let opened = Arc::new(columns.iter().map(|(_, column)| Arc::clone(column)).collect::<Vec<_>>());
        let decoded: Arc<Vec<OnceLock<Decoded>>> = Arc::new(opened.iter().map(|_| OnceLock::new()).collect());
        let (this, slots) = (Arc::clone(self), Arc::clone(&decoded));
        each(opened.len(), threads, move |index| {
            let Some(values) = this.values.get() else { return Ok(()) };
            let one = Decoded::of(opened[index].dictionary(), &values.hasher)?;
            slots[index].get_or_init(|| one);
            Ok(())
        })
        .await?;
        let (this, slots) = (Arc::clone(self), Arc::clone(&decoded));
        let count = columns.len();
        each(shards * count, threads.min(shards), move |work| {
            // All of a shard's turns are its one task's, unless there are more tasks than shards.
            let (shard, index) = (work / count, work % count);
            match (this.values.get(), slots[index].get()) {
                (Some(values), Some(decoded)) => values.number(shard, decoded),
                _ => Err(Error::defensive("a dictionary was not decoded").into()),
            }
        })
        .await?;
        for ((segment, _), decoded) in columns.iter().zip(decoded.iter()) {
            let Some(decoded) = decoded.get() else { continue };
            let ordinals = decoded.ordinals.iter().map(|ordinal| ordinal.load(Ordering::Relaxed)).collect::<Vec<_>>();
            let values = ordinals.len();
            self.remember(segment, Some(Arc::new(SegmentOrdinals::of(ordinals))), values);
        }
        Ok(())
    }

    /// Charges what is held to the memory limit.
    fn account(&self, has_room: &impl Fn() -> bool) -> Result<()> {
        let codes = {
            let mapped = self.mapped.lock();
            mapped.values().filter_map(|mapped| mapped.codes.as_ref()).map(|codes| codes.memory_bytes()).sum::<usize>()
        };
        let held = codes + self.values.get().map_or(0, Values::memory_bytes);
        self.held.store(held, Ordering::Relaxed);
        if !has_room() {
            let message =
                format!("the values of `{}` do not fit in the memory limit's share for ordinals", self.column);
            return Err(DataFusionError::ResourcesExhausted(message));
        }
        self.reservation.try_resize(held)
    }

    /// Null for the null, and for an ordinal that no value has.
    pub(super) fn values_of(&self, ordinals: &[u32]) -> StringViewArray {
        let mut out = StringViewBuilder::with_capacity(ordinals.len());
        let Some(values) = self.values.get() else { return StringViewArray::new_null(ordinals.len()) };
        let shards = values.shards.iter().map(RwLock::read).collect::<Vec<_>>();
        let count = shards.len();
        for &ordinal in ordinals {
            let (shard, place) = (&shards[ordinal as usize % count], ordinal as usize / count);
            if ordinal == 0 || place >= shard.len as usize {
                out.append_null();
                continue;
            }
            let value = shard.values.get_value(place);
            // SAFETY: the bytes were appended as a `str`.
            out.append_value(unsafe { std::str::from_utf8_unchecked(value) });
        }
        out.finish()
    }
}

/// The values of segments that a dimension does not know yet.
pub(super) fn unknown_values(
    dimension: Option<&Dimension>,
    column: &str,
    segments: &[&Arc<dyn Segment>],
) -> Result<usize> {
    let mut count = 0;
    for segment in segments {
        if dimension.is_some_and(|dimension| dimension.known(&[*segment]).is_some()) {
            continue;
        }
        count += open(column, segment)?.map_or(0, |column| column.dictionary().cardinality());
    }
    Ok(count)
}

fn open(column: &str, segment: &Arc<dyn Segment>) -> Result<Option<Arc<dyn StringColumn>>> {
    let Some(index) = segment.schema().index_of(column) else { return Ok(None) };
    match segment.column(index)? {
        Column::String(column) => Ok(Some(column)),
        _ => Err(crate::exec::reader::wrong_type(column).into()),
    }
}

fn address(segment: &Arc<dyn Segment>) -> usize {
    Arc::as_ptr(segment).cast::<()>() as usize
}

/// Does `work` for each number below `count`, on at most `tasks` tasks, each of which takes the next as it is free.
async fn each<W>(count: usize, tasks: usize, work: W) -> Result<()>
where
    W: Fn(usize) -> Result<()> + Send + Sync + 'static,
{
    let (work, next) = (Arc::new(work), Arc::new(AtomicUsize::new(0)));
    let mut set = JoinSet::<Result<()>>::new();
    for _ in 0..tasks.min(count).max(1) {
        let (work, next) = (Arc::clone(&work), Arc::clone(&next));
        set.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                work(index)?;
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(result) = set.join_next().await {
        result.map_err(|error| DataFusionError::External(Box::new(error)))??;
    }
    Ok(())
}
