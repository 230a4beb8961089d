//! PostgreSQL's dialect as the parser has it, but for one thing that takes time without end, and one that it does not know.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The parser tries every argument of a function as the name of one first, `f(x => 1)`. Where a name may be any expression, that is
/// to parse each twice, and `f(f(f(…)))` takes twice as long for every level. A name is an identifier here.
#[derive(Debug)]
pub(super) struct Postgres;

fn in_either_order(between: Expr, negated: bool) -> Expr {
    let Expr::Between { expr, low, high, .. } = &between else { return between };
    let turned = Expr::Between { expr: expr.clone(), negated: false, low: high.clone(), high: low.clone() };
    let both = Expr::BinaryOp { left: Box::new(between), op: BinaryOperator::Or, right: Box::new(turned) };
    let both = Expr::Nested(Box::new(both));
    if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(both) } } else { both }
}

const THEIRS: PostgreSqlDialect = PostgreSqlDialect {};

macro_rules! as_theirs {
    ($($name:ident),* $(,)?) => {
        $(
            fn $name(&self) -> bool {
                THEIRS.$name()
            }
        )*
    };
}

impl Dialect for Postgres {
    /// The parser asks in places whether it is PostgreSQL's.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        THEIRS.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        THEIRS.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        THEIRS.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        THEIRS.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        THEIRS.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        THEIRS.is_custom_operator_part(ch)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        THEIRS.get_next_precedence(parser)
    }

    /// `x BETWEEN SYMMETRIC a AND b` is in one of two orders.
    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let negated = if parser.parse_keywords(&[Keyword::BETWEEN, Keyword::SYMMETRIC]) {
            false
        } else if parser.parse_keywords(&[Keyword::NOT, Keyword::BETWEEN, Keyword::SYMMETRIC]) {
            true
        } else if parser.parse_keywords(&[Keyword::BETWEEN, Keyword::ASYMMETRIC]) {
            return Some(parser.parse_between(expr.clone(), false));
        } else if parser.parse_keywords(&[Keyword::NOT, Keyword::BETWEEN, Keyword::ASYMMETRIC]) {
            return Some(parser.parse_between(expr.clone(), true));
        } else {
            return None;
        };
        Some(parser.parse_between(expr.clone(), false).map(|between| in_either_order(between, negated)))
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        THEIRS.prec_value(precedence)
    }

    as_theirs! {
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
        supports_comment_optimizer_hint,
    }
}
