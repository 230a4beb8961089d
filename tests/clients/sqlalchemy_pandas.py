"""SQLAlchemy 2 and pandas, by psycopg."""
import datetime

import pandas
import sqlalchemy as sa
from check import DATABASE, HOST, PORT, TABLE, USER, check, fails, finish
from sqlalchemy import func, inspect, select, text

engine = sa.create_engine(f"postgresql+psycopg://{USER}@{HOST}:{PORT}/{DATABASE}")
inspector = None
table = None


@check
def connects_and_knows_the_version():
    with engine.connect() as connection:
        assert connection.execute(text("select 1")).scalar() == 1
        assert engine.dialect.server_version_info[0] == 15, engine.dialect.server_version_info
        assert engine.dialect.default_schema_name


@check
def inspects_schemas_and_tables():
    global inspector
    inspector = inspect(engine)
    assert "druid" in inspector.get_schema_names()
    assert TABLE in inspector.get_table_names(schema="druid")
    assert TABLE in inspector.get_table_names()
    assert inspector.has_table(TABLE) and not inspector.has_table("no_such_table")
    assert isinstance(inspector.get_view_names(schema="druid"), list)
    assert isinstance(inspector.get_materialized_view_names(schema="druid"), list)
    assert isinstance(inspector.get_temp_table_names(), list)
    assert inspector.get_sequence_names() == []


@check
def inspects_columns():
    columns = {column["name"]: column for column in inspector.get_columns(TABLE, schema="druid")}
    assert isinstance(columns["__time"]["type"], sa.TIMESTAMP) and not columns["__time"]["nullable"]
    assert isinstance(columns["page"]["type"], sa.TEXT) and columns["page"]["nullable"]
    assert isinstance(columns["added"]["type"], sa.BIGINT)
    assert columns["added"]["default"] is None and "cityName" in columns


@check
def finds_no_keys_where_there_are_none():
    assert inspector.get_pk_constraint(TABLE)["constrained_columns"] == []
    assert inspector.get_foreign_keys(TABLE) == []
    assert inspector.get_indexes(TABLE) == []
    assert inspector.get_unique_constraints(TABLE) == []
    assert inspector.get_check_constraints(TABLE) == []
    assert inspector.get_table_comment(TABLE)["text"] is None


@check
def reflects_all_tables_at_once():
    global table
    metadata = sa.MetaData()
    metadata.reflect(engine, schema="druid")
    table = metadata.tables[f"druid.{TABLE}"]
    assert "channel" in table.c
    columns = inspector.get_multi_columns(schema="druid")
    assert ("druid", TABLE) in columns


@check
def groups_filters_and_orders():
    query = (
        select(table.c.channel, func.count().label("edits"), func.sum(table.c.added))
        .where(table.c["__time"] >= datetime.datetime(2000, 1, 1), table.c.added >= 0)
        .group_by(table.c.channel)
        .having(func.count() > 0)
        .order_by(sa.desc("edits"), table.c.channel)
        .limit(3)
        .offset(1)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    assert len(rows) == 3 and rows[0].edits >= rows[1].edits


@check
def sends_parameters_of_every_type():
    with engine.connect() as connection:
        channels = connection.execute(select(table.c.channel).distinct().order_by(table.c.channel).limit(2)).scalars().all()
        count = select(func.count()).select_from(table)
        assert connection.execute(count.where(table.c.channel.in_(channels))).scalar() > 0
        assert connection.execute(count.where(table.c.page.like("%a%"))).scalar() > 0
        assert connection.execute(count.where(table.c.added > 10.5)).scalar() > 0
        assert connection.execute(count.where(table.c["cityName"].is_(None))).scalar() > 0
        assert connection.execute(count.where(sa.cast(table.c["__time"], sa.Date) >= datetime.date(2000, 1, 1))).scalar() > 0
        assert connection.execute(select(sa.literal("x"), sa.literal(True), sa.literal(None), sa.literal(2**40))).one()[3] == 2**40


@check
def names_that_want_quotes_are_found():
    with engine.connect() as connection:
        query = select(table.c["user"], table.c["cityName"], func.count()).group_by(table.c["user"], table.c["cityName"]).limit(5)
        assert len(connection.execute(query).all()) == 5


@check
def time_is_cut_and_taken_apart():
    hour = func.date_trunc("hour", table.c["__time"]).label("hour")
    with engine.connect() as connection:
        rows = connection.execute(select(hour, func.count()).group_by(hour).order_by(hour)).all()
        assert len(rows) >= 24 and isinstance(rows[0].hour, datetime.datetime)
        assert connection.execute(select(func.count(sa.distinct(sa.extract("hour", table.c["__time"]))))).scalar() == 24


@check
def windows_cases_and_common_table_expressions():
    edits = select(table.c.channel, func.count().label("n")).group_by(table.c.channel).cte("edits")
    place = func.rank().over(order_by=edits.c.n.desc()).label("place")
    size = sa.case((edits.c.n > 100, "large"), else_="small").label("size")
    with engine.connect() as connection:
        rows = connection.execute(select(edits.c.channel, place, size).order_by(place).limit(2)).all()
    assert rows[0].place == 1


@check
def transactions_and_savepoints():
    with engine.begin() as connection:
        with connection.begin_nested():
            connection.execute(text("select 1"))
        nested = connection.begin_nested()
        fails("42P01", lambda: connection.execute(text("select * from no_such_table")))
        nested.rollback()
        assert connection.execute(text("select 2")).scalar() == 2
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert connection.execute(text("select 3")).scalar() == 3


@check
def streams_by_server_side_cursor():
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True, max_row_buffer=100).execute(select(table.c.page).limit(1000))
        assert sum(len(part) for part in result.partitions(100)) == 1000


@check
def errors_have_their_codes():
    with engine.connect() as connection:
        fails("42703", lambda: connection.execute(text(f"select nope from {TABLE}")))
    with engine.connect() as connection:
        fails("42601", lambda: connection.execute(text("selec 1")))


@check
def pandas_reads_types():
    frame = pandas.read_sql(f'select "__time", channel, added, added * 1.5::float8 as more from {TABLE} limit 50', engine)
    assert str(frame.dtypes["__time"]).startswith("datetime64") and frame.dtypes["added"] == "int64", frame.dtypes
    assert frame.dtypes["more"] == "float64" and len(frame) == 50


@check
def pandas_reads_in_chunks_with_parameters():
    query = text(f"select page, added from {TABLE} where added >= :least limit 1000")
    chunks = list(pandas.read_sql(query, engine, params={"least": 0}, chunksize=300))
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]


@check
def pandas_reads_a_whole_table():
    frame = pandas.read_sql_table(TABLE, engine, columns=["channel", "added"])
    assert len(frame) >= 1000


@check
def a_temporary_table_is_made_and_filled():
    metadata = sa.MetaData()
    own = sa.Table("own_numbers", metadata, sa.Column("n", sa.BigInteger), sa.Column("name", sa.Text), prefixes=["TEMPORARY"])
    with engine.connect() as connection:
        own.create(connection)
        connection.execute(own.insert(), [{"n": 1, "name": "a"}, {"n": 2, "name": None}])
        assert connection.execute(select(func.sum(own.c.n))).scalar() == 3
        assert "own_numbers" in inspect(connection).get_temp_table_names()
        own.drop(connection)


finish()
