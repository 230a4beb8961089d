//! The only place where a DataFusion session is put together.
//!
//! Owns what a statement goes through before DataFusion sees it (parsing, the list of statements that are allowed,
//! PostgreSQL's and Druid's spellings, names to columns) and after ([`error_from_datafusion`]). One [`Runtime`] is
//! shared by all sessions of a process and bounds what they use; a [`Session`] belongs to one connection.
//!
//! Invariants: a statement that could write a file, make an object or change what another session sees never reaches
//! the planner. Every name that reaches the planner is spelled as its column, table or alias is. What may be set is
//! set for one session only.

mod bind;
mod error;
mod label;
mod rule;
mod spelling;
mod statement;
mod time_type;
mod variable;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProviderList};
use datafusion::common::config::Dialect as ParserDialect;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::Analyzer;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as PlannerStatement;

pub use datafusion::sql::sqlparser::ast::Statement;

pub use self::error::error_from_datafusion;
pub use self::label::output_label;
pub use self::variable::{HengeOptions, SqlDialect};
use crate::error::{Error, Result};
use crate::exec::OrdinalCache;
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
}

/// Memory, spilling and settings shared by all sessions of a process.
pub struct Runtime {
    /// Everything but the catalogs, which each session has of its own.
    template: SessionState,
}

impl Runtime {
    /// Fails if the directory for spilled data cannot be used.
    pub fn new(options: RuntimeOptions) -> Result<Arc<Self>> {
        let environment = environment(&options)?;
        let builder = SessionStateBuilder::new_with_default_features()
            .with_config(config(&options))
            .with_type_planner(Arc::new(time_type::PostgresTimes))
            .with_runtime_env(environment);
        Ok(Arc::new(Self { template: install(builder).build() }))
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
    /// The schemas in which an unqualified table is looked for after [`SCHEMA`].
    pub search_path: Vec<String>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            user: CATALOG.to_string(),
            dialect: SqlDialect::PostgreSql,
            approximate_count_distinct: None,
            rewriters: Vec::new(),
            search_path: vec!["pg_catalog".to_string()],
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
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    /// A session over `schemas` as the catalog [`CATALOG`].
    pub fn new(runtime: &Arc<Runtime>, schemas: Arc<dyn CatalogProvider>, options: SessionOptions) -> Self {
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_string(), schemas);
        let mut state = runtime.template.clone();
        state.register_catalog_list(Arc::new(catalogs));
        let mut settings = HengeOptions::of_dialect(options.dialect);
        if let Some(approximate) = options.approximate_count_distinct {
            settings.approximate_count_distinct = approximate;
        }
        state.config_mut().options_mut().extensions.insert(settings);
        Self { context: SessionContext::new_with_state(state), options }
    }

    /// The statements of a text, in PostgreSQL's dialect with Druid's additions. An empty text has none.
    /// A syntax error says where.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        statement::parse(sql)
    }

    /// What a statement does, ready to [`Self::execute`]. Statements that write, make or drop anything are refused;
    /// transactions, cursors and PostgreSQL's own settings are the server's.
    ///
    /// The fields of the plan's schema have unique names; what a column is called is [`output_label`]'s answer.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        let mut statement = statement;
        for rewriter in &self.options.rewriters {
            statement = rewriter.rewrite(statement)?;
        }
        if let Some(plan) = variable::plan(&self.context, &statement)? {
            return Ok(plan);
        }
        statement::check(&statement)?;
        let mut state = self.context.state();
        let settings = HengeOptions::of(state.config_options());
        spelling::rewrite(&mut statement, &settings)?;
        let nulls = match settings.dialect {
            SqlDialect::PostgreSql => "nulls_max",
            SqlDialect::Druid => "nulls_min",
        };
        state.config_mut().options_mut().sql_parser.default_null_ordering = nulls.to_owned();
        let labels = bind::bind(&mut statement, &state, &self.options).await?;
        let plan = state.statement_to_plan(PlannerStatement::Statement(Box::new(statement))).await;
        label::attach(plan.map_err(error_from_datafusion)?, labels)
    }

    /// The answer, batch by batch. Dropping the stream ends the query.
    pub async fn execute(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream> {
        let frame = self.context.execute_logical_plan(plan).await.map_err(error_from_datafusion)?;
        frame.execute_stream().await.map_err(error_from_datafusion)
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
        self.context.execute_logical_plan(plan).await.map_err(error_from_datafusion)
    }

    /// DataFusion's own context, to register functions in. Statements given to it directly skip this room's rules.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    pub fn options(&self) -> &SessionOptions {
        &self.options
    }
}

#[cfg(test)]
mod tests;
