"""A real PostgreSQL or MariaDB server on a free port of this machine, in a temporary directory, as an unprivileged user.

    database.py postgres|mariadb

Prints the URL of its administrator, or what is missing, and ends with its standard input. `stop` and `start`, a line
each on standard input, end it as a power switch would and start it again; it answers with the same word.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from glob import glob
from pathlib import Path

PASSWORD = "stone"


def find(name, *patterns):
    places = [path for pattern in patterns for path in sorted(glob(pattern), reverse=True)]
    found = next((path for path in places if os.access(path, os.X_OK)), None) or shutil.which(name)
    if not found:
        print(f"missing {name}", flush=True)
        sys.exit(0)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, user, home):
        self.home = Path(home)
        self.port = free_port()
        # Both refuse to run as root.
        self.user = user if os.geteuid() == 0 else None
        if self.user:
            os.chmod(home, 0o755)
            shutil.chown(home, user)

    def command(self, *arguments):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        user = {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}
        return {"args": [str(a) for a in arguments], "env": env, "cwd": self.home, "stdin": subprocess.DEVNULL, **user}

    def run(self, *arguments):
        subprocess.run(**self.command(*arguments), check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)

    def start(self):
        log = open(self.home / "log", "ab")
        self.process = subprocess.Popen(**self.command(*self.serve()), stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not self.is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server did not start:\n{(self.home / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(self.kill)
        self.process.wait()


class Postgres(Server):
    # Ends at once, its children too, without writing anything: the next start recovers.
    kill = signal.SIGQUIT

    def __init__(self, home):
        initdb = find("initdb", "/usr/lib/postgresql/*/bin/initdb")
        self.postgres = find("postgres", "/usr/lib/postgresql/*/bin/postgres")
        self.pg_isready = find("pg_isready", "/usr/lib/postgresql/*/bin/pg_isready")
        super().__init__("postgres", home)
        secret = self.home / "secret"
        secret.write_text(PASSWORD)
        os.chmod(secret, 0o644)
        self.run(initdb, "-D", self.home / "data", "-U", "henge", f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync")
        self.url = f"postgres://henge:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def serve(self):
        settings = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.home}", "max_connections=200"]
        flags = [part for setting in settings for part in ("-c", setting)]
        return [self.postgres, "-D", self.home / "data", "-p", self.port, *flags]

    def is_up(self):
        ready = [self.pg_isready, "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        return subprocess.run(ready).returncode == 0


class MariaDb(Server):
    kill = signal.SIGKILL

    def __init__(self, home):
        install = find("mariadb-install-db")
        self.mariadbd = find("mariadbd", "/usr/sbin/mariadbd")
        super().__init__("mysql", home)
        self.run(install, "--no-defaults", f"--datadir={self.home / 'data'}", "--skip-test-db")
        init = self.home / "init.sql"
        init.write_text(f"CREATE USER IF NOT EXISTS henge@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO henge@'%';\n")
        self.url = f"mysql://henge:{PASSWORD}@127.0.0.1:{self.port}/mysql"

    def serve(self):
        options = {"datadir": self.home / "data", "port": self.port, "bind-address": "127.0.0.1", "max-connections": 200,
                   "socket": self.home / "socket", "pid-file": self.home / "pid", "init-file": self.home / "init.sql",
                   "innodb-flush-log-at-trx-commit": 2, "innodb-buffer-pool-size": "32M"}
        return [self.mariadbd, "--no-defaults", *(f"--{name}={value}" for name, value in options.items())]

    def is_up(self):
        # It listens only once it can answer, and greets whoever connects.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                return len(probe.recv(5)) == 5
        except OSError:
            return False


with tempfile.TemporaryDirectory(prefix="henge-database-") as home:
    server = {"postgres": Postgres, "mariadb": MariaDb}[sys.argv[1]](home)
    server.start()
    try:
        print(server.url, flush=True)
        for line in sys.stdin:
            {"stop": server.stop, "start": server.start}[line.strip()]()
            print(line.strip(), flush=True)
    finally:
        if server.process.poll() is None:
            server.stop()
