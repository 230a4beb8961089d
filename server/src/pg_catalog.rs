//! PostgreSQL's system catalogue over our data sources: enough that psql's backslash commands, drivers and BI tools
//! find what there is. Nothing is invented: there are no keys, indexes or defaults here, so those tables are empty.
//!
//! Three parts: [`relation`] gives the tables, [`function`] the functions about them, [`rewrite`] turns the queries
//! that tools send into ones that DataFusion plans. Tables are made when they are asked for, from the schemas as they
//! are then. Numbers of objects ([`oid`]) are computed from names, so they are the same in every session and process.

mod column;
mod function;
mod oid;
mod pg_type;
mod relation;
mod rewrite;
mod row;
mod types;

use std::sync::Arc;

use henge_engine::session::{CATALOG, Session, StatementRewriter};
use henge_engine::{Error, Result};

pub(crate) use pg_type::{PgType, array_oid, element_oid};

/// The one database there is, and the user who owns it.
pub(crate) const DATABASE: &str = "henge";

/// The version clients are told; they choose their catalogue queries by it.
pub(crate) const SERVER_VERSION: &str = "15.18";
pub(crate) const SERVER_VERSION_NUM: &str = "150018";

/// The schema that unqualified names are looked up in last.
pub(crate) const SCHEMA: &str = "pg_catalog";

/// What the catalogue says about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) user: String,
    pub(crate) pid: i32,
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
    context.register_catalog(CATALOG, relation::with_pg_catalog(schemas, facts.clone()));
    Ok(())
}
