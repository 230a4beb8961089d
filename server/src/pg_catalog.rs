//! PostgreSQL's system catalogue over our data sources: enough that psql's backslash commands, drivers and BI tools
//! find what there is. Nothing is invented: there are no keys, indexes or defaults here, so those tables are empty.
//!
//! Three parts: [`relation`] gives the tables, [`function`] the functions about them, [`rewrite`] turns the queries
//! that tools send into ones that DataFusion plans. Tables are made when they are asked for, from the schemas as they
//! are then. Numbers of objects ([`oid`]) are computed from names, so they are the same in every session and process.

mod column;
mod function;
mod keyword;
mod oid;
mod pg_type;
mod relation;
mod rewrite;
mod routine;
mod row;
mod types;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use henge_engine::model::Timestamp;
use henge_engine::session::{CATALOG, Session, StatementRewriter};
use henge_engine::{Error, Result};

pub(crate) use pg_type::{JSONB, JSONB_VERSION, PgType, array_oid, element_oid};
pub(crate) use types::function_name;

/// The one database there is, and the user who owns it.
pub(crate) const DATABASE: &str = "henge";

/// The version clients are told; they choose their catalogue queries by it.
pub(crate) const SERVER_VERSION: &str = "15.18";
pub(crate) const SERVER_VERSION_NUM: &str = "150018";

/// The schema that unqualified names are looked up in last.
pub(crate) const SCHEMA: &str = "pg_catalog";

/// What the catalogue says about a connection, and whom it asks for the rest.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) user: String,
    pub(crate) pid: i32,
    pub(crate) settings: Arc<dyn SettingsView>,
    pub(crate) server: Arc<dyn ServerView>,
}

/// PostgreSQL's settings of one connection.
pub(crate) trait SettingsView: Debug + Send + Sync {
    fn rows(&self) -> Vec<SettingRow>;

    /// Fails with 42704 if there is no such setting.
    fn value(&self, name: &str) -> Result<String>;

    /// Sets it (`None`: back to what it was at first) and gives what it is now.
    fn change(&self, name: &str, value: Option<&str>, local: bool) -> Result<String>;
}

#[derive(Clone, Debug)]
pub(crate) struct SettingRow {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) reset_value: String,
    pub(crate) is_fixed: bool,
    pub(crate) is_bool: bool,
}

/// The server around a connection.
#[async_trait]
pub(crate) trait ServerView: Debug + Send + Sync {
    /// Who is connected and what they do.
    fn activity(&self) -> Vec<Activity>;

    /// Ends what a connection runs; `false` if there is no such connection.
    fn cancel(&self, pid: i32) -> bool;

    /// The names of those who may log in, as far as they are listed.
    async fn users(&self) -> Result<Vec<String>>;

    /// When the server was started.
    fn started(&self) -> Timestamp;

    /// How much there is of a data source; `None` where that is not known.
    fn extent(&self, data_source: &str) -> Option<Extent>;
}

/// How much there is of a data source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub rows: u64,
    pub bytes: u64,
}

/// One connection, as `pg_stat_activity` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Activity {
    pub(crate) pid: i32,
    pub(crate) user: String,
    pub(crate) application_name: String,
    pub(crate) client: Option<SocketAddr>,
    pub(crate) connected: Timestamp,
    pub(crate) query_start: Option<Timestamp>,
    pub(crate) state_change: Timestamp,
    pub(crate) state: &'static str,
    /// The running statement, or the last one.
    pub(crate) query: String,
}

/// No server: a command that asks by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoServer(pub(crate) Timestamp);

#[async_trait]
impl ServerView for NoServer {
    fn activity(&self) -> Vec<Activity> {
        Vec::new()
    }

    fn cancel(&self, _pid: i32) -> bool {
        false
    }

    async fn users(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn started(&self) -> Timestamp {
        self.0
    }

    fn extent(&self, _data_source: &str) -> Option<Extent> {
        None
    }
}

/// Changes the queries that PostgreSQL's tools send; one for all sessions.
pub(crate) fn rewriter() -> Arc<dyn StatementRewriter> {
    Arc::new(rewrite::CatalogQueries)
}

/// Adds the schema and its functions to a session.
pub(crate) fn install(session: &Session, facts: &Facts) -> Result<()> {
    let context = session.context();
    let schemas = context.catalog(CATALOG).ok_or_else(|| Error::defensive("a session without its catalog"))?;
    for function in function::all(&schemas, facts) {
        context.register_udf(function);
    }
    let routines = Arc::new(routine::all(&context.state()));
    context.register_catalog(CATALOG, relation::with_pg_catalog(schemas, facts.clone(), routines));
    Ok(())
}
