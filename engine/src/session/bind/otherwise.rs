//! What PostgreSQL says and DataFusion does not know, said by what it knows. Labels are taken before, so that a column is
//! called by what was written.

mod array_text;
mod percentile;

use datafusion::sql::sqlparser::ast::{
    Array, BinaryOperator, CaseWhen, CastKind, DataType, DateTimeField, Expr, ExtractSyntax, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, TimezoneInfo, UnaryOperator, Value,
};

use self::array_text::items_of_literal;
use self::percentile::{each_percentile, mode, percentile_disc, several};
use crate::error::{Error, Result};
use crate::function::json::operator;
use crate::function::uuid;

/// The other words for an expression, if it needs them.
pub(super) fn said(expr: &mut Expr) -> Result<Option<Expr>> {
    Ok(match expr {
        Expr::Function(function) => return of_function(function),
        Expr::AtTimeZone { timestamp, time_zone } => Some(call("timezone", vec![take(time_zone), take(timestamp)])),
        Expr::Extract { field, expr, .. } => span_of_years(field, expr),
        Expr::SimilarTo { negated, expr, pattern, escape_char } => {
            let escape = escape_char.as_ref().map(|value| &value.value);
            Some(matches_pattern(*negated, take(expr), &similar_pattern(pattern, escape)?))
        }
        Expr::Like { pattern, escape_char: escape @ Some(_), .. }
        | Expr::ILike { pattern, escape_char: escape @ Some(_), .. } => {
            if let Some(escape) = escape.take() {
                **pattern = with_backslashes(take(pattern), &escape.value)?;
            }
            None
        }
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
            if let Some(items) = items_of_literal(right) {
                **right = Expr::Array(Array { elem: items, named: true });
            }
            None
        }
        Expr::Substring { expr, substring_from: Some(from), substring_for: None, .. } if is_text(from) => {
            Some(call("regexp_substr_group", vec![take(expr), take(from)]))
        }
        Expr::UnaryOp { op: UnaryOperator::PGSquareRoot, expr } => Some(call("sqrt", vec![take(expr)])),
        Expr::UnaryOp { op: UnaryOperator::PGCubeRoot, expr } => Some(call("cbrt", vec![take(expr)])),
        Expr::UnaryOp { op: UnaryOperator::PGAbs, expr } => Some(call("abs", vec![take(expr)])),
        Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } if is_interval(left) => {
            Some(call("interval_times", vec![take(left), take(right)]))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } if is_interval(right) => {
            Some(call("interval_times", vec![take(right), take(left)]))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Divide, right } if is_interval(left) => {
            Some(call("interval_times", vec![take(left), inverse(take(right))]))
        }
        Expr::Cast { expr, data_type: DataType::Array(_), .. } => {
            // PostgreSQL reads its form of an array.
            if let Some(elem) = items_of_literal(expr) {
                **expr = Expr::Array(Array { elem, named: true });
            }
            None
        }
        Expr::Cast { expr, data_type, .. } => checked_text(data_type).map(|name| call(name, vec![take(expr)])),
        Expr::TypedString(typed) => {
            checked_text(&typed.data_type).map(|name| call(name, vec![Expr::Value(typed.value.clone())]))
        }
        Expr::Value(value) => match &value.value {
            Value::UnicodeStringLiteral(text) => Some(Expr::value(Value::SingleQuotedString(text.clone()))),
            _ => None,
        },
        _ => None,
    })
}

/// `generate_series(…)` in a select list gives a row for each of its values.
pub(super) fn many_rows(expr: &mut Expr) {
    if let Expr::Function(function) = expr
        && function.name.to_string().eq_ignore_ascii_case("generate_series")
    {
        *expr = call("unnest", vec![take(expr)]);
    }
}

/// `ARRAY[a, b]` as a call.
pub(super) fn array_of(items: Vec<Expr>) -> Expr {
    call("make_array", items)
}

/// `localtimestamp`, where it is no column.
pub(super) fn local_timestamp() -> Expr {
    cast(call("now", Vec::new()), DataType::Timestamp(None, TimezoneInfo::None))
}

fn of_function(function: &mut Function) -> Result<Option<Expr>> {
    let [name] = function.name.0.as_slice() else { return Ok(None) };
    let Some(name) = name.as_ident().map(|name| name.value.to_ascii_lowercase()) else { return Ok(None) };
    match name.as_str() {
        "percentile_cont" | "percentile_disc" if let Some(shares) = several(function) => {
            return each_percentile(function, shares).map(Some);
        }
        "percentile_disc" => return percentile_disc(function).map(Some),
        "mode" if !function.within_group.is_empty() => return mode(function).map(Some),
        "make_interval" => return make_interval(function).map(Some),
        "clock_timestamp" | "statement_timestamp" | "transaction_timestamp" => rename(function, "now"),
        "gen_random_uuid" => rename(function, "uuid"),
        "every" => rename(function, "bool_and"),
        "ceiling" => rename(function, "ceil"),
        "age" => {
            if let [time] = arguments(function).as_slice() {
                let today = cast(call("current_date", Vec::new()), DataType::Timestamp(None, TimezoneInfo::None));
                return Ok(Some(call("age", vec![today, time.clone()])));
            }
        }
        "date_part" => {
            if let [Expr::Value(unit), _] = arguments(function).as_slice()
                && let Value::SingleQuotedString(unit) = &unit.value
                && let Some(field) = field_of_years(unit)
            {
                let mut time = arguments(function).swap_remove(1);
                return Ok(span_of_years(&field, &mut time));
            }
        }
        "substring" | "substr" => {
            if let [text, pattern] = arguments(function).as_slice()
                && is_text(pattern)
            {
                return Ok(Some(call("regexp_substr_group", vec![text.clone(), pattern.clone()])));
            }
        }
        "json_agg" => return Ok(Some(collected(function, operator::LIST, "to_json"))),
        "jsonb_agg" => return Ok(Some(collected(function, operator::LISTB, "to_jsonb"))),
        "row_to_json"
        | "json_object_agg"
        | "jsonb_object_agg"
        | "jsonb_set"
        | "jsonb_insert"
        | "json_populate_record" => {
            let message = format!("`{name}` is not supported; see `json_build_object`, `json_agg` and `||`");
            return Err(Error::unsupported(message).with_sqlstate("0A000"));
        }
        "regexp_matches"
        | "regexp_split_to_table"
        | "string_to_table"
        | "json_each"
        | "jsonb_each"
        | "json_each_text"
        | "jsonb_each_text" => {
            let message = format!(
                "`{name}` gives many rows for one, which is not supported; use `regexp_match`, \
                                   `regexp_split_to_array` or `UNNEST`"
            );
            return Err(Error::unsupported(message).with_sqlstate("0A000"));
        }
        _ => {}
    }
    Ok(None)
}

/// The function that checks a text that is to be of such a type.
fn checked_text(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Uuid => Some(uuid::UUID),
        DataType::JSON => Some(operator::JSON),
        DataType::JSONB => Some(operator::JSONB),
        _ => None,
    }
}

/// `json_agg(x ORDER BY y)` is a list of documents, `array_agg(to_json(x) ORDER BY y)`, as one.
fn collected(function: &mut Function, list: &str, each: &str) -> Expr {
    rename(function, "array_agg");
    if let FunctionArguments::List(arguments) = &mut function.args {
        for argument in &mut arguments.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
                *expr = call(each, vec![take(expr)]);
            }
        }
    }
    let all = std::mem::replace(function, empty_call());
    call(list, vec![Expr::Function(all)])
}

fn empty_call() -> Function {
    match call("null", Vec::new()) {
        Expr::Function(function) => function,
        _ => unreachable!("`call` makes a function"),
    }
}

fn rename(function: &mut Function, name: &str) {
    function.name = ObjectName::from(vec![Ident::new(name)]);
}

/// The plain arguments of a call.
fn arguments(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let plain = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().filter_map(plain).collect()
}

/// `make_interval(days => 10)`: its arguments by place.
fn make_interval(function: &mut Function) -> Result<Expr> {
    const NAMES: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];
    let mut values: Vec<Expr> = NAMES.iter().map(|_| number("0")).collect();
    if let FunctionArguments::List(list) = &mut function.args {
        for (place, argument) in list.args.iter_mut().enumerate() {
            let (at, value) = match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (Some(place), value),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                    (NAMES.iter().position(|known| known.eq_ignore_ascii_case(&name.value)), value)
                }
                _ => (None, &mut values[0].clone()),
            };
            match at.and_then(|at| values.get_mut(at)) {
                Some(slot) => *slot = value.clone(),
                None => {
                    let message = format!("`make_interval` takes {}", NAMES.join(", "));
                    return Err(Error::invalid_input(message).with_sqlstate("42883"));
                }
            }
        }
    }
    Ok(call("make_interval", values))
}

fn field_of_years(unit: &str) -> Option<DateTimeField> {
    match unit.to_ascii_lowercase().as_str() {
        "century" | "centuries" => Some(DateTimeField::Century),
        "decade" | "decades" => Some(DateTimeField::Decade),
        "millennium" | "millenniums" | "millennia" => Some(DateTimeField::Millennium),
        _ => None,
    }
}

/// Century, decade and millennium of the year. There is no year 0: 1 BC is before 1 AD.
fn span_of_years(field: &DateTimeField, time: &mut Expr) -> Option<Expr> {
    let years = match field {
        DateTimeField::Century => 100,
        DateTimeField::Millennium | DateTimeField::Millenium => 1000,
        DateTimeField::Decade => {
            let year = year(take(time));
            let (after, before) = (
                binary(year.clone(), BinaryOperator::Divide, number("10")),
                negative(binary(
                    nested(binary(number("8"), BinaryOperator::Minus, year.clone())),
                    BinaryOperator::Divide,
                    number("10"),
                )),
            );
            return Some(case(binary(year, BinaryOperator::GtEq, number("0")), after, before));
        }
        _ => return None,
    };
    let year = year(take(time));
    let up = nested(binary(year.clone(), BinaryOperator::Plus, number(&(years - 1).to_string())));
    let down = nested(binary(number(&years.to_string()), BinaryOperator::Minus, year.clone()));
    let after = binary(up, BinaryOperator::Divide, number(&years.to_string()));
    let before = negative(binary(down, BinaryOperator::Divide, number(&years.to_string())));
    Some(case(binary(year, BinaryOperator::Gt, number("0")), after, before))
}

fn year(time: Expr) -> Expr {
    let year = Expr::Extract { field: DateTimeField::Year, syntax: ExtractSyntax::From, expr: Box::new(time) };
    cast(year, DataType::BigInt(None))
}

/// SQL's pattern as a regular expression that matches the whole text.
fn similar_pattern(pattern: &Expr, escape: Option<&Value>) -> Result<String> {
    let unsupported = || {
        Error::unsupported("`SIMILAR TO` takes a constant pattern here; use `~` with a regular expression")
            .with_sqlstate("0A000")
    };
    let Expr::Value(value) = pattern else { return Err(unsupported()) };
    let Value::SingleQuotedString(pattern) = &value.value else { return Err(unsupported()) };
    let escape = match escape {
        None => Some('\\'),
        Some(Value::SingleQuotedString(text)) if text.chars().count() <= 1 => text.chars().next(),
        Some(_) => return Err(Error::invalid_input("an escape is one character").with_sqlstate("22025")),
    };
    let mut regex = String::from("^(?s:");
    let mut chars = pattern.chars();
    let mut in_brackets = false;
    while let Some(char) = chars.next() {
        match char {
            char if Some(char) == escape => match chars.next() {
                Some(literal) => regex.push_str(&regex_literal(literal)),
                None => return Err(Error::invalid_input("a pattern ends with its escape").with_sqlstate("22025")),
            },
            ']' => {
                in_brackets = false;
                regex.push(']');
            }
            '[' if !in_brackets => {
                in_brackets = true;
                regex.push('[');
            }
            '\\' if in_brackets => regex.push_str("\\\\"),
            char if in_brackets => regex.push(char),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '|' | '*' | '+' | '?' | '{' | '}' => regex.push(char),
            '(' => regex.push_str("(?:"),
            ')' => regex.push(')'),
            char => regex.push_str(&regex_literal(char)),
        }
    }
    // An alternative of the pattern is one of the whole.
    regex.push_str(")$");
    Ok(regex)
}

fn regex_literal(char: char) -> String {
    match char {
        char if char.is_alphanumeric() || char.is_whitespace() || !char.is_ascii() => char.to_string(),
        '_' | '"' | '\'' | '/' | ',' | ';' | ':' | '<' | '>' | '=' | '%' | '@' | '!' | '`' => char.to_string(),
        char => format!("\\{char}"),
    }
}

fn matches_pattern(negated: bool, text: Expr, regex: &str) -> Expr {
    let op = if negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    binary(nested(text), op, Expr::value(Value::SingleQuotedString(regex.to_string())))
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_)))
}

/// A pattern of `LIKE` whose escape is a backslash, which is the only one that DataFusion knows.
fn with_backslashes(pattern: Expr, escape: &Value) -> Result<Expr> {
    let Value::SingleQuotedString(escape) = escape else {
        return Err(Error::invalid_input("an escape is a text of one character").with_sqlstate("22025"));
    };
    let mut chars = escape.chars();
    let escape = match (chars.next(), chars.next()) {
        (Some('\\'), None) => return Ok(pattern),
        (escape, None) => escape,
        _ => {
            return Err(
                Error::invalid_input("invalid escape string: it must be empty or one character").with_sqlstate("22019")
            );
        }
    };
    if let Expr::Value(value) = &pattern
        && let Value::SingleQuotedString(text) = &value.value
    {
        return Ok(string(&backslashed(text, escape)));
    }
    let doubled = call("replace", vec![pattern, string("\\"), string("\\\\")]);
    let Some(escape) = escape else { return Ok(doubled) };
    // An escape that is escaped stands for itself; it is kept apart by a character that no text has.
    let apart = call("replace", vec![doubled, string(&format!("{escape}{escape}")), string("\u{1}")]);
    let escaped = call("replace", vec![apart, string(&escape.to_string()), string("\\")]);
    Ok(call("replace", vec![escaped, string("\u{1}"), string(&format!("\\{escape}"))]))
}

fn backslashed(pattern: &str, escape: Option<char>) -> String {
    let mut text = String::new();
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        if Some(char) == escape {
            text.push('\\');
            text.extend(chars.next());
        } else if char == '\\' {
            text.push_str("\\\\");
        } else {
            text.push(char);
        }
    }
    text
}

fn string(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_string()))
}

/// Whether it is written as an interval; what a column holds is not known here.
fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) => true,
        Expr::Nested(inner) => is_interval(inner),
        Expr::Cast { data_type: DataType::Interval { .. }, .. } => true,
        Expr::Function(function) => function.name.to_string().eq_ignore_ascii_case("make_interval"),
        _ => false,
    }
}

fn inverse(expr: Expr) -> Expr {
    nested(binary(number("1.0"), BinaryOperator::Divide, nested(expr)))
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.to_string(), false))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn negative(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(nested(expr)) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn and(left: Expr, right: Expr) -> Expr {
    binary(left, BinaryOperator::And, right)
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(nested(expr)), data_type, array: false, format: None }
}

fn case(condition: Expr, result: Expr, otherwise: Expr) -> Expr {
    Expr::Case {
        case_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        end_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: Some(Box::new(otherwise)),
    }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> String {
        similar_pattern(&Expr::value(Value::SingleQuotedString(pattern.to_string())), None).unwrap()
    }

    #[test]
    fn patterns_of_similar_to_become_regular_expressions() {
        assert_eq!(regex("a%_"), "^(?s:a.*.)$");
        assert_eq!(regex("(a|b)+[x_%]{2}"), "^(?s:(?:a|b)+[x_%]{2})$");
        assert_eq!(regex(r"100\%.^$"), r"^(?s:100%\.\^\$)$");
    }
}
