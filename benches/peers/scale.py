#!/usr/bin/env python3
"""How the cost of a query grows with rows, and with the number of segments that the same rows are in.

    python3 benches/peers/scale.py --rows 1000000,10000000,100000000
    python3 benches/peers/scale.py --rows 10000000 --granularities month,day,hour,ten_minute,five_minute

Henge alone, through its Rust API: medians in milliseconds of some of queries.sql, warm; for several numbers of rows also
nanoseconds a row. Data is kept where run.py keeps it, and used again.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from run import ROOT, Worker, queries, timed

QUERIES = [
    "count", "total", "by_hour", "by_channel", "top_users", "top_pages", "total_robots_en", "like_page", "one_hour",
    "distinct_users", "newest_100",
]
MARKED = ["explain", *QUERIES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda text: text.split(",")
    parser.add_argument("--rows", type=lambda text: list(map(int, text.split(","))), default=[1_000_000, 10_000_000])
    parser.add_argument("--granularities", type=listed, default=["day"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dir", type=Path, default=ROOT / "target" / "peers")
    parser.add_argument("--henge", type=Path, help="the built `peers` benchmark, if cargo is not to build it")
    options = parser.parse_args()
    command = [options.henge] if options.henge else ["cargo", "bench", "-q", "--workspace", "--bench", "peers", "--"]

    columns = {}
    for rows in options.rows:
        for granularity in options.granularities:
            directory = prepare(options.dir / f"{rows}", command, rows, granularity)
            name = f"{rows:,}" if len(options.rows) > 1 else granularity
            columns[name] = (rows, *measure([*command, "ask", "--data-dir", directory, "--threads", options.threads], options))
    report(columns, len(options.rows) > 1)


def prepare(directory, command, rows, granularity):
    directory.mkdir(parents=True, exist_ok=True)
    parquet = directory / "wikiticker.parquet"
    loaded = directory / ("henge" if granularity == "day" else f"henge-{granularity}")

    def henge(title, *arguments):
        line = [*map(str, command), *map(str, arguments)]
        timed(title, lambda: subprocess.run(line, check=True, cwd=ROOT, stdout=sys.stderr))

    if not parquet.exists():
        part = directory / "wikiticker.part"
        henge(f"{rows:,} rows", "generate", "--rows", rows, "--days", 30, "--out", part)
        part.rename(parquet)
    if not loaded.exists():
        part = directory / f"{loaded.name}.part"
        subprocess.run(["rm", "-rf", part], check=True)
        henge(f"segments by {granularity}", "load", "--data-dir", part, "--parquet", parquet, "--granularity", granularity)
        part.rename(loaded)
    return loaded


def measure(line, options):
    """Segments, and the median of each query in milliseconds."""
    henge = Worker("henge", [str(part) for part in line])
    asked = {name: sql for name, sql in queries("henge", {"page": "", "user": ""}).items() if name in QUERIES}
    asked["explain"] = "EXPLAIN " + asked["total_robots_en"]
    times = {name: [] for name in asked}
    for round_number in range(options.rounds + 1):
        for name, sql in asked.items():
            reply = henge.ask(sql)
            if "error" in reply:
                sys.exit(f"{name}: {reply['error']}")
            if round_number:
                times[name].append(reply["ms"])
    segments = henge.ask("SELECT COUNT(*) FROM sys.segments WHERE datasource = 'wikiticker'")["rows"][0][0]
    henge.close()
    return segments, {name: statistics.median(found) for name, found in times.items()}


def report(columns, by_rows):
    print("| query | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    print("| segments | " + " | ".join(segments for _, segments, _ in columns.values()) + " |")
    for name in MARKED:
        cells = []
        for rows, _, medians in columns.values():
            ns = medians[name] * 1e6 / rows
            cells.append(f"{medians[name]:.1f}" + (f" ({ns:.2f} ns a row)" if by_rows else ""))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
