//! What stands in the catalogue's tables. A table without a case here is empty.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::catalog::CatalogProvider;
use datafusion::logical_expr::TableType;
use henge_engine::Result;
use henge_engine::session::error_from_datafusion;

use super::column::{self, Row};
use super::{DATABASE, Facts, PgType, SCHEMA, oid, types};

/// The tables that are never empty; all others always are.
pub(super) const FILLED: &[&str] = &[
    "pg_am",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_database",
    "pg_language",
    "pg_namespace",
    "pg_roles",
    "pg_tables",
    "pg_tablespace",
    "pg_type",
    "pg_user",
];

/// A table that a client can query.
struct Relation {
    schema: String,
    name: String,
    kind: &'static str,
    columns: SchemaRef,
}

pub(super) async fn rows(table: &str, schemas: &Arc<dyn CatalogProvider>, facts: &Facts) -> Result<Vec<Row>> {
    Ok(match table {
        "pg_am" => vec![vec![("oid", oid::HEAP.into()), ("amname", "heap".into()), ("amtype", "t".into())]],
        "pg_attribute" => relations(schemas).await?.iter().flat_map(attributes).collect(),
        "pg_authid" | "pg_roles" => roles(facts),
        "pg_class" => relations(schemas).await?.iter().map(class).collect(),
        "pg_database" => vec![database()],
        "pg_language" => {
            vec![vec![("oid", 12.into()), ("lanname", "internal".into()), ("lanowner", oid::OWNER.into())]]
        }
        "pg_namespace" => namespaces(schemas),
        "pg_tables" => {
            relations(schemas).await?.iter().filter(|relation| relation.kind == "r").map(table_row).collect()
        }
        "pg_tablespace" => [(1663, "pg_default"), (1664, "pg_global")]
            .map(|(oid, name)| vec![("oid", oid.into()), ("spcname", name.into()), ("spcowner", oid::OWNER.into())])
            .to_vec(),
        "pg_type" => types::all().map(|known| type_row(&known)).collect(),
        "pg_user" => users(facts),
        _ => Vec::new(),
    })
}

/// All schemas, those of PostgreSQL's own included.
pub(super) fn schema_names(schemas: &Arc<dyn CatalogProvider>) -> Vec<String> {
    let mut names = schemas.schema_names();
    if !names.iter().any(|name| name == SCHEMA) {
        names.push(SCHEMA.to_string());
    }
    names.sort();
    names
}

async fn relations(schemas: &Arc<dyn CatalogProvider>) -> Result<Vec<Relation>> {
    let mut relations: Vec<Relation> = column::table_names()
        .filter_map(|name| {
            let columns = column::schema(name)?;
            Some(Relation { schema: SCHEMA.to_string(), name: name.to_string(), kind: "r", columns })
        })
        .collect();
    for schema_name in schemas.schema_names() {
        let Some(schema) = schemas.schema(&schema_name).filter(|_| schema_name != SCHEMA) else { continue };
        for name in schema.table_names() {
            // A table may have gone since it was listed.
            let Some(table) = schema.table(&name).await.map_err(error_from_datafusion)? else { continue };
            let kind = if table.table_type() == TableType::View { "v" } else { "r" };
            relations.push(Relation { schema: schema_name.clone(), name, kind, columns: table.schema() });
        }
    }
    Ok(relations)
}

fn class(relation: &Relation) -> Row {
    vec![
        ("oid", oid::of_relation(&relation.schema, &relation.name).into()),
        ("relname", relation.name.as_str().into()),
        ("relnamespace", oid::of_schema(&relation.schema).into()),
        ("reltype", 0.into()),
        ("reloftype", 0.into()),
        ("relowner", oid::OWNER.into()),
        ("relam", if relation.kind == "r" { oid::HEAP } else { 0 }.into()),
        ("relfilenode", 0.into()),
        ("reltablespace", 0.into()),
        ("relpages", 0.into()),
        // Not known, as in PostgreSQL before the first ANALYZE.
        ("reltuples", (-1).into()),
        ("relallvisible", 0.into()),
        ("reltoastrelid", 0.into()),
        ("relhasindex", false.into()),
        ("relisshared", false.into()),
        ("relpersistence", "p".into()),
        ("relkind", relation.kind.into()),
        ("relnatts", (relation.columns.fields().len() as i64).into()),
        ("relchecks", 0.into()),
        ("relhasrules", false.into()),
        ("relhastriggers", false.into()),
        ("relhassubclass", false.into()),
        ("relrowsecurity", false.into()),
        ("relforcerowsecurity", false.into()),
        ("relispopulated", true.into()),
        ("relreplident", "d".into()),
        ("relispartition", false.into()),
        ("relrewrite", 0.into()),
    ]
}

fn attributes(relation: &Relation) -> Vec<Row> {
    let relation_oid = oid::of_relation(&relation.schema, &relation.name);
    relation
        .columns
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| attribute(relation_oid, i as i64 + 1, field))
        .collect()
}

fn attribute(relation: i64, number: i64, field: &Field) -> Row {
    let pg_type = PgType::of(field);
    let known = types::find(i64::from(pg_type.oid));
    let modifier = match field.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => 3,
        _ => pg_type.modifier,
    };
    vec![
        ("attrelid", relation.into()),
        ("attname", field.name().as_str().into()),
        ("atttypid", i64::from(pg_type.oid).into()),
        ("attstattarget", (-1).into()),
        ("attlen", i64::from(pg_type.size).into()),
        ("attnum", number.into()),
        ("attndims", i64::from(known.is_some_and(|known| known.category() == "A")).into()),
        ("attcacheoff", (-1).into()),
        ("atttypmod", i64::from(modifier).into()),
        ("attbyval", known.is_some_and(|known| known.is_by_value()).into()),
        ("attalign", known.map_or("i", |known| known.alignment()).into()),
        ("attstorage", known.map_or("x", |known| known.storage()).into()),
        ("attcompression", "".into()),
        ("attnotnull", (!field.is_nullable()).into()),
        ("atthasdef", false.into()),
        ("atthasmissing", false.into()),
        ("attidentity", "".into()),
        ("attgenerated", "".into()),
        ("attisdropped", false.into()),
        ("attislocal", true.into()),
        ("attinhcount", 0.into()),
        ("attcollation", known.map_or(0, |known| known.collation()).into()),
    ]
}

fn namespaces(schemas: &Arc<dyn CatalogProvider>) -> Vec<Row> {
    let row = |name: &String| {
        vec![("oid", oid::of_schema(name).into()), ("nspname", name.as_str().into()), ("nspowner", oid::OWNER.into())]
    };
    schema_names(schemas).iter().map(row).collect()
}

fn database() -> Row {
    vec![
        ("oid", oid::DATABASE.into()),
        ("datname", DATABASE.into()),
        ("datdba", oid::OWNER.into()),
        ("encoding", 6.into()),
        ("datlocprovider", "c".into()),
        ("datistemplate", false.into()),
        ("datallowconn", true.into()),
        ("datconnlimit", (-1).into()),
        ("dattablespace", 1663.into()),
        ("datcollate", "C".into()),
        ("datctype", "C.UTF-8".into()),
    ]
}

/// The owner of everything, and who is connected.
fn roles(facts: &Facts) -> Vec<Row> {
    let role = |(oid, name): (i64, &str)| {
        vec![
            ("oid", oid.into()),
            ("rolname", name.into()),
            ("rolsuper", false.into()),
            ("rolinherit", true.into()),
            ("rolcreaterole", false.into()),
            ("rolcreatedb", false.into()),
            ("rolcanlogin", true.into()),
            ("rolreplication", false.into()),
            ("rolbypassrls", false.into()),
            ("rolconnlimit", (-1).into()),
        ]
    };
    people(facts).into_iter().map(role).collect()
}

fn users(facts: &Facts) -> Vec<Row> {
    let user = |(oid, name): (i64, &str)| {
        vec![
            ("usesysid", oid.into()),
            ("usename", name.into()),
            ("usecreatedb", false.into()),
            ("usesuper", false.into()),
            ("userepl", false.into()),
            ("usebypassrls", false.into()),
        ]
    };
    people(facts).into_iter().map(user).collect()
}

fn people(facts: &Facts) -> Vec<(i64, &str)> {
    let mut people = vec![(oid::OWNER, DATABASE)];
    if facts.user != DATABASE {
        people.push((oid::of_relation("role", &facts.user), facts.user.as_str()));
    }
    people
}

fn table_row(relation: &Relation) -> Row {
    vec![
        ("schemaname", relation.schema.as_str().into()),
        ("tablename", relation.name.as_str().into()),
        ("tableowner", DATABASE.into()),
        ("hasindexes", false.into()),
        ("hasrules", false.into()),
        ("hastriggers", false.into()),
        ("rowsecurity", false.into()),
    ]
}

fn type_row(known: &types::Type) -> Row {
    let [input, output, receive, send] = known.functions();
    vec![
        ("oid", known.oid.into()),
        ("typname", known.name.into()),
        ("typnamespace", oid::PG_CATALOG.into()),
        ("typowner", oid::OWNER.into()),
        ("typlen", known.length().into()),
        ("typbyval", known.is_by_value().into()),
        ("typtype", known.kind().into()),
        ("typcategory", known.category().into()),
        ("typispreferred", known.is_preferred().into()),
        ("typisdefined", true.into()),
        ("typdelim", ",".into()),
        ("typrelid", 0.into()),
        ("typsubscript", "-".into()),
        ("typelem", known.element().into()),
        ("typarray", known.array().into()),
        ("typinput", input.into()),
        ("typoutput", output.into()),
        ("typreceive", receive.into()),
        ("typsend", send.into()),
        ("typmodin", "-".into()),
        ("typmodout", "-".into()),
        ("typanalyze", "-".into()),
        ("typalign", known.alignment().into()),
        ("typstorage", known.storage().into()),
        ("typnotnull", false.into()),
        ("typbasetype", 0.into()),
        ("typtypmod", (-1).into()),
        ("typndims", 0.into()),
        ("typcollation", known.collation().into()),
    ]
}
