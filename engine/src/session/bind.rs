//! Names to columns, tables and aliases.

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::Statement;

use super::SessionOptions;
use crate::error::Result;

pub(super) async fn bind(
    _statement: &mut Statement,
    _state: &SessionState,
    _options: &SessionOptions,
) -> Result<Option<Vec<String>>> {
    Ok(None)
}

/// The name that `wanted` is most likely a slip of.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| {
            (
                datafusion::common::utils::datafusion_strsim::levenshtein(&wanted.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= name.len().max(wanted.len()) / 3)
        .min()
        .map(|(_, name)| name)
}
