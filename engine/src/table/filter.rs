//! From SQL conditions to predicates that segments answer exactly.
//!
//! **What is pushed down**: comparisons of `__time` with timestamps; conditions on exactly one string dimension with
//! one value a row, of expressions that are deterministic and cannot fail; and any combination of those with AND, OR
//! and NOT. Everything else is left to DataFusion.
//!
//! **Why "cannot fail"**: a pushed condition is evaluated on the values of a dictionary, also on those that no selected
//! row has. `WHERE kind = 'number' AND CAST(value AS INT) > 3` must not fail for a value whose row is of another kind.
//! So an expression is pushed only if each part of it is in the lists below; a cast that may fail, arithmetic that may
//! overflow or divide by zero, and functions that are not listed are not.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, Volatility, not};

use crate::exec::{DimensionPredicate, Predicate, TimeRanges, arrow_field};
use crate::model::{ColumnRole, ColumnType, SegmentSchema};

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) schema: Arc<SegmentSchema>,
    /// Of the table's columns, the indexes in the schema.
    pub(super) shown: Vec<usize>,
}

impl Columns {
    pub(super) fn new(schema: Arc<SegmentSchema>) -> Self {
        Self { schema, shown: Vec::new() }
    }

    fn is_time(&self, expr: &Expr) -> bool {
        let index = if let Expr::Column(column) = expr { self.schema.index_of(&column.name) } else { None };
        index.and_then(|index| self.schema.column(index)).is_some_and(|column| column.role == ColumnRole::Time)
    }

    /// The index of a string column with one value a row.
    fn string(&self, name: &str) -> Option<usize> {
        let index = self.schema.index_of(name)?;
        let column = self.schema.column(index)?;
        (column.column_type == ColumnType::String && !column.multi_value).then_some(index)
    }
}

/// A condition that can be pushed down, with negation pushed to its leaves.
#[derive(Debug)]
pub(super) enum Condition {
    Time(TimeRanges),
    Dimension { column: usize, expr: Expr },
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

impl Condition {
    /// `None` if it cannot be pushed down.
    pub(super) fn of(expr: &Expr, columns: &Columns) -> Option<Self> {
        Self::signed(expr, Sign::Plain, columns)
    }

    fn signed(expr: &Expr, sign: Sign, columns: &Columns) -> Option<Self> {
        if let Some(column) = single_dimension(expr, columns) {
            let expr = if sign == Sign::Plain { expr.clone() } else { not(expr.clone()) };
            return Some(Self::Dimension { column, expr });
        }
        if let Some(times) = times(expr, columns) {
            return Some(Self::Time(if sign == Sign::Plain { times } else { times.complement() }));
        }
        match expr {
            Expr::Literal(ScalarValue::Boolean(value), _) => {
                let is_true = value.is_some_and(|value| value == (sign == Sign::Plain));
                Some(Self::Time(if is_true { TimeRanges::all() } else { TimeRanges::none() }))
            }
            Expr::Not(inner) => Self::signed(inner, sign.flipped(), columns),
            Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
                let parts = vec![Self::signed(left, sign, columns)?, Self::signed(right, sign, columns)?];
                // De Morgan holds in three-valued logic too.
                Some(if (*op == Operator::And) == (sign == Sign::Plain) { Self::And(parts) } else { Self::Or(parts) })
            }
            _ => None,
        }
    }

    fn predicate(self, columns: &Columns, state: &dyn Session) -> Result<Predicate> {
        let all =
            |parts: Vec<Self>| parts.into_iter().map(|part| part.predicate(columns, state)).collect::<Result<Vec<_>>>();
        Ok(match self {
            Self::Time(times) => Predicate::Time(times),
            Self::And(parts) => Predicate::And(all(parts)?),
            Self::Or(parts) => Predicate::Or(all(parts)?),
            Self::Dimension { column, expr } => {
                let described = &columns.schema.columns()[column];
                let schema = DFSchema::try_from(arrow::datatypes::Schema::new(vec![arrow_field(described)]))?;
                let condition = state.create_physical_expr(unqualified(&expr)?, &schema)?;
                Predicate::Dimension(DimensionPredicate { column, name: described.name.clone(), condition })
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plain,
    Negated,
}

impl Sign {
    fn flipped(self) -> Self {
        if self == Self::Plain { Self::Negated } else { Self::Plain }
    }
}

/// What can be pushed down of the conjunction of some filters.
pub(super) struct Pushed {
    /// `None` where that is nothing.
    pub(super) predicate: Option<Predicate>,
    /// Whether it is all of them.
    pub(super) complete: bool,
}

/// Filters that were pushed down may come back changed: DataFusion goes on simplifying them, so that what was accepted
/// once need not be acceptable now.
pub(super) fn push_down(filters: &[Expr], columns: &Columns, state: &dyn Session) -> Result<Pushed> {
    let mut parts = Vec::with_capacity(filters.len());
    let mut times: Option<TimeRanges> = None;
    let mut complete = true;
    for filter in filters {
        match Condition::of(filter, columns) {
            Some(Condition::Time(ranges)) => {
                times = Some(times.map_or_else(|| ranges.clone(), |times| times.intersect(&ranges)));
            }
            Some(condition) => parts.push(condition.predicate(columns, state)?),
            None => complete = false,
        }
    }
    parts.splice(0..0, times.map(Predicate::Time));
    let predicate = if parts.len() > 1 { Some(Predicate::And(parts)) } else { parts.pop() };
    Ok(Pushed { predicate, complete })
}

/// The expression with the names of its columns only.
pub(super) fn unqualified(expr: &Expr) -> Result<Expr> {
    let strip = |expr: Expr| {
        Ok(match expr {
            Expr::Column(column) if column.relation.is_some() => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    };
    Ok(expr.clone().transform(strip)?.data)
}

/// The one string dimension that an infallible expression is about.
fn single_dimension(expr: &Expr, columns: &Columns) -> Option<usize> {
    let refs = expr.column_refs();
    let mut names = refs.iter().map(|column| column.name.as_str());
    let first = names.next()?;
    if names.any(|name| name != first) {
        return None;
    }
    let column = columns.string(first)?;
    cannot_fail(expr).then_some(column)
}

/// Scalar functions of strings and numbers that cannot fail for any value, given that DataFusion has settled types.
/// A pattern or a length among the arguments must be a literal, which [`cannot_fail`] checks for all but the first.
const INFALLIBLE_FUNCTIONS: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "coalesce",
    "concat",
    "contains",
    "ends_with",
    "find_in_set",
    "initcap",
    "left",
    "length",
    "lower",
    "ltrim",
    "nullif",
    "octet_length",
    "regexp_like",
    "replace",
    "reverse",
    "right",
    "rtrim",
    "starts_with",
    "strpos",
    "substr",
    "translate",
    "trim",
    "upper",
];

fn cannot_fail(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => cannot_fail(&alias.expr),
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => cannot_fail(inner),
        Expr::BinaryExpr(binary) => {
            is_infallible_operator(binary) && cannot_fail(&binary.left) && cannot_fail(&binary.right)
        }
        Expr::Like(like) | Expr::SimilarTo(like) => cannot_fail(&like.expr) && is_literal(&like.pattern),
        Expr::Between(between) => {
            [&between.expr, &between.low, &between.high].into_iter().all(|part| cannot_fail(part))
        }
        Expr::InList(list) => cannot_fail(&list.expr) && list.list.iter().all(cannot_fail),
        Expr::Case(case) => {
            let whens = case.when_then_expr.iter().flat_map(|(when, then)| [when, then]);
            case.expr.iter().chain(whens).chain(&case.else_expr).all(|part| cannot_fail(part))
        }
        Expr::Cast(cast) => {
            is_infallible_cast(cast.field.data_type()) && cannot_fail(&cast.expr) && is_text(&cast.expr)
        }
        Expr::TryCast(cast) => cannot_fail(&cast.expr),
        Expr::ScalarFunction(call) => {
            let listed = INFALLIBLE_FUNCTIONS.contains(&call.func.name());
            let immutable = call.func.signature().volatility == Volatility::Immutable;
            let variadic = matches!(call.func.name(), "coalesce" | "concat" | "nullif");
            let literals = variadic || call.args.iter().skip(1).all(is_literal);
            listed && immutable && literals && call.args.iter().all(cannot_fail)
        }
        _ => false,
    }
}

fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(..))
}

fn is_infallible_operator(binary: &BinaryExpr) -> bool {
    use Operator::{
        And, Eq, Gt, GtEq, ILikeMatch, IsDistinctFrom, IsNotDistinctFrom, LikeMatch, Lt, LtEq, NotEq, NotILikeMatch,
        NotLikeMatch, Or, RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch, StringConcat,
    };
    match binary.op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom | StringConcat => true,
        // A pattern that is no literal may be one that does not compile.
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch | LikeMatch | ILikeMatch | NotLikeMatch
        | NotILikeMatch => is_literal(&binary.right),
        _ => false,
    }
}

fn is_infallible_cast(target: &DataType) -> bool {
    matches!(target, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

/// Whether an expression is a string dimension, a text, or a number of one: what casts to text without failing.
fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_) | Expr::Literal(..) | Expr::ScalarFunction(_) | Expr::Cast(_))
}

/// The instants at which a condition on `__time` alone is true; it is false at the others, never unknown.
fn times(expr: &Expr, columns: &Columns) -> Option<TimeRanges> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            Some(times(left, columns)?.intersect(&times(right, columns)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(times(left, columns)?.union(&times(right, columns)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, bound) = if is_time_value(left, columns) {
                (*op, Bound::of(right)?)
            } else if is_time_value(right, columns) {
                (op.swap()?, Bound::of(left)?)
            } else {
                return None;
            };
            bound.times(op)
        }
        Expr::Between(between) if is_time_value(&between.expr, columns) => {
            let low = Bound::of(&between.low)?.times(Operator::GtEq)?;
            let within = low.intersect(&Bound::of(&between.high)?.times(Operator::LtEq)?);
            Some(if between.negated { within.complement() } else { within })
        }
        Expr::InList(list) if is_time_value(&list.expr, columns) => {
            let mut listed = TimeRanges::none();
            for item in &list.list {
                listed = listed.union(&Bound::of(item)?.times(Operator::Eq)?);
            }
            Some(if list.negated { listed.complement() } else { listed })
        }
        Expr::Not(inner) => Some(times(inner, columns)?.complement()),
        _ => None,
    }
}

/// Whether an expression is `__time`, or `__time` cast to a timestamp that says the same instant.
fn is_time_value(expr: &Expr, columns: &Columns) -> bool {
    match expr {
        Expr::Cast(cast) => {
            let same = match cast.field.data_type() {
                DataType::Timestamp(unit, zone) => *unit != TimeUnit::Second && is_utc(zone.as_deref()),
                _ => false,
            };
            same && columns.is_time(&cast.expr)
        }
        _ => columns.is_time(expr),
    }
}

fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z" | "Etc/UTC"))
}

/// An instant that times are compared with, as the milliseconds around it.
struct Bound {
    /// The greatest millisecond not after it.
    floor: i64,
    /// Whether it is a whole millisecond.
    whole: bool,
}

impl Bound {
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::Literal(value, _) = expr else { return None };
        let (ticks, a_millisecond, zone) = match value {
            ScalarValue::TimestampMillisecond(Some(ticks), zone) => (*ticks, 1, zone),
            ScalarValue::TimestampMicrosecond(Some(ticks), zone) => (*ticks, 1_000, zone),
            ScalarValue::TimestampNanosecond(Some(ticks), zone) => (*ticks, 1_000_000, zone),
            ScalarValue::TimestampSecond(Some(ticks), zone) => (ticks.checked_mul(1000)?, 1, zone),
            _ => return None,
        };
        let floor = ticks.div_euclid(a_millisecond);
        is_utc(zone.as_deref()).then_some(Self { floor, whole: ticks.rem_euclid(a_millisecond) == 0 })
    }

    fn times(&self, op: Operator) -> Option<TimeRanges> {
        let after = self.floor.checked_add(1)?;
        // The first millisecond that is not before the instant.
        let ceiling = if self.whole { self.floor } else { after };
        let at = if self.whole { TimeRanges::between(self.floor, after) } else { TimeRanges::none() };
        Some(match op {
            Operator::Eq => at,
            Operator::NotEq => at.complement(),
            Operator::Lt => TimeRanges::between(i64::MIN, ceiling),
            Operator::LtEq => TimeRanges::between(i64::MIN, after),
            Operator::Gt => TimeRanges::between(after, i64::MAX),
            Operator::GtEq => TimeRanges::between(ceiling, i64::MAX),
            _ => return None,
        })
    }
}
