//! Optimized plans of queries that a session asks again and again.
//!
//! How a query is optimized hangs on the query itself, on what its tables look like and on the session's settings. So an
//! equal query of data sources, under the same settings, has the optimized plan that it had before, with its tables as
//! they are now in the place of those of then. Segments are chosen later, when the plan is made physical.
//!
//! Invariants: only what is asked a second time is kept. A plan that is kept holds no table, and so no segment. A query
//! with a function whose value may differ from one time to the next (`now()`), or of anything but data sources (a view
//! may have changed), is always optimized anew.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::logical_plan::builder::LogicalTableSource;
use datafusion::logical_expr::{Expr, LogicalPlan, TableSource, Volatility};

use parking_lot::Mutex;

use super::planning;
use crate::exec::Cancel;
use crate::table::DataSourceTable;

/// Plans that a session keeps: more than the queries of a dashboard.
const MOST_PLANS: usize = 32;

/// Queries that were asked once, of which no more is known.
const MOST_ASKED: usize = 256;

#[derive(Default)]
pub(super) struct PlanCache {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Under which the plans were made. Settings are copied before they are changed, for this holds them.
    settings: Option<Arc<ConfigOptions>>,
    /// Hashes of queries asked, the oldest first.
    asked: VecDeque<u64>,
    /// The one used longest ago first.
    plans: VecDeque<Remembered>,
}

struct Remembered {
    hash: u64,
    query: LogicalPlan,
    optimized: LogicalPlan,
}

type Sources = HashMap<TableReference, Arc<dyn TableSource>>;

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
        if kept.was_asked(hash) {
            let emptied = |(name, source): (&TableReference, &Arc<dyn TableSource>)| {
                let empty = Arc::new(LogicalTableSource::new(source.schema())) as Arc<dyn TableSource>;
                (name.clone(), empty)
            };
            let emptied = sources.iter().map(emptied).collect();
            let query = with_sources(query.clone(), &emptied)?;
            let kept_plan = with_sources(optimized.clone(), &emptied)?;
            kept.put(Remembered { hash, query, optimized: kept_plan });
        }
        Ok(optimized)
    }
}

impl Kept {
    fn get(&mut self, hash: u64, query: &LogicalPlan, settings: &Arc<ConfigOptions>) -> Option<LogicalPlan> {
        if !self.settings.as_ref().is_some_and(|made| Arc::ptr_eq(made, settings)) {
            *self = Self { settings: Some(Arc::clone(settings)), ..Self::default() };
            return None;
        }
        let place = self.plans.iter().position(|known| known.hash == hash && known.query == *query)?;
        let known = self.plans.remove(place)?;
        let optimized = known.optimized.clone();
        self.plans.push_back(known);
        Some(optimized)
    }

    /// Whether a query was asked lately. From now on it was.
    fn was_asked(&mut self, hash: u64) -> bool {
        if self.asked.contains(&hash) {
            return true;
        }
        if self.asked.len() == MOST_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(hash);
        false
    }

    fn put(&mut self, plan: Remembered) {
        if self.plans.len() == MOST_PLANS {
            self.plans.pop_front();
        }
        self.plans.push_back(plan);
    }
}

/// The tables of a query by name; `None` if some of it is not a data source, or what it gives may change by itself.
fn data_sources(query: &LogicalPlan) -> Result<Option<Sources>> {
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

/// The plan over other tables of the same names.
fn with_sources(plan: LogicalPlan, sources: &Sources) -> Result<LogicalPlan> {
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
