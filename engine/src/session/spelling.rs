//! PostgreSQL's and Druid's spellings that DataFusion's planner does not take.

use datafusion::sql::sqlparser::ast::Statement;

use super::SessionOptions;
use crate::error::Result;

pub(super) fn rewrite(_statement: &mut Statement, _options: &SessionOptions) -> Result<()> {
    Ok(())
}
