//! `SET`, `SHOW` and `RESET` of what a session may choose: `henge.*` and `datafusion.execution.*`.

use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, SetVariable, Statement as PlanStatement, lit};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, Reset, Set, Statement, UnaryOperator, Value};

use super::error_from_datafusion;
use crate::error::{Error, Result};

pub use crate::exec::{HengeOptions, SqlDialect};

/// The plan of a statement about settings; `None` if it is about something else.
pub(super) fn plan(context: &SessionContext, statement: &Statement) -> Result<Option<LogicalPlan>> {
    match statement {
        Statement::Set(set) => set_plan(set).map(Some),
        Statement::Reset(statement) => match &statement.reset {
            Reset::ConfigurationParameter(name) => reset_plan(context, name).map(Some),
            Reset::ALL => Err(Error::unsupported("`RESET ALL` is not supported here; reset settings one by one")),
        },
        Statement::ShowVariable { variable } => show_plan(context, variable).map(Some),
        _ => Ok(None),
    }
}

fn set_plan(set: &Set) -> Result<LogicalPlan> {
    let Set::SingleAssignment { variable, values, .. } = set else {
        return Err(Error::unsupported("of `SET`, only `SET name = value` is supported"));
    };
    let [value] = values.as_slice() else {
        return Err(Error::invalid_input("`SET` takes one value").with_sqlstate("22023"));
    };
    let variable = settable(&name_of(variable))?;
    Ok(LogicalPlan::Statement(PlanStatement::SetVariable(SetVariable { variable, value: value_of(value)? })))
}

fn reset_plan(context: &SessionContext, name: &ObjectName) -> Result<LogicalPlan> {
    let variable = settable(&name_of(name))?;
    let mut defaults = ConfigOptions::new();
    defaults.extensions.insert(HengeOptions::default());
    let entry = defaults.entries().into_iter().find(|entry| entry.key == variable);
    let Some(entry) = entry.filter(|_| find(context, &variable).is_some()) else { return Err(unknown(&variable)) };
    let value = entry.value.unwrap_or_default();
    Ok(LogicalPlan::Statement(PlanStatement::SetVariable(SetVariable { variable, value })))
}

fn show_plan(context: &SessionContext, variable: &[Ident]) -> Result<LogicalPlan> {
    let name = variable.iter().map(|part| part.value.to_ascii_lowercase()).collect::<Vec<_>>().join(".");
    if name == "all" {
        return show_all(context);
    }
    let Some(value) = find(context, &name) else { return Err(unknown(&name)) };
    LogicalPlanBuilder::empty(true)
        .project([lit(value).alias(name)])
        .and_then(LogicalPlanBuilder::build)
        .map_err(error_from_datafusion)
}

fn show_all(context: &SessionContext) -> Result<LogicalPlan> {
    let mut entries = context.state().config_options().entries();
    entries.retain(|entry| settable(&entry.key).is_ok());
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let rows = entries
        .into_iter()
        .map(|entry| vec![lit(entry.key), lit(entry.value.unwrap_or_default()), lit(entry.description)])
        .collect();
    let names = ["name", "setting", "description"];
    LogicalPlanBuilder::values(rows)
        .and_then(|rows| {
            let columns = rows.schema().columns();
            let named = columns
                .into_iter()
                .zip(names)
                .map(|(column, name)| datafusion::logical_expr::Expr::Column(column).alias(name));
            rows.project(named.collect::<Vec<_>>())
        })
        .and_then(LogicalPlanBuilder::build)
        .map_err(error_from_datafusion)
}

fn find(context: &SessionContext, name: &str) -> Option<String> {
    let entries = context.state().config_options().entries();
    entries.into_iter().find(|entry| entry.key == name).map(|entry| entry.value.unwrap_or_default())
}

/// The name in lower case, if a session may choose it.
fn settable(name: &str) -> Result<String> {
    let name = name.to_ascii_lowercase();
    if name == "datafusion.execution.time_zone" {
        return Err(Error::invalid_input(
            "time is always UTC here; give functions a zone, as in `TIME_FLOOR(__time, 'P1D', NULL, 'Europe/Paris')`",
        )
        .with_sqlstate("55P02"));
    }
    if name.starts_with("henge.") || name.starts_with("datafusion.execution.") {
        return Ok(name);
    }
    if name.starts_with("datafusion.") {
        return Err(Error::invalid_input(format!(
            "`{name}` cannot be changed by a session; `henge.*` and `datafusion.execution.*` can"
        ))
        .with_sqlstate("55P02"));
    }
    Err(unknown(&name))
}

fn unknown(name: &str) -> Error {
    Error::not_found(format!("there is no setting `{name}`")).with_sqlstate("42704")
}

fn name_of(name: &ObjectName) -> String {
    name.0
        .iter()
        .map(|part| part.as_ident().map_or_else(|| part.to_string(), |ident| ident.value.clone()))
        .collect::<Vec<_>>()
        .join(".")
}

fn value_of(value: &Expr) -> Result<String> {
    match value {
        Expr::Identifier(ident) => Ok(ident.value.clone()),
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Ok(text.clone()),
            Value::Boolean(truth) => Ok(truth.to_string()),
            Value::Null => Ok(String::new()),
            value => value.clone().into_string().ok_or_else(|| not_a_setting(value)),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ok(format!("-{}", value_of(expr)?)),
        other => Err(not_a_setting(other)),
    }
}

fn not_a_setting(value: impl std::fmt::Display) -> Error {
    Error::invalid_input(format!("`{value}` is not a value for a setting; give a number, a word or a string"))
        .with_sqlstate("22023")
}
