"""What the scripts of this directory share: HOST PORT USER DATABASE TABLE as arguments, and checks that are counted.

TABLE has the columns of the Wikipedia stream (`__time`, `channel`, `page`, `added`, ...) and at least 1,000 rows.
"""
import os
import sys
import traceback

HOST, PORT, USER, DATABASE, TABLE = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
_failed = 0


def check(function):
    """Runs it at once, and says how it went."""
    global _failed
    try:
        function()
        print("ok", function.__name__, flush=True)
    except Exception as error:
        _failed += 1
        line = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        print(f"FAILED {function.__name__} (line {line.lineno}: {line.line}): {words}", flush=True)
    return function


def fails(code, function):
    """Fails unless it fails with this SQLSTATE."""
    try:
        function()
    except Exception as error:
        cause = getattr(error, "orig", None) or error
        found = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        assert found == code, f"{found} instead of {code}: {error}"
        return
    raise AssertionError(f"no error {code}")


def finish():
    sys.stdout.flush()
    os._exit(1 if _failed else 0)
