//! Functions that give rows, and functions in the place of tables.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    Array, CastKind, DataType, DateTimeField, Expr, ExtractSyntax, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectName, ObjectNamePart, SelectItem, SetExpr, Statement, TableAlias, TableFactor,
    Value, Visit, Visitor,
};

use super::{call, take};
use crate::session::statement;

/// Functions that give a row for each item of what another function makes.
const SETS: &[(&str, &str)] = &[
    ("regexp_matches", "henge_regexp_matches"),
    ("regexp_split_to_table", "regexp_split_to_array"),
    ("string_to_table", "string_to_array"),
    ("json_object_keys", "henge_json_object_keys"),
    ("json_array_elements", "henge_json_array_elements"),
    ("json_array_elements_text", "henge_json_array_elements_text"),
    ("jsonb_object_keys", "henge_jsonb_object_keys"),
    ("jsonb_array_elements", "henge_jsonb_array_elements"),
    ("jsonb_array_elements_text", "henge_jsonb_array_elements_text"),
];

pub(super) fn name_of(name: &ObjectName) -> String {
    name.0.last().and_then(ObjectNamePart::as_ident).map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

fn array_function(function: &Function) -> Option<&'static str> {
    let name = name_of(&function.name);
    SETS.iter().find(|(set, _)| *set == name).map(|(_, array)| *array)
}

pub(super) fn is_set(function: &Function) -> bool {
    array_function(function).is_some()
}

/// `regexp_split_to_table(x, y)` is `unnest(regexp_split_to_array(x, y))`.
pub(super) fn unnested(function: &mut Function) -> Expr {
    let mut function = std::mem::replace(function, empty_call());
    if let Some(array) = array_function(&function) {
        function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::new(array))]);
    }
    call("unnest", vec![Expr::Function(function)])
}

fn empty_call() -> Function {
    match call("null", Vec::new()) {
        Expr::Function(function) => function,
        _ => unreachable!("`call` makes a function"),
    }
}

/// What is made into something else keeps the label that it would have had.
pub(super) fn keep_label(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let label = match &*expr {
        Expr::Function(function) if is_set(function) || seconds_of(function).is_some() => name_of(&function.name),
        Expr::Exists { negated: false, .. } => "exists".to_owned(),
        Expr::Function(function) if super::array::is_of_query(function) => "array".to_owned(),
        _ => return,
    };
    *item = SelectItem::ExprWithAlias { expr: take(expr), alias: Ident::with_quote('"', label) };
}

/// `x` of `date_part('second', x)`, which has a fraction: `EXTRACT(second FROM x)`.
pub(super) fn seconds_of(function: &Function) -> Option<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(part)), FunctionArg::Unnamed(FunctionArgExpr::Expr(time))] =
        list.args.as_slice()
    else {
        return None;
    };
    let Expr::Value(part) = part else { return None };
    let Value::SingleQuotedString(part) = &part.value else { return None };
    let is_second = ["second", "seconds", "sec", "secs", "s"].iter().any(|name| part.eq_ignore_ascii_case(name));
    (name_of(&function.name) == "date_part" && is_second).then_some(time)
}

/// What [`seconds_of`] found, as the planner knows it.
pub(super) fn extract_seconds(time: Expr) -> Expr {
    Expr::Extract { field: DateTimeField::Second, syntax: ExtractSyntax::From, expr: Box::new(time) }
}

/// A function in the place of a table, however it is written there.
struct InFrom {
    name: ObjectName,
    arguments: Vec<Expr>,
    with_ordinality: bool,
    alias: Option<TableAlias>,
}

/// `FROM f(x) AS a` is `FROM (SELECT f(x) AS a) AS a`, where the planner knows `f` in a select list only: it gives one value,
/// or its arguments are columns of the tables before it, or its rows are to be numbered.
pub(super) fn from_function(factor: &mut TableFactor, state: &SessionState) {
    let wanted = match &*factor {
        TableFactor::Table { name, args: Some(args), with_ordinality, .. } => {
            let function = name_of(name);
            let is_series = function == "generate_series";
            let gives_a_value = state.scalar_functions().contains_key(&function)
                && !state.table_functions().contains_key(&function)
                && function != "unnest";
            let is_set = SETS.iter().any(|(set, _)| *set == function);
            gives_a_value || is_set || is_series && (*with_ordinality || has_columns(&args.args))
        }
        TableFactor::Function { .. } => true,
        TableFactor::UNNEST { array_exprs, with_ordinality, .. } => *with_ordinality || has_columns(array_exprs),
        _ => false,
    };
    if wanted
        && let Some(derived) = select_of_one()
        && let Some(function) = InFrom::take(factor)
    {
        *factor = function.within(derived);
    }
}

/// Whether something names a column.
fn has_columns(what: &impl Visit) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. } => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    what.visit(&mut Finder).is_break()
}

impl InFrom {
    /// `None` of what is no such function, or has arguments of another kind.
    fn take(factor: &mut TableFactor) -> Option<Self> {
        let plain = |argument: &FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        };
        let arguments = |arguments: &[FunctionArg]| arguments.iter().map(plain).collect::<Option<Vec<_>>>();
        match factor {
            TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => Some(Self {
                name: name.clone(),
                arguments: arguments(&args.args)?,
                with_ordinality: *with_ordinality,
                alias: alias.take(),
            }),
            TableFactor::Function { name, alias, args, with_ordinality, .. } => Some(Self {
                name: name.clone(),
                arguments: arguments(args)?,
                with_ordinality: *with_ordinality,
                alias: alias.take(),
            }),
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => Some(Self {
                name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new("unnest"))]),
                arguments: array_exprs.clone(),
                with_ordinality: *with_ordinality,
                alias: alias.take(),
            }),
            _ => None,
        }
    }

    /// The function's lists, if it gives rows; a value for each of them is one row.
    fn lists(&self) -> Option<Vec<Expr>> {
        let function = name_of(&self.name);
        match function.as_str() {
            "unnest" => Some(self.arguments.clone()),
            "generate_series" => Some(vec![call(&function, self.arguments.clone())]),
            _ => {
                let (_, array) = SETS.iter().find(|(set, _)| *set == function)?;
                Some(vec![call(array, self.arguments.clone())])
            }
        }
    }

    /// A subquery that selects what the function gives.
    fn within(self, mut derived: TableFactor) -> TableFactor {
        let lists = self.lists();
        let mut columns = match &lists {
            Some(lists) => lists.iter().map(|list| call("unnest", vec![list.clone()])).collect(),
            None => {
                let mut value = call("null", self.arguments.clone());
                if let Expr::Function(function) = &mut value {
                    function.name = self.name.clone();
                }
                vec![value]
            }
        };
        let function = name_of(&self.name);
        let alias = self.alias.unwrap_or_else(|| table_alias(Ident::new(function.clone())));
        // A single column is called as the table is.
        let name = if columns.len() == 1 { alias.name.clone() } else { Ident::new(function) };
        let mut names = vec![name; columns.len()];
        if self.with_ordinality {
            let number = match &lists {
                Some(lists) => call("unnest", vec![series_along(lists)]),
                None => number("1"),
            };
            columns.push(Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(number),
                data_type: DataType::BigInt(None),
                array: false,
                format: None,
            });
            names.push(Ident::new("ordinality"));
        }
        if let TableFactor::Derived { lateral, subquery, alias: outer, .. } = &mut derived {
            *lateral = true;
            *outer = Some(alias);
            if let SetExpr::Select(select) = subquery.body.as_mut() {
                let items = columns.into_iter().zip(names);
                let items = items.map(|(expr, alias)| SelectItem::ExprWithAlias { expr, alias });
                select.projection = items.collect();
            }
        }
        derived
    }
}

/// 1, 2 and so on, as many as the longest of some lists has items.
fn series_along(lists: &[Expr]) -> Expr {
    let length = |list: &Expr| call("coalesce", vec![call("cardinality", vec![list.clone()]), number("0")]);
    let longest = match lists {
        [list] => length(list),
        lists => call("greatest", lists.iter().map(length).collect()),
    };
    let longest = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(longest),
        data_type: DataType::BigInt(None),
        array: false,
        format: None,
    };
    call("generate_series", vec![number("1"), longest])
}

/// `LATERAL (VALUES (a, b), (c, d))` is `LATERAL (SELECT unnest(ARRAY[a, c]) AS column1, unnest(ARRAY[b, d]) AS column2)`, where
/// it names columns: rows that the planner takes for computed.
pub(super) fn values_of_columns(factor: &mut TableFactor) {
    let TableFactor::Derived { lateral: true, subquery, .. } = factor else { return };
    let SetExpr::Values(values) = subquery.body.as_ref() else { return };
    if !has_columns(values) || subquery.order_by.is_some() || subquery.limit_clause.is_some() {
        return;
    }
    let Some(TableFactor::Derived { subquery: mut made, .. }) = select_of_one() else { return };
    let SetExpr::Select(select) = made.body.as_mut() else { return };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    if values.rows.iter().any(|row| row.content.len() != width) {
        return;
    }
    let column = |at: usize| {
        let elem = values.rows.iter().map(|row| row.content[at].clone()).collect();
        let list = Expr::Array(Array { elem, named: true });
        SelectItem::ExprWithAlias { expr: call("unnest", vec![list]), alias: Ident::new(format!("column{}", at + 1)) }
    };
    select.projection = (0..width).map(column).collect();
    *subquery = made;
}

fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.to_owned(), false))
}

fn table_alias(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: Vec::new(), at: None }
}

/// `(SELECT 1) AS t` as a relation.
fn select_of_one() -> Option<TableFactor> {
    let Statement::Query(query) = statement::parse("SELECT 1 FROM (SELECT 1) AS t").ok()?.pop()? else { return None };
    let SetExpr::Select(select) = *query.body else { return None };
    Some(select.from.into_iter().next()?.relation)
}
