//! The `FROM` clause.

use datafusion::sql::sqlparser::ast::{
    FunctionArg, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, TableAlias, TableAliasColumnDef,
    TableFactor, TableWithJoins,
};

use super::query::{Binder, names, rename};
use super::scope::{Relation, Scope, unknown};
use super::{Match, find, quoted};
use crate::error::{Error, Result};

impl Binder<'_> {
    pub(super) fn joined(&mut self, from: &mut TableWithJoins, scope: &mut Scope) -> Result<()> {
        let start = scope.relations.len();
        self.relation(&mut from.relation, scope)?;
        for join in &mut from.joins {
            let middle = scope.relations.len();
            self.relation(&mut join.relation, scope)?;
            let Some(constraint) = constraint(&mut join.join_operator) else { continue };
            match constraint {
                JoinConstraint::On(condition) => {
                    self.scopes.push(std::mem::take(scope));
                    let bound = self.expression(condition, &[]);
                    *scope = self.scopes.pop().unwrap_or_default();
                    bound?;
                }
                JoinConstraint::Using(columns) => merge(columns, scope, start, middle)?,
                JoinConstraint::Natural => merge_common(scope, start, middle),
                JoinConstraint::None => {}
            }
        }
        Ok(())
    }

    fn relation(&mut self, factor: &mut TableFactor, scope: &mut Scope) -> Result<()> {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let (names, columns) = self.table_name(name)?;
                scope.relations.push(aliased(alias, names, columns));
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => {
                self.arguments(&mut args.args, scope)?;
                name_series(name, alias);
                scope.relations.push(aliased(alias, function_name(name), None));
            }
            TableFactor::Function { name, alias, args, .. } => {
                self.arguments(args, scope)?;
                name_series(name, alias);
                scope.relations.push(aliased(alias, function_name(name), None));
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let outputs = if *lateral {
                    self.scopes.push(std::mem::take(scope));
                    let outputs = self.query(subquery);
                    *scope = self.scopes.pop().unwrap_or_default();
                    outputs?
                } else {
                    self.query(subquery)?
                };
                scope.relations.push(aliased(alias, Vec::new(), names(outputs)));
            }
            TableFactor::UNNEST { alias, array_exprs, .. } => {
                self.scopes.push(std::mem::take(scope));
                let bound = self.expression(array_exprs, &[]);
                *scope = self.scopes.pop().unwrap_or_default();
                bound?;
                scope.relations.push(aliased(alias, Vec::new(), None));
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                let mut inner = Scope::default();
                self.joined(table_with_joins, &mut inner)?;
                match alias {
                    Some(_) => {
                        let columns = inner.columns().map(str::to_string).collect();
                        let columns = (!inner.is_open()).then_some(columns);
                        scope.relations.push(aliased(alias, Vec::new(), columns));
                    }
                    None => {
                        scope.relations.append(&mut inner.relations);
                        scope.merged.append(&mut inner.merged);
                    }
                }
            }
            _ => scope.relations.push(Relation { names: Vec::new(), columns: None }),
        }
        Ok(())
    }

    /// The arguments of a table function, which may name the relations before it.
    fn arguments(&mut self, args: &mut Vec<FunctionArg>, scope: &mut Scope) -> Result<()> {
        self.scopes.push(std::mem::take(scope));
        let bound = self.expression(args, &[]);
        *scope = self.scopes.pop().unwrap_or_default();
        bound
    }
}

fn aliased(alias: &mut Option<TableAlias>, names: Vec<String>, columns: Option<Vec<String>>) -> Relation {
    let Some(alias) = alias else { return Relation { names, columns } };
    alias.name.quote_style = Some('"');
    let columns = rename(&mut alias.columns, columns);
    Relation { names: vec![alias.name.value.clone()], columns }
}

fn function_name(name: &ObjectName) -> Vec<String> {
    name.0.last().and_then(ObjectNamePart::as_ident).map(|ident| ident.value.clone()).into_iter().collect()
}

/// PostgreSQL calls the column of `generate_series(…) AS day` `day`; DataFusion calls it `value`.
fn name_series(name: &ObjectName, alias: &mut Option<TableAlias>) {
    let function = function_name(name).pop().unwrap_or_default().to_lowercase();
    if function != "generate_series" {
        return;
    }
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: quoted(&function),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef { name: quoted(&alias.name.value), data_type: None });
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::RightSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint)
        | JoinOperator::RightAnti(constraint)
        | JoinOperator::StraightJoin(constraint)
        | JoinOperator::AsOf { constraint, .. } => Some(constraint),
        _ => None,
    }
}

/// `USING (c)`: a column of both sides, under one name.
fn merge(columns: &mut [ObjectName], scope: &mut Scope, start: usize, middle: usize) -> Result<()> {
    for column in columns {
        let Some(wanted) = column.0.last().and_then(ObjectNamePart::as_ident).cloned() else { continue };
        let left = side(&scope.relations[start..middle], &wanted)?;
        let right = side(&scope.relations[middle..], &wanted)?;
        let name = match (left, right) {
            (Some(left), Some(right)) if left == right => left,
            (Some(left), Some(right)) => {
                let message =
                    format!("`USING` needs one name on both sides, not `\"{left}\"` and `\"{right}\"`; join with `ON`");
                return Err(super::at(Error::invalid_input(message).with_sqlstate("42703"), &wanted));
            }
            _ => continue,
        };
        *column = ObjectName(vec![ObjectNamePart::Identifier(quoted(&name))]);
        scope.merged.push(name);
    }
    Ok(())
}

fn side(relations: &[Relation], wanted: &Ident) -> Result<Option<String>> {
    let columns = relations.iter().flat_map(|relation| relation.columns.iter().flatten());
    match find(&wanted.value, columns.clone(), |column| column.as_str()) {
        Match::One(column) => Ok(Some(column.clone())),
        Match::Many(columns) => Ok(Some(columns[0].clone())),
        Match::None if relations.iter().any(|relation| relation.columns.is_none()) => Ok(None),
        Match::None => Err(unknown(&wanted.value, wanted, columns.map(String::as_str))),
    }
}

fn merge_common(scope: &mut Scope, start: usize, middle: usize) {
    let columns = |relations: &[Relation]| -> Vec<String> {
        relations.iter().flat_map(|relation| relation.columns.clone().unwrap_or_default()).collect()
    };
    let right = columns(&scope.relations[middle..]);
    let common = columns(&scope.relations[start..middle]).into_iter().filter(|column| right.contains(column));
    scope.merged.extend(common.collect::<Vec<_>>());
}
