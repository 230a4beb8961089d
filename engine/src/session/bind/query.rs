//! Queries: what is in scope where, and what a query gives out.

use std::collections::{HashMap, HashSet};

use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, Ident, ObjectName, ObjectNamePart, OrderBy, OrderByExpr, OrderByKind, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAliasColumnDef, WildcardAdditionalOptions, With,
};

use super::scope::Scope;
use super::table::{Tables, parts};
use super::{Match, at, find, label, nearest, otherwise, quoted, spelled};
use crate::error::{Error, Result};
use crate::session::SqlDialect;

/// One column that a query gives out.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// What it is called in the plan, different for every column.
    pub(super) name: String,
    /// What it is called in the answer.
    pub(super) label: String,
    /// The column it is, if it is nothing more.
    pub(super) column: Option<Expr>,
    /// What it is computed by, names bound.
    expr: Option<Expr>,
}

/// The columns of a query, if they are known.
pub(super) type Outputs = Option<Vec<Output>>;

pub(super) fn names(outputs: Outputs) -> Option<Vec<String>> {
    outputs.map(|outputs| outputs.into_iter().map(|output| output.name).collect())
}

pub(super) struct Binder<'a> {
    pub(super) tables: &'a Tables,
    pub(super) login: &'a str,
    pub(super) is_postgres: bool,
    /// The scopes of the queries around, innermost last.
    pub(super) scopes: Vec<Scope>,
    /// The columns of what `WITH` clauses around define, innermost last.
    ctes: Vec<HashMap<String, Option<Vec<String>>>>,
}

impl<'a> Binder<'a> {
    pub(super) fn new(tables: &'a Tables, login: &'a str, dialect: SqlDialect) -> Self {
        let is_postgres = dialect == SqlDialect::PostgreSql;
        Self { tables, login, is_postgres, scopes: Vec::new(), ctes: Vec::new() }
    }

    pub(super) fn query(&mut self, query: &mut Query) -> Result<Outputs> {
        self.ctes.push(HashMap::new());
        let outputs = self.query_in_frame(query);
        self.ctes.pop();
        outputs
    }

    fn query_in_frame(&mut self, query: &mut Query) -> Result<Outputs> {
        if let Some(with) = &mut query.with {
            self.with(with)?;
        }
        let outputs = self.body(&mut query.body, query.order_by.as_mut())?;
        if let Some(limit) = &mut query.limit_clause {
            self.expression(limit, &[])?;
        }
        Ok(outputs)
    }

    fn with(&mut self, with: &mut With) -> Result<()> {
        let recursive = with.recursive;
        for cte in &mut with.cte_tables {
            if recursive {
                let columns = self.columns_of_recursive(cte)?;
                self.define(&cte.alias.name.value, columns);
            }
            let outputs = self.query(&mut cte.query)?;
            let columns = rename(&mut cte.alias.columns, names(outputs));
            self.define(&cte.alias.name.value, columns);
            cte.alias.name.quote_style = Some('"');
        }
        Ok(())
    }

    /// The columns of a query that may name itself: those of its first part.
    fn columns_of_recursive(&mut self, cte: &Cte) -> Result<Option<Vec<String>>> {
        let mut first = cte.query.body.clone();
        while let SetExpr::SetOperation { left, .. } = *first {
            first = left;
        }
        let outputs = self.body(&mut first, None)?;
        Ok(rename(&mut cte.alias.columns.clone(), names(outputs)))
    }

    fn define(&mut self, name: &str, columns: Option<Vec<String>>) {
        if let Some(frame) = self.ctes.last_mut() {
            frame.insert(name.to_string(), columns);
        }
    }

    /// The `WITH` query of this name: its spelling and its columns.
    pub(super) fn cte(&self, name: &str) -> Option<(String, Option<Vec<String>>)> {
        self.ctes.iter().rev().find_map(|frame| match find(name, frame.iter(), |(name, _)| name.as_str()) {
            Match::One((name, columns)) => Some((name.clone(), columns.clone())),
            _ => None,
        })
    }

    /// Writes a table's name as it is spelled, and answers its names and columns.
    pub(super) fn table_name(&mut self, name: &mut ObjectName) -> Result<(Vec<String>, Option<Vec<String>>)> {
        let Some(path) = parts(name) else { return Ok((Vec::new(), None)) };
        if let [single] = path.as_slice()
            && let Some((spelling, columns)) = self.cte(single)
        {
            *name = ObjectName(vec![ObjectNamePart::Identifier(quoted(&spelling))]);
            return Ok((vec![spelling], columns));
        }
        let Some(table) = self.tables.get(&path) else { return Err(self.no_table(name, &path)) };
        let parts = table.names.iter().map(|part| ObjectNamePart::Identifier(quoted(part)));
        *name = ObjectName(parts.collect());
        Ok((table.names.clone(), Some(table.columns.clone())))
    }

    fn no_table(&self, name: &ObjectName, path: &[String]) -> Error {
        if let Some(word) = name.0.first().and_then(ObjectNamePart::as_ident).filter(|word| is_clause(word)) {
            // The parser takes it for a name where nothing stands before it.
            let message = format!("syntax error at or near \"{}\"", word.value);
            return at(Error::invalid_input(message).with_sqlstate("42601"), word);
        }
        let error = Error::invalid_input(format!("table `{}` does not exist", path.join("."))).with_sqlstate("42P01");
        let near = path.last().and_then(|last| nearest(last, self.tables.known()));
        let error = match near {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error,
        };
        match name.0.first().and_then(ObjectNamePart::as_ident) {
            Some(first) => at(error, first),
            None => error,
        }
    }

    fn body(&mut self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<Outputs> {
        match body {
            SetExpr::Select(select) => self.select(select, order_by),
            SetExpr::Query(query) => {
                let outputs = self.query(query)?;
                self.order_outputs(order_by, outputs)
            }
            SetExpr::SetOperation { left, right, .. } => {
                let outputs = self.body(left, None)?;
                self.body(right, None)?;
                self.order_outputs(order_by, outputs)
            }
            SetExpr::Values(values) => {
                for row in &mut values.rows {
                    self.expression(row, &[])?;
                }
                let width = values.rows.first().map_or(0, |row| row.len());
                let outputs = (1..=width).map(|i| given(format!("column{i}"))).collect();
                self.order_outputs(order_by, Some(outputs))
            }
            _ => Ok(None),
        }
    }

    /// Orders by what a query gives out, where its tables are out of sight.
    fn order_outputs(&mut self, order_by: Option<&mut OrderBy>, outputs: Outputs) -> Result<Outputs> {
        let bare: Vec<Output> =
            outputs.iter().flatten().map(|output| Output { column: None, expr: None, ..output.clone() }).collect();
        for item in sort_items(order_by) {
            self.order_item(&mut item.expr, &bare, outputs.is_none())?;
        }
        Ok(outputs.map(|_| bare))
    }

    fn order_item(&mut self, expr: &mut Expr, outputs: &[Output], open: bool) -> Result<()> {
        match expr {
            Expr::Identifier(wanted) => match super::expression::output(outputs, wanted) {
                Some(output) => {
                    *expr = output;
                    Ok(())
                }
                None if open => Ok(()),
                None => self.expression(expr, outputs),
            },
            _ => {
                self.expression(expr, outputs)?;
                // The planner, asked for `DISTINCT`, does not see that the two are the same.
                let same = outputs.iter().find(|output| output.column.is_none() && output.expr.as_ref() == Some(expr));
                if let Some(output) = same {
                    *expr = Expr::Identifier(quoted(&output.name));
                }
                Ok(())
            }
        }
    }

    fn select(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<Outputs> {
        let mut scope = Scope::default();
        for from in &mut select.from {
            self.joined(from, &mut scope)?;
        }
        self.scopes.push(scope);
        let outputs = self.select_in_scope(select, order_by);
        self.scopes.pop();
        outputs
    }

    fn select_in_scope(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<Outputs> {
        self.expression(&mut select.selection, &[])?;
        let outputs = self.projection(&mut select.projection)?;
        let known = outputs.clone().unwrap_or_default();
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            self.expression(exprs, &known)?;
        }
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            self.expression(exprs, &known)?;
        }
        self.expression(&mut select.having, &known)?;
        self.expression(&mut select.named_window, &[])?;
        self.expression(&mut select.qualify, &known)?;
        for item in sort_items(order_by) {
            self.order_item(&mut item.expr, &known, false)?;
        }
        Ok(outputs)
    }

    fn projection(&mut self, items: &mut [SelectItem]) -> Result<Outputs> {
        let mut taken = HashSet::new();
        let mut wildcards = HashMap::new();
        for (i, item) in items.iter_mut().enumerate() {
            if let Some(columns) = self.wildcard(item)? {
                taken.extend(columns.iter().flatten().cloned());
                wildcards.insert(i, columns);
            }
        }
        let mut outputs = Some(Vec::new());
        for (i, item) in items.iter_mut().enumerate() {
            let given_out = match wildcards.remove(&i) {
                Some(columns) => columns.map(|columns| columns.into_iter().map(given).collect()),
                None => {
                    let place = outputs.as_ref().map_or(i, Vec::len);
                    Some(vec![self.item(item, place, &mut taken)?])
                }
            };
            outputs = match (outputs, given_out) {
                (Some(mut outputs), Some(more)) => {
                    outputs.extend::<Vec<Output>>(more);
                    Some(outputs)
                }
                _ => None,
            };
        }
        Ok(outputs)
    }

    /// The columns that `*` or `t.*` stands for; `None` for other items, `Some(None)` if they are not known.
    fn wildcard(&mut self, item: &mut SelectItem) -> Result<Option<Option<Vec<String>>>> {
        let Some(scope) = self.scopes.last() else { return Ok(None) };
        let (columns, options) = match item {
            SelectItem::Wildcard(options) => (scope.everything(), options),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let path: Vec<_> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                let Some(relation) = self.scopes.iter().rev().find_map(|scope| scope.relation(&path)) else {
                    let message = format!("there is no table `{name}` in the `FROM` clause");
                    return Err(Error::invalid_input(message).with_sqlstate("42P01"));
                };
                *name =
                    ObjectName(relation.names.iter().map(|part| ObjectNamePart::Identifier(quoted(part))).collect());
                (relation.columns.clone(), options)
            }
            SelectItem::QualifiedWildcard(..) => return Ok(Some(None)),
            _ => return Ok(None),
        };
        let plain = WildcardAdditionalOptions { wildcard_token: options.wildcard_token.clone(), ..Default::default() };
        Ok(Some(if *options == plain { columns } else { None }))
    }

    /// The item at a place (from 0) of the select list.
    fn item(&mut self, item: &mut SelectItem, place: usize, taken: &mut HashSet<String>) -> Result<Output> {
        let (mut expr, alias) = match std::mem::replace(item, SelectItem::Wildcard(Default::default())) {
            SelectItem::UnnamedExpr(expr) => (expr, None),
            SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias)),
            other => {
                *item = other;
                return Err(Error::unsupported(format!("`{item}` is not supported in a select list")));
            }
        };
        let typed = label::of(&expr);
        otherwise::many_rows(&mut expr);
        self.expression(&mut expr, &[])?;
        let column = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)).then(|| expr.clone());
        let own = column.as_ref().map(label::of);
        let label = match (&alias, &own) {
            (Some(alias), _) => alias.value.clone(),
            (None, Some(own)) if self.is_postgres => own.clone(),
            (None, None) if !self.is_postgres => format!("EXPR${place}"),
            (None, _) => typed,
        };
        let name = unused(&label, taken);
        let is_plain = alias.is_none() && own.as_ref() == Some(&name);
        let written = alias.unwrap_or_else(|| quoted(&label));
        let bound = expr.clone();
        *item = match is_plain {
            true => SelectItem::UnnamedExpr(expr),
            false => SelectItem::ExprWithAlias { expr, alias: spelled(&name, &written) },
        };
        Ok(Output { name, label, column: column.filter(|_| is_plain), expr: Some(bound) })
    }
}

impl Scope {
    /// What `*` stands for, in the planner's order: columns merged by `USING` once, at their first place.
    fn everything(&self) -> Option<Vec<String>> {
        let mut seen = HashSet::new();
        let mut columns = Vec::new();
        for relation in &self.relations {
            for column in relation.columns.as_ref()? {
                if !self.merged.contains(column) || seen.insert(column) {
                    columns.push(column.clone());
                }
            }
        }
        Some(columns)
    }
}

/// A word that begins a clause and can be no table's name without quotes.
fn is_clause(word: &Ident) -> bool {
    const CLAUSES: &[&str] = &[
        "except",
        "fetch",
        "from",
        "group",
        "having",
        "intersect",
        "limit",
        "offset",
        "order",
        "select",
        "union",
        "where",
        "window",
    ];
    word.quote_style.is_none() && CLAUSES.iter().any(|clause| clause.eq_ignore_ascii_case(&word.value))
}

/// `label`, or `label_2` and so on where another column has the name already.
fn unused(label: &str, taken: &mut HashSet<String>) -> String {
    let mut name = label.to_string();
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{label}_{count}");
    }
    name
}

fn given(name: String) -> Output {
    Output { label: name.clone(), name, column: None, expr: None }
}

fn sort_items(order_by: Option<&mut OrderBy>) -> impl Iterator<Item = &mut OrderByExpr> {
    let items = order_by.and_then(|order_by| match &mut order_by.kind {
        OrderByKind::Expressions(items) => Some(items),
        OrderByKind::All(_) => None,
    });
    items.into_iter().flatten()
}

/// Names the columns of an aliased query: `AS t (a, b)` for the first ones, the others keep theirs.
pub(super) fn rename(given: &mut [TableAliasColumnDef], columns: Option<Vec<String>>) -> Option<Vec<String>> {
    given.iter_mut().for_each(|column| column.name.quote_style = Some('"'));
    let given = given.iter().map(|column| column.name.value.clone());
    match columns {
        Some(columns) => {
            let kept = columns.into_iter().skip(given.len());
            Some(given.chain(kept).collect())
        }
        None if given.len() > 0 => Some(given.collect()),
        None => None,
    }
}
