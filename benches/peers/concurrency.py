#!/usr/bin/env python3
"""A dashboard on many connections while rows come in: throughput, p50 and p99 of Henge beside DuckDB and chDB.

    pip install duckdb chdb "psycopg[binary]"
    python3 benches/peers/concurrency.py --rows 10000000 --connections 32 --seconds 20

Each connection asks the twelve queries of the mix in turn, each in an order of its own, one after the other without a
pause (`--rate` asks for so many queries a second in all instead, and counts from when a query was due). Meanwhile
edits are loaded into a second table, over and over. Henge is the real server, asked through the PostgreSQL protocol;
DuckDB and chDB run in the process of the connections, which are threads there. One engine after the other, the same
number of threads each. Run run.py first: it makes the tables.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from run import FLAGS, NUMBERS, ROOT, STRINGS, open_chdb, queries

MIX = [
    "count", "total_one_day", "by_hour", "by_channel", "top_users", "week_by_channel", "three_channels", "by_hour_en_robots",
    "like_page", "one_hour", "distinct_users_by_channel", "newest_100",
]


class Henge:
    """The server, and a load of the same file again and again."""

    def __init__(self, options, directory):
        self.binary, self.directory = options.server, directory / "henge-concurrency"
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(directory / "henge", self.directory)
        line = [self.binary, "server", "--pg-port", "0", "--http-port", "0", "--threads", options.threads]
        line += ["--data-dir", self.directory]
        self.process = subprocess.Popen(list(map(str, line)), stdout=subprocess.PIPE, text=True)
        self.address = next(line.split(": ")[1].strip() for line in self.process.stdout if line.startswith("PostgreSQL: "))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.feed = [self.binary, "ingest", options.feed, "--data-dir", self.directory, "--data-source", "live",
                     "--time-column", "time", "--append"]

    def connect(self):
        import psycopg

        host, port = self.address.rsplit(":", 1)
        connection = psycopg.connect(host=host, port=port, user="henge", dbname="henge", autocommit=True)
        return lambda sql: connection.execute(sql).fetchall()

    def ingest(self):
        subprocess.run(list(map(str, self.feed)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory)


class DuckDb:
    def __init__(self, options, directory):
        import duckdb

        self.file = directory / "duckdb-concurrency"
        shutil.rmtree(self.file, ignore_errors=True)
        shutil.copytree(directory / "duckdb", self.file)
        self.connection = duckdb.connect(str(self.file / "wikiticker.duckdb"))
        self.connection.execute(f"SET threads = {options.threads}; SET TimeZone = 'UTC'")
        self.feed = options.feed
        columns = ", ".join(f'"{name}"' for name in FLAGS + STRINGS + NUMBERS)
        self.select = f"SELECT time::TIMESTAMP AS __time, {columns} FROM read_json('{self.feed}')"
        self.connection.execute(f"CREATE TABLE live AS {self.select} LIMIT 0")

    def connect(self):
        cursor = self.connection.cursor()
        return lambda sql: cursor.execute(sql).fetchall()

    def ingest(self):
        self.connection.cursor().execute(f"INSERT INTO live {self.select}")

    def close(self):
        self.connection.close()
        shutil.rmtree(self.file)


class ChDb:
    def __init__(self, options, directory):
        self.directory = directory / "chdb-concurrency"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        shutil.copytree(directory / "chdb", self.directory / "chdb", symlinks=True)
        self.run = open_chdb(self.directory, options.threads)
        types = ", ".join(f"\"{name}\" {'Bool' if name in FLAGS else 'Int64' if name in NUMBERS else 'Nullable(String)'}"
                          for name in FLAGS + STRINGS + NUMBERS)
        self.run.session.query(f"CREATE TABLE live (time String, {types}) ENGINE = MergeTree ORDER BY time")
        self.feed = f"INSERT INTO live SELECT * FROM file('{options.feed}', JSONEachRow, 'time String, {types}')"
        self.feed += " SETTINGS input_format_skip_unknown_fields = 1"

    def connect(self):
        return self.run

    def ingest(self):
        self.run.session.query(self.feed)

    def close(self):
        self.run.session.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def lone(connect, asked):
    """The median of the mix when nothing else runs."""
    run, times = connect(), []
    for round_number in range(4):
        for sql in asked:
            start = time.perf_counter()
            run(sql)
            if round_number:
                times.append(time.perf_counter() - start)
    return statistics.median(times)


def together(engine, asked, options):
    """Latencies in seconds, how long it took, and how often the file was loaded."""
    latencies, loads, failed, end = [], [0], [], threading.Event()
    barrier = threading.Barrier(options.connections + options.ingest + 1)

    def client(number):
        run, mine = engine.connect(), []
        order = random.Random(number).sample(asked, len(asked))
        barrier.wait()
        due = time.perf_counter() + (number / options.rate if options.rate else 0)
        asked_so_far = 0
        while not end.is_set():
            if options.rate:
                time.sleep(max(0, due - time.perf_counter()))
            start = due if options.rate else time.perf_counter()
            try:
                run(order[asked_so_far % len(order)])
            except Exception as error:
                failed.append(error)
                break
            mine.append(time.perf_counter() - start)
            asked_so_far += 1
            due += options.connections / options.rate if options.rate else 0
        latencies.extend(mine)

    def feed():
        barrier.wait()
        while not end.is_set():
            engine.ingest()
            loads[0] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(options.connections)]
    threads += [threading.Thread(target=feed)] if options.ingest else []
    [thread.start() for thread in threads]
    barrier.wait()
    started = time.perf_counter()
    time.sleep(options.seconds)
    end.set()
    [thread.join() for thread in threads]
    if failed:
        sys.exit(f"a query failed: {failed[0]}")
    return sorted(latencies), time.perf_counter() - started, loads[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, help="queries a second in all; without it, as many as can be")
    parser.add_argument("--no-ingest", dest="ingest", action="store_false")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["henge", "duckdb", "chdb"])
    parser.add_argument("--dir", type=Path, default=ROOT / "target" / "peers")
    parser.add_argument("--server", type=Path, default=ROOT / "target" / "release" / "henge")
    options = parser.parse_args()
    directory = options.dir / f"{options.rows}"
    options.feed = directory / "feed.json"
    if not options.feed.exists():
        line = [options.server, "generate", "wikipedia", "--shape", "wikiticker", "--rows", "200000", "--seed", "7"]
        with open(options.feed, "w") as out:
            subprocess.run(list(map(str, line)), check=True, stdout=out)
    kinds = {"henge": Henge, "duckdb": DuckDb, "chdb": ChDb}
    print("| engine | queries/s | p50 ms | p99 ms | lone median ms | p99 / lone | rows/s loaded |\n|---|---|---|---|---|---|---|")
    for name in options.engines:
        # Each in a process of its own: what one leaves behind must not slow the next.
        child = os.fork()
        if child == 0:
            engine = kinds[name](options, directory)
            spelled = queries(name, {"page": "", "user": ""})
            asked = [spelled[query] for query in MIX]
            alone = lone(engine.connect, asked)
            latencies, seconds, loads = together(engine, asked, options)
            p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
            cells = [f"{len(latencies) / seconds:.0f}", f"{p50 * 1e3:.1f}", f"{p99 * 1e3:.1f}", f"{alone * 1e3:.1f}",
                     f"{p99 / alone:.1f}", f"{loads * 200_000 / seconds:,.0f}" if options.ingest else "-"]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
            engine.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(f"| {name} | failed |" + " |" * 5, flush=True)


if __name__ == "__main__":
    main()
