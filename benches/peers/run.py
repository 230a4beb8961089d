#!/usr/bin/env python3
"""Times benches/peers/queries.sql on Henge, DuckDB and chDB, interleaved in one run, and prints a table in Markdown.

    pip install duckdb chdb
    python3 benches/peers/run.py --rows 10000000 --rounds 5

Each engine loads the same generated Parquet file into its own files and runs in a process of its own, with the same
number of threads. In every round each query runs on each engine in turn; the first round warms and is not counted.
Answers are compared. Henge runs twice: through its Rust API, and (`henge-pg`) through the PostgreSQL protocol.
"""

import argparse
import datetime
import decimal
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FLAGS = ["isAnonymous", "isMinor", "isNew", "isRobot", "isUnpatrolled"]
STRINGS = ["channel", "cityName", "countryName", "namespace", "page", "regionName", "user"]
NUMBERS = ["added", "deleted", "delta"]
# What the engines spell differently, in braces in queries.sql.
SPELLINGS = {
    "match": {"henge": "{0} ~ {1}", "duckdb": "regexp_matches({0}, {1})", "chdb": "match({0}, {1})"},
    "approx": {"henge": "APPROX_COUNT_DISTINCT({0})", "duckdb": "approx_count_distinct({0})", "chdb": "uniq({0})"},
}
# Estimates may differ by this much.
TOLERANCE = 0.1


def queries(engine, words):
    """The queries by name, in the spelling of `engine`."""
    text = (HERE / "queries.sql").read_text()
    found = {}
    for name, sql in re.findall(r"-- name: (\w+)\n(.*?);", text, re.S):
        spelled = lambda m: SPELLINGS[m[1]][engine].format(*re.split(", (?=')", m[2]))
        sql = re.sub(r"\{(match|approx)\((\"?\w+\"?(?:, '[^']*')?)\)\}", spelled, sql)
        for word, value in words.items():
            sql = sql.replace("{" + word + "}", value.replace("'", "''"))
        found[name] = sql.replace("\n", " ")
    return found


def cell(value):
    """A value as text that does not depend on the engine's types."""
    if value is None:
        return "NULL"
    if isinstance(value, (float, decimal.Decimal)):
        return f"{float(value):.6g}" if value != int(value) else str(int(value))
    if isinstance(value, (datetime.datetime, datetime.date)):
        return str(value)[:19]
    text = str(value)
    if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00(:00)?)?", text):
        return text[:19].replace("T", " ")
    if re.fullmatch(r"-?\d+\.\d+", text):
        return cell(float(text))
    return text


# Workers: one process an engine. A line in: SQL. A line out: {"ms": …, "rows": [[…]]}.


def open_duckdb(directory, threads):
    import duckdb

    connection = duckdb.connect(str(directory / "wikiticker.duckdb"))
    connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'")
    return lambda sql: connection.execute(sql).fetchall()


def load_duckdb(directory, parquet, threads):
    run = open_duckdb(directory, threads)
    flags = ", ".join(f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in FLAGS)
    others = ", ".join(f'"{name}"' for name in STRINGS + NUMBERS)
    run(f"CREATE TABLE wikiticker AS SELECT time AS __time, {flags}, {others} FROM '{parquet}'")
    run("CHECKPOINT")


def open_chdb(directory, threads):
    import chdb.session

    session = chdb.session.Session(str(directory / "chdb"))
    settings = f"SETTINGS max_threads = {threads}, session_timezone = 'UTC', use_query_cache = 0"
    setting = settings + ", output_format_json_quote_64bit_integers = 0"

    def run(sql):
        text = session.query(f"{sql} {setting}", "JSONCompactEachRow")
        return [json.loads(line) for line in str(text).splitlines()]

    run.session = session
    return run


def load_chdb(directory, parquet, threads):
    session = open_chdb(directory, threads).session
    low = {"channel", "namespace", *FLAGS}
    low_null = {"cityName", "countryName", "regionName"}
    columns = ["__time DateTime64(3, 'UTC')"]
    columns += [f'"{name}" Int64' for name in NUMBERS]
    for name in FLAGS + STRINGS:
        kind = "LowCardinality(String)" if name in low else "LowCardinality(Nullable(String))" if name in low_null else "String"
        columns.append(f'"{name}" {kind}')
    flags = ", ".join(f'if("{name}", \'true\', \'false\')' for name in FLAGS)
    others = ", ".join(f'"{name}"' for name in STRINGS)
    numbers = ", ".join(f'"{name}"' for name in NUMBERS)
    session.query(f"CREATE TABLE wikiticker ({', '.join(columns)}) ENGINE = MergeTree ORDER BY __time")
    session.query(f"INSERT INTO wikiticker SELECT time, {numbers}, {flags}, {others} FROM file('{parquet}', Parquet)")
    session.query("OPTIMIZE TABLE wikiticker FINAL")


def worker(engine, directory, threads):
    run = {"duckdb": open_duckdb, "chdb": open_chdb}[engine](directory, threads)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        try:
            rows = run(line.strip())
            ms = (time.perf_counter() - start) * 1000
            reply = {"ms": ms, "rows": [[cell(value) for value in row] for row in rows]}
        except Exception as error:  # whatever an engine says is its answer
            reply = {"error": str(error).splitlines()[0]}
        print(json.dumps(reply), flush=True)


class Worker:
    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        ready, _, pid = self.process.stdout.readline().strip().partition(" ")
        if ready != "ready":
            sys.exit(f"{name} did not start: {ready} {pid}")
        self.pid = int(pid or self.process.pid)

    def ask(self, sql):
        self.process.stdin.write(sql + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended while it answered: {sql}")
        reply = json.loads(line)
        reply["rows"] = [[cell(value) for value in row] for row in reply.get("rows", [])]
        return reply

    def peak_mb(self):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def size_mb(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def timed(title, call):
    start = time.perf_counter()
    call()
    print(f"{title}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


def prepare(options, henge):
    """Makes what is not there yet. A load that was broken off leaves no name that is looked for."""
    directory = options.dir / f"{options.rows}"
    directory.mkdir(parents=True, exist_ok=True)
    parquet = directory / "wikiticker.parquet"
    loads = {
        "generate": lambda part: henge("generate", "--rows", options.rows, "--days", 30, "--out", part / "wikiticker.parquet"),
        "henge": lambda part: henge("load", "--data-dir", part, "--parquet", parquet),
        "duckdb": lambda part: load_duckdb(part, parquet, options.threads),
        "chdb": lambda part: load_chdb(part, parquet, options.threads),
    }
    for name in ["generate", *options.engines]:
        name = "henge" if name == "henge-pg" else name
        done = parquet if name == "generate" else directory / name
        if done.exists():
            continue
        part = directory / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        if name == "chdb":  # chDB does not let go of its files within a process
            command = [sys.executable, __file__, "--load", "chdb", "--dir", part, "--parquet", parquet]
            timed("chdb", lambda: subprocess.run(list(map(str, command)), check=True))
        else:
            timed(name, lambda: loads[name](part))
        if name == "generate":
            (part / "wikiticker.parquet").rename(parquet)
            part.rmdir()
        else:
            part.rename(done)
    return directory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", type=lambda text: text.split(","), default=["henge", "henge-pg", "duckdb", "chdb"])
    parser.add_argument("--dir", type=Path, default=ROOT / "target" / "peers", help="where data and tables are kept")
    parser.add_argument("--henge", type=Path, help="the built `peers` benchmark, if cargo is not to build it")
    parser.add_argument("--worker", choices=["duckdb", "chdb"], help=argparse.SUPPRESS)
    parser.add_argument("--load", choices=["chdb"], help=argparse.SUPPRESS)
    parser.add_argument("--parquet", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.dir, options.threads)
    if options.load:
        return load_chdb(options.dir, options.parquet, options.threads)

    command = [options.henge] if options.henge else ["cargo", "bench", "-q", "--workspace", "--bench", "peers", "--"]

    def henge(*arguments):
        subprocess.run([*map(str, command), *map(str, arguments)], check=True, cwd=ROOT, stdout=sys.stderr)

    directory = prepare(options, henge)
    workers = {}
    for engine in options.engines:
        if engine in ("duckdb", "chdb"):
            line = [sys.executable, __file__, "--worker", engine, "--dir", directory / engine, "--threads", options.threads]
        else:
            mode = "serve" if engine == "henge-pg" else "ask"
            line = [*command, mode, "--data-dir", directory / "henge", "--threads", options.threads]
            if engine == "henge-pg":
                # One process may hold a data directory: the second has a copy.
                copy = directory / "henge-pg"
                if not copy.exists():
                    shutil.copytree(directory / "henge", copy)
                line[line.index("--data-dir") + 1] = copy
        workers[engine] = Worker(engine, [str(part) for part in line])

    words = {}
    for word, column in [("page", "page"), ("user", '"user"')]:
        oracle = workers.get("duckdb") or next(iter(workers.values()))
        sql = f"SELECT {column}, COUNT(*) AS n FROM wikiticker GROUP BY 1 ORDER BY n DESC, 1 LIMIT 1 OFFSET 300"
        words[word] = oracle.ask(sql)["rows"][0][0]

    times, problems = {}, []
    names = list(queries("henge", words))
    for round_number in range(options.rounds + 1):
        for name in names:
            replies = {}
            for engine, asked in workers.items():
                reply = asked.ask(queries("henge" if engine.startswith("henge") else engine, words)[name])
                replies[engine] = reply
                if round_number and "ms" in reply:
                    times.setdefault((name, engine), []).append(reply["ms"])
            if round_number == 0:
                problems += compare(name, replies)
        print(f"round {round_number} of {options.rounds}", file=sys.stderr, flush=True)
    report(options, names, workers, times, problems, directory)
    for asked in workers.values():
        asked.close()
    return 1 if problems else 0


def near(row, right):
    """Whether all but the last cell are the same, and that one nearly."""
    return row[:-1] == right[:-1] and abs(float(row[-1]) - float(right[-1])) <= TOLERANCE * float(right[-1]) + 2


def compare(name, replies):
    """What the engines do not agree on. The first that answered is held right."""
    problems = [f"{name}: {engine} failed: {reply['error']}" for engine, reply in replies.items() if "error" in reply]
    answered = {engine: reply["rows"] for engine, reply in replies.items() if "error" not in reply}
    right = next(iter(answered.items()), None)
    for engine, rows in answered.items():
        if name.startswith("approx"):
            same = len(rows) == len(right[1]) and all(map(near, rows, right[1]))
        else:
            same = rows == right[1]
        if not same:
            differing = next(((a, b) for a, b in zip(rows, right[1]) if a != b), (len(rows), len(right[1])))
            problems.append(f"{name}: {engine} answers {differing[0]}, {right[0]} answers {differing[1]}")
    return problems


def report(options, names, workers, times, problems, directory):
    engines = list(workers)
    peers = [engine for engine in engines if not engine.startswith("henge")]
    print(f"{options.rows:,} rows, {options.threads} threads, medians of {options.rounds} warm rounds in ms.\n")
    print("| query | " + " | ".join(engines) + " | better peer / henge |")
    print("|---" * (len(engines) + 2) + "|")
    ratios = []
    for name in names:
        medians = {engine: statistics.median(times[name, engine]) for engine in engines if (name, engine) in times}
        cells = [f"{medians[engine]:.1f}" if engine in medians else "failed" for engine in engines]
        ratio = ""
        if "henge" in medians and any(peer in medians for peer in peers):
            value = min(medians[peer] for peer in peers if peer in medians) / medians["henge"]
            ratios.append(value)
            ratio = f"{value:.1f}"
        print(f"| {name} | " + " | ".join(cells) + f" | {ratio} |")
    if ratios:
        mean = math.exp(statistics.mean(map(math.log, ratios)))
        print(f"\nGeometric mean of the ratios: {mean:.2f} over {len(ratios)} queries.")
    print("\n| | " + " | ".join(engines) + " |\n" + "|---" * (len(engines) + 1) + "|")
    print("| peak memory, MB | " + " | ".join(str(worker.peak_mb()) for worker in workers.values()) + " |")
    sizes = {engine: size_mb(directory / ("henge" if engine == "henge-pg" else engine)) for engine in engines}
    print("| on disk, MB | " + " | ".join(f"{sizes[engine]:.0f}" for engine in engines) + " |")
    print(f"\nThe Parquet file, with zstd(3): {size_mb(directory / 'wikiticker.parquet'):.0f} MB.")
    print("\nAll answers agree." if not problems else "\nNot in agreement:\n" + "\n".join(f"* {line}" for line in problems))


if __name__ == "__main__":
    sys.exit(main())
