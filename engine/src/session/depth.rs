//! How deep a statement would nest, found before it is parsed: whoever walks a tree that is too deep runs out of stack, and the
//! process ends with everybody's queries.
//!
//! `1 + 1 + 1 …` is a tree as deep as it is long, though nothing is in brackets. So links are counted: operators, and words
//! that join conditions or queries. What is listed between commas lies side by side and adds nothing.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{Error, Result};

/// How many links a statement may have, one below the other. A thread that plans or runs one needs some kilobytes of stack for each;
/// see [`STACK_BYTES`].
const LIMIT: usize = 1_000;

/// How many brackets of arrays may be open at once. PostgreSQL's arrays have 6 dimensions at most; planning takes twice as long for
/// each.
const BRACKETS: usize = 16;

/// The stack that a thread needs so that every statement that is let through can be planned and run on it. Programs that
/// embed Henge and take statements from strangers give their runtime this (`thread_stack_size`); it is address space, of
/// which only what is used becomes memory.
pub const STACK_BYTES: usize = 256 << 20;

/// Fails if a statement of these tokens would nest too deep.
pub(super) fn check<'a>(tokens: impl Iterator<Item = &'a Token>) -> Result<()> {
    let mut open = vec![Level::default()];
    let mut brackets = 0_usize;
    for token in tokens {
        match token {
            Token::LBracket => brackets += 1,
            Token::RBracket => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if brackets > BRACKETS {
            let message = format!("number of array dimensions exceeds the maximum allowed ({BRACKETS})");
            return Err(Error::invalid_input(message).with_sqlstate("54000"));
        }
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace if open.len() > 1 => {
                let inner = open.pop().map_or(0, |level| level.depth());
                if let Some(level) = open.last_mut() {
                    level.within = level.within.max(inner + 1);
                }
            }
            Token::Comma => {
                if let Some(level) = open.last_mut() {
                    level.next();
                }
            }
            Token::SemiColon => open = vec![Level::default()],
            token => {
                let Some(level) = open.last_mut() else { continue };
                match link(token) {
                    Link::None => continue,
                    Link::Operator => level.operators += 1,
                    Link::Joint => level.join(),
                }
            }
        }
        let around: usize = open.iter().map(|level| level.joints + level.operators + 1).sum();
        let inside = open.last().map_or(0, |level| level.depth() - level.joints - level.operators);
        if around + inside > LIMIT {
            return Err(Error::invalid_input(format!(
                "the statement nests deeper than {LIMIT} operators; use `IN (…)` or `= ANY(…)` in place of many `OR`s"
            ))
            .with_sqlstate("54001"));
        }
    }
    Ok(())
}

/// What is between two brackets, or around all of them.
#[derive(Default)]
struct Level {
    /// Words since the last comma that join two conditions or queries.
    joints: usize,
    /// Operators since the last joint, and the most between two before.
    operators: usize,
    most_operators: usize,
    /// The deepest of what is in brackets, since the last comma.
    within: usize,
    /// The deepest before it.
    before: usize,
}

impl Level {
    fn join(&mut self) {
        self.most_operators = self.most_operators.max(self.operators);
        (self.joints, self.operators) = (self.joints + 1, 0);
    }

    fn next(&mut self) {
        *self = Self { before: self.depth(), ..Self::default() };
    }

    fn depth(&self) -> usize {
        self.before.max(self.joints + self.most_operators.max(self.operators) + self.within)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Operator,
    /// Binds less than any operator, so that what is on its two sides lies side by side.
    Joint,
}

fn link(token: &Token) -> Link {
    match token {
        Token::Word(word) => match word.keyword {
            Keyword::AND | Keyword::OR | Keyword::JOIN | Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT => {
                Link::Joint
            }
            Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::CASE
            | Keyword::AT
            | Keyword::DIV
            | Keyword::XOR => Link::Operator,
            _ => Link::None,
        },
        Token::EOF
        | Token::Whitespace(_)
        | Token::Number(..)
        | Token::Period
        | Token::Placeholder(_)
        | Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_) => Link::None,
        // Every other token is an operator, or nothing that PostgreSQL knows.
        _ => Link::Operator,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn is_fine(sql: &str) -> bool {
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap();
        match check(tokens.iter()) {
            Ok(()) => true,
            Err(error) => {
                assert!(matches!(error.sqlstate(), Some("54000" | "54001")));
                false
            }
        }
    }

    #[test]
    fn chains_and_brackets_are_deep_in_every_form() {
        for link in ["+1", "||'a'", "::int", " or x", " and not x", " union all select 1", " join t on true"] {
            assert!(is_fine(&format!("select 1{}", link.repeat(450))), "{link}");
            assert!(!is_fine(&format!("select 1{}", link.repeat(LIMIT + 1))), "{link}");
        }
        for (open, close) in
            [("(", ")"), ("[", "]"), ("f(", ")"), ("not ", ""), ("- ", ""), ("case when x then ", " end")]
        {
            assert!(!is_fine(&format!("select {}1{}", open.repeat(LIMIT + 1), close.repeat(LIMIT + 1))), "{open}");
        }
        // Neither hides behind the other.
        let chain = "+1".repeat(LIMIT - 100);
        let brackets = ("(".repeat(200), ")".repeat(200));
        assert!(!is_fine(&format!("select {}1{}{chain}", brackets.0, brackets.1)));
        assert!(!is_fine(&format!("select {}1{chain}{}", brackets.0, brackets.1)));
    }

    #[test]
    fn functions_within_functions_are_parsed_at_once() {
        let sql = format!("select {}1{}", "abs(".repeat(100), ")".repeat(100));
        let parse = move || {
            let began = std::time::Instant::now();
            assert_eq!(crate::session::statement::parse(&sql).unwrap().len(), 1);
            assert!(began.elapsed() < std::time::Duration::from_secs(5));
        };
        std::thread::Builder::new().stack_size(super::STACK_BYTES).spawn(parse).unwrap().join().unwrap();
        assert!(crate::session::statement::parse("select make_interval(days => 10)").is_ok());
    }

    #[test]
    fn lists_and_conditions_side_by_side_are_not_deep() {
        assert!(is_fine(&format!("select 1 from t where a = 0{}", " or a + b * c = -1".repeat(LIMIT - 100))));
        let list = vec!["-1 + 2"; 10_000].join(", ");
        assert!(is_fine(&format!("select 1 in ({list})")));
        assert!(is_fine(&format!("insert into t values ({})", vec!["(1, -2)"; 10_000].join(", "))));
        assert!(is_fine(&"select 1 + 1; ".repeat(10_000)));
    }
}
