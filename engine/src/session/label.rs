//! What the columns of an answer are called.
//!
//! PostgreSQL lets two columns of an answer have one name (`SELECT sum(a), sum(b)`); DataFusion does not. So the plan
//! has unique names, and a column whose name had to change carries what it should be called in its metadata.

use std::collections::HashMap;

use arrow::datatypes::Field;
use datafusion::common::metadata::FieldMetadata;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use super::error_from_datafusion;
use crate::error::Result;

const LABEL: &str = "henge.label";

/// What a column of an answer is called: for `SELECT sum(a), sum(b)` both are `sum`. Ask the plan's fields.
pub fn output_label(field: &Field) -> &str {
    field.metadata().get(LABEL).unwrap_or(field.name())
}

/// Puts `labels` on the columns of `plan`; `None` where they are not known.
pub(super) fn attach(plan: LogicalPlan, labels: Option<Vec<String>>) -> Result<LogicalPlan> {
    let Some(labels) = labels.filter(|labels| differ(&plan, labels)) else { return Ok(plan) };
    let columns: Vec<Expr> = plan.schema().columns().into_iter().zip(labels).map(labelled).collect();
    LogicalPlanBuilder::from(plan).project(columns).and_then(LogicalPlanBuilder::build).map_err(error_from_datafusion)
}

fn differ(plan: &LogicalPlan, labels: &[String]) -> bool {
    let fields = plan.schema().fields();
    matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_)).then_some(false).unwrap_or_else(|| {
        fields.len() == labels.len() && fields.iter().zip(labels).any(|(field, label)| field.name() != label)
    })
}

fn labelled((column, label): (datafusion::common::Column, String)) -> Expr {
    let name = column.name.clone();
    let column = Expr::Column(column);
    if name == label {
        return column;
    }
    let metadata = FieldMetadata::from(HashMap::from([(LABEL.to_string(), label)]));
    column.alias_with_metadata(name, Some(metadata))
}
