//! Numbers of objects.
//!
//! PostgreSQL's own tables keep their well-known numbers, which some drivers know by heart. All else is numbered by a
//! hash of its name, above the numbers that PostgreSQL keeps for itself. An even number is on the search path, so that
//! `pg_table_is_visible` needs nothing but the number.

use henge_engine::session;

use super::SCHEMA;

const FIRST_NORMAL: i64 = 16_384;
pub(super) const PG_CATALOG: i64 = 11;
pub(super) const DEFAULT_SCHEMA: i64 = 2_200;
pub(super) const INFORMATION_SCHEMA: i64 = 13_000;
pub(super) const DATABASE: i64 = 5;
pub(super) const OWNER: i64 = 10;
pub(super) const HEAP: i64 = 2;

const KNOWN: &[(&str, i64)] = &[
    ("pg_attrdef", 2604),
    ("pg_attribute", 1249),
    ("pg_authid", 1260),
    ("pg_class", 1259),
    ("pg_constraint", 2606),
    ("pg_database", 1262),
    ("pg_description", 2609),
    ("pg_index", 2610),
    ("pg_namespace", 2615),
    ("pg_proc", 1255),
    ("pg_trigger", 2620),
    ("pg_type", 1247),
];

pub(super) fn of_schema(schema: &str) -> i64 {
    match schema {
        SCHEMA => PG_CATALOG,
        session::SCHEMA => DEFAULT_SCHEMA,
        name if name.eq_ignore_ascii_case("information_schema") => INFORMATION_SCHEMA,
        name => hash(&["schema", name]) | 1,
    }
}

pub(super) fn of_relation(schema: &str, name: &str) -> i64 {
    if schema == SCHEMA
        && let Some((_, oid)) = KNOWN.iter().find(|(known, _)| *known == name)
    {
        return *oid;
    }
    let hash = hash(&[schema, name]);
    if [SCHEMA, session::SCHEMA, session::TEMPORARY_SCHEMA].contains(&schema) { hash & !1 } else { hash | 1 }
}

pub(super) fn of_function(name: &str) -> i64 {
    hash(&["function", name])
}

/// Whether an unqualified name finds the relation.
pub(super) fn is_visible(oid: i64) -> bool {
    oid < FIRST_NORMAL || oid % 2 == 0
}

/// FNV-1a in 30 bits, above [`FIRST_NORMAL`].
fn hash(parts: &[&str]) -> i64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    FIRST_NORMAL + i64::from(hash >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_whether_a_relation_is_on_the_search_path() {
        assert!(is_visible(of_relation("druid", "wikipedia")));
        assert!(is_visible(of_relation("pg_catalog", "pg_class")));
        assert!(!is_visible(of_relation("sys", "segments")));
        assert_eq!(of_relation("pg_catalog", "pg_class"), 1259);
    }
}
