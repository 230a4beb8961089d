//! What stands in the catalogue's tables. A table without a case here is empty.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use datafusion::catalog::CatalogProvider;
use datafusion::logical_expr::TableType;
use henge_engine::Result;
use henge_engine::model::Timestamp;
use henge_engine::session::{self, TEMPORARY_SCHEMA, error_from_datafusion};

use super::column::{self, Cell, Row};
use super::routine::{self, Routine};
use super::{Activity, DATABASE, Facts, PgType, SCHEMA, SettingRow, keyword, oid, types};

/// The tables that are never empty; all others always are.
pub(super) const FILLED: &[&str] = &[
    "pg_am",
    "pg_attribute",
    "pg_authid",
    "pg_class",
    "pg_database",
    "pg_get_keywords",
    "pg_language",
    "pg_namespace",
    "pg_proc",
    "pg_roles",
    "pg_settings",
    "pg_shadow",
    "pg_stat_activity",
    "pg_tables",
    "pg_tablespace",
    "pg_timezone_names",
    "pg_type",
    "pg_user",
    "pg_views",
];

/// A table that a client can query.
struct Relation {
    schema: String,
    name: String,
    kind: &'static str,
    columns: SchemaRef,
}

pub(super) async fn rows(
    table: &str,
    schemas: &Arc<dyn CatalogProvider>,
    facts: &Facts,
    routines: &[Routine],
) -> Result<Vec<Row>> {
    Ok(match table {
        "pg_am" => vec![vec![("oid", oid::HEAP.into()), ("amname", "heap".into()), ("amtype", "t".into())]],
        "pg_attribute" => relations(schemas).await?.iter().flat_map(attributes).collect(),
        "pg_authid" | "pg_roles" => people(facts).await?.into_iter().map(role).collect(),
        "pg_class" => relations(schemas).await?.iter().map(|relation| class(relation, facts)).collect(),
        "pg_database" => vec![database()],
        "pg_get_keywords" => keyword::rows(),
        "pg_language" => {
            vec![vec![("oid", 12.into()), ("lanname", "internal".into()), ("lanowner", oid::OWNER.into())]]
        }
        "pg_namespace" => namespaces(schemas),
        "pg_proc" => routines.iter().map(routine::row).collect(),
        "pg_settings" => facts.settings.rows().into_iter().map(setting).collect(),
        "pg_stat_activity" => facts.server.activity().into_iter().map(activity).collect(),
        "pg_tables" => {
            relations(schemas).await?.iter().filter(|relation| relation.kind == "r").map(table_row).collect()
        }
        "pg_tablespace" => [(1663, "pg_default"), (1664, "pg_global")]
            .map(|(oid, name)| vec![("oid", oid.into()), ("spcname", name.into()), ("spcowner", oid::OWNER.into())])
            .to_vec(),
        "pg_timezone_names" => chrono_tz::TZ_VARIANTS.iter().map(|zone| vec![("name", zone.name().into())]).collect(),
        "pg_type" => types::all().map(|known| type_row(&known)).collect(),
        "pg_shadow" | "pg_user" => people(facts).await?.into_iter().map(user).collect(),
        "pg_views" => relations(schemas).await?.iter().filter(|relation| relation.kind == "v").map(view_row).collect(),
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
        .filter(|name| *name != "pg_get_keywords")
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

fn class(relation: &Relation, facts: &Facts) -> Row {
    let is_own = relation.schema == TEMPORARY_SCHEMA;
    let extent = if relation.schema == session::SCHEMA { facts.server.extent(&relation.name) } else { None };
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
        // Rows lie in no pages here: who is told of some reads them one by one, by `ctid`.
        ("relpages", 0.into()),
        // Where they are not known, as in PostgreSQL before the first ANALYZE.
        ("reltuples", extent.map_or(-1, |extent| extent.rows as i64).into()),
        ("relallvisible", 0.into()),
        ("reltoastrelid", 0.into()),
        ("relhasindex", false.into()),
        ("relisshared", false.into()),
        ("relpersistence", if is_own { "t" } else { "p" }.into()),
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

fn role((oid, name): (i64, String)) -> Row {
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
}

fn user((oid, name): (i64, String)) -> Row {
    vec![
        ("usesysid", oid.into()),
        ("usename", name.into()),
        ("usecreatedb", false.into()),
        ("usesuper", false.into()),
        ("userepl", false.into()),
        ("usebypassrls", false.into()),
        ("passwd", "********".into()),
    ]
}

/// The owner of everything, who is connected, and who else may log in.
async fn people(facts: &Facts) -> Result<Vec<(i64, String)>> {
    let mut names = facts.server.users().await?;
    names.push(facts.user.clone());
    names.retain(|name| name != DATABASE);
    names.sort();
    names.dedup();
    let others = names.into_iter().map(|name| (of_person(&name), name));
    Ok(std::iter::once((oid::OWNER, DATABASE.to_string())).chain(others).collect())
}

fn of_person(name: &str) -> i64 {
    if name == DATABASE { oid::OWNER } else { oid::of_relation("role", name) }
}

fn setting(setting: SettingRow) -> Row {
    vec![
        ("name", setting.name.into()),
        ("setting", setting.value.into()),
        ("category", "".into()),
        ("short_desc", "".into()),
        ("context", if setting.is_fixed { "internal" } else { "user" }.into()),
        ("vartype", if setting.is_bool { "bool" } else { "string" }.into()),
        ("source", "session".into()),
        ("boot_val", setting.reset_value.clone().into()),
        ("reset_val", setting.reset_value.into()),
        ("pending_restart", false.into()),
    ]
}

fn activity(activity: Activity) -> Row {
    let micros = |time: Timestamp| Cell::from(time.millis().saturating_mul(1_000));
    let mut row = vec![
        ("datid", oid::DATABASE.into()),
        ("datname", DATABASE.into()),
        ("pid", i64::from(activity.pid).into()),
        ("usesysid", of_person(&activity.user).into()),
        ("usename", activity.user.into()),
        ("application_name", activity.application_name.into()),
        ("backend_start", micros(activity.connected)),
        ("state_change", micros(activity.state_change)),
        ("state", activity.state.into()),
        ("query", activity.query.into()),
        ("backend_type", "client backend".into()),
    ];
    if let Some(client) = activity.client {
        row.push(("client_addr", client.ip().to_string().into()));
        row.push(("client_port", i64::from(client.port()).into()));
    }
    if let Some(start) = activity.query_start {
        row.push(("query_start", micros(start)));
    }
    if activity.state == "active" {
        row.push(("xact_start", micros(activity.state_change)));
    } else {
        row.push(("wait_event_type", "Client".into()));
        row.push(("wait_event", "ClientRead".into()));
    }
    row
}

fn view_row(relation: &Relation) -> Row {
    vec![
        ("schemaname", relation.schema.as_str().into()),
        ("viewname", relation.name.as_str().into()),
        ("viewowner", DATABASE.into()),
    ]
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
        ("typsubscript", 0.into()),
        ("typelem", known.element().into()),
        ("typarray", known.array().into()),
        ("typinput", oid::of_function(input).into()),
        ("typoutput", oid::of_function(output).into()),
        ("typreceive", oid::of_function(receive).into()),
        ("typsend", oid::of_function(send).into()),
        ("typmodin", 0.into()),
        ("typmodout", 0.into()),
        ("typanalyze", 0.into()),
        ("typalign", known.alignment().into()),
        ("typstorage", known.storage().into()),
        ("typnotnull", false.into()),
        ("typbasetype", 0.into()),
        ("typtypmod", (-1).into()),
        ("typndims", 0.into()),
        ("typcollation", known.collation().into()),
    ]
}
