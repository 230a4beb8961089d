"""Arrow's ADBC driver: types are loaded at connect, results come by COPY in binary."""
import adbc_driver_postgresql.dbapi as adbc
import pyarrow
from check import DATABASE, HOST, PORT, TABLE, USER, check, finish

connection = adbc.connect(f"postgresql://{USER}@{HOST}:{PORT}/{DATABASE}", autocommit=True)


def table(query, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetch_arrow_table()


@check
def columns_are_arrow():
    answer = table(f'select "__time", channel, added, added * 1.5::float8 as more from {TABLE} limit 100')
    types = answer.schema.types
    assert pyarrow.types.is_timestamp(types[0]) and pyarrow.types.is_string(types[1]), types
    assert types[2:] == [pyarrow.int64(), pyarrow.float64()] and answer.num_rows == 100


@check
def values_of_every_type():
    row = table("select true as a, 1::smallint as b, 2::int as c, 'x'::text as d, date '2015-09-12' as e, array[1,2] as f, null::int as g").to_pylist()[0]
    assert row["a"] is True and row["b"] == 1 and row["d"] == "x" and row["e"].year == 2015 and row["f"] == [1, 2] and row["g"] is None, row


@check
def no_rows_have_a_schema_too():
    answer = table(f"select channel, added from {TABLE} where channel = 'nowhere'")
    assert answer.num_rows == 0 and answer.schema.names == ["channel", "added"]


@check
def many_rows():
    assert table(f"select page, added from {TABLE} limit 5000").num_rows >= 1000


@check
def parameters():
    answer = table(f"select count(*) as n from {TABLE} where added >= $1 and channel <> $2", (0, "nowhere"))
    assert answer.to_pylist()[0]["n"] > 0


@check
def objects_are_listed():
    objects = connection.adbc_get_objects(depth="columns", table_name_filter=TABLE).read_all().to_pylist()
    schemas = [schema for catalog in objects for schema in catalog["catalog_db_schemas"]]
    tables = [found for schema in schemas for found in schema["db_schema_tables"]]
    assert [found["table_name"] for found in tables] == [TABLE], objects
    assert "cityName" in [column["column_name"] for column in tables[0]["table_columns"]]


@check
def schema_of_a_table():
    schema = connection.adbc_get_table_schema(TABLE)
    assert "channel" in schema.names and schema.field("added").type == pyarrow.int64()


@check
def types_of_tables_and_info():
    assert "table" in connection.adbc_get_table_types()
    assert connection.adbc_get_info()["vendor_name"] == "PostgreSQL"


@check
def errors_have_their_codes():
    try:
        table("select * from no_such_table")
    except adbc.Error as error:
        assert error.sqlstate == "42P01", error.sqlstate
        return
    raise AssertionError("no error")


finish()
