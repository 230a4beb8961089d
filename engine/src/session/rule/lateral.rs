//! `LATERAL` subqueries that compute from the row before them and read nothing: they are operators over those rows.
//!
//! DataFusion takes apart a subquery that filters or groups what it reads by columns of the outer row. One that has no rows of
//! its own (`LATERAL (SELECT t.a + t.b AS s)`, `LATERAL (SELECT unnest(t.list))`) it cannot run. Here the outer rows take the
//! place of the one row that it begins with, and their columns are handed through to its end.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchemaRef, JoinType, Result, ScalarValue, TableReference};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, lit};
use datafusion::optimizer::AnalyzerRule;

#[derive(Debug)]
pub(in crate::session) struct Lateral;

impl AnalyzerRule for Lateral {
    fn name(&self) -> &str {
        "lateral"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let lifted = plan.transform_up_with_subqueries(|plan| {
            let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
            Ok(match over_outer_rows(join)? {
                Some(lifted) => Transformed::yes(lifted),
                None => Transformed::no(plan),
            })
        })?;
        match lifted.transformed {
            true => {
                Ok(lifted.data.transform_up_with_subqueries(|plan| plan.recompute_schema().map(Transformed::yes))?.data)
            }
            false => Ok(lifted.data),
        }
    }
}

/// What a join with such a subquery is, if it is one.
fn over_outer_rows(join: &Join) -> Result<Option<LogicalPlan>> {
    let mut right = &join.right;
    while let LogicalPlan::SubqueryAlias(alias) = right.as_ref() {
        right = &alias.input;
    }
    let LogicalPlan::Subquery(subquery) = right.as_ref() else { return Ok(None) };
    let is_always =
        |filter: &Expr| *filter == lit(true) || *filter == Expr::Literal(ScalarValue::Boolean(Some(true)), None);
    let fits = join.on.is_empty()
        && match join.join_type {
            JoinType::Inner => true,
            // Where there may be no row, one of nulls would have to be made.
            JoinType::Left => join.filter.as_ref().is_none_or(is_always) && gives_one_row(&subquery.subquery),
            _ => false,
        };
    if !fits {
        return Ok(None);
    }
    let outer = Outer::of(join.left.schema());
    let Some(inner) = outer.lift(&subquery.subquery, &join.left)? else { return Ok(None) };
    let width = outer.schema.fields().len();
    let outside = outer.schema.iter().enumerate().map(|(at, (qualifier, field))| {
        Expr::Column(Column::new_unqualified(name_of(at))).alias_qualified(qualifier.cloned(), field.name())
    });
    let inside = inner.schema().columns().into_iter().skip(width).zip(join.right.schema().iter());
    let inside = inside
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    let columns = outside.chain(inside).collect::<Vec<_>>();
    let mut plan = LogicalPlanBuilder::from(inner).project(columns)?;
    if let Some(filter) = join.filter.as_ref().filter(|filter| !is_always(filter)) {
        plan = plan.filter(filter.clone())?;
    }
    plan.build().map(Some)
}

fn gives_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Subquery(_) => {
            plan.inputs().into_iter().all(gives_one_row)
        }
        _ => false,
    }
}

/// What an outer column is called within the subquery: as none there is.
fn name_of(at: usize) -> String {
    format!("henge_outer_{at}")
}

struct Outer {
    schema: DFSchemaRef,
}

impl Outer {
    fn of(schema: &DFSchemaRef) -> Self {
        Self { schema: Arc::clone(schema) }
    }

    /// The subquery over the outer rows, whose columns come first; `None` if it is more than computing.
    fn lift(&self, plan: &LogicalPlan, rows: &Arc<LogicalPlan>) -> Result<Option<LogicalPlan>> {
        let lifted = |input: &LogicalPlan| self.lift(input, rows);
        match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => {
                let columns = self.schema.columns().into_iter().enumerate();
                let columns = columns.map(|(at, column)| Expr::Column(column).alias(name_of(at)));
                LogicalPlanBuilder::from(rows.as_ref().clone()).project(columns.collect::<Vec<_>>())?.build().map(Some)
            }
            LogicalPlan::Projection(projection) => {
                let Some(input) = lifted(&projection.input)? else { return Ok(None) };
                self.project(projection, input)
            }
            LogicalPlan::Filter(filter) => {
                let (Some(input), Some(predicate)) = (lifted(&filter.input)?, self.resolve(filter.predicate.clone())?)
                else {
                    return Ok(None);
                };
                LogicalPlanBuilder::from(input).filter(predicate)?.build().map(Some)
            }
            LogicalPlan::Unnest(unnest) => {
                let Some(input) = lifted(&unnest.input)? else { return Ok(None) };
                let builder = LogicalPlanBuilder::from(input);
                builder
                    .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
                    .build()
                    .map(Some)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(input) = lifted(&alias.input)? else { return Ok(None) };
                let inside = input.schema().columns().into_iter().skip(self.schema.fields().len());
                let inside = inside.map(|column| {
                    let name = column.name.clone();
                    Expr::Column(column).alias_qualified(Some(alias.alias.clone()), name)
                });
                let columns = self.handed_through().chain(inside).collect::<Vec<_>>();
                LogicalPlanBuilder::from(input).project(columns)?.build().map(Some)
            }
            LogicalPlan::Subquery(subquery) => lifted(&subquery.subquery),
            // Its order is lost anyway.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => lifted(&sort.input),
            _ => Ok(None),
        }
    }

    fn project(&self, projection: &Projection, input: LogicalPlan) -> Result<Option<LogicalPlan>> {
        let mut columns = self.handed_through().collect::<Vec<_>>();
        for (expr, (qualifier, field)) in projection.expr.iter().zip(projection.schema.iter()) {
            let Some(expr) = self.resolve(expr.clone())? else { return Ok(None) };
            columns.push(named(expr, qualifier, field.name()));
        }
        LogicalPlanBuilder::from(input).project(columns)?.build().map(Some)
    }

    fn handed_through(&self) -> impl Iterator<Item = Expr> {
        (0..self.schema.fields().len()).map(|at| Expr::Column(Column::new_unqualified(name_of(at))))
    }

    /// The expression with the outer columns as they are called here; `None` if it holds a subquery.
    fn resolve(&self, expr: Expr) -> Result<Option<Expr>> {
        let has_subquery = expr.exists(|expr| {
            Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
        })?;
        if has_subquery {
            return Ok(None);
        }
        let resolved = expr.transform_up(|expr| {
            let Expr::OuterReferenceColumn(_, column) = &expr else { return Ok(Transformed::no(expr)) };
            Ok(match self.schema.maybe_index_of_column(column) {
                Some(at) => Transformed::yes(Expr::Column(Column::new_unqualified(name_of(at)))),
                None => Transformed::no(expr),
            })
        })?;
        Ok(Some(resolved.data))
    }
}

/// An expression under the name that it had.
fn named(expr: Expr, qualifier: Option<&TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation.as_ref() == qualifier && column.name == name => expr,
        _ => expr.unalias().alias_qualified(qualifier.cloned(), name),
    }
}
