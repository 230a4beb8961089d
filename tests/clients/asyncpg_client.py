"""asyncpg: everything is prepared, all values are binary."""
import asyncio
import datetime
import decimal

import asyncpg
from check import DATABASE, HOST, PORT, TABLE, USER, check, finish

loop = asyncio.new_event_loop()


def sink_of(data):
    async def write(piece):
        data.extend(piece)

    return write


def connect(**more):
    return asyncpg.connect(host=HOST, port=PORT, user=USER, database=DATABASE, **more)


connection = loop.run_until_complete(connect())


def checked(function):
    """A check that awaits."""

    def run():
        loop.run_until_complete(asyncio.wait_for(function(), 60))

    run.__name__ = function.__name__
    return check(run)


@checked
async def values_of_every_type_come_back():
    row = await connection.fetchrow(
        "select true, 1::smallint, 2::int, 3::bigint, 1.5::real, 2.5::float8, 12.34::numeric(10,2), 'x'::text, "
        "date '2015-09-12', time '10:00', timestamp '2015-09-12 10:00:00.5', timestamptz '2015-09-12 10:00+00', "
        "interval '1 day 2 hours', '\\x6162'::bytea, array[1,2], array['a',null], null::text"
    )
    utc = datetime.timezone.utc
    expected = (
        True, 1, 2, 3, 1.5, 2.5, decimal.Decimal("12.34"), "x", datetime.date(2015, 9, 12), datetime.time(10, 0),
        datetime.datetime(2015, 9, 12, 10, 0, 0, 500000), datetime.datetime(2015, 9, 12, 10, tzinfo=utc),
        datetime.timedelta(days=1, hours=2), b"ab", [1, 2], ["a", None], None,
    )
    assert tuple(row) == expected, row


@checked
async def parameters_have_the_types_of_their_places():
    count = f"select count(*) from {TABLE} where "
    assert await connection.fetchval(count + "channel <> $1", "nowhere") > 0
    assert await connection.fetchval(count + "added >= $1", 0) > 0
    assert await connection.fetchval(count + '"__time" >= $1', datetime.datetime(2000, 1, 1)) > 0
    assert await connection.fetchval(count + "added >= $1::int and channel <> $2::text", 0, "x") > 0
    assert await connection.fetchval(count + "channel <> all($1::text[])", ["x", "y"]) > 0
    assert len(await connection.fetch(f"select page from {TABLE} limit $1 offset $2", 5, 2)) == 5
    assert await connection.fetchval("select $1::date + 1", datetime.date(2015, 9, 12)) == datetime.date(2015, 9, 13)
    assert await connection.fetchval("select $1::numeric(10,2)", decimal.Decimal("1.25")) == decimal.Decimal("1.25")


@checked
async def statements_are_prepared_once():
    statement = await connection.prepare(f"select channel, added from {TABLE} where added >= $1 limit 3")
    assert [kind.name for kind in statement.get_parameters()] == ["int8"]
    assert [column.type.name for column in statement.get_attributes()] == ["text", "int8"]
    for least in range(5):
        assert len(await statement.fetch(least)) == 3


@checked
async def cursors_fetch_and_move():
    async with connection.transaction():
        cursor = await connection.cursor(f"select page from {TABLE} limit 100")
        assert len(await cursor.fetch(10)) == 10
        assert await cursor.forward(20) == 20
        assert len(await cursor.fetch(1000)) == 70
    async with connection.transaction():
        rows = 0
        async for _ in connection.cursor(f"select page from {TABLE} limit 500", prefetch=50):
            rows += 1
        assert rows == 500


@checked
async def transactions_nest():
    async with connection.transaction():
        try:
            async with connection.transaction():
                await connection.execute("select * from no_such_table")
        except asyncpg.UndefinedTableError:
            pass
        assert await connection.fetchval("select 1") == 1


@checked
async def errors_are_classes():
    for query, kind in [
        ("selec 1", asyncpg.PostgresSyntaxError),
        (f"select nope from {TABLE}", asyncpg.UndefinedColumnError),
        ("select no_such_fn(1)", asyncpg.UndefinedFunctionError),
        ("select 1/0", asyncpg.DivisionByZeroError),
        ("select 'x'::int", asyncpg.InvalidTextRepresentationError),
    ]:
        try:
            await connection.fetch(query)
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__} for {query}")


@checked
async def settings_travel_at_startup():
    other = await connect(server_settings={"application_name": "asyncpg test", "statement_timeout": "90s"})
    assert await other.fetchval("show application_name") == "asyncpg test"
    assert await other.fetchval("select current_setting('statement_timeout')") == "90s"
    assert other.get_server_version().major == 15
    await other.close()


@checked
async def a_pool_resets_its_connections():
    async with asyncpg.create_pool(host=HOST, port=PORT, user=USER, database=DATABASE, min_size=1, max_size=4) as pool:
        counts = await asyncio.gather(*[pool.fetchval(f"select count(*) from {TABLE}") for _ in range(12)])
        assert len(set(counts)) == 1
        async with pool.acquire() as held:
            await held.execute("set work_mem = '9MB'")
        async with pool.acquire() as held:
            assert await held.fetchval("show work_mem") != "9MB"


@checked
async def a_query_is_timed_out_and_the_next_one_runs():
    try:
        await connection.fetch(f"select count(*) from {TABLE} a, {TABLE} b, {TABLE} c where a.page || b.page || c.page like '%qqq%'", timeout=0.5)
        raise AssertionError("no timeout")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("select 1") == 1


@checked
async def copies_out():
    data = bytearray()
    answer = await connection.copy_from_query(f"select page, added from {TABLE} limit 7", output=sink_of(data), format="csv")
    assert answer == "COPY 7" and data.count(b"\n") >= 7


finish()
