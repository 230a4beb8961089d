//! Aggregates that pick a value by its place among all of them: `percentile_disc`, `mode`, and percentiles of several shares.

use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, OrderByExpr, Value,
};

use super::array_text::items_of_literal;
use super::{and, arguments, binary, call, case, cast, nested, null, number};
use crate::error::{Error, Result};
use crate::function::array;

/// The shares of `percentile_cont(ARRAY[0.25, 0.5])`.
pub(super) fn several(function: &Function) -> Option<Vec<Expr>> {
    let [shares] = <[Expr; 1]>::try_from(arguments(function)).ok()?;
    match shares {
        Expr::Array(array) => Some(array.elem),
        Expr::Cast { expr, .. } => items_of_literal(&expr),
        literal => items_of_literal(&literal),
    }
}

/// A percentile for each of several shares, as an array; null where there is no value.
pub(super) fn each_percentile(function: &Function, shares: Vec<Expr>) -> Result<Expr> {
    let percentile = |share: Expr| -> Result<Expr> {
        let mut one = function.clone();
        if let FunctionArguments::List(list) = &mut one.args {
            let share = cast(share, DataType::DoublePrecision);
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(share))];
        }
        match rows_name(&one).as_str() {
            "percentile_disc" => percentile_disc(&mut one),
            _ => Ok(Expr::Function(one)),
        }
    };
    let Some(order) = function.within_group.first() else {
        let message = "a percentile is written as `percentile_cont(0.5) WITHIN GROUP (ORDER BY x)`";
        return Err(Error::invalid_input(message).with_sqlstate("42883"));
    };
    let Expr::Function(mut count) = call("count", vec![order.expr.clone()]) else { return Ok(null()) };
    count.filter = function.filter.clone();
    let is_none = binary(Expr::Function(count), BinaryOperator::Eq, number("0"));
    let elem = shares.into_iter().map(percentile).collect::<Result<_>>()?;
    Ok(case(is_none, null(), Expr::Array(Array { elem, named: true })))
}

fn rows_name(function: &Function) -> String {
    function.name.to_string().to_ascii_lowercase()
}

/// The value that is there most often; of several, the first in order.
pub(super) fn mode(function: &mut Function) -> Result<Expr> {
    let [order] = function.within_group.as_slice() else {
        let message = "`mode` is written as `mode() WITHIN GROUP (ORDER BY x)`";
        return Err(Error::invalid_input(message).with_sqlstate("42883"));
    };
    let there = Expr::IsNotNull(Box::new(order.expr.clone()));
    let filter = match function.filter.take() {
        Some(filter) => and(nested(*filter), there),
        None => there,
    };
    let all = aggregate("array_agg", order.expr.clone(), Some(order.clone()), filter);
    Ok(call(array::MOST_FREQUENT, vec![all]))
}

/// The value at a share of the ordered ones that are there: the one at place `ceil(share * count)`.
pub(super) fn percentile_disc(function: &mut Function) -> Result<Expr> {
    let wrong = || {
        let message = "`percentile_disc` is written as `percentile_disc(0.5) WITHIN GROUP (ORDER BY x)`";
        Error::invalid_input(message).with_sqlstate("42883")
    };
    let shares = arguments(function);
    let ([share], [order]) = (shares.as_slice(), function.within_group.as_slice()) else {
        return Err(wrong());
    };
    if let Expr::Value(value) = share
        && let Value::Number(text, _) = &value.value
        && !text.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share))
    {
        return Err(
            Error::invalid_input(format!("percentile value {text} is not between 0 and 1")).with_sqlstate("22003")
        );
    }
    let value = order.expr.clone();
    let there = Expr::IsNotNull(Box::new(value.clone()));
    let filter = match function.filter.take() {
        Some(filter) => and(nested(*filter), there),
        None => there,
    };
    let all = aggregate("array_agg", value.clone(), Some(order.clone()), filter.clone());
    let count = aggregate("count", value, None, filter);
    let place =
        call("ceil", vec![binary(cast(share.clone(), DataType::DoublePrecision), BinaryOperator::Multiply, count)]);
    let place = cast(call("greatest", vec![place, number("1")]), DataType::BigInt(None));
    Ok(call("array_element", vec![all, place]))
}

fn aggregate(name: &str, value: Expr, order: Option<OrderByExpr>, filter: Expr) -> Expr {
    let Expr::Function(mut function) = call(name, vec![value]) else { return null() };
    if let (FunctionArguments::List(list), Some(order)) = (&mut function.args, order) {
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![order]));
    }
    function.filter = Some(Box::new(filter));
    Expr::Function(function)
}
