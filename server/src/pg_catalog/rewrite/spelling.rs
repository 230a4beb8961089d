//! The spelling of names, types and operators.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, DataType, Expr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Select,
    SelectItem, TableFactor, Value, VisitorMut,
};

use super::{call, label, last_name, null};
use crate::pg_catalog::{SCHEMA, function};

/// The spelling of names, types and operators.
pub(super) struct Spelling {
    pub(super) in_catalog: bool,
}

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        // What a `regclass` shows as is its name.
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(name) = maybe_name(expr)
            {
                // Shown as what it is called, so set aside from what is compared by number.
                let alias = label(expr);
                let shown = call(name, argument(expr));
                *item = SelectItem::ExprWithAlias { expr: shown, alias };
            } else if let SelectItem::ExprWithAlias { expr, .. } = item
                && let Some(name) = maybe_name(expr)
            {
                *expr = call(name, argument(expr));
            }
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && let Expr::Cast { expr: inner, data_type, .. } = expr
                && let Some((name, _)) = object_cast(data_type)
            {
                let alias = match inner.as_ref() {
                    Expr::Value(_) => Ident::new(type_name(data_type).unwrap_or_default()),
                    inner => label(inner),
                };
                *expr = call(name, inner.as_ref().clone());
                if let SelectItem::UnnamedExpr(expr) = item {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => {
                drop_schema(&mut function.name);
                number_of_maybe(function);
            }
            Expr::BinaryOp { left, op, right } if self.in_catalog && compares(op) => {
                routine_literal(left, right);
                routine_literal(right, left);
            }
            Expr::Collate { expr: inner, .. } if self.in_catalog => *expr = inner.as_ref().clone(),
            Expr::BinaryOp { op, .. } => plain_operator(op),
            Expr::Cast { .. } => cast(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args, .. } = factor
            && args.is_some()
        {
            drop_schema(name);
            // A table here, since it is the same always.
            if last_name(name) == "pg_get_keywords" {
                *args = None;
            }
        }
        ControlFlow::Continue(())
    }
}

/// `to_regclass(x)` and `to_regtype(x)` by name, if it is one of them.
fn maybe_name(expr: &Expr) -> Option<&'static str> {
    let Expr::Function(function) = expr else { return None };
    match last_name(&function.name).as_str() {
        "to_regclass" => Some(function::TO_REGCLASS_NAME),
        "to_regtype" => Some(function::TO_REGTYPE_NAME),
        _ => None,
    }
}

fn argument(expr: &Expr) -> Expr {
    use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr};
    match expr {
        Expr::Function(function) => match &function.args {
            FunctionArguments::List(list) => match list.args.first() {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))) => argument.clone(),
                _ => null(),
            },
            _ => null(),
        },
        _ => null(),
    }
}

/// Elsewhere than in a select list they are numbers.
fn number_of_maybe(function: &mut datafusion::sql::sqlparser::ast::Function) {
    let number = match last_name(&function.name).as_str() {
        "to_regclass" => function::REGCLASS_OID,
        "to_regtype" => function::REGTYPE_OID,
        _ => return,
    };
    function.name = ObjectName::from(vec![Ident::new(number)]);
}

fn compares(operator: &BinaryOperator) -> bool {
    matches!(operator, BinaryOperator::Eq | BinaryOperator::NotEq)
}

/// Columns of type `regproc`, which are numbers and shown by name.
const ROUTINES: &[&str] = &["typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze"];

fn is_routine(expr: &Expr) -> bool {
    let name = match expr {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(names) => match names.last() {
            Some(name) => name,
            None => return false,
        },
        _ => return false,
    };
    ROUTINES.iter().any(|known| known.eq_ignore_ascii_case(&name.value))
}

/// `typinput = 'array_in'` compares numbers.
fn routine_literal(column: &Expr, literal: &mut Expr) {
    if is_routine(column)
        && let Expr::Value(value) = &*literal
        && matches!(value.value, Value::SingleQuotedString(_))
    {
        *literal = call(function::REGPROC_OID, literal.clone());
    }
}

fn drop_schema(name: &mut ObjectName) {
    if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(_)] = name.0.as_slice()
        && schema.value.eq_ignore_ascii_case(SCHEMA)
    {
        name.0.remove(0);
    }
}

fn plain_operator(operator: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(parts) = operator else { return };
    let plain = match parts.last().map(String::as_str) {
        Some("~") => BinaryOperator::PGRegexMatch,
        Some("!~") => BinaryOperator::PGRegexNotMatch,
        Some("~*") => BinaryOperator::PGRegexIMatch,
        Some("!~*") => BinaryOperator::PGRegexNotIMatch,
        Some("~~") => BinaryOperator::PGLikeMatch,
        Some("!~~") => BinaryOperator::PGNotLikeMatch,
        Some("=") => BinaryOperator::Eq,
        Some("<>") => BinaryOperator::NotEq,
        Some("||") => BinaryOperator::StringConcat,
        _ => return,
    };
    *operator = plain;
}

/// The functions behind a cast to a kind of object: to its name, and to its number.
fn object_cast(data_type: &DataType) -> Option<(&'static str, &'static str)> {
    match type_name(data_type)?.as_str() {
        "regclass" => Some((function::REGCLASS_NAME, function::REGCLASS_OID)),
        "regtype" => Some((function::REGTYPE_NAME, function::REGTYPE_OID)),
        "regnamespace" => Some((function::REGNAMESPACE_NAME, function::REGNAMESPACE_NAME)),
        "regproc" | "regprocedure" => Some((function::REGPROC_NAME, function::REGPROC_OID)),
        _ => None,
    }
}

fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_string()),
        DataType::Custom(name, _) => Some(last_name(name)),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_))
        || type_name(data_type).is_some_and(|name| matches!(name.as_str(), "text" | "name" | "varchar"))
}

/// `x::regclass::text` is a name, `x::regclass` elsewhere a number; other types of the catalogue are text or numbers.
fn cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return };
    if is_text(data_type)
        && let Expr::Cast { expr: object, data_type: kind, .. } = inner.as_ref()
        && let Some((name, _)) = object_cast(kind)
    {
        *expr = call(name, object.as_ref().clone());
        return;
    }
    if is_text(data_type) && is_routine(inner) {
        *expr = call(function::REGPROC_NAME, inner.as_ref().clone());
        return;
    }
    if is_text(data_type)
        && let Some(name) = maybe_name(inner)
    {
        *expr = Expr::Nested(Box::new(call(name, argument(inner))));
        return;
    }
    if let Some((_, number)) = object_cast(data_type) {
        *expr = call(number, inner.as_ref().clone());
        return;
    }
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(item, _)) = data_type
        && type_name(item).is_some_and(|name| matches!(name.as_str(), "oid" | "regclass" | "regtype" | "xid"))
    {
        **item = DataType::BigInt(None);
        return;
    }
    let plain = match type_name(data_type).as_deref() {
        Some("oid" | "xid" | "int8") => DataType::BigInt(None),
        Some("int4") => DataType::Int(None),
        Some("int2") => DataType::SmallInt(None),
        Some("bool") => DataType::Boolean,
        Some("text" | "name" | "char" | "regoper" | "regrole" | "cstring" | "varchar") => DataType::Text,
        _ => return,
    };
    *data_type = plain;
}
