"""What BI tools ask PostgreSQL for when they connect, browse and draw: Metabase, DBeaver, Grafana, Tableau and others on psqlODBC,
Power BI (npgsql), DuckDB. The questions are theirs; what is checked is the answer about TABLE.
"""
import datetime

import psycopg
from check import DATABASE, HOST, PORT, TABLE, USER, check, finish

connection = psycopg.connect(host=HOST, port=PORT, user=USER, dbname=DATABASE, autocommit=True)
SCHEMA = "druid"


def ask(sql, *parameters):
    cursor = connection.cursor()
    cursor.execute(sql, parameters or None)
    if cursor.description is None:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def one(sql, *parameters):
    rows = ask(sql, *parameters)
    assert len(rows) == 1, rows
    return rows[0]


NAMESPACE = one(f"SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = '{SCHEMA}'")["oid"]
RELATION = one(f"SELECT '{SCHEMA}.{TABLE}'::regclass::oid AS oid")["oid"]
COLUMNS = {row["column_name"] for row in ask(f"SELECT column_name FROM information_schema.columns WHERE table_name = '{TABLE}'")}


# Metabase


@check
def metabase_connects():
    assert one("SHOW timezone")
    assert one("SELECT version() AS v")["v"].startswith("PostgreSQL 15")
    assert ask("SELECT nspname, typname FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid IN (SELECT DISTINCT enumtypid FROM pg_enum e)") == []


@check
def metabase_lists_tables():
    rows = ask(f"""
        SELECT "n"."nspname" AS "schema", "c"."relname" AS "name",
               CASE "c"."relkind" WHEN 'r' THEN 'TABLE' WHEN 'p' THEN 'PARTITIONED TABLE' WHEN 'v' THEN 'VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                                  WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE NULL END AS "type",
               "d"."description" AS "description", "stat"."n_live_tup" AS "estimated_row_count"
        FROM "pg_catalog"."pg_class" AS "c"
        INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "c"."relnamespace" = "n"."oid"
        LEFT JOIN "pg_catalog"."pg_description" AS "d" ON ("c"."oid" = "d"."objoid") AND ("d"."objsubid" = 0) AND ("d"."classoid" = 'pg_class'::regclass)
        LEFT JOIN "pg_stat_user_tables" AS "stat" ON ("n"."nspname" = "stat"."schemaname") AND ("c"."relname" = "stat"."relname")
        WHERE ("c"."relnamespace" = "n"."oid") AND ("n"."nspname" !~ '^pg_') AND ("n"."nspname" <> 'information_schema')
          AND c.relkind in ('r', 'p', 'v', 'f', 'm') AND ("n"."nspname" IN ('{SCHEMA}'))
        ORDER BY "type" ASC, "schema" ASC, "name" ASC""")
    assert any(row["name"] == TABLE and row["type"] == "TABLE" and row["description"] is None for row in rows), rows


@check
def metabase_asks_for_privileges():
    def may(function, privilege):
        return f"""pg_catalog.{function}(current_user, '"' || replace(t.schemaname, '"', '""') || '"' || '.' || '"' || replace(t.objectname, '"', '""') || '"', '{privilege}') as {privilege}"""

    rows = ask(f"""
        with table_privileges as (
          select NULL as role, t.schemaname as schema, t.objectname as table,
                 {may('has_any_column_privilege', 'update')}, {may('has_any_column_privilege', 'select')},
                 {may('has_any_column_privilege', 'insert')}, {may('has_table_privilege', 'delete')}
          from (
            select schemaname, tablename as objectname from pg_catalog.pg_tables
            union
            select schemaname, viewname as objectname from pg_catalog.pg_views
            union
            select schemaname, matviewname as objectname from pg_catalog.pg_matviews
          ) t
          where t.schemaname !~ '^pg_' and t.schemaname <> 'information_schema' and pg_catalog.has_schema_privilege(current_user, t.schemaname, 'usage')
        )
        select t.* from table_privileges t where t.select or t.update or t.insert or t.delete""")
    assert any(row["table"] == TABLE and row["schema"] == SCHEMA and row["select"] is True for row in rows), rows


@check
def metabase_describes_fields():
    rows = ask(f"""
        SELECT "c"."column_name" AS "name",
               CASE WHEN "c"."udt_schema" IN ('public', 'pg_catalog') THEN FORMAT('%s', "c"."udt_name") ELSE FORMAT('"%s"."%s"', "c"."udt_schema", "c"."udt_name") END AS "database-type",
               "c"."ordinal_position" - 1 AS "database-position", "c"."table_schema" AS "table-schema", "c"."table_name" AS "table-name",
               "pk"."column_name" IS NOT NULL AS "pk?",
               COL_DESCRIPTION(CAST(CAST(FORMAT('%I.%I', CAST("c"."table_schema" AS TEXT), CAST("c"."table_name" AS TEXT)) AS REGCLASS) AS OID), "c"."ordinal_position") AS "field-comment",
               (("column_default" IS NULL) OR (LOWER("column_default") = 'null')) AND ("is_nullable" = 'NO')
                 AND NOT ((("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO')) AS "database-required",
               (("column_default" IS NOT NULL) AND ("column_default" LIKE '%nextval(%')) OR ("is_identity" <> 'NO') AS "database-is-auto-increment"
        FROM "information_schema"."columns" AS "c"
        LEFT JOIN (
            SELECT "tc"."table_schema", "tc"."table_name", "kc"."column_name"
            FROM "information_schema"."table_constraints" AS "tc"
            INNER JOIN "information_schema"."key_column_usage" AS "kc"
              ON ("tc"."constraint_name" = "kc"."constraint_name") AND ("tc"."table_schema" = "kc"."table_schema") AND ("tc"."table_name" = "kc"."table_name")
            WHERE "tc"."constraint_type" = 'PRIMARY KEY'
        ) AS "pk" ON ("c"."table_schema" = "pk"."table_schema") AND ("c"."table_name" = "pk"."table_name") AND ("c"."column_name" = "pk"."column_name")
        WHERE c.table_schema !~ '^information_schema|catalog_history|pg_' AND ("c"."table_schema" IN ('{SCHEMA}'))
        UNION ALL
        SELECT "pa"."attname" AS "name",
               CASE WHEN "ptn"."nspname" IN ('public', 'pg_catalog') THEN FORMAT('%s', "pt"."typname") ELSE FORMAT('"%s"."%s"', "ptn"."nspname", "pt"."typname") END AS "database-type",
               "pa"."attnum" - 1 AS "database-position", "pn"."nspname" AS "table-schema", "pc"."relname" AS "table-name",
               FALSE AS "pk?", NULL AS "field-comment", FALSE AS "database-required", FALSE AS "database-is-auto-increment"
        FROM "pg_catalog"."pg_class" AS "pc"
        INNER JOIN "pg_catalog"."pg_namespace" AS "pn" ON "pn"."oid" = "pc"."relnamespace"
        INNER JOIN "pg_catalog"."pg_attribute" AS "pa" ON "pa"."attrelid" = "pc"."oid"
        INNER JOIN "pg_catalog"."pg_type" AS "pt" ON "pt"."oid" = "pa"."atttypid"
        INNER JOIN "pg_catalog"."pg_namespace" AS "ptn" ON "ptn"."oid" = "pt"."typnamespace"
        WHERE ("pc"."relkind" = 'm') AND ("pa"."attnum" >= 1) AND ("pn"."nspname" IN ('{SCHEMA}'))
        ORDER BY "table-schema", "table-name", "database-position" ASC""")
    found = {row["name"]: row for row in rows if row["table-name"] == TABLE}
    assert found["__time"]["database-type"] == "timestamp" and found["__time"]["database-required"] is True, found["__time"]
    assert found["page"]["database-type"] == "text" and found["page"]["database-required"] is False and found["page"]["pk?"] is False
    assert found["added"]["database-type"] == "int8" and set(found) == COLUMNS
    assert [row["database-position"] for row in rows if row["table-name"] == TABLE] == list(range(len(COLUMNS)))


@check
def metabase_finds_no_foreign_keys_and_indexes():
    assert ask(f"""
        SELECT "fk_ns"."nspname" AS "fk-table-schema", "fk_table"."relname" AS "fk-table-name", "fk_column"."attname" AS "fk-column-name",
               "pk_ns"."nspname" AS "pk-table-schema", "pk_table"."relname" AS "pk-table-name", "pk_column"."attname" AS "pk-column-name"
        FROM "pg_constraint" AS "c"
        INNER JOIN "pg_class" AS "fk_table" ON "c"."conrelid" = "fk_table"."oid"
        INNER JOIN "pg_namespace" AS "fk_ns" ON "c"."connamespace" = "fk_ns"."oid"
        INNER JOIN "pg_attribute" AS "fk_column" ON "c"."conrelid" = "fk_column"."attrelid"
        INNER JOIN "pg_class" AS "pk_table" ON "c"."confrelid" = "pk_table"."oid"
        INNER JOIN "pg_namespace" AS "pk_ns" ON "pk_table"."relnamespace" = "pk_ns"."oid"
        INNER JOIN "pg_attribute" AS "pk_column" ON "c"."confrelid" = "pk_column"."attrelid"
        WHERE fk_ns.nspname !~ '^information_schema|catalog_history|pg_' AND ("c"."contype" = 'f'::char)
          AND ("fk_column"."attnum" = ANY(c.conkey)) AND ("pk_column"."attnum" = ANY(c.confkey)) AND ("fk_ns"."nspname" IN ('{SCHEMA}'))
        ORDER BY "fk-table-schema" ASC, "fk-table-name" ASC""") == []
    assert ask(f"""
        SELECT "tmp"."table-schema", "tmp"."table-name", TRIM(BOTH '"' FROM PG_CATALOG.PG_GET_INDEXDEF("tmp"."ci_oid", "tmp"."pos", FALSE)) AS "field-name"
        FROM (SELECT "n"."nspname" AS "table-schema", "ct"."relname" AS "table-name", "ci"."oid" AS "ci_oid",
                     (INFORMATION_SCHEMA._PG_EXPANDARRAY("i"."indkey"))."n" AS "pos"
              FROM "pg_catalog"."pg_class" AS "ct"
              INNER JOIN "pg_catalog"."pg_namespace" AS "n" ON "ct"."relnamespace" = "n"."oid"
              INNER JOIN "pg_catalog"."pg_index" AS "i" ON "ct"."oid" = "i"."indrelid"
              INNER JOIN "pg_catalog"."pg_class" AS "ci" ON "ci"."oid" = "i"."indexrelid"
              WHERE (PG_CATALOG.PG_GET_EXPR("i"."indpred", "i"."indrelid") IS NULL) AND "n"."nspname" IN ('{SCHEMA}')) AS "tmp"
        WHERE "tmp"."pos" = 1""") == []


@check
def metabase_draws():
    bins = ask(f"""
        SELECT (FLOOR((("{SCHEMA}"."{TABLE}"."added" - 0.0) / 100.0)) * 100.0) + 0.0 AS "added", COUNT(*) AS "count" FROM "{SCHEMA}"."{TABLE}"
        GROUP BY (FLOOR((("{SCHEMA}"."{TABLE}"."added" - 0.0) / 100.0)) * 100.0) + 0.0
        ORDER BY (FLOOR((("{SCHEMA}"."{TABLE}"."added" - 0.0) / 100.0)) * 100.0) + 0.0 ASC""")
    assert sum(row["count"] for row in bins) == one(f"SELECT COUNT(*) AS n FROM {TABLE}")["n"] and bins[0]["added"] % 100 == 0
    week = ask(f"""
        SELECT CAST(DATE_TRUNC('week', CAST("source"."__time" AS timestamp) + INTERVAL '1 day') + INTERVAL '-1 day' AS timestamp) AS "__time", SUM("source"."added") AS "sum"
        FROM (SELECT "__time", "added" FROM "{SCHEMA}"."{TABLE}" WHERE "__time" < DATE_TRUNC('day', NOW() + INTERVAL '1 day')) AS "source"
        GROUP BY 1 ORDER BY 1 ASC""")
    assert week and week[0]["__time"].weekday() == 6, week
    assert one(f'SELECT PERCENTILE_CONT(0.5) within group (order by "added") AS "median" FROM "{SCHEMA}"."{TABLE}"')["median"] >= 0
    hours = ask(f"""SELECT CAST(EXTRACT(hour FROM CAST(TIMEZONE('America/New_York', TIMEZONE('UTC', "__time")) AS timestamp)) AS integer) AS "h", COUNT(*) FROM "{TABLE}" GROUP BY 1""")
    assert sorted(row["h"] for row in hours) == list(range(24))
    days = one("""SELECT (CAST(TIMESTAMP '2015-09-20 01:00:00' AS DATE) - CAST(TIMESTAMP '2015-09-12 23:00:00' AS DATE)) AS days,
                  CAST(EXTRACT(year FROM AGE(DATE_TRUNC('day', TIMESTAMP '2015-09-20'), DATE_TRUNC('day', TIMESTAMP '2013-10-01'))) AS integer) AS years""")
    assert days == {"days": 8, "years": 1}, days
    assert one("SELECT substring('edit 12 of 30' FROM '[0-9]+') AS found")["found"] == "12"


# DBeaver


@check
def dbeaver_connects():
    ask("SET application_name = 'DBeaver 24.2 - Main <henge>'")
    assert one("SELECT current_schema(),session_user")["current_schema"] == SCHEMA
    assert one("SELECT reset_val FROM pg_settings WHERE name = 'search_path'")["reset_val"]
    assert ask("SELECT * FROM pg_catalog.pg_enum WHERE 1<>1 LIMIT 1") == [] and ask("SELECT reltype FROM pg_catalog.pg_class WHERE 1<>1 LIMIT 1") == []
    assert any(row["datname"] == DATABASE for row in ask("SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datallowconn AND NOT datistemplate\nORDER BY db.datname"))
    assert one("SELECT db.oid,db.* FROM pg_catalog.pg_database db WHERE datname=%s", DATABASE)["oid"]
    assert len(one("select string_agg(word, ',') as words from pg_catalog.pg_get_keywords() where word <> ALL ('{a,abs,absolute}'::text[])")["words"]) > 1000


@check
def dbeaver_reads_types_and_roles():
    rows = ask("""SELECT t.oid,t.*,c.relkind,format_type(nullif(t.typbasetype, 0), t.typtypmod) as base_type_name, d.description
        FROM pg_catalog.pg_type t
        LEFT OUTER JOIN pg_catalog.pg_type et ON et.oid=t.typelem
        LEFT OUTER JOIN pg_catalog.pg_class c ON c.oid=t.typrelid
        LEFT OUTER JOIN pg_catalog.pg_description d ON t.oid=d.objoid
        WHERE t.typname IS NOT NULL AND (c.relkind IS NULL OR c.relkind = 'c') AND (et.typcategory IS NULL OR et.typcategory <> 'C')""")
    names = {row["typname"]: row for row in rows}
    assert names["int8"]["oid"] == 20 and names["text"]["typcategory"] == "S" and names["_text"]["typelem"] == 25, names.keys()
    assert any(row["rolname"] == USER and row["rolcanlogin"] for row in ask("SELECT a.oid,a.*,pd.description FROM pg_catalog.pg_roles a left join pg_catalog.pg_shdescription pd on a.oid = pd.objoid ORDER BY a.rolname"))
    assert any(row["amname"] == "heap" for row in ask("SELECT am.oid,am.* FROM pg_catalog.pg_am am ORDER BY am.oid"))
    assert isinstance(ask("SELECT l.oid,l.* FROM pg_catalog.pg_language l ORDER BY l.oid"), list)
    assert any(row["spcname"] == "pg_default" for row in ask("SELECT t.oid,t.*, pg_tablespace_location(t.oid) loc FROM pg_catalog.pg_tablespace t ORDER BY t.oid"))


@check
def dbeaver_lists_schemas_tables_and_columns():
    rows = ask("""SELECT n.oid,n.*,d.description FROM pg_catalog.pg_namespace n
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=n.oid AND d.objsubid=0 AND d.classoid='pg_namespace'::regclass
        ORDER BY nspname""")
    assert {SCHEMA, "pg_catalog", "information_schema"} <= {row["nspname"] for row in rows}
    rows = ask("""SELECT c.oid,c.*,d.description,pg_catalog.pg_get_expr(c.relpartbound, c.oid) as partition_expr,  pg_catalog.pg_get_partkeydef(c.oid) as partition_key
        FROM pg_catalog.pg_class c
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_class'::regclass
        WHERE c.relnamespace=%s AND c.relkind not in ('i','I','c')""", NAMESPACE)
    table = next(row for row in rows if row["relname"] == TABLE)
    assert table["oid"] == RELATION and table["relkind"] == "r" and table["relnatts"] == len(COLUMNS), table
    rows = ask("select c.oid,pg_catalog.pg_total_relation_size(c.oid) as total_rel_size,pg_catalog.pg_relation_size(c.oid) as rel_size FROM pg_class c WHERE c.relnamespace=%s", NAMESPACE)
    assert next(row for row in rows if row["oid"] == RELATION)["total_rel_size"] > 0
    rows = ask("""SELECT c.relname,a.*,pg_catalog.pg_get_expr(ad.adbin, ad.adrelid, true) as def_value,dsc.description,dep.objid
        FROM pg_catalog.pg_attribute a
        INNER JOIN pg_catalog.pg_class c ON (a.attrelid=c.oid)
        LEFT OUTER JOIN pg_catalog.pg_attrdef ad ON (a.attrelid=ad.adrelid AND a.attnum = ad.adnum)
        LEFT OUTER JOIN pg_catalog.pg_description dsc ON (c.oid=dsc.objoid AND a.attnum = dsc.objsubid)
        LEFT OUTER JOIN pg_depend dep on dep.refobjid = a.attrelid AND dep.deptype = 'i' and dep.refobjsubid = a.attnum and dep.classid = dep.refclassid
        WHERE NOT a.attisdropped AND c.relkind not in ('i','I','c') AND c.oid=%s
        ORDER BY a.attnum""", RELATION)
    columns = {row["attname"]: row for row in rows if row["attnum"] > 0}
    assert set(columns) == COLUMNS and columns["__time"]["atttypid"] == 1114 and columns["__time"]["attnotnull"] and columns["page"]["def_value"] is None


@check
def dbeaver_finds_no_constraints_indexes_and_triggers():
    assert ask("""SELECT c.oid,c.*,t.relname as tabrelname,rt.relnamespace as refnamespace,d.description, case when c.contype='c' then "substring"(pg_get_constraintdef(c.oid), 7) else null end consrc_copy
        FROM pg_catalog.pg_constraint c
        INNER JOIN pg_catalog.pg_class t ON t.oid=c.conrelid
        LEFT OUTER JOIN pg_catalog.pg_class rt ON rt.oid=c.confrelid
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=c.oid AND d.objsubid=0 AND d.classoid='pg_constraint'::regclass
        WHERE c.conrelid=%s
        ORDER BY c.oid""", RELATION) == []
    assert ask("""SELECT i.*,i.indkey as keys,c.relname,c.relnamespace,c.relam,c.reltablespace,tc.relname as tabrelname,dsc.description,pg_catalog.pg_get_expr(i.indpred, i.indrelid) as pred_expr,
               pg_catalog.pg_get_expr(i.indexprs, i.indrelid, true) as expr,pg_catalog.pg_relation_size(i.indexrelid) as index_rel_size,pg_catalog.pg_stat_get_numscans(i.indexrelid) as index_num_scans
        FROM pg_catalog.pg_index i
        INNER JOIN pg_catalog.pg_class c ON c.oid=i.indexrelid
        INNER JOIN pg_catalog.pg_class tc ON tc.oid=i.indrelid
        LEFT OUTER JOIN pg_catalog.pg_description dsc ON i.indexrelid=dsc.objoid
        WHERE i.indrelid=%s ORDER BY tabrelname, c.relname""", RELATION) == []
    assert ask("""SELECT x.oid,x.*,p.pronamespace as func_schema_id,d.description
        FROM pg_catalog.pg_trigger x
        LEFT OUTER JOIN pg_catalog.pg_proc p ON p.oid=x.tgfoid
        LEFT OUTER JOIN pg_catalog.pg_description d ON d.objoid=x.oid AND d.objsubid=0
        WHERE x.tgrelid=%s AND NOT x.tgisinternal""", RELATION) == []
    assert isinstance(ask("SELECT x.oid,x.* FROM pg_catalog.pg_event_trigger x"), list)


@check
def dbeaver_shows_sessions_and_plans():
    ask("SELECT 1")
    rows = ask("SELECT sa.* FROM pg_catalog.pg_stat_activity sa")
    own = next(row for row in rows if row["pid"] == connection.info.backend_pid)
    assert own["datname"] == DATABASE and own["state"] == "active" and "pg_stat_activity" in own["query"], own
    assert ask(f"EXPLAIN SELECT COUNT(*) FROM {TABLE}")[0]["QUERY PLAN"]
    assert ask("select * from pg_catalog.pg_locks where pid = %s", 1) == []


# Grafana


@check
def grafana_browses():
    assert one("SELECT current_setting('server_version_num')::int/100 as version")["version"] // 100 == 15
    assert ask("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'") == []
    assert any(row["name"] == SCHEMA for row in ask("""SELECT schema_name AS "name" FROM information_schema.schemata
        WHERE schema_name NOT IN ('information_schema', 'pg_catalog', 'pg_toast', '_timescaledb_cache', '_timescaledb_catalog') ORDER BY schema_name"""))
    on_path = """quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
               string_to_array(current_setting('search_path'),',') s)"""
    tables = ask(f"""SELECT quote_ident(table_name) AS "table" FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache') AND {on_path} ORDER BY 1""")
    assert {"table": TABLE} in tables, tables
    columns = ask(f"""SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
        WHERE quote_ident(table_name) = '{TABLE}' AND {on_path}""")
    assert {"column": "__time", "type": "timestamp without time zone"} in columns and len(columns) == len(COLUMNS), columns
    assert {"column": '"cityName"', "type": "text"} in columns or "cityName" not in COLUMNS


@check
def grafana_builds_queries():
    on_path = """quote_ident(table_schema) IN (
          SELECT CASE WHEN trim(s[i]) = '"$user"' THEN user ELSE trim(s[i]) END
          FROM generate_series(array_lower(string_to_array(current_setting('search_path'),','),1), array_upper(string_to_array(current_setting('search_path'),','),1)) as i,
               string_to_array(current_setting('search_path'),',') s)"""
    tables = ask(f"""SELECT CASE WHEN {on_path} THEN quote_ident(table_name) ELSE quote_ident(table_schema) || '.' || quote_ident(table_name) END AS "table"
        FROM information_schema.tables
        WHERE quote_ident(table_schema) NOT IN ('information_schema', 'pg_catalog', '_timescaledb_cache', '_timescaledb_catalog')
        ORDER BY CASE WHEN {on_path} THEN 0 ELSE 1 END, 1""")
    assert {"table": TABLE} in tables, tables
    for table in [TABLE, f"{SCHEMA}.{TABLE}"]:
        columns = ask(f"""SELECT quote_ident(column_name) AS "column", data_type AS "type" FROM information_schema.columns
            WHERE CASE WHEN array_length(parse_ident('{table}'),1) = 2
              THEN quote_ident(table_schema) = (parse_ident('{table}'))[1] AND quote_ident(table_name) = (parse_ident('{table}'))[2]
              ELSE quote_ident(table_name) = '{table}' AND {on_path} END""")
        assert {"column": "__time", "type": "timestamp without time zone"} in columns and len(columns) == len(COLUMNS), (table, columns)


@check
def grafana_draws():
    first, last = (row := one(f"SELECT MIN(__time) AS first, MAX(__time) AS last FROM {TABLE}"))["first"], row["last"]
    text = lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = ask(f"""SELECT floor(extract(epoch from "__time")/300)*300 AS "time", channel AS metric, avg(added) AS "added"
        FROM {SCHEMA}.{TABLE} WHERE "__time" BETWEEN '{text(first)}' AND '{text(last + datetime.timedelta(seconds=1))}' GROUP BY 1, 2 ORDER BY 1, 2""")
    assert rows and float(rows[0]["time"]) % 300 == 0 and float(rows[0]["time"]) <= first.replace(tzinfo=datetime.timezone.utc).timestamp()
    rows = ask(f"""SELECT $1 + 0 AS x, date_bin('15 minutes', __time, TIMESTAMP '2001-01-01') AS time, count(*) AS n FROM {TABLE} GROUP BY time ORDER BY time""".replace("$1", "1"))
    assert rows and rows[0]["time"].minute % 15 == 0


# Tableau, and others on psqlODBC


@check
def odbc_lists_tables_columns_and_keys():
    rows = ask("""select relname, nspname, relkind from pg_catalog.pg_class c, pg_catalog.pg_namespace n
        where relkind in ('r', 'v', 'm', 'f', 'p') and nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'pg_temp_1') and n.oid = relnamespace
        order by nspname, relname""")
    assert {"relname": TABLE, "nspname": SCHEMA, "relkind": "r"} in rows
    rows = ask(f"""select n.nspname, c.relname, a.attname, a.atttypid, t.typname, a.attnum, a.attlen, a.atttypmod, a.attnotnull, c.relhasrules, c.relkind, c.oid,
               pg_get_expr(d.adbin, d.adrelid), case t.typtype when 'd' then t.typbasetype else 0 end, t.typtypmod, 0, attidentity, c.relhassubclass
        from (((pg_catalog.pg_class c inner join pg_catalog.pg_namespace n on n.oid = c.relnamespace and c.relname = '{TABLE}' and n.nspname = '{SCHEMA}')
        inner join pg_catalog.pg_attribute a on (not a.attisdropped) and a.attnum > 0 and a.attrelid = c.oid)
        inner join pg_catalog.pg_type t on t.oid = a.atttypid)
        left outer join pg_attrdef d on a.atthasdef and d.adrelid = a.attrelid and d.adnum = a.attnum
        order by n.nspname, c.relname, attnum""")
    assert {row["attname"] for row in rows} == COLUMNS and next(row for row in rows if row["attname"] == "added")["typname"] == "int8"
    assert ask(f"""select ta.attname, ia.attnum, ic.relname, n.nspname, tc.relname
        from pg_catalog.pg_attribute ta, pg_catalog.pg_attribute ia, pg_catalog.pg_class tc, pg_catalog.pg_index i, pg_catalog.pg_namespace n, pg_catalog.pg_class ic
        where tc.relname = '{TABLE}' AND n.nspname = '{SCHEMA}' AND tc.oid = i.indrelid AND n.oid = tc.relnamespace AND i.indisprimary = 't' AND ia.attrelid = i.indexrelid
          AND ta.attrelid = i.indrelid AND ta.attnum = i.indkey[ia.attnum-1] AND (NOT ta.attisdropped) AND (NOT ia.attisdropped) AND ic.oid = i.indexrelid
        order by ia.attnum""") == []
    assert ask(f"""select '{DATABASE}'::name as "PKTABLE_CAT", n2.nspname as "PKTABLE_SCHEM", c2.relname as "PKTABLE_NAME", a2.attname as "PKCOLUMN_NAME",
               i::int2 as "KEY_SEQ", case ref.confupdtype when 'c' then 0::int2 when 'n' then 2::int2 when 'd' then 4::int2 when 'r' then 1::int2 else 3::int2 end as "UPDATE_RULE"
        from (((((select cn.oid, conrelid, conkey, confrelid, confkey, generate_series(array_lower(conkey, 1), array_upper(conkey, 1)) as i, confupdtype, confdeltype, conname, condeferrable, condeferred
                  from pg_catalog.pg_constraint cn, pg_catalog.pg_class c, pg_catalog.pg_namespace n
                  where contype = 'f' and conrelid = c.oid and relname = '{TABLE}' and n.oid = c.relnamespace and n.nspname = '{SCHEMA}') ref
        inner join pg_catalog.pg_class c1 on c1.oid = ref.conrelid)
        inner join pg_catalog.pg_namespace n1 on n1.oid = c1.relnamespace)
        inner join pg_catalog.pg_attribute a1 on a1.attrelid = c1.oid and a1.attnum = conkey[i])
        inner join pg_catalog.pg_class c2 on c2.oid = ref.confrelid)
        inner join pg_catalog.pg_namespace n2 on n2.oid = c2.relnamespace
        inner join pg_catalog.pg_attribute a2 on a2.attrelid = c2.oid and a2.attnum = confkey[i]
        order by ref.oid, ref.i""") == []


@check
def tableau_tries_what_may_be_done():
    ask('CREATE LOCAL TEMPORARY TABLE "#Tableau_1_2_Connect" ( "COL" INTEGER ) ON COMMIT PRESERVE ROWS')
    ask('INSERT INTO "#Tableau_1_2_Connect" VALUES (1)')
    assert one('SELECT "COL" FROM "#Tableau_1_2_Connect"') == {"COL": 1}
    ask('DROP TABLE "#Tableau_1_2_Connect"')
    ask('BEGIN')
    ask('SAVEPOINT _EXEC_SVP_0x1')
    ask('declare "SQL_CUR0x7f" cursor with hold for ' + f'SELECT "{TABLE}"."channel" AS "channel", SUM("{TABLE}"."added") AS "sum:added:ok" FROM "{SCHEMA}"."{TABLE}" "{TABLE}" GROUP BY 1')
    assert len(ask('fetch 3 in "SQL_CUR0x7f"')) == 3
    ask('RELEASE _EXEC_SVP_0x1')
    ask('COMMIT')
    assert len(ask('fetch 3 in "SQL_CUR0x7f"')) == 3
    ask('close "SQL_CUR0x7f"')


@check
def tableau_draws():
    rows = ask(f"""SELECT DATE_TRUNC( 'HOUR', CAST("{TABLE}"."__time" AS TIMESTAMP) ) AS "thr:__time:ok", SUM(1) AS "sum:n:ok", COUNT(DISTINCT "{TABLE}"."user") AS "ctd:user:ok"
        FROM "{SCHEMA}"."{TABLE}" "{TABLE}"
        WHERE (("{TABLE}"."__time" >= (TIMESTAMP '2000-01-01 00:00:00.000')) AND (NOT ("{TABLE}"."page" IS NULL)))
        GROUP BY 1 HAVING (COUNT(1) > 0)""")
    assert len(rows) >= 24 and all(row["sum:n:ok"] >= row["ctd:user:ok"] for row in rows)
    rows = ask(f"""SELECT "t0"."channel" AS "channel", SUM("{TABLE}"."added") AS "sum" FROM "{SCHEMA}"."{TABLE}" "{TABLE}"
        INNER JOIN ( SELECT "{TABLE}"."channel" AS "channel", SUM("{TABLE}"."added") AS "$__alias__0" FROM "{SCHEMA}"."{TABLE}" "{TABLE}" GROUP BY 1 ORDER BY 2 DESC NULLS LAST LIMIT 3 ) "t0"
        ON (("{TABLE}"."channel" = "t0"."channel") OR (("{TABLE}"."channel" IS NULL) AND ("t0"."channel" IS NULL))) GROUP BY 1""")
    assert len(rows) == 3
    row = one(f"""SELECT CAST(TRUNC(EXTRACT(YEAR FROM MIN("__time"))) AS INTEGER) AS "yr", (CAST(EXTRACT(DOW FROM MIN("__time")) AS INTEGER) + 1) AS "dow",
        CAST(DATE_TRUNC('DAY', MIN("__time")) AS DATE) AS "day" FROM "{SCHEMA}"."{TABLE}" """)
    assert row["day"].year == row["yr"] and (row["day"].isoweekday() % 7) + 1 == row["dow"], row


# Power BI


TYPES = """
SELECT ns.nspname, t.oid, t.typname, t.typtype, t.typnotnull, t.elemtypoid
FROM (
    SELECT
        typ.oid, typ.typnamespace, typ.typname, typ.typtype, typ.typrelid, typ.typnotnull, typ.relkind,
        elemtyp.oid AS elemtypoid, elemtyp.typname AS elemtypname, elemcls.relkind AS elemrelkind,
        CASE WHEN elemproc.proname='array_recv' THEN 'a' ELSE elemtyp.typtype END AS elemtyptype
        {elemtypcategory}
    FROM (
        SELECT typ.oid, typnamespace, typname, typrelid, typnotnull, relkind, typelem AS elemoid,
            CASE WHEN proc.proname='array_recv' THEN 'a' ELSE typ.typtype END AS typtype,
            CASE
                WHEN proc.proname='array_recv' THEN typ.typelem
                WHEN typ.typtype='r' THEN rngsubtype
                WHEN typ.typtype='m' THEN (SELECT rngtypid FROM pg_range WHERE rngmultitypid = typ.oid)
                WHEN typ.typtype='d' THEN typ.typbasetype
            END AS elemtypoid
        FROM pg_type AS typ
        LEFT JOIN pg_class AS cls ON (cls.oid = typ.typrelid)
        LEFT JOIN pg_proc AS proc ON proc.oid = typ.typreceive
        LEFT JOIN pg_range ON (pg_range.rngtypid = typ.oid)
    ) AS typ
    LEFT JOIN pg_type AS elemtyp ON elemtyp.oid = elemtypoid
    LEFT JOIN pg_class AS elemcls ON (elemcls.oid = elemtyp.typrelid)
    LEFT JOIN pg_proc AS elemproc ON elemproc.oid = elemtyp.typreceive
) AS t
JOIN pg_namespace AS ns ON (ns.oid = typnamespace)
WHERE
    typtype IN ('b', 'r', 'm', 'e', 'd') OR
    (typtype = 'c' AND relkind='c') OR
    (typtype = 'p' AND typname IN ('record', 'void', 'unknown')) OR
    (typtype = 'a' AND (
        elemtyptype IN ('b', 'r', 'm', 'e', 'd') OR
        (elemtyptype = 'p' AND elemtypname IN ('record', 'void')) OR
        (elemtyptype = 'c' AND elemrelkind='c')
    ))
ORDER BY CASE
       WHEN typtype IN ('b', 'e', 'p') THEN 0
       WHEN typtype = 'r' THEN 1
       WHEN typtype = 'm' THEN 2
       WHEN typtype = 'c' THEN 3
       WHEN typtype = 'd' AND elemtyptype <> 'a' THEN 4
       WHEN typtype = 'a' THEN 5
       WHEN typtype = 'd' AND elemtyptype = 'a' THEN 6
END;"""


@check
def npgsql_loads_types():
    rows = ask(TYPES.format(elemtypcategory=""))
    types = {row["typname"]: row for row in rows}
    assert types["int8"]["typtype"] == "b" and types["_int8"] == {**types["_int8"], "typtype": "a", "elemtypoid": 20}, types.get("_int8")
    # Types come before the arrays of them.
    order = [row["oid"] for row in rows]
    assert all(order.index(row["elemtypoid"]) < order.index(row["oid"]) for row in rows if row["typtype"] == "a")
    assert ask("""SELECT typ.oid, att.attname, att.atttypid FROM pg_type AS typ JOIN pg_namespace AS ns ON (ns.oid = typ.typnamespace)
        JOIN pg_class AS cls ON (cls.oid = typ.typrelid) JOIN pg_attribute AS att ON (att.attrelid = typ.typrelid)
        WHERE (typ.typtype = 'c' AND cls.relkind='c') AND attnum > 0 AND NOT attisdropped ORDER BY typ.oid, att.attnum""") == []
    assert ask("SELECT pg_type.oid, enumlabel FROM pg_enum JOIN pg_type ON pg_type.oid=enumtypid ORDER BY oid, enumsortorder") == []
    ask("DISCARD ALL")


@check
def power_bi_navigates():
    assert one("select character_set_name from INFORMATION_SCHEMA.character_sets") == {"character_set_name": "UTF8"}
    rows = ask("""select TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE from INFORMATION_SCHEMA.tables
        where TABLE_SCHEMA not in ('information_schema', 'pg_catalog') order by TABLE_SCHEMA, TABLE_NAME""")
    assert {"table_schema": SCHEMA, "table_name": TABLE, "table_type": "BASE TABLE"} in rows, rows
    rows = ask(f"""select COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, case when (data_type like '%unsigned%') then DATA_TYPE || ' unsigned' else DATA_TYPE end as DATA_TYPE
        from INFORMATION_SCHEMA.columns where TABLE_SCHEMA = '{SCHEMA}' and TABLE_NAME = '{TABLE}' order by TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION""")
    assert rows[0]["ordinal_position"] == 1 and {row["column_name"] for row in rows} == COLUMNS
    # An alias is as it was written; PostgreSQL's is in lower case, and npgsql finds both.
    types = {row["column_name"]: row.get("data_type") or row.get("DATA_TYPE") for row in rows}
    assert types["added"] == "bigint" and types["__time"] == "timestamp without time zone", types


@check
def power_bi_finds_no_keys():
    for own, other in (("pkcol", "fkcol"), ("fkcol", "pkcol")):
        assert ask(f"""select pkcol.COLUMN_NAME as PK_COLUMN_NAME, {other}.TABLE_SCHEMA AS OTHER_SCHEMA, {other}.TABLE_NAME AS OTHER_NAME, fkcol.COLUMN_NAME as FK_COLUMN_NAME,
                   fkcol.ORDINAL_POSITION as ORDINAL, fkcon.CONSTRAINT_SCHEMA || '_' || fkcol.TABLE_NAME || '_' || '{TABLE}' || '_' || fkcon.CONSTRAINT_NAME as FK_NAME
            from (select distinct constraint_catalog, constraint_schema, unique_constraint_schema, constraint_name, unique_constraint_name from INFORMATION_SCHEMA.REFERENTIAL_CONSTRAINTS) fkcon
            inner join INFORMATION_SCHEMA.KEY_COLUMN_USAGE fkcol on fkcon.CONSTRAINT_SCHEMA = fkcol.CONSTRAINT_SCHEMA and fkcon.CONSTRAINT_NAME = fkcol.CONSTRAINT_NAME
            inner join INFORMATION_SCHEMA.KEY_COLUMN_USAGE pkcol on fkcon.UNIQUE_CONSTRAINT_SCHEMA = pkcol.CONSTRAINT_SCHEMA and fkcon.UNIQUE_CONSTRAINT_NAME = pkcol.CONSTRAINT_NAME
            where {own}.TABLE_SCHEMA = '{SCHEMA}' and {own}.TABLE_NAME = '{TABLE}' and pkcol.ORDINAL_POSITION = fkcol.ORDINAL_POSITION
            order by FK_NAME, fkcol.ORDINAL_POSITION""") == []
    assert ask(f"""select i.CONSTRAINT_SCHEMA || '_' || i.CONSTRAINT_NAME as INDEX_NAME, ii.COLUMN_NAME, ii.ORDINAL_POSITION, case when i.CONSTRAINT_TYPE = 'PRIMARY KEY' then 'Y' else 'N' end as PRIMARY_KEY
        from INFORMATION_SCHEMA.table_constraints i
        inner join INFORMATION_SCHEMA.key_column_usage ii on i.CONSTRAINT_SCHEMA = ii.CONSTRAINT_SCHEMA and i.CONSTRAINT_NAME = ii.CONSTRAINT_NAME
          and i.TABLE_SCHEMA = ii.TABLE_SCHEMA and i.TABLE_NAME = ii.TABLE_NAME
        where i.TABLE_SCHEMA = '{SCHEMA}' and i.TABLE_NAME = '{TABLE}' and i.CONSTRAINT_TYPE in ('PRIMARY KEY', 'UNIQUE')
        order by i.CONSTRAINT_SCHEMA || '_' || i.CONSTRAINT_NAME, ii.TABLE_SCHEMA, ii.TABLE_NAME, ii.ORDINAL_POSITION""") == []


@check
def power_bi_folds():
    rows = ask(f"""select "_"."channel" as "channel", "_"."a0" as "a0"
        from (select "rows"."channel" as "channel", sum(cast("rows"."added" as decimal)) as "a0"
              from (select "$Table"."channel" as "channel", "$Table"."added" as "added" from "{SCHEMA}"."{TABLE}" "$Table" where "$Table"."added" > 0) "rows"
              group by "channel") "_"
        where not "_"."a0" is null limit 1000001""")
    assert rows and all(row["a0"] > 0 for row in rows)
    rows = ask(f"""select "$Ordered"."__time", "$Ordered"."page" from (select "_"."__time", "_"."page" from "{SCHEMA}"."{TABLE}" "_"
        where ("_"."__time" >= timestamp '2000-01-01 00:00:00' and "_"."page" is not null) and "_"."page" like '%a%') "$Ordered"
        order by "$Ordered"."__time" desc limit 4096""")
    assert rows and rows == sorted(rows, key=lambda row: row["__time"], reverse=True)


# DuckDB


@check
def duckdb_attaches():
    ask("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    assert one("SELECT pg_is_in_recovery() AS recovers, pg_catalog.version() AS v")["recovers"] is False
    rows = ask("""SELECT pg_namespace.oid AS namespace_id, relname, relpages, attname, pg_type.typname type_name, atttypmod type_modifier, pg_attribute.attndims ndim,
            attnum, pg_attribute.attnotnull AS notnull, NULL constraint_id, NULL constraint_type, NULL constraint_key
        FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
        JOIN pg_attribute ON pg_class.oid=pg_attribute.attrelid
        JOIN pg_type ON atttypid=pg_type.oid
        WHERE attnum > 0 AND relkind IN ('r', 'v', 'm', 'f', 'p')
        UNION ALL
        SELECT pg_namespace.oid AS namespace_id, relname, NULL relpages, NULL attname, NULL type_name, NULL type_modifier, NULL ndim, NULL attnum, NULL AS notnull,
            pg_constraint.oid AS constraint_id, contype AS constraint_type, conkey AS constraint_key
        FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid
        JOIN pg_constraint ON (pg_class.oid=pg_constraint.conrelid)
        WHERE relkind IN ('r', 'v', 'm', 'f', 'p') AND contype IN ('p', 'u')
        ORDER BY namespace_id, relname, attnum, constraint_id""")
    assert {row["attname"] for row in rows if row["relname"] == TABLE} == COLUMNS
    assert ask("SELECT n.oid, enumtypid, typname, enumlabel FROM pg_enum e JOIN pg_type t ON e.enumtypid = t.oid JOIN pg_namespace AS n ON (typnamespace=n.oid) ORDER BY n.oid, enumtypid, enumsortorder") == []
    assert ask("""SELECT n.oid, t.typrelid AS id, t.typname as type, pg_attribute.attname, sub_type.typname FROM pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
        JOIN pg_class ON pg_class.oid = t.typrelid JOIN pg_attribute ON attrelid=t.typrelid JOIN pg_type sub_type ON (pg_attribute.atttypid=sub_type.oid)
        WHERE pg_class.relkind = 'c' AND t.typtype='c' ORDER BY n.oid, t.oid, attrelid, attnum""") == []
    assert isinstance(ask("SELECT pg_namespace.oid, tablename, indexname FROM pg_indexes JOIN pg_namespace ON (schemaname=nspname) ORDER BY pg_namespace.oid"), list)
    ask("ROLLBACK")


finish()
