//! Names within an expression.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, DateTimeField, Expr, ExtractSyntax, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, Query, SetExpr, Value, Values, VisitMut, VisitorMut,
};

use super::query::{Binder, Output};
use super::scope::{Found, unknown};
use super::{Match, at, find, otherwise, quoted, spelled};
use crate::error::{Error, Result};
use crate::session::{CATALOG, SCHEMA};

impl Binder<'_> {
    /// Binds every name of an expression, subqueries included. A name that is no column of the scopes may be one of
    /// `outputs`, the select list's.
    pub(super) fn expression<V: VisitMut>(&mut self, expr: &mut V, outputs: &[Output]) -> Result<()> {
        let mut walk = Walk { binder: self, outputs, set_aside: Vec::new() };
        match expr.visit(&mut walk) {
            ControlFlow::Break(error) => Err(*error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// What an unqualified name means: a column of the innermost scope that has one, else an output, else a word of SQL.
    pub(super) fn unqualified(&self, wanted: &Ident, outputs: &[Output]) -> Result<Option<Expr>> {
        for scope in self.scopes.iter().rev() {
            if let Some(found) = scope.column(wanted)? {
                return Ok(Some(column(found, wanted)));
            }
        }
        if let Some(output) = output(outputs, wanted) {
            return Ok(Some(output));
        }
        if wanted.quote_style.is_none() && wanted.value.eq_ignore_ascii_case("localtimestamp") {
            return Ok(Some(otherwise::local_timestamp()));
        }
        if wanted.quote_style.is_none()
            && let Some(text) = self.word(&wanted.value)
        {
            return Ok(Some(Expr::value(Value::SingleQuotedString(text))));
        }
        Ok(None)
    }

    /// The value of a word that SQL gives a meaning when no column has it.
    fn word(&self, word: &str) -> Option<String> {
        match word.to_lowercase().as_str() {
            "user" | "current_user" | "session_user" | "current_role" => Some(self.login.to_string()),
            "current_catalog" => Some(CATALOG.to_string()),
            "current_schema" => Some(SCHEMA.to_string()),
            _ => None,
        }
    }

    fn identifier(&self, wanted: &Ident, outputs: &[Output]) -> Result<Option<Expr>> {
        if wanted.value.starts_with('@') {
            return Ok(None);
        }
        let found = self.unqualified(wanted, outputs)?;
        if found.is_none() && !self.scopes.iter().any(|scope| scope.is_open()) {
            let columns = self.scopes.iter().rev().flat_map(|scope| scope.columns());
            let outputs = outputs.iter().map(|output| output.label.as_str());
            return Err(unknown(&wanted.value, wanted, columns.chain(outputs)));
        }
        Ok(found)
    }

    /// `table.column`, or a column and what lies within it.
    fn compound(&self, path: &[Ident]) -> Result<Option<Expr>> {
        let [qualifier @ .., wanted] = path else { return Ok(None) };
        for scope in self.scopes.iter().rev() {
            if let Some(relation) = scope.relation(qualifier) {
                let Some(found) = relation.column(wanted)? else { return Ok(None) };
                let found = Found { qualifier: relation.names.clone(), column: found };
                return Ok(Some(column(found, wanted)));
            }
        }
        let Some(first) = qualifier.first() else { return Ok(None) };
        match self.unqualified(first, &[])? {
            Some(Expr::CompoundIdentifier(mut found)) => {
                found.extend(path[1..].iter().map(|part| spelled(&part.value, part)));
                Ok(Some(Expr::CompoundIdentifier(found)))
            }
            _ if self.scopes.iter().any(|scope| scope.is_open()) => Ok(None),
            _ => {
                let names: Vec<&str> = qualifier.iter().map(|part| part.value.as_str()).collect();
                let message = format!("there is no table `{}` in the `FROM` clause", names.join("."));
                Err(at(Error::invalid_input(message).with_sqlstate("42P01"), first))
            }
        }
    }
}

fn column(found: Found, wanted: &Ident) -> Expr {
    let name = spelled(&found.column, wanted);
    if found.qualifier.is_empty() {
        return Expr::Identifier(name);
    }
    Expr::CompoundIdentifier(found.qualifier.iter().map(|part| quoted(part)).chain([name]).collect())
}

/// The column of the select list that is called so. Of several, the first.
pub(super) fn output(outputs: &[Output], wanted: &Ident) -> Option<Expr> {
    let found = match find(&wanted.value, outputs.iter(), |output| output.label.as_str()) {
        Match::One(output) => output,
        Match::Many(outputs) => outputs[0],
        Match::None => return None,
    };
    Some(found.column.clone().unwrap_or_else(|| Expr::Identifier(spelled(&found.name, wanted))))
}

/// Walks an expression. Subqueries are bound by themselves and set aside meanwhile, since their names mean other things.
struct Walk<'a, 'b> {
    binder: &'a mut Binder<'b>,
    outputs: &'a [Output],
    set_aside: Vec<Query>,
}

impl Walk<'_, '_> {
    fn bind(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some(other) = otherwise::said(expr)? {
            *expr = other;
        }
        let bound = match expr {
            Expr::Identifier(wanted) => self.binder.identifier(wanted, self.outputs)?,
            Expr::CompoundIdentifier(path) => self.binder.compound(path)?,
            Expr::Function(function) => match remainder(function) {
                Some(remainder) => Some(remainder),
                None => return self.function(expr_word(function), expr),
            },
            Expr::Extract { field: DateTimeField::Second, expr: time, .. } if self.binder.is_postgres => {
                Some(seconds(std::mem::replace(time, null())))
            }
            // The planner knows no column of an outer query within brackets.
            Expr::Array(array) if self.binder.scopes.len() > 1 => {
                *expr = otherwise::array_of(std::mem::take(&mut array.elem));
                return Ok(());
            }
            Expr::CompoundFieldAccess { root, access_chain } => return self.field_access(root, access_chain),
            _ => None,
        };
        if let Some(bound) = bound {
            *expr = bound;
        }
        match subquery(expr) {
            Some(query) => {
                let mut bound = std::mem::replace(query, nothing());
                self.binder.query(&mut bound)?;
                self.set_aside.push(bound);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A word such as `user`, which the parser takes for a call, is a column if one is in scope.
    fn function(&mut self, word: Option<Ident>, expr: &mut Expr) -> Result<()> {
        if let Some(word) = word
            && let Some(bound) = self.binder.unqualified(&word, &[])?
        {
            *expr = bound;
        }
        if let Some(query) = subquery(expr) {
            let mut bound = std::mem::replace(query, nothing());
            self.binder.query(&mut bound)?;
            self.set_aside.push(bound);
        }
        Ok(())
    }

    /// `t.c[1]`, which the parser reads as `t` and then `.c` and `[1]` within it.
    fn field_access(&mut self, root: &mut Box<Expr>, chain: &mut Vec<AccessExpr>) -> Result<()> {
        let Expr::Identifier(first) = root.as_ref() else { return Ok(()) };
        let mut path = vec![first.clone()];
        while let Some(AccessExpr::Dot(Expr::Identifier(part))) = chain.first() {
            path.push(part.clone());
            chain.remove(0);
        }
        if path.len() > 1 {
            **root = Expr::CompoundIdentifier(path);
        }
        Ok(())
    }
}

impl VisitorMut for Walk<'_, '_> {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        match self.bind(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        if let Some(query) = subquery(expr)
            && let Some(bound) = self.set_aside.pop()
        {
            *query = bound;
        }
        ControlFlow::Continue(())
    }
}

/// `mod(a, b)` is `a % b`.
fn remainder(function: &mut Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    if !name.as_ident()?.value.eq_ignore_ascii_case("mod") {
        return None;
    }
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(left)), FunctionArg::Unnamed(FunctionArgExpr::Expr(right))] =
        list.args.as_mut_slice()
    else {
        return None;
    };
    let operand = |expr: &mut Expr| Box::new(Expr::Nested(Box::new(std::mem::replace(expr, null()))));
    let (left, right) = (operand(left), operand(right));
    Some(Expr::Nested(Box::new(Expr::BinaryOp { left, op: BinaryOperator::Modulo, right })))
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

/// `EXTRACT(SECOND FROM time)` with its fraction, which PostgreSQL gives and DataFusion cuts off.
fn seconds(time: Expr) -> Expr {
    let micros = Expr::Extract { field: DateTimeField::Microsecond, syntax: ExtractSyntax::From, expr: Box::new(time) };
    let million = Expr::value(Value::Number("1000000.0".to_string(), false));
    let quotient = Expr::BinaryOp { left: Box::new(micros), op: BinaryOperator::Divide, right: Box::new(million) };
    Expr::Nested(Box::new(quotient))
}

/// The word of a call without parentheses.
fn expr_word(function: &Function) -> Option<Ident> {
    match (&function.args, function.name.0.as_slice()) {
        (FunctionArguments::None, [word]) => word.as_ident().cloned(),
        _ => None,
    }
}

fn subquery(expr: &mut Expr) -> Option<&mut Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Exists { subquery, .. } | Expr::InSubquery { subquery, .. } => Some(subquery),
        Expr::Function(Function { args: FunctionArguments::Subquery(query), .. }) => Some(query),
        _ => None,
    }
}

/// A query without anything in it.
fn nothing() -> Query {
    Query {
        with: None,
        body: Box::new(SetExpr::Values(Values { explicit_row: false, value_keyword: false, rows: Vec::new() })),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}
