#!/usr/bin/env python3
"""A cluster on this machine: PostgreSQL or MariaDB, an S3 server, a coordinator, two historicals and a broker.

    examples/cluster/cluster.py [--metadata postgres|mariadb] [--henge PATH] [--dir DIR] [--rows N] [--once]

Loads a day of generated Wikipedia edits, asks a first question with psql, and serves until Ctrl-C (or ends, with --once).
Needs the servers' own programs (Debian: postgresql or mariadb-server, and postgresql-client) and `pip install 'moto[server]'`.
"""

import argparse
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from glob import glob
from pathlib import Path

RUNNING = []
SQL = """SELECT page, SUM("count") AS edits, SUM(added) AS added FROM wikipedia
WHERE language = 'en' AND robot = 'false' GROUP BY page ORDER BY edits DESC, page LIMIT 5"""
SPEC = {
    "dataSchema": {
        "dataSource": "wikipedia",
        "timestampSpec": {"column": "timestamp", "format": "auto"},
        "dimensionsSpec": {"dimensions": ["page", "language", "user", "robot", "anonymous", "namespace", "country", "city"]},
        "metricsSpec": [{"type": "count", "name": "count"}, {"type": "longSum", "name": "added", "fieldName": "added"}],
        "granularitySpec": {"segmentGranularity": "hour", "queryGranularity": "none", "rollup": True},
    },
    "ioConfig": {"type": "index_parallel", "inputFormat": {"type": "json"}},
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, reached, seconds=120):
    deadline = time.monotonic() + seconds
    while not reached():
        ended = next((process for process in RUNNING if process.poll() is not None), None)
        if ended or time.monotonic() > deadline:
            sys.exit(f"{what}: not reached{f'; {ended.args[0]} ended' if ended else ''}; see the logs")
        time.sleep(0.1)


def start(directory, name, command, **options):
    print(f"starting {name}", flush=True)
    log = open(directory / f"{name}.log", "ab")
    RUNNING.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, **options))


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def database(directory, kind):
    """Starts a database server of its own and makes a database; both servers refuse to run as root."""
    port, home = free_port(), directory / kind
    home.mkdir()
    options = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres" if kind == "postgres" else "mysql")
        os.chmod(directory, 0o755)
        os.chown(home, user.pw_uid, user.pw_gid)
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": home}
    if kind == "postgres":
        initdb = sorted(glob("/usr/lib/postgresql/*/bin/initdb"))[-1]
        quiet = {"check": True, "stdout": subprocess.DEVNULL, **options}
        subprocess.run([initdb, "-D", home / "data", "-U", "henge", "--auth=trust", "-E", "UTF8"], **quiet)
        server = Path(initdb).with_name("postgres")
        start(directory, kind, [server, "-D", home / "data", "-p", port, "-k", home, "-h", "127.0.0.1"], **options)
        ready = ["psql", "-qAt", f"postgres://henge@127.0.0.1:{port}/postgres", "-c", "CREATE DATABASE henge"]
        url = f"postgres://henge@127.0.0.1:{port}/henge"
    else:
        subprocess.run(["mariadb-install-db", "--no-defaults", f"--datadir={home}/data", "--auth-root-authentication-method=normal",
                        "--skip-test-db"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        start(directory, kind, ["mariadbd", "--no-defaults", f"--datadir={home}/data", f"--port={port}",
                                f"--socket={home}/socket", "--bind-address=127.0.0.1"], **options)
        grant = "CREATE DATABASE henge; CREATE USER henge@'127.0.0.1' IDENTIFIED BY 'stone'; GRANT ALL ON henge.* TO henge@'127.0.0.1'"
        ready = ["mariadb", "--no-defaults", "-u", "root", f"--socket={home}/socket", "-e", grant]
        url = f"mysql://henge:stone@127.0.0.1:{port}/henge"
    until(kind, lambda: subprocess.run(ready, capture_output=True).returncode == 0)
    return url


def ask(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", choices=["postgres", "mariadb"], default="postgres")
    parser.add_argument("--henge", default=shutil.which("henge") or "target/release/henge")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--rows", default="100000")
    parser.add_argument("--once", action="store_true")
    arguments = parser.parse_args()
    henge, directory = Path(arguments.henge).absolute(), arguments.dir or Path(tempfile.mkdtemp(prefix="henge-cluster-"))
    directory.mkdir(exist_ok=True)

    url = database(directory, arguments.metadata)
    s3 = free_port()
    start(directory, "s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", s3])
    until("the S3 server", lambda: listens(s3))
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{s3}/segments", method="PUT"))

    # What all servers share is in one file; what is secret, in the environment.
    (directory / "cluster.toml").write_text(f'metadata = "{url}"\ndeep-storage = "s3://segments/henge"\nthreads = 2\n')
    env = {**os.environ, "HENGE_CLUSTER_SECRET": secrets.token_hex(16), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
           "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    address, pg = {}, free_port()
    for name, role in [("coordinator", "coordinator"), ("historical-1", "historical"), ("historical-2", "historical"), ("broker", "broker")]:
        http = free_port()
        address[name] = f"127.0.0.1:{http}"
        command = [henge, "server", "--config", directory / "cluster.toml", "--role", role, "--data-dir", directory / name]
        ports = ["--http-port", http, "--grpc-port", free_port(), "--pg-port", pg]
        start(directory, name, [*command, *ports], env=env)
    for name, where in address.items():
        until(f"{name} to be ready", lambda: ask(where, "/status/ready").get("ready"))
    until("a leader", lambda: ask(address["coordinator"], "/druid/coordinator/v1/isLeader").get("leader"))

    edits, spec = directory / "edits.json", directory / "spec.json"
    subprocess.run([henge, "generate", "wikipedia", "--rows", arguments.rows, "--output", edits], check=True)
    SPEC["ioConfig"]["inputSource"] = {"type": "local", "files": [str(edits)]}
    spec.write_text(json.dumps(SPEC))
    subprocess.run([henge, "ingest", "--server", address["broker"], "--spec", spec], check=True)
    print("waiting until both historicals have it", flush=True)
    status = "/druid/coordinator/v1/loadstatus?full"
    until("everything to be loaded", lambda: ask(address["coordinator"], status).get("_default_tier", {}).get("wikipedia") == 0)
    psql = ["psql", "-h", "127.0.0.1", "-p", str(pg), "-U", "henge", "-d", "henge"]
    until("the broker to show it", lambda: subprocess.run([*psql, "-c", "SELECT 1 FROM wikipedia LIMIT 1"], capture_output=True).returncode == 0)
    subprocess.run([*psql, "-c", SQL], check=True)
    subprocess.run([*psql, "-c", "SELECT server, COUNT(*) AS segments FROM sys.server_segments GROUP BY 1 ORDER BY 1"], check=True)
    print(f"psql:   {' '.join(psql)}\nstatus: http://{address['coordinator']}/\nlogs:   {directory}", flush=True)
    if not arguments.once:
        RUNNING[-1].wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    finally:
        for process in reversed(RUNNING):
            process.terminate()
        for process in RUNNING:
            process.wait()
