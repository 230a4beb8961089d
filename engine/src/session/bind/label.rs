//! What PostgreSQL calls a column that was given no name (`FigureColname` in its `parse_target.c`).

use datafusion::sql::sqlparser::ast::{DataType, Expr, SelectItem, SetExpr, TrimWhereField, Value};

/// The label of an expression that is not a plain column.
pub(super) fn of(expr: &Expr) -> String {
    name(expr).map_or_else(|| "?column?".to_string(), |(name, _)| name)
}

#[derive(PartialEq)]
enum Strength {
    /// A type or `case`, which a better name replaces.
    Weak,
    Strong,
}
use Strength::{Strong, Weak};

fn strong(name: &str) -> Option<(String, Strength)> {
    Some((name.to_string(), Strong))
}

fn name(expr: &Expr) -> Option<(String, Strength)> {
    match expr {
        Expr::Identifier(ident) => strong(&ident.value),
        Expr::CompoundIdentifier(path) => strong(&path.last()?.value),
        Expr::Function(function) => strong(&function.name.0.last()?.as_ident()?.value.to_lowercase()),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } | Expr::CompoundFieldAccess { root: inner, .. } => {
            name(inner)
        }
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Cast { expr, data_type, .. } => match name(expr) {
            Some((name, Strong)) => Some((name, Strong)),
            _ => Some((type_name(data_type), Weak)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), Weak)),
        Expr::Interval(_) => Some(("interval".to_string(), Weak)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(name) {
            Some((name, Strong)) => Some((name, Strong)),
            _ => Some(("case".to_string(), Weak)),
        },
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => Some(("bool".to_string(), Weak)),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.first()? {
                SelectItem::ExprWithAlias { alias, .. } => strong(&alias.value),
                SelectItem::UnnamedExpr(expr) => name(expr),
                _ => None,
            },
            _ => None,
        },
        Expr::Exists { .. } => strong("exists"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(TrimWhereField::Leading) => "ltrim",
            Some(TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        Expr::Array(_) => strong("array"),
        _ => None,
    }
}

/// A type as PostgreSQL's catalogue calls it.
fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::BigInt(_) | DataType::Int8(_) => "int8",
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4",
        DataType::SmallInt(_) | DataType::Int2(_) => "int2",
        DataType::Double(_) | DataType::DoublePrecision | DataType::Float8 => "float8",
        DataType::Real | DataType::Float4 => "float4",
        DataType::Numeric(_) | DataType::Decimal(_) => "numeric",
        DataType::Varchar(_) | DataType::CharacterVarying(_) => "varchar",
        DataType::Char(_) | DataType::Character(_) => "bpchar",
        DataType::Boolean | DataType::Bool => "bool",
        other => {
            let text = other.to_string().to_lowercase();
            return match text.as_str() {
                "timestamp with time zone" => "timestamptz".to_string(),
                text if text.starts_with("timestamp") && !text.starts_with("timestamptz") => "timestamp".to_string(),
                text => text.split(['(', ' ']).next().unwrap_or(text).to_string(),
            };
        }
    };
    name.to_string()
}
