//! Optimized plans of queries that a session asks again and again.
//!
//! How a query is optimized hangs on the query itself, on what its tables look like and on the session's settings. So an
//! equal query of data sources, under the same settings, has the optimized plan that it had before, with its tables as
//! they are now in the place of those of then. Segments are chosen later, when the plan is made physical. Operators over
//! one data source are kept by what shows its segments, and are used again for as long as it shows the same.
//!
//! Invariants: only what is asked a second time is kept. A plan that is kept here holds no table, and so no segment;
//! operators are held weakly. A query
//! with a function whose value may differ from one time to the next (`now()`), or of anything but data sources (a view
//! may have changed), is always optimized anew.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use parking_lot::Mutex;

use super::lately::AskedLately;
use super::planning;
use crate::exec::{Cancel, SegmentScanExec};
use crate::table::{DataSourceTable, SegmentSource};

/// Plans that a session keeps: more than the queries of a dashboard.
const MOST_PLANS: usize = 64;

#[derive(Default)]
pub(super) struct PlanCache {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Under which the plans were made. Settings are copied before they are changed, for this holds them.
    settings: Option<Arc<ConfigOptions>>,
    asked: AskedLately,
    /// The one used longest ago first.
    plans: VecDeque<Remembered>,
}

struct Remembered {
    hash: u64,
    query: LogicalPlan,
    optimized: LogicalPlan,
    operators: Option<Operators>,
}

/// Operators over the segments that a source shows, which keeps them.
#[derive(Clone)]
struct Operators {
    source: Weak<dyn SegmentSource>,
    plan: Weak<dyn ExecutionPlan>,
}

pub(super) type Sources = HashMap<TableReference, Arc<dyn TableSource>>;

impl PlanCache {
    /// The query, analyzed and optimized.
    pub(super) fn optimize(&self, query: &LogicalPlan, state: &SessionState, cancel: &Cancel) -> Result<LogicalPlan> {
        let Some(sources) = data_sources(query)? else { return planning::optimize(query, state, cancel) };
        let hash = self.hasher.hash_one(query);
        if let Some(known) = self.kept.lock().get(hash, query, state.config().options()) {
            return with_sources(known, &sources);
        }
        let optimized = planning::optimize(query, state, cancel)?;
        let mut kept = self.kept.lock();
        if kept.asked.was_asked(hash) {
            let emptied = emptied(&sources);
            let query = with_sources(query.clone(), &emptied)?;
            let kept_plan = with_sources(optimized.clone(), &emptied)?;
            kept.put(Remembered { hash, query, optimized: kept_plan, operators: None });
        }
        Ok(optimized)
    }

    /// The operators that the query had, not begun, if its data source shows the same segments as then. Its settings are
    /// `settings`.
    pub(super) fn operators(
        &self,
        query: &LogicalPlan,
        settings: &Arc<ConfigOptions>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(source) = data_sources(query)?.as_ref().and_then(only_source) else { return Ok(None) };
        let hash = self.hasher.hash_one(query);
        let known = self.kept.lock().known(hash, query, settings).and_then(|known| known.operators.clone());
        let Some(known) = known else { return Ok(None) };
        match known.plan.upgrade() {
            // The weak one keeps the address from being used again.
            Some(plan) if std::ptr::addr_eq(known.source.as_ptr(), Arc::as_ptr(&source)) => {
                reset_plan_states(plan).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Has the operators of a query kept for the next time, if it is known and they can be used again.
    pub(super) fn keep(
        &self,
        query: &LogicalPlan,
        settings: &Arc<ConfigOptions>,
        operators: &Arc<dyn ExecutionPlan>,
    ) -> Result<()> {
        let Some(source) = data_sources(query)?.as_ref().and_then(only_source) else { return Ok(()) };
        let hash = self.hasher.hash_one(query);
        let mut kept = self.kept.lock();
        if let Some(known) = kept.known(hash, query, settings)
            && can_run_again(operators)?
        {
            source.keep(Arc::clone(operators));
            known.operators = Some(Operators { source: Arc::downgrade(&source), plan: Arc::downgrade(operators) });
        }
        Ok(())
    }
}

/// Where the segments of the only data source of a query come from.
fn only_source(sources: &Sources) -> Option<Arc<dyn SegmentSource>> {
    let mut sources = sources.values();
    let (Some(source), None) = (sources.next(), sources.next()) else { return None };
    let table = source_as_provider(source).ok()?;
    Some(Arc::clone(table.downcast_ref::<DataSourceTable>()?.source()))
}

/// Operators of which nothing is left of an execution once their state is reset.
const LASTING: &[&str] = &[
    "AggregateExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "FilterExec",
    "GlobalLimitExec",
    "LocalLimitExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "SegmentAggregateExec",
    "SegmentGroupExec",
    "SegmentScanExec",
    "SegmentTopExec",
    "SortExec",
    "SortExec(TopK)",
    "SortPreservingMergeExec",
];

/// Whether operators can be used for another execution. Not where a filter that sharpened in one would stay sharp.
fn can_run_again(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut lasts = true;
    plan.apply(|node| {
        let scan = node.downcast_ref::<SegmentScanExec>();
        lasts &= LASTING.contains(&node.name()) && scan.is_none_or(|scan| scan.dynamic_filters().is_empty());
        Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(lasts)
}

impl Kept {
    fn get(&mut self, hash: u64, query: &LogicalPlan, settings: &Arc<ConfigOptions>) -> Option<LogicalPlan> {
        Some(self.known(hash, query, settings)?.optimized.clone())
    }

    /// What is known of a query, which from now on is the one used last.
    fn known(&mut self, hash: u64, query: &LogicalPlan, settings: &Arc<ConfigOptions>) -> Option<&mut Remembered> {
        if !self.settings.as_ref().is_some_and(|made| Arc::ptr_eq(made, settings)) {
            *self = Self { settings: Some(Arc::clone(settings)), ..Self::default() };
            return None;
        }
        let place = self.plans.iter().position(|known| known.hash == hash && known.query == *query)?;
        let known = self.plans.remove(place)?;
        self.plans.push_back(known);
        self.plans.back_mut()
    }

    fn put(&mut self, plan: Remembered) {
        if self.plans.len() == MOST_PLANS {
            self.plans.pop_front();
        }
        self.plans.push_back(plan);
    }
}

/// The tables of a query by name; `None` if some of it is not a data source, or what it gives may change by itself.
pub(super) fn data_sources(query: &LogicalPlan) -> Result<Option<Sources>> {
    let mut sources = Sources::new();
    let mut lasts = true;
    query.apply_with_subqueries(|node| {
        lasts &= match node {
            LogicalPlan::TableScan(scan) => match source_as_provider(&scan.source) {
                Ok(table) if table.is::<DataSourceTable>() => {
                    sources.insert(scan.table_name.clone(), Arc::clone(&scan.source));
                    true
                }
                _ => false,
            },
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_) => true,
            _ => false,
        };
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                lasts &= !matches!(part, Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable);
                Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if lasts { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok((lasts && !sources.is_empty()).then_some(sources))
}

/// Tables that look the same and hold nothing.
pub(super) fn emptied(sources: &Sources) -> Sources {
    let emptied = |(name, source): (&TableReference, &Arc<dyn TableSource>)| {
        let empty = Arc::new(LogicalTableSource::new(source.schema())) as Arc<dyn TableSource>;
        (name.clone(), empty)
    };
    sources.iter().map(emptied).collect()
}

/// The plan over other tables of the same names.
pub(super) fn with_sources(plan: LogicalPlan, sources: &Sources) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|node| {
        Ok(match node {
            LogicalPlan::TableScan(mut scan) => match sources.get(&scan.table_name) {
                Some(source) => {
                    scan.source = Arc::clone(source);
                    Transformed::yes(LogicalPlan::TableScan(scan))
                }
                None => Transformed::no(LogicalPlan::TableScan(scan)),
            },
            other => Transformed::no(other),
        })
    })
    .data()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringViewArray, TimestampMillisecondArray};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::catalog::{
        CatalogProvider, MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider, TableProvider,
    };
    use futures::TryStreamExt;

    use super::*;
    use crate::model::{ColumnSchema, ColumnType, Interval, MetricCombine, SegmentId, SegmentSchema, SegmentUid};
    use crate::segment::memory::MemorySegment;
    use crate::session::{Runtime, RuntimeOptions, SCHEMA, Session, SessionOptions};
    use crate::table::{DataSourceTable, FixedSource, VisibleSegment};

    const EDITS: &str = "SELECT page, sum(added) FROM edits WHERE page <> 'b' GROUP BY page ORDER BY page";

    fn edits(rows: &[(&str, i64)], with_user: bool) -> Arc<dyn TableProvider> {
        let mut columns = vec![ColumnSchema::dimension("page", ColumnType::String)];
        let pages = rows.iter().map(|(page, _)| Some(*page)).collect::<StringViewArray>();
        let added = Int64Array::from_iter_values(rows.iter().map(|(_, added)| *added));
        let times = TimestampMillisecondArray::from_iter_values(0..rows.len() as i64);
        let mut arrays: Vec<(&str, arrow::array::ArrayRef)> =
            vec![("__time", Arc::new(times)), ("page", Arc::new(pages.clone()))];
        if with_user {
            columns.push(ColumnSchema::dimension("user", ColumnType::String));
            arrays.push(("user", Arc::new(pages)));
        }
        columns.push(ColumnSchema::metric("added", ColumnType::Long, MetricCombine::Sum));
        arrays.push(("added", Arc::new(added)));
        let schema = Arc::new(SegmentSchema::new(columns).unwrap());
        let batch = RecordBatch::try_from_iter(arrays).unwrap();
        let segment = Arc::new(MemorySegment::from_batches(Arc::clone(&schema), &[batch]).unwrap());
        let interval = Interval::ETERNITY;
        let id = SegmentId { data_source: "edits".into(), interval, version: "1".into(), partition: 0 };
        let segment = VisibleSegment { id: Arc::new(id), uid: SegmentUid::numbered(0), clip: interval, segment };
        Arc::new(DataSourceTable::new("edits", Arc::new(FixedSource::new(schema, vec![segment]))))
    }

    struct Fixture {
        tables: Arc<MemorySchemaProvider>,
        session: Session,
    }

    impl Fixture {
        fn new() -> Self {
            let tables = Arc::new(MemorySchemaProvider::new());
            tables.register_table("edits".to_owned(), edits(&[("a", 1), ("b", 2), ("a", 3)], false)).unwrap();
            let catalog = MemoryCatalogProvider::new();
            catalog.register_schema(SCHEMA, Arc::clone(&tables) as _).unwrap();
            let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
            let session = Session::new(&runtime, Arc::new(catalog), SessionOptions::default());
            Self { tables, session }
        }

        fn replace(&self, table: Arc<dyn TableProvider>) {
            self.tables.deregister_table("edits").unwrap();
            self.tables.register_table("edits".to_owned(), table).unwrap();
        }

        async fn ask(&self, sql: &str) -> String {
            let statement = self.session.parse(sql).unwrap().remove(0);
            let plan = self.session.plan(statement).await.unwrap();
            let batches = self.session.execute(plan).await.unwrap().try_collect::<Vec<_>>().await.unwrap();
            pretty_format_batches(&batches).unwrap().to_string()
        }

        fn plans(&self) -> usize {
            self.session.plans.kept.lock().plans.len()
        }
    }

    #[tokio::test]
    async fn a_query_asked_again_has_its_plan_and_the_rows_of_now() {
        let fixture = Fixture::new();
        let first = fixture.ask(EDITS).await;
        assert!(first.contains("| a    | 4 "), "{first}");
        assert_eq!(fixture.plans(), 0, "once is not again");
        assert_eq!(fixture.ask(EDITS).await, first);
        assert_eq!(fixture.plans(), 1);
        assert_eq!(fixture.ask(EDITS).await, first);
        fixture.replace(edits(&[("a", 5), ("c", 7)], false));
        let later = fixture.ask(EDITS).await;
        assert!(later.contains("| a    | 5 ") && later.contains("| c    | 7 "), "{later}");
        assert_eq!(fixture.plans(), 1);
        // Another question is not the same.
        let other = fixture.ask(&EDITS.replace("'b'", "'a'")).await;
        assert!(other.contains("| c    | 7 ") && !other.contains("| a "), "{other}");
    }

    #[tokio::test]
    async fn a_plan_does_not_keep_the_segments_that_it_was_made_for() {
        let fixture = Fixture::new();
        let table = edits(&[("a", 1)], false);
        let held = Arc::downgrade(&table);
        fixture.replace(table);
        for _ in 0..3 {
            fixture.ask(EDITS).await;
        }
        assert_eq!(fixture.plans(), 1);
        fixture.replace(edits(&[("a", 2)], false));
        assert!(held.upgrade().is_none());
    }

    /// The operators kept for a query, if its data source still shows the same segments.
    async fn operators(fixture: &Fixture, sql: &str) -> Option<Arc<dyn ExecutionPlan>> {
        let statement = fixture.session.parse(sql).unwrap().remove(0);
        let plan = fixture.session.plan(statement).await.unwrap();
        let settings = Arc::clone(fixture.session.context().state_ref().read().config().options());
        fixture.session.plans.operators(&plan, &settings).unwrap()
    }

    #[tokio::test]
    async fn operators_are_used_again_over_the_same_segments() {
        let fixture = Fixture::new();
        let top = "SELECT __time, page FROM edits ORDER BY __time DESC, page LIMIT 2";
        for sql in [EDITS, "SELECT count(*) FROM edits", "SELECT * FROM edits WHERE page = 'a' LIMIT 1", top] {
            let first = fixture.ask(sql).await;
            assert!(operators(&fixture, sql).await.is_none(), "{sql}");
            for _ in 0..4 {
                assert_eq!(fixture.ask(sql).await, first);
            }
            assert!(operators(&fixture, sql).await.is_some(), "{sql}");
            let (a, b) = futures::join!(fixture.ask(sql), fixture.ask(sql));
            assert_eq!((&a, &b), (&first, &first), "{sql}");
        }
        fixture.replace(edits(&[("a", 5), ("c", 7)], false));
        assert!(operators(&fixture, EDITS).await.is_none());
        assert!(fixture.ask(EDITS).await.contains("| a    | 5 "));
        assert!(operators(&fixture, EDITS).await.is_some());
        fixture.ask("SET henge.segment_top = off").await;
        assert!(operators(&fixture, EDITS).await.is_none());
    }

    #[tokio::test]
    async fn a_bound_statement_means_what_its_names_mean_now() {
        let fixture = Fixture::new();
        for _ in 0..3 {
            assert!(fixture.ask(EDITS).await.contains("| a    | 4 "));
        }
        assert_eq!(fixture.session.statements.len(), 1);
        // A table of the session comes before the data source of that name.
        fixture.ask("CREATE TEMP TABLE edits AS SELECT 'mine' AS page, 9 AS added").await;
        for _ in 0..3 {
            assert!(fixture.ask(EDITS).await.contains("| mine | 9 "));
        }
        fixture.ask("DROP TABLE edits").await;
        assert!(fixture.ask(EDITS).await.contains("| a    | 4 "));
        // A name in other letters might come to mean another table; one of a subquery is not a table's.
        for sql in [
            "SELECT count(*) FROM \"Edits\"",
            "WITH e AS (SELECT page FROM edits) SELECT count(*) FROM e",
            "SELECT count(*) FROM edits WHERE __time < now()",
        ] {
            for _ in 0..3 {
                assert!(fixture.ask(sql).await.contains("| 3 "), "{sql}");
            }
            assert_eq!(fixture.session.statements.len(), 1, "{sql}");
        }
        fixture.tables.deregister_table("edits").unwrap();
        let statement = fixture.session.parse(EDITS).unwrap().remove(0);
        assert!(fixture.session.plan(statement).await.unwrap_err().to_string().contains("edits"));
    }

    #[tokio::test]
    async fn operators_whose_filters_sharpen_are_not_kept() {
        let fixture = Fixture::new();
        fixture.ask("SET henge.segment_top = off").await;
        let latest = "SELECT page, added FROM edits ORDER BY added DESC LIMIT 1";
        for _ in 0..4 {
            assert!(fixture.ask(latest).await.contains("| a    | 3 "));
        }
        assert!(operators(&fixture, latest).await.is_none());
    }

    #[tokio::test]
    async fn a_table_of_other_columns_is_planned_anew() {
        let fixture = Fixture::new();
        let all = "SELECT * FROM edits ORDER BY __time";
        for _ in 0..3 {
            assert!(!fixture.ask(all).await.contains("user"));
        }
        fixture.replace(edits(&[("a", 1)], true));
        for _ in 0..3 {
            assert!(fixture.ask(all).await.contains("user"));
            assert!(fixture.ask(EDITS).await.contains("| a    | 1 "));
        }
    }

    #[tokio::test]
    async fn other_settings_make_other_plans() {
        let fixture = Fixture::new();
        for _ in 0..2 {
            fixture.ask(EDITS).await;
        }
        assert_eq!(fixture.plans(), 1);
        fixture.ask("SET henge.segment_group = false").await;
        fixture.ask(EDITS).await;
        assert_eq!(fixture.plans(), 0);
    }

    #[tokio::test]
    async fn what_changes_by_itself_is_not_kept() {
        let fixture = Fixture::new();
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
        let other = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).unwrap());
        fixture.tables.register_table("other".to_owned(), other).unwrap();
        for sql in [
            "SELECT count(*) FROM edits WHERE __time < now()",
            "SELECT count(*) FROM edits WHERE added = (SELECT max(n) FROM other)",
            "SELECT n FROM other",
            "SELECT 1",
        ] {
            for _ in 0..3 {
                fixture.ask(sql).await;
            }
            assert_eq!(fixture.plans(), 0, "{sql}");
        }
    }
}
