"""DuckDB with Henge attached: its extension for PostgreSQL reads by COPY in binary, in a transaction of its own."""
import duckdb
from check import DATABASE, HOST, PORT, TABLE, USER, check, finish
from duckdb_extensions import import_extension

import_extension("postgres_scanner")
duck = duckdb.connect()


def rows(sql):
    return duck.execute(sql).fetchall()


@check
def attaches_and_lists():
    duck.execute("LOAD postgres_scanner")
    duck.execute(f"ATTACH 'host={HOST} port={PORT} user={USER} dbname={DATABASE}' AS henge (TYPE postgres, READ_ONLY)")
    assert ("druid", TABLE) in rows("SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = 'henge'")
    columns = {name: kind for name, kind, *_ in rows(f"DESCRIBE henge.druid.{TABLE}")}
    assert columns["added"] == "BIGINT" and columns["page"] == "VARCHAR" and columns["__time"].startswith("TIMESTAMP"), columns


@check
def reads_and_pushes_conditions_down():
    there = rows(f"SELECT * FROM postgres_query('henge', 'SELECT COUNT(*), SUM(added), MIN(__time) FROM {TABLE} WHERE added > 10')")
    here = rows(f"SELECT COUNT(*), SUM(added), MIN(__time) FROM henge.druid.{TABLE} WHERE added > 10")
    assert there[0][0] > 0 and [(n, int(s), t) for n, s, t in here] == [(n, int(s), t) for n, s, t in there], (here, there)


@check
def joins_with_tables_of_its_own():
    duck.execute(f"CREATE TABLE top AS SELECT channel, COUNT(*) AS n FROM henge.druid.{TABLE} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 3")
    joined = rows(f"SELECT COUNT(*) FROM henge.druid.{TABLE} AS w JOIN top USING (channel)")
    assert joined == rows("SELECT SUM(n)::BIGINT FROM top"), joined


finish()
