//! Functions that give rows, and functions in the place of tables.

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    DateTimeField, Expr, ExtractSyntax, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, SelectItem, SetExpr, Statement, TableAlias, TableFactor, Value,
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

/// `FROM f(x) AS a`, of a function that gives one value, is `FROM (SELECT f(x) AS a) AS a`.
pub(super) fn from_function(factor: &mut TableFactor, state: &SessionState) {
    let TableFactor::Table { name, alias, args: Some(args), with_ordinality: false, .. } = factor else { return };
    let function = name_of(name);
    let gives_a_value = state.scalar_functions().contains_key(&function)
        && !state.table_functions().contains_key(&function)
        && function != "unnest";
    if !gives_a_value && !SETS.iter().any(|(set, _)| *set == function) {
        return;
    }
    let Some((mut derived, mut called)) = selected_call() else { return };
    let column = alias.as_ref().map_or_else(|| Ident::new(function.clone()), |alias| alias.name.clone());
    called.name = name.clone();
    if let FunctionArguments::List(list) = &mut called.args {
        list.args = std::mem::take(&mut args.args);
    }
    let alias = alias.take().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: column.clone(),
        columns: Vec::new(),
        at: None,
    });
    if let TableFactor::Derived { subquery, alias: outer, .. } = &mut derived {
        *outer = Some(alias);
        if let SetExpr::Select(select) = subquery.body.as_mut() {
            select.projection = vec![SelectItem::ExprWithAlias { expr: Expr::Function(called), alias: column }];
        }
    }
    *factor = derived;
}

/// `(SELECT f()) AS t` as a relation, and the call by itself.
fn selected_call() -> Option<(TableFactor, Function)> {
    let Statement::Query(query) = statement::parse("SELECT 1 FROM (SELECT f()) AS t").ok()?.pop()? else { return None };
    let SetExpr::Select(select) = *query.body else { return None };
    let derived = select.from.into_iter().next()?.relation;
    Some((derived, empty_call()))
}
