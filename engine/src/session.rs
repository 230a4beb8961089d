//! The only place where a DataFusion session is put together.
//!
//! Owns what a statement goes through before DataFusion sees it (parsing, the list of statements that are allowed,
//! PostgreSQL's and Druid's spellings, names to columns) and after ([`error_from_datafusion`]). One [`Runtime`] is
//! shared by all sessions of a process and bounds what they use; a [`Session`] belongs to one connection.
//!
//! Invariants: a statement that could write a file, make an object or change what another session sees never reaches
//! the planner, but for tables and views of the session itself. Every name that reaches the planner is spelled as its column, table or alias is. What may be set is
//! set for one session only.

mod admission;
mod bind;
mod bound_cache;
mod cancel;
#[cfg(feature = "distributed")]
mod cluster;
mod date_arithmetic;
mod depth;
mod dialect;
mod error;
mod explain;
mod insert;
mod json;
mod label;
mod lately;
mod plan_cache;
mod planning;
mod rule;
mod series;
mod spelling;
mod statement;
mod temporary;
mod time_type;
mod variable;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProviderList};
use datafusion::common::TableReference;
use datafusion::common::config::{ConfigOptions, Dialect as ParserDialect};
#[cfg(feature = "distributed")]
use datafusion::datasource::MemTable;
use datafusion::error::Result as PlanResult;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryPool, TrackConsumersPool, UnboundedMemoryPool,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::optimizer::Analyzer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as PlannerStatement;
use futures::StreamExt;
use parking_lot::Mutex;

pub use datafusion::sql::sqlparser::ast::Statement;

pub use self::admission::QueryLimits;
use self::admission::{Admission, Admitted};
use self::bound_cache::{Asked, BoundCache};
use self::cancel::Canceling;
pub use self::depth::STACK_BYTES;
pub use self::error::error_from_datafusion;
pub use self::insert::RowWriter;
pub use self::label::output_label;
use self::plan_cache::PlanCache;
pub use self::temporary::TEMPORARY_SCHEMA;
use self::temporary::{Adopted, Temporary, WithTemporary};
pub use self::variable::{HengeOptions, SqlDialect};
use crate::error::{Error, Result};
pub use crate::exec::Cancel;
use crate::exec::{OrdinalCache, PredicateCache};
pub use crate::function::json::JsonKind;
use crate::optimizer;

/// The catalog of every session: the database, as PostgreSQL's clients see it.
pub const CATALOG: &str = "henge";
/// The schema of the data sources, and the one that an unqualified name is looked up in.
pub const SCHEMA: &str = "druid";

/// Adds Henge's functions, aggregates and rules to a session that a program puts together itself, so that our tables
/// keep their pushdown there and overflow stays an error. Settings, parser and catalogs stay the program's own.
///
/// Call it after `with_default_features`, since it replaces some of DataFusion's functions by name.
pub fn install(mut builder: SessionStateBuilder) -> SessionStateBuilder {
    builder.scalar_functions().get_or_insert_with(Vec::new).extend(crate::function::all());
    builder.aggregate_functions().get_or_insert_with(Vec::new).extend(crate::aggregate::all());
    let mut config = builder.config().take().unwrap_or_default();
    if config.get_extension::<OrdinalCache>().is_none() {
        config = config.with_extension(Arc::new(OrdinalCache::default()));
    }
    if config.get_extension::<PredicateCache>().is_none() {
        config = config.with_extension(Arc::new(PredicateCache::default()));
    }
    builder = match config.options().extensions.get::<HengeOptions>() {
        Some(_) => builder.with_config(config),
        None => builder.with_config(config.with_option_extension(HengeOptions::default())),
    };
    rule::add(builder.analyzer().get_or_insert_with(Analyzer::default));
    let physical = builder.physical_optimizers().take().unwrap_or_default();
    *builder.physical_optimizers() = Some(PhysicalOptimizer::with_rules(optimizer::with_ours(physical.rules)));
    builder
}

/// What all sessions of a process share and are bounded by.
#[derive(Clone, Debug, Default)]
pub struct RuntimeOptions {
    /// How many bytes all running queries may hold in memory together; `None` for no limit. Sorts, joins and
    /// groupings that would exceed their share spill; what cannot spill fails with `CapacityExceeded`.
    pub memory_limit_bytes: Option<usize>,
    /// Where they spill to; `None` for the system's directory for temporary files.
    pub spill_dir: Option<PathBuf>,
    /// How many bytes may be spilled at any time; `None` for DataFusion's default, 100 GB.
    pub spill_limit_bytes: Option<u64>,
    /// How many cores one query uses; `None` for all.
    pub target_partitions: Option<NonZeroUsize>,
    /// Rows a batch; `None` for 8192.
    pub batch_size: Option<NonZeroUsize>,
    /// How many queries run at one time; `None` for no limit.
    pub queries: Option<QueryLimits>,
}

/// Memory, spilling and settings shared by all sessions of a process.
pub struct Runtime {
    /// Everything but the catalogs, which each session has of its own.
    template: SessionState,
    admission: Arc<Admission>,
    #[cfg(feature = "distributed")]
    broker: Option<Arc<crate::distributed::Broker>>,
}

impl Runtime {
    /// Fails if the directory for spilled data cannot be used.
    pub fn new(options: RuntimeOptions) -> Result<Arc<Self>> {
        let builder = builder(config(&options), environment(&options)?);
        Ok(Arc::new(Self {
            template: builder.build(),
            admission: Arc::new(Admission::new(options.queries)),
            #[cfg(feature = "distributed")]
            broker: None,
        }))
    }

    /// The memory pool and the spilled files, for a gauge of what is in use.
    pub fn environment(&self) -> &Arc<RuntimeEnv> {
        self.template.runtime_env()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("environment", self.environment()).finish_non_exhaustive()
    }
}

fn builder(config: SessionConfig, environment: Arc<RuntimeEnv>) -> SessionStateBuilder {
    let mut builder = SessionStateBuilder::new_with_default_features()
        .with_config(config)
        .with_type_planner(Arc::new(time_type::PostgresTimes))
        .with_runtime_env(environment);
    let planners = builder.expr_planners().get_or_insert_default();
    planners.insert(0, Arc::new(date_arithmetic::DateAndInterval));
    planners.insert(0, Arc::new(json::Documents));
    if let Some(functions) = builder.table_functions()
        && let Some(theirs) = functions.get("generate_series")
    {
        let ours = series::generate_series(theirs);
        functions.insert("generate_series".to_owned(), ours);
    }
    install(builder)
}

fn environment(options: &RuntimeOptions) -> Result<Arc<RuntimeEnv>> {
    let mode = match &options.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let mut disk = DiskManagerBuilder::default().with_mode(mode);
    if let Some(limit) = options.spill_limit_bytes {
        disk = disk.with_max_temp_directory_size(limit);
    }
    let pool: Arc<dyn MemoryPool> = match options.memory_limit_bytes {
        Some(limit) => {
            let named = const { NonZeroUsize::new(3).expect("three is not zero") };
            Arc::new(TrackConsumersPool::new(FairSpillPool::new(limit), named))
        }
        None => Arc::new(UnboundedMemoryPool::default()),
    };
    RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(error_from_datafusion)
}

fn config(options: &RuntimeOptions) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_option_extension(HengeOptions::default());
    if let Some(partitions) = options.target_partitions {
        config = config.with_target_partitions(partitions.get());
    }
    if let Some(rows) = options.batch_size {
        config = config.with_batch_size(rows.get());
    }
    let sql = &mut config.options_mut().sql_parser;
    sql.dialect = ParserDialect::PostgreSQL;
    sql.collect_spans = true;
    // `now()` and literals with a zone are instants in UTC, so that they compare with `__time` unchanged.
    config.options_mut().execution.time_zone = Some("+00:00".to_string());
    config
}

/// Who a session is for, and how it reads SQL.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The login that `current_user` gives.
    pub user: String,
    pub dialect: SqlDialect,
    /// Whether `COUNT(DISTINCT x)` is counted by a sketch; `None` for what the dialect does: Druid's does, PostgreSQL's
    /// does not.
    pub approximate_count_distinct: Option<bool>,
    /// Asked first about every statement; the server's changes to the queries that PostgreSQL's tools send.
    pub rewriters: Vec<Arc<dyn StatementRewriter>>,
    /// The schemas in which an unqualified table is looked for after [`TEMPORARY_SCHEMA`] and [`SCHEMA`].
    pub search_path: Vec<String>,
    /// Whether it may make tables and views of its own. Of no use to a session of one statement.
    pub temporary: bool,
    /// Who takes rows that are inserted into data sources; without one that is refused.
    pub writer: Option<Arc<dyn RowWriter>>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            user: CATALOG.to_string(),
            dialect: SqlDialect::PostgreSql,
            approximate_count_distinct: None,
            rewriters: Vec::new(),
            search_path: vec!["pg_catalog".to_string()],
            temporary: true,
            writer: None,
        }
    }
}

/// Changes a statement before names are looked up in it. It sees what the person wrote.
pub trait StatementRewriter: fmt::Debug + Send + Sync {
    fn rewrite(&self, statement: Statement) -> Result<Statement>;
}

/// One connection's session: its settings are its own, what it may use is the [`Runtime`]'s. Cheap to make.
pub struct Session {
    context: SessionContext,
    options: SessionOptions,
    temporary: Temporary,
    statements: BoundCache,
    plans: PlanCache,
    admission: Arc<Admission>,
    /// What its queries tell whoever asked, beside their rows.
    notices: Arc<Mutex<Vec<String>>>,
    #[cfg(feature = "distributed")]
    broker: Option<Arc<crate::distributed::Broker>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    /// A session over `schemas` as the catalog [`CATALOG`].
    pub fn new(runtime: &Arc<Runtime>, schemas: Arc<dyn CatalogProvider>, options: SessionOptions) -> Self {
        let temporary = Temporary::default();
        let schemas = Arc::new(WithTemporary { schemas, temporary: temporary.schema() });
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_string(), schemas);
        let mut state = runtime.template.clone();
        state.register_catalog_list(Arc::new(catalogs));
        let mut settings = HengeOptions::of_dialect(options.dialect);
        settings.elsewhere = HengeOptions::of(state.config_options()).elsewhere;
        if let Some(approximate) = options.approximate_count_distinct {
            settings.approximate_count_distinct = approximate;
        }
        state.config_mut().options_mut().extensions.insert(settings);
        Self {
            context: SessionContext::new_with_state(state),
            options,
            temporary,
            statements: BoundCache::default(),
            plans: PlanCache::default(),
            admission: Arc::clone(&runtime.admission),
            notices: Arc::default(),
            #[cfg(feature = "distributed")]
            broker: runtime.broker.as_ref().map(Arc::clone),
        }
    }

    /// The statements of a text, in PostgreSQL's dialect with Druid's additions. An empty text has none.
    /// A syntax error says where.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        statement::parse(sql)
    }

    /// What a statement does, ready to [`Self::execute`]. Statements that write, make or drop anything but tables and
    /// views of the session are refused; transactions, cursors and PostgreSQL's own settings are the server's.
    ///
    /// The fields of the plan's schema have unique names; what a column is called is [`output_label`]'s answer. What the
    /// answer looks like is [`Self::output_schema`]'s.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        self.plan_until(statement, &Cancel::default()).await
    }

    /// The same, of a statement that `cancel` can end from elsewhere while it is planned.
    pub async fn plan_until(&self, statement: Statement, cancel: &Cancel) -> Result<LogicalPlan> {
        self.plan_within(statement, 0, cancel).await
    }

    /// Plans a statement that lies within so many views.
    async fn plan_within(&self, mut statement: Statement, depth: usize, cancel: &Cancel) -> Result<LogicalPlan> {
        for rewriter in &self.options.rewriters {
            statement = rewriter.rewrite(statement)?;
        }
        if !matches!(statement, Statement::Query(_)) {
            return self.plan_anew(statement, depth, cancel).await;
        }
        match self.asked(&statement).await? {
            Asked::Bound(plan) => Ok(*plan),
            Asked::Again(hash, asked) => {
                let plan = self.plan_anew(statement, depth, cancel).await?;
                self.statements.keep(hash, *asked, &plan).map_err(error_from_datafusion)?;
                Ok(plan)
            }
            Asked::Anew => self.plan_anew(statement, depth, cancel).await,
        }
    }

    /// What is known of a query. Nothing while the session has tables and views of its own.
    async fn asked(&self, statement: &Statement) -> Result<Asked> {
        let schema = self.context.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA));
        let Some(tables) = schema.filter(|_| self.temporary.is_empty()) else { return Ok(Asked::Anew) };
        let asked = self.statements.ask(statement, &self.settings(), tables.as_ref()).await;
        asked.map_err(error_from_datafusion)
    }

    fn settings(&self) -> Arc<ConfigOptions> {
        Arc::clone(self.context.state_ref().read().config().options())
    }

    async fn plan_anew(&self, mut statement: Statement, depth: usize, cancel: &Cancel) -> Result<LogicalPlan> {
        if let Some(plan) = variable::plan(&self.context, &statement)? {
            return Ok(plan);
        }
        let format = explain::take_options(&mut statement)?;
        let adopted = self.adopt(&mut statement)?;
        let inserts = adopted == Adopted::No && self.adopt_insert(&mut statement).await?;
        statement::check(&statement, inserts || adopted != Adopted::No)?;
        self.refresh_views(&statement, depth, cancel).await?;
        let mut state = self.context.state();
        planning::watch(&mut state, cancel).map_err(error_from_datafusion)?;
        let settings = HengeOptions::of(state.config_options());
        spelling::rewrite(&mut statement, &settings, &state)?;
        let nulls = match settings.dialect {
            SqlDialect::PostgreSql => "nulls_max",
            SqlDialect::Druid => "nulls_min",
        };
        state.config_mut().options_mut().sql_parser.default_null_ordering = nulls.to_owned();
        let labels = bind::bind(&mut statement, &state, &self.options).await?;
        let plan = state.statement_to_plan(PlannerStatement::Statement(Box::new(statement))).await;
        let mut plan = label::attach(plan.map_err(error_from_datafusion)?, labels)?;
        if format == explain::Format::Json {
            explain::in_json(&mut plan);
        }
        if let (Adopted::View(text), LogicalPlan::Ddl(DdlStatement::CreateView(view))) = (adopted, &mut plan) {
            view.definition = Some(text);
        }
        Ok(plan)
    }

    fn adopt(&self, statement: &mut Statement) -> Result<Adopted> {
        if !self.options.temporary {
            return Ok(Adopted::No);
        }
        let schema = self.context.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA));
        self.temporary.adopt(statement, |name| schema.as_ref().is_some_and(|schema| schema.table_exist(name)))
    }

    /// Whether a statement inserts into a data source, and may.
    async fn adopt_insert(&self, statement: &mut Statement) -> Result<bool> {
        let schema = self.context.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA));
        match (&self.options.writer, schema) {
            (Some(_), Some(schema)) => insert::adopt(statement, schema.as_ref()).await,
            _ => Ok(false),
        }
    }

    /// Plans the views of the session that a statement uses, over what is there now.
    async fn refresh_views(&self, statement: &Statement, depth: usize, cancel: &Cancel) -> Result<()> {
        for (name, text) in self.temporary.views_of(statement) {
            if depth >= temporary::VIEW_DEPTH {
                let message = format!("view `{name}` lies within too many views, or within itself");
                return Err(Error::invalid_input(message).with_sqlstate("42P17"));
            }
            let Some(query) = self.parse(&text)?.pop() else { continue };
            let plan = Box::pin(self.plan_within(query, depth + 1, cancel)).await?;
            self.temporary.show_view(&name, plan, &text)?;
        }
        Ok(())
    }

    /// What the rows of an answer look like; `None` if a plan gives no rows but does something.
    pub fn output_schema(&self, plan: &LogicalPlan) -> Option<SchemaRef> {
        match plan {
            LogicalPlan::Statement(_) | LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) => None,
            plan if self.explains(plan) => Some(explain::schema()),
            plan => Some(Arc::clone(plan.schema().inner())),
        }
    }

    /// PostgreSQL shows a plan line by line; Druid's dialect leaves it as DataFusion has it.
    fn explains(&self, plan: &LogicalPlan) -> bool {
        let settings = HengeOptions::of(self.context.state_ref().read().config_options());
        settings.dialect == SqlDialect::PostgreSql && explain::is_text(plan)
    }

    /// The answer, batch by batch. Dropping the stream ends the query. A plan that gives no rows but makes or fills
    /// something has done it once this returns; the answer then is as many rows without columns as it has put in.
    pub async fn execute(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream> {
        self.execute_until(plan, &Cancel::default()).await
    }

    /// The same, of a query that `cancel` can end from elsewhere.
    pub async fn execute_until(&self, plan: LogicalPlan, cancel: &Cancel) -> Result<SendableRecordBatchStream> {
        match &plan {
            LogicalPlan::Ddl(ddl) => one_batch(temporary::counted(self.define(ddl, cancel).await?)?),
            LogicalPlan::Dml(dml) => {
                let batches = self.collect(dml.input.as_ref().clone(), cancel).await?;
                let rows = batches.iter().map(RecordBatch::num_rows).sum();
                match &self.options.writer {
                    Some(writer) if insert::is_into_data_source(&dml.table_name) => {
                        writer.insert(dml.table_name.table(), batches).await?;
                    }
                    _ => self.temporary.insert(&dml.table_name, batches)?,
                }
                one_batch(temporary::counted(rows)?)
            }
            _ if self.explains(&plan) => {
                let kind = explain::Kind::of(&plan);
                #[cfg(feature = "distributed")]
                if let (Some(broker), LogicalPlan::Explain(explain), explain::Kind::Plan) = (&self.broker, &plan, kind)
                {
                    let text = cluster::explain(self, broker, &explain.plan, cancel).await?;
                    return one_batch(explain::text(&text)?);
                }
                one_batch(explain::lines(&self.collect(plan, cancel).await?, kind)?)
            }
            _ => self.stream(plan, cancel).await,
        }
    }

    /// Makes or drops something of the session. Says how many rows were put into it.
    async fn define(&self, ddl: &DdlStatement, cancel: &Cancel) -> Result<usize> {
        match ddl {
            DdlStatement::CreateMemoryTable(table) => {
                if !self.temporary.may_create(&table.name, table.if_not_exists)? {
                    return Ok(0);
                }
                let batches = self.collect(table.input.as_ref().clone(), cancel).await?;
                let rows = batches.iter().map(RecordBatch::num_rows).sum();
                let pool = &self.context.runtime_env().memory_pool;
                self.temporary.create_table(&table.name, table.input.schema().as_arrow(), batches, pool)?;
                Ok(rows)
            }
            DdlStatement::CreateView(view) => {
                let text = view.definition.as_deref().unwrap_or_default();
                self.temporary.create_view(&view.name, &view.input, text, view.or_replace)?;
                Ok(0)
            }
            DdlStatement::DropTable(table) => self.temporary.drop_object(&table.name, table.if_exists).map(|()| 0),
            DdlStatement::DropView(view) => self.temporary.drop_object(&view.name, view.if_exists).map(|()| 0),
            other => Err(Error::defensive(format!("`{}` was planned", other.name()))),
        }
    }

    /// Adds rows with some columns of a temporary table, in any order; the others are null. All of them or, if one of `rows` is
    /// an error or there is no memory for them, none. Says how many.
    pub fn append_temporary(
        &self,
        table: &TableReference,
        rows: impl Iterator<Item = Result<RecordBatch>>,
    ) -> Result<usize> {
        let held = MemoryConsumer::new("rows of a statement").register(&self.context.runtime_env().memory_pool);
        let mut batches = Vec::new();
        for batch in rows {
            let batch = batch?;
            held.try_grow(batch.get_array_memory_size()).map_err(error_from_datafusion)?;
            batches.push(batch);
        }
        // They are the table's from here on.
        drop(held);
        self.temporary.append(table, &batches)?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }

    /// Drops and empties the tables that were made `ON COMMIT DROP` and `ON COMMIT DELETE ROWS`. The server says when a
    /// transaction ends, however it ends.
    pub fn end_of_transaction(&self) -> Result<()> {
        self.temporary.end_of_transaction()
    }

    /// Forgets the tables and views that the session has made.
    pub fn drop_temporary(&self) {
        self.temporary.clear();
    }

    async fn stream(&self, plan: LogicalPlan, cancel: &Cancel) -> Result<SendableRecordBatchStream> {
        let turn = self.admission.enter(&plan, cancel).await?;
        let stream = self.run(plan, cancel).await?;
        Ok(if turn.is_some() { Box::pin(Admitted { stream, turn }) } else { stream })
    }

    async fn run(&self, plan: LogicalPlan, cancel: &Cancel) -> Result<SendableRecordBatchStream> {
        #[cfg(feature = "distributed")]
        if let (Some(broker), false) = (&self.broker, matches!(plan, LogicalPlan::Statement(_) | LogicalPlan::Ddl(_))) {
            return cluster::stream(self, broker, plan, cancel).await;
        }
        let (config, plan) = self.physical(plan, cancel).await.map_err(error_from_datafusion)?;
        let plan = cancel::watch(plan, cancel)?;
        let context = Arc::new(self.task(config.with_extension(Arc::new(cancel.clone()))));
        let stream = execute_stream(plan, context).map_err(error_from_datafusion)?;
        Ok(Box::pin(Canceling { stream, cancel: cancel.clone() }))
    }

    /// The operators of a plan, and the settings that they run under.
    async fn physical(
        &self,
        plan: LogicalPlan,
        cancel: &Cancel,
    ) -> PlanResult<(SessionConfig, Arc<dyn ExecutionPlan>)> {
        if matches!(plan, LogicalPlan::Statement(_) | LogicalPlan::Ddl(_)) {
            let (state, plan) = self.context.execute_logical_plan(plan).await?.into_parts();
            let operators = state.create_physical_plan(&plan).await?;
            return Ok((state.config().clone(), operators));
        }
        let config = self.context.state_ref().read().config().clone();
        if let Some(operators) = self.plans.operators(&plan, config.options())? {
            return Ok((config, operators));
        }
        let state = self.context.state();
        let optimized = self.plans.optimize(&plan, &state, cancel)?;
        cancel.check()?;
        let operators = state.query_planner().create_physical_plan(&optimized, &state).await?;
        self.plans.keep(&plan, config.options(), &operators)?;
        Ok((config, operators))
    }

    /// What operators run in. They have their functions; only what comes over a network looks for them by name.
    fn task(&self, config: SessionConfig) -> TaskContext {
        let (functions, lambdas, aggregates, windows) = Default::default();
        let runtime = self.context.runtime_env();
        TaskContext::new(None, self.context.session_id(), config, functions, lambdas, aggregates, windows, runtime)
    }

    async fn collect(&self, plan: LogicalPlan, cancel: &Cancel) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let mut stream = self.stream(plan, cancel).await?;
        let held = MemoryConsumer::new("rows of a statement").register(&self.context.runtime_env().memory_pool);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(error_from_datafusion)?;
            held.try_grow(batch.get_array_memory_size()).map_err(error_from_datafusion)?;
            batches.push(batch);
        }
        Ok(batches)
    }

    /// One statement as a frame, for programs that go on from there.
    pub async fn sql(&self, sql: &str) -> Result<DataFrame> {
        let mut statements = self.parse(sql)?;
        let Some(statement) = statements.pop() else {
            return Err(Error::invalid_input("the text holds no statement").with_sqlstate("42601"));
        };
        if !statements.is_empty() {
            return Err(Error::invalid_input("the text holds more than one statement; send them one by one")
                .with_sqlstate("42601"));
        }
        let plan = self.plan(statement).await?;
        if matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Dml(_)) {
            self.execute(plan).await?;
            return self.context.read_empty().map_err(error_from_datafusion);
        }
        #[cfg(feature = "distributed")]
        if self.broker.is_some() && !matches!(plan, LogicalPlan::Statement(_)) {
            // A frame cannot try again on other workers, so it is one of rows that are there.
            let schema = Arc::clone(plan.schema().inner());
            let batches = self.collect(plan, &Cancel::default()).await?;
            let schema = batches.first().map_or(schema, RecordBatch::schema);
            let rows = MemTable::try_new(schema, vec![batches]).map_err(error_from_datafusion)?;
            return self.context.read_table(Arc::new(rows)).map_err(error_from_datafusion);
        }
        self.context.execute_logical_plan(plan).await.map_err(error_from_datafusion)
    }

    /// What queries had to say since this was asked last, such as that an answer is not whole.
    pub fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock())
    }

    /// DataFusion's own context, to register functions in. Statements given to it directly skip this room's rules.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    pub fn options(&self) -> &SessionOptions {
        &self.options
    }
}

fn one_batch(batch: RecordBatch) -> Result<SendableRecordBatchStream> {
    let stream = MemoryStream::try_new(vec![batch.clone()], batch.schema(), None).map_err(error_from_datafusion)?;
    Ok(Box::pin(stream))
}

#[cfg(test)]
mod tests;
