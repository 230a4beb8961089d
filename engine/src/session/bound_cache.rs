//! Statements that a session is asked again and again, bound and planned.
//!
//! What a statement means hangs on its words, on the names and columns of its tables and on the session's settings. So an
//! equal statement, of data sources that look as they did, has the plan that it had before, over their tables of now.
//!
//! Invariants: only what is asked a second time is kept. Nothing is kept, or used, while the session has tables or views
//! of its own, which names may mean. Each table was written as it is called, so that no newer one can take its place. A
//! plan that is kept holds no table.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::SchemaProvider;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::TableReference;
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{ObjectName, Statement, visit_relations};
use parking_lot::Mutex;

use super::lately::AskedLately;
use super::plan_cache::{Sources, data_sources, emptied, with_sources};
use super::{CATALOG, SCHEMA};
use crate::table::DataSourceTable;

/// As many as plans that are kept.
const MOST_STATEMENTS: usize = 64;

#[derive(Default)]
pub(super) struct BoundCache {
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Under which the statements were bound. Settings are copied before they are changed, for this holds them.
    settings: Option<Arc<ConfigOptions>>,
    asked: AskedLately,
    /// The one used longest ago first.
    bound: VecDeque<Arc<Bound>>,
}

struct Bound {
    hash: u64,
    statement: Statement,
    plan: LogicalPlan,
    tables: Vec<(TableReference, SchemaRef)>,
}

/// What is known of a statement that is asked.
pub(super) enum Asked {
    /// What it was bound to, over the tables of now.
    Bound(Box<LogicalPlan>),
    /// It was asked before: what it is bound to is to be kept.
    Again(u64, Box<Statement>),
    Anew,
}

impl BoundCache {
    /// `tables` are the data sources.
    pub(super) async fn ask(
        &self,
        statement: &Statement,
        settings: &Arc<ConfigOptions>,
        tables: &dyn SchemaProvider,
    ) -> Result<Asked> {
        let hash = self.hasher.hash_one(statement);
        let known = self.kept.lock().get(hash, statement, settings);
        if let Some(known) = known
            && let Some(plan) = known.over(tables).await?
        {
            return Ok(Asked::Bound(Box::new(plan)));
        }
        Ok(match self.kept.lock().asked.was_asked(hash) {
            true => Asked::Again(hash, Box::new(statement.clone())),
            false => Asked::Anew,
        })
    }

    /// Keeps what a statement was bound to, if that only hangs on what its data sources look like.
    pub(super) fn keep(&self, hash: u64, statement: Statement, plan: &LogicalPlan) -> Result<()> {
        let Some(sources) = data_sources(plan)? else { return Ok(()) };
        if !are_written_as_called(&statement, &sources) {
            return Ok(());
        }
        let tables = sources.iter().map(|(name, source)| (name.clone(), source.schema())).collect();
        let plan = with_sources(plan.clone(), &emptied(&sources))?;
        self.kept.lock().put(Bound { hash, statement, plan, tables });
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.kept.lock().bound.len()
    }
}

impl Bound {
    /// The plan over these tables; `None` if one is not there, or looks different.
    async fn over(&self, tables: &dyn SchemaProvider) -> Result<Option<LogicalPlan>> {
        let mut sources = Sources::new();
        for (name, schema) in &self.tables {
            let Some(table) = tables.table(name.table()).await? else { return Ok(None) };
            if !table.is::<DataSourceTable>() || table.schema() != *schema {
                return Ok(None);
            }
            sources.insert(name.clone(), provider_as_source(table));
        }
        with_sources(self.plan.clone(), &sources).map(Some)
    }
}

/// Whether every table of a statement is a data source, and written like it to the letter.
fn are_written_as_called(statement: &Statement, sources: &Sources) -> bool {
    let is_ours = |name: &TableReference| {
        name.schema().is_none_or(|schema| schema == SCHEMA) && name.catalog().is_none_or(|catalog| catalog == CATALOG)
    };
    let is_called = |name: &ObjectName| match name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|ident| sources.keys().any(|name| name.table() == ident.value)),
        _ => false,
    };
    let found = visit_relations(statement, |name| match is_called(name) {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    });
    found.is_continue() && sources.keys().all(is_ours)
}

impl Kept {
    fn get(&mut self, hash: u64, statement: &Statement, settings: &Arc<ConfigOptions>) -> Option<Arc<Bound>> {
        if !self.settings.as_ref().is_some_and(|made| Arc::ptr_eq(made, settings)) {
            *self = Self { settings: Some(Arc::clone(settings)), ..Self::default() };
            return None;
        }
        let place = self.bound.iter().position(|known| known.hash == hash && known.statement == *statement)?;
        let known = self.bound.remove(place)?;
        self.bound.push_back(Arc::clone(&known));
        Some(known)
    }

    fn put(&mut self, bound: Bound) {
        self.bound.retain(|known| known.hash != bound.hash);
        if self.bound.len() == MOST_STATEMENTS {
            self.bound.pop_front();
        }
        self.bound.push_back(Arc::new(bound));
    }
}
