//! What is kept of the rows of a group.

use std::fmt;

use arrow::datatypes::DataType;

use crate::exec::computed::Computed;
use crate::model::{ColumnType, SegmentSchema};

/// An aggregate of the rows of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    pub kind: FoldKind,
    /// `None` for a count of rows.
    pub argument: Option<Argument>,
    /// Rows for which it is not true are left out.
    pub filter: Option<Computed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldKind {
    /// Of rows, or of values that are not null.
    Count,
    Sum,
    Min,
    Max,
    /// A count and a sum.
    Average,
    /// Exact, of a string column with one value a row. Only in a whole aggregation: it has no state to hand on.
    CountDistinct,
    /// What `APPROX_COUNT_DISTINCT` estimates, of the same columns and in the same place.
    EstimateDistinct,
}

/// What is aggregated.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Index into the data source's columns.
    Column(usize),
    Computed(Computed),
}

impl Fold {
    /// A count of rows.
    pub fn rows() -> Self {
        Self { kind: FoldKind::Count, argument: None, filter: None }
    }

    pub fn of_column(kind: FoldKind, column: usize) -> Self {
        Self { kind, argument: Some(Argument::Column(column)), filter: None }
    }

    /// The column that it is of, if it is of one.
    pub fn column(&self) -> Option<usize> {
        match self.argument {
            Some(Argument::Column(column)) => Some(column),
            Some(Argument::Computed(_)) | None => None,
        }
    }

    /// The type of the values that are folded.
    pub(crate) fn input_type(&self, columns: &SegmentSchema) -> Option<ColumnType> {
        match self.argument.as_ref()? {
            Argument::Column(column) => columns.column(*column).map(|column| column.column_type),
            Argument::Computed(computed) => match computed.data_type {
                DataType::Int64 => Some(ColumnType::Long),
                DataType::Float64 => Some(ColumnType::Double),
                _ => None,
            },
        }
    }

    /// For people.
    pub(super) fn describe(&self, columns: Option<&SegmentSchema>) -> String {
        let argument = match &self.argument {
            None => "*".to_owned(),
            Some(Argument::Column(index)) => {
                let column = columns.and_then(|columns| columns.column(*index));
                column.map_or_else(|| index.to_string(), |column| column.name.clone())
            }
            Some(Argument::Computed(computed)) => computed.expr.to_string(),
        };
        let filter = self.filter.as_ref().map_or_else(String::new, |filter| format!(" FILTER ({})", filter.expr));
        format!("{}({argument}){filter}", self.kind)
    }
}

impl FoldKind {
    /// Whether the values of each group are collected.
    pub(super) fn is_of_distinct(self) -> bool {
        matches!(self, Self::CountDistinct | Self::EstimateDistinct)
    }
}

impl fmt::Display for FoldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Average => "avg",
            Self::CountDistinct => "count distinct",
            Self::EstimateDistinct => "approx count distinct",
        })
    }
}
