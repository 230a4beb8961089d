//! The settings `henge.*` of a session. They stand here, in the lowest room that asks for one; `session` lets people
//! set them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::error::Error;

/// Whose rules decide where SQL's readers differ: order of nulls, rounding of casts, names of columns without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqlDialect {
    #[default]
    PostgreSql,
    Druid,
}

/// The settings `henge.*` of a session.
#[derive(Clone, Debug)]
pub struct HengeOptions {
    pub dialect: SqlDialect,
    /// Whether `COUNT(DISTINCT x)` is counted by a sketch, as Druid does.
    pub approximate_count_distinct: bool,
    /// Whether partial aggregates run on dictionary codes, where they can. Off, DataFusion's own operators do it all.
    pub segment_aggregate: bool,
    /// Whether whole aggregations do, with one code space for all segments. Off, each segment is aggregated by itself
    /// and DataFusion puts the groups together.
    pub segment_group: bool,
    /// Whether the first rows of an order are found before the others' columns are read. Off, DataFusion's sort does it.
    pub segment_top: bool,
    /// Whether conditions on `__time` and on string dimensions are answered from dictionaries and indexes. Off,
    /// DataFusion filters rows; segments and blocks are still skipped by time.
    pub filter_pushdown: bool,
    /// Whether a query answers from what is left where segments are served nowhere. Off, it fails.
    pub allow_partial_results: bool,
    /// Whether, among several processes, groups are exchanged between workers before they come to the broker.
    pub shuffle: Shuffle,
    /// Where scans run in other processes, the functions that these have too. The broker's to say, no setting. What
    /// several processes read has at least two output partitions, so that there is always a place where the plan can be
    /// cut; what has other functions is evaluated on the broker.
    pub elsewhere: Option<SharedFunctions>,
}

/// Scalar functions that all processes have.
#[derive(Clone)]
pub struct SharedFunctions(Arc<HashMap<String, Arc<ScalarUDF>>>);

impl SharedFunctions {
    /// Of functions with the same name, the last counts.
    pub fn new<'a>(functions: impl IntoIterator<Item = &'a Arc<ScalarUDF>>) -> Self {
        let mut by_name = HashMap::new();
        for function in functions {
            by_name.extend(function.aliases().iter().map(|alias| (alias.clone(), Arc::clone(function))));
            by_name.insert(function.name().to_owned(), Arc::clone(function));
        }
        Self(Arc::new(by_name))
    }

    /// Whether an expression can be evaluated by other processes too.
    pub fn cover(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        let call = expr.downcast_ref::<ScalarFunctionExpr>();
        let has = |call: &ScalarFunctionExpr| self.0.get(call.fun().name()).is_some_and(|own| **own == *call.fun());
        call.is_none_or(has) && expr.children().into_iter().all(|child| self.cover(child))
    }
}

impl fmt::Debug for SharedFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} functions", self.0.len())
    }
}

/// Where the groups of several workers are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shuffle {
    /// On the broker where they are few, otherwise on the workers.
    #[default]
    Auto,
    /// On the workers, each a part of them.
    On,
    /// On the broker.
    Off,
}

impl Shuffle {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl Default for HengeOptions {
    fn default() -> Self {
        Self::of_dialect(SqlDialect::default())
    }
}

impl HengeOptions {
    /// What a dialect's users expect.
    pub fn of_dialect(dialect: SqlDialect) -> Self {
        Self {
            dialect,
            approximate_count_distinct: dialect == SqlDialect::Druid,
            segment_aggregate: true,
            segment_group: true,
            segment_top: true,
            filter_pushdown: true,
            allow_partial_results: false,
            shuffle: Shuffle::Auto,
            elsewhere: None,
        }
    }

    /// Whether an expression can be evaluated where scans run.
    pub fn travels(&self, expr: &Arc<dyn PhysicalExpr>) -> bool {
        self.elsewhere.as_ref().is_none_or(|functions| functions.cover(expr))
    }

    /// The settings of a session, or the defaults in one without ours.
    pub fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

impl ConfigExtension for HengeOptions {
    const PREFIX: &'static str = "henge";
}

impl ExtensionOptions for HengeOptions {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> datafusion::error::Result<()> {
        let key = key.strip_prefix("henge.").unwrap_or(key);
        match key {
            "dialect" => {
                self.dialect = dialect(value)?;
                self.approximate_count_distinct = self.dialect == SqlDialect::Druid;
            }
            "approximate_count_distinct" => self.approximate_count_distinct = switch(key, value)?,
            "segment_aggregate" => self.segment_aggregate = switch(key, value)?,
            "segment_group" => self.segment_group = switch(key, value)?,
            "segment_top" => self.segment_top = switch(key, value)?,
            "filter_pushdown" => self.filter_pushdown = switch(key, value)?,
            "allow_partial_results" => self.allow_partial_results = switch(key, value)?,
            "shuffle" => self.shuffle = shuffle(value)?,
            other => {
                let message = format!("unrecognized configuration parameter `henge.{other}`");
                return Err(Error::invalid_input(message).with_sqlstate("42704").into());
            }
        }
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        let dialect = match self.dialect {
            SqlDialect::PostgreSql => "postgresql",
            SqlDialect::Druid => "druid",
        };
        let entry = |key: &str, value: String, description: &'static str| ConfigEntry {
            key: format!("henge.{key}"),
            value: Some(value),
            description,
        };
        vec![
            entry(
                "dialect",
                dialect.to_owned(),
                "Whose rules decide where readers of SQL differ: `postgresql` or `druid`",
            ),
            entry(
                "approximate_count_distinct",
                self.approximate_count_distinct.to_string(),
                "Whether `COUNT(DISTINCT x)` is counted by a sketch",
            ),
            entry(
                "segment_aggregate",
                self.segment_aggregate.to_string(),
                "Whether partial aggregates run on dictionary codes, where they can",
            ),
            entry(
                "segment_group",
                self.segment_group.to_string(),
                "Whether whole aggregations run on dictionary codes, where they can",
            ),
            entry(
                "segment_top",
                self.segment_top.to_string(),
                "Whether the first rows of an order are found before the columns of the others are read",
            ),
            entry(
                "filter_pushdown",
                self.filter_pushdown.to_string(),
                "Whether conditions on time and string dimensions are answered from dictionaries and indexes",
            ),
            entry(
                "allow_partial_results",
                self.allow_partial_results.to_string(),
                "Whether a query answers without segments that no process serves just now, and says so",
            ),
            entry(
                "shuffle",
                self.shuffle.name().to_owned(),
                "Where groups of several workers are put together: on the workers `on`, on the broker `off`, or `auto`",
            ),
        ]
    }
}

fn dialect(value: &str) -> datafusion::error::Result<SqlDialect> {
    match value.to_ascii_lowercase().as_str() {
        "postgresql" | "postgres" => Ok(SqlDialect::PostgreSql),
        "druid" => Ok(SqlDialect::Druid),
        other => {
            let message = format!("`henge.dialect` is `postgresql` or `druid`, not `{other}`");
            Err(Error::invalid_input(message).with_sqlstate("22023").into())
        }
    }
}

fn shuffle(value: &str) -> datafusion::error::Result<Shuffle> {
    match value.to_ascii_lowercase().as_str() {
        "auto" => Ok(Shuffle::Auto),
        "on" | "true" => Ok(Shuffle::On),
        "off" | "false" => Ok(Shuffle::Off),
        other => {
            let message = format!("`henge.shuffle` is `auto`, `on` or `off`, not `{other}`");
            Err(Error::invalid_input(message).with_sqlstate("22023").into())
        }
    }
}

fn switch(key: &str, value: &str) -> datafusion::error::Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "on" | "1" | "yes" => Ok(true),
        "false" | "off" | "0" | "no" => Ok(false),
        other => {
            let message = format!("`henge.{key}` is `true` or `false`, not `{other}`");
            Err(Error::invalid_input(message).with_sqlstate("22023").into())
        }
    }
}
