//! One execution of a whole aggregation: what all its output partitions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::common::runtime::JoinSet;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;
use tokio::sync::OnceCell;

use super::GroupKey;
use super::derived::DerivedCodes;
use super::key::CodeSpace;
use super::scan_of;
use super::stream::{Plan, bound};
use super::table::Table;
use crate::exec::computed::Computed;
use crate::exec::morsel;
use crate::exec::ordinals::{Numbering, OrdinalCache};
use crate::exec::scan_work::ScanWork;
use crate::model::ColumnType;
use crate::segment::Segment;

/// Below so many rows it is not worth while to number the values of dictionaries that are much larger.
const FEW_ROWS: usize = 1 << 16;

/// How many times larger.
const LARGER: usize = 8;

/// Rows that are bound and folded on the spot, without a task.
const ROWS_ON_THE_SPOT: usize = 1 << 17;

#[derive(Debug, Default)]
pub(super) struct Run {
    outcome: OnceCell<Outcome>,
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Folded(Arc<Folded>),
    /// Too much for memory, or too little to be worth while: DataFusion is to do it.
    Otherwise,
}

/// All groups.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) table: Table,
    /// Held as long as the table.
    _reservation: MemoryReservation,
}

impl Run {
    /// The first partition that asks does the work, by tasks of its own; if it is dropped, the next begins anew.
    pub(super) async fn outcome(
        &self,
        plan: &Arc<Plan>,
        scan: &Arc<dyn ExecutionPlan>,
        context: &Arc<TaskContext>,
    ) -> Result<Outcome> {
        let fold = async || {
            let scan = scan_of(scan)?;
            let work = Arc::new(scan.work(context));
            Folding { plan: Arc::clone(plan), work, context: Arc::clone(context) }.run(scan.num_partitions()).await
        };
        self.outcome.get_or_try_init(fold).await.cloned()
    }
}

struct Folding {
    plan: Arc<Plan>,
    work: Arc<ScanWork>,
    context: Arc<TaskContext>,
}

/// A segment of which rows are selected: its index in the source, and about how many.
type Live = (usize, usize);

impl Folding {
    async fn run(self, threads: usize) -> Result<Outcome> {
        let live = self.bind(threads).await?;
        let rows = live.iter().map(|(_, rows)| rows).sum();
        let Some(space) = self.space(&live, rows, threads).await? else { return Ok(Outcome::Otherwise) };
        let shared =
            Arc::new(Shared { plan: self.plan, work: self.work, space, rows, stopped: AtomicBool::new(false) });
        let segments = &shared.plan.source.segments;
        let scanned = live.iter().map(|(index, _)| segments[*index].segment.num_rows());
        let (morsels, scanned) = (morsel::count(scanned.clone()), scanned.sum::<usize>());
        let tasks = if scanned <= ROWS_ON_THE_SPOT { 1 } else { threads.min(morsels).max(1) };
        let reservation = |task| {
            let consumer = MemoryConsumer::new(format!("SegmentGroupExec[{task}]"));
            consumer.with_can_spill(true).register(self.context.memory_pool())
        };
        let mut tables = Vec::with_capacity(tasks);
        if tasks == 1 {
            tables.push(shared.fold(reservation(0)).await?);
        } else {
            let mut set = JoinSet::new();
            for task in 0..tasks {
                let (shared, reservation) = (Arc::clone(&shared), reservation(task));
                set.spawn(async move { shared.fold(reservation).await });
            }
            while let Some(folded) = set.join_next().await {
                tables.push(folded.map_err(|error| DataFusionError::External(Box::new(error)))??);
            }
        }
        merged(tables)
    }

    /// Binds the predicate to every segment, and tells which have rows.
    async fn bind(&self, threads: usize) -> Result<Vec<Live>> {
        let segments = &self.plan.source.segments;
        let binding =
            Arc::new(Binding { plan: Arc::clone(&self.plan), work: Arc::clone(&self.work), next: AtomicUsize::new(0) });
        if self.plan.source.predicate.is_none() || segments.len() == 1 {
            return binding.all().await;
        }
        let mut set = JoinSet::new();
        for _ in 0..threads.min(segments.len()) {
            let binding = Arc::clone(&binding);
            set.spawn(async move { binding.all().await });
        }
        let mut live = Vec::new();
        while let Some(some) = set.join_next().await {
            live.extend(some.map_err(|error| DataFusionError::External(Box::new(error)))??);
        }
        live.sort_unstable();
        Ok(live)
    }

    /// What the codes of keys and of counted columns are. `None` where DataFusion had better do it.
    async fn space(&self, live: &[Live], rows: usize, threads: usize) -> Result<Option<Space>> {
        let plan = &self.plan;
        let mut space = Space { keys: Vec::new(), distinct: Vec::new(), live: live.to_vec() };
        for key in &plan.keys {
            let codes = match key {
                GroupKey::Column(column) if live.len() > 1 && is_text(plan, *column) => {
                    self.number(*column, live, rows, threads).await?.map(CodeSpace::Ordinals)
                }
                GroupKey::Derived(computed) => self.derive(computed, live, rows, threads).await?,
                GroupKey::Column(_) | GroupKey::Time(_) => Some(CodeSpace::Segment),
            };
            let Some(codes) = codes else { return Ok(None) };
            space.keys.push(codes);
        }
        for fold in &plan.folds {
            if let (true, Some(column)) = (fold.kind.is_of_distinct(), fold.column()) {
                let Some(numbering) = self.number(column, live, rows, threads).await? else { return Ok(None) };
                space.distinct.push((column, numbering));
            }
        }
        Ok(Some(space))
    }

    /// The codes of a function of a dimension. `None` also where it fails for a value: whether a row has that shows only
    /// where rows are read.
    async fn derive(
        &self,
        computed: &Computed,
        live: &[Live],
        rows: usize,
        threads: usize,
    ) -> Result<Option<CodeSpace>> {
        let [column] = computed.columns.as_slice() else { return Ok(None) };
        let Some(numbering) = self.number(*column, live, rows, threads).await? else { return Ok(None) };
        if numbering.limit() > rows.max(FEW_ROWS) {
            return Ok(None);
        }
        let derived = DerivedCodes::of(computed, &numbering).await.ok();
        Ok(derived.map(|derived| CodeSpace::Derived(numbering, Arc::new(derived))))
    }

    async fn number(&self, column: usize, live: &[Live], rows: usize, threads: usize) -> Result<Option<Numbering>> {
        let source = &self.plan.source;
        let Some(described) = source.columns.column(column) else { return Ok(None) };
        let segments = live.iter().map(|(index, _)| &source.segments[*index].segment).collect::<Vec<_>>();
        let cache = OrdinalCache::of(&self.context);
        if rows < FEW_ROWS && cache.unknown_values(&source.data_source, &described.name, &segments)? > rows * LARGER {
            return Ok(None);
        }
        let pool = self.context.memory_pool();
        match cache.number(&source.data_source, &described.name, &segments, pool, threads).await {
            Ok(numbering) => Ok(Some(numbering)),
            Err(error) if is_exhausted(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_text(plan: &Plan, column: usize) -> bool {
    plan.source.columns.column(column).is_some_and(|column| column.column_type == ColumnType::String)
}

fn is_exhausted(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// Segments being bound by several tasks.
struct Binding {
    plan: Arc<Plan>,
    work: Arc<ScanWork>,
    next: AtomicUsize,
}

impl Binding {
    async fn all(&self) -> Result<Vec<Live>> {
        let segments = &self.plan.source.segments;
        let mut live = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(visible) = segments.get(index) else { return Ok(live) };
            let bound = bound(&self.plan.source, &self.work, index).await?;
            match bound.at_most(visible.segment.num_rows()) {
                0 => self.work.skip(index),
                most => live.push((index, bound.about(most))),
            }
            tokio::task::consume_budget().await;
        }
    }
}

/// What codes stand for in all tables of an execution.
#[derive(Debug)]
struct Space {
    keys: Vec<CodeSpace>,
    distinct: Vec<(usize, Numbering)>,
    live: Vec<Live>,
}

impl Space {
    /// Where a segment is among those that have ordinals.
    fn place(&self, segment: usize) -> usize {
        self.live.binary_search_by_key(&segment, |(index, _)| *index).unwrap_or(usize::MAX)
    }
}

/// What the tasks share.
#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    work: Arc<ScanWork>,
    space: Space,
    rows: usize,
    /// One of the tasks found that memory is too short.
    stopped: AtomicBool,
}

impl Shared {
    /// A table for a segment's own codes, where ordinals would otherwise be looked up for each row.
    fn local(&self, segment: usize) -> Result<Option<Table>> {
        let mut keys = self.plan.keys.iter().zip(&self.space.keys).filter(|(key, _)| !matches!(key, GroupKey::Time(_)));
        let has_ordinals = |(_, space): (&GroupKey, &CodeSpace)| !matches!(space, CodeSpace::Segment);
        let only_ordinals = keys.next().is_some_and(has_ordinals) && keys.all(has_ordinals);
        match self.space.live.get(self.space.place(segment)) {
            Some((_, rows)) if only_ordinals => Table::of_segment(&self.plan, segment, *rows),
            _ => Ok(None),
        }
    }

    /// Folds morsels until there are no more. `None` if memory is too short.
    async fn fold(&self, reservation: MemoryReservation) -> Result<Option<(Table, MemoryReservation)>> {
        let mut table = Table::new(&self.plan, self.space.keys.clone(), &self.space.distinct, self.rows)?;
        // Of the segment at hand, in whose own codes rows are folded first.
        let mut local: Option<Table> = None;
        let mut at = None;
        while let Some(morsel) = self.work.next(at)? {
            if at != Some(morsel.segment) {
                if let (Some(local), Some(at)) = (local.take(), at) {
                    table.adopt(&local, Some(self.space.place(at)));
                }
                local = self.local(morsel.segment)?;
                if local.is_none() {
                    table.open(&self.plan, morsel.segment, self.space.place(morsel.segment))?;
                }
            }
            if at.is_none() && reservation.try_resize(table.first_bytes()).is_err() {
                self.stopped.store(true, Ordering::Relaxed);
            }
            at = Some(morsel.segment);
            let bound = bound(&self.plan.source, &self.work, morsel.segment).await?;
            let segment: &dyn Segment = self.plan.source.segments[morsel.segment].segment.as_ref();
            for block in morsel.blocks {
                self.work.check()?;
                if self.stopped.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let folded = local.as_mut().unwrap_or(&mut table).fold(bound, segment, block)?;
                let bytes = table.memory_bytes() + local.as_ref().map_or(0, Table::memory_bytes);
                if !folded || reservation.try_resize(bytes).is_err() {
                    self.stopped.store(true, Ordering::Relaxed);
                }
            }
            tokio::task::yield_now().await;
        }
        if let (Some(local), Some(at)) = (local, at) {
            table.adopt(&local, Some(self.space.place(at)));
        }
        Ok((!self.stopped.load(Ordering::Relaxed)).then_some((table, reservation)))
    }
}

/// One table of all; the largest takes the others over.
fn merged(tables: Vec<Option<(Table, MemoryReservation)>>) -> Result<Outcome> {
    let Some(mut tables) = tables.into_iter().collect::<Option<Vec<_>>>() else { return Ok(Outcome::Otherwise) };
    // One without rows does not know the layout of the others.
    tables.sort_by_key(|(table, _)| (table.is_open, table.num_groups()));
    let Some((mut table, reservation)) = tables.pop() else { return Ok(Outcome::Otherwise) };
    while let Some((other, others)) = tables.pop() {
        table.adopt(&other, None);
        if reservation.try_resize(table.memory_bytes()).is_err() {
            return Ok(Outcome::Otherwise);
        }
        drop((other, others));
    }
    table.complete();
    Ok(Outcome::Folded(Arc::new(Folded { table, _reservation: reservation })))
}
