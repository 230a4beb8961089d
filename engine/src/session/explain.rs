//! `EXPLAIN` as PostgreSQL's clients expect it: one column, a line of the plan in each row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::format::ExplainFormat;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{AnalyzeFormat, AnalyzeFormatKind, Expr, Statement, UtilityOption, Value};

use crate::error::{Error, Result};

const COLUMN: &str = "QUERY PLAN";

/// What `EXPLAIN` is asked to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// How the query is run.
    Plan,
    /// Each step from the query to that.
    Steps,
    Json,
}

impl Kind {
    pub(super) fn of(plan: &LogicalPlan) -> Self {
        match plan {
            LogicalPlan::Explain(explain) if explain.explain_format == ExplainFormat::PostgresJSON => Kind::Json,
            LogicalPlan::Analyze(analyze) if analyze.format == ExplainFormat::PostgresJSON => Kind::Json,
            LogicalPlan::Explain(explain) if explain.verbose => Kind::Steps,
            _ => Kind::Plan,
        }
    }
}

pub(super) fn is_text(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_))
}

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(COLUMN, DataType::Utf8, true)]))
}

/// The formats that may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
}

/// Reads PostgreSQL's options, `(ANALYZE, COSTS OFF, FORMAT JSON)`, into what the planner takes.
pub(super) fn take_options(statement: &mut Statement) -> Result<Format> {
    let Statement::Explain { analyze, verbose, format, options, .. } = statement else { return Ok(Format::Text) };
    let mut asked = match format.take() {
        None => Format::Text,
        Some(AnalyzeFormatKind::Keyword(format) | AnalyzeFormatKind::Assignment(format)) => match format {
            AnalyzeFormat::TEXT | AnalyzeFormat::TRADITIONAL => Format::Text,
            AnalyzeFormat::JSON => Format::Json,
            other => return Err(no_format(&other.to_string())),
        },
    };
    for option in options.take().unwrap_or_default() {
        match option.name.value.to_ascii_lowercase().as_str() {
            "analyze" => *analyze = is_on(&option)?,
            "verbose" => *verbose = is_on(&option)?,
            "format" => {
                asked = match word(&option).to_ascii_lowercase().as_str() {
                    "text" => Format::Text,
                    "json" => Format::Json,
                    other => return Err(no_format(other)),
                }
            }
            // Says what is shown beside the plan, which here is the same always.
            "costs" | "buffers" | "timing" | "summary" | "settings" | "wal" => drop(is_on(&option)?),
            other => {
                let message = format!("unrecognized EXPLAIN option \"{other}\"");
                return Err(Error::invalid_input(message).with_sqlstate("42601"));
            }
        }
    }
    Ok(asked)
}

fn word(option: &UtilityOption) -> String {
    match &option.arg {
        None => "on".to_string(),
        Some(Expr::Identifier(ident)) => ident.value.clone(),
        Some(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        Some(other) => other.to_string(),
    }
}

fn is_on(option: &UtilityOption) -> Result<bool> {
    match word(option).to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        other => Err(Error::invalid_input(format!("`{}` of `EXPLAIN` is on or off, not `{other}`", option.name))
            .with_sqlstate("22023")),
    }
}

fn no_format(format: &str) -> Error {
    Error::unsupported(format!("`EXPLAIN` has no format `{format}` here; use TEXT or JSON")).with_sqlstate("0A000")
}

/// Makes a planned `EXPLAIN` give JSON.
pub(super) fn in_json(plan: &mut LogicalPlan) {
    match plan {
        LogicalPlan::Explain(explain) => {
            explain.explain_format = ExplainFormat::PostgresJSON;
            explain.verbose = false;
        }
        LogicalPlan::Analyze(analyze) => {
            analyze.format = ExplainFormat::PostgresJSON;
            analyze.verbose = false;
        }
        _ => {}
    }
}

/// DataFusion's rows, each a name and a plan, as lines.
pub(super) fn lines(batches: &[RecordBatch], kind: Kind) -> Result<RecordBatch> {
    let plans = named(batches)?;
    let physical = plans.iter().rposition(|(name, _)| name == "physical_plan");
    let lines: Vec<String> = match (kind, physical) {
        (Kind::Json, _) => plans.into_iter().map(|(_, plan)| plan).collect(),
        (Kind::Plan, Some(found)) => plans[found].1.lines().map(str::to_string).collect(),
        // What could not be planned to its end is shown as far as it came.
        (Kind::Plan, None) if plans.len() == 1 => plans[0].1.lines().map(str::to_string).collect(),
        _ => plans.iter().flat_map(|(name, plan)| step(name, plan)).collect(),
    };
    column(lines)
}

/// A text as lines.
#[cfg(feature = "distributed")]
pub(super) fn text(text: &str) -> Result<RecordBatch> {
    column(text.lines().map(str::to_string).collect())
}

fn column(lines: Vec<String>) -> Result<RecordBatch> {
    RecordBatch::try_new(schema(), vec![Arc::new(StringArray::from(lines))])
        .map_err(|error| Error::defensive("an explanation is no text").with_source(error))
}

fn step(name: &str, plan: &str) -> Vec<String> {
    let lines = plan.lines().map(|line| format!("  {line}"));
    std::iter::once(format!("{name}:")).chain(lines).collect()
}

fn named(batches: &[RecordBatch]) -> Result<Vec<(String, String)>> {
    let mut plans = Vec::new();
    for batch in batches {
        let text = |column: usize| -> Result<ArrayRef> {
            cast(batch.column(column), &DataType::Utf8)
                .map_err(|error| Error::defensive("an explanation is no text").with_source(error))
        };
        let (names, texts) = (text(0)?, text(1)?);
        let (names, texts) = (names.as_string::<i32>(), texts.as_string::<i32>());
        plans.extend(
            (0..batch.num_rows())
                .filter(|row| !texts.is_null(*row))
                .map(|row| (names.value(row).to_string(), texts.value(row).to_string())),
        );
    }
    Ok(plans)
}
