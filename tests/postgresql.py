"""A PostgreSQL server of the tests' own: a fresh cluster in a temporary folder, reached by a Unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from causerie.store import Store, open_store

URL = os.environ.get("CAUSERIE_TEST_POSTGRESQL", "")


def binaries() -> Path | None:
    """The folder of the newest installed server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    alone = shutil.which("initdb")
    return Path(alone).resolve().parent if alone else None


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of an empty database: the one in CAUSERIE_TEST_POSTGRESQL, else of a server started for the block.

    The server refuses to run as root, so root starts it as the user postgres.
    """
    if URL:
        yield URL
        return
    place = binaries()
    if place is None:
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    user = None
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user postgres to start PostgreSQL as")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        data = f"{folder}/data"

        def run(*command: str) -> None:
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, **as_user)  # type: ignore[call-overload]
            assert done.returncode == 0, done.stdout + done.stderr

        run(f"{place}/initdb", "-D", data, "-U", "causerie", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(f"{place}/pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
        try:
            yield f"postgresql+psycopg://causerie@/postgres?host={folder}"
        finally:
            run(f"{place}/pg_ctl", "-D", data, "-m", "immediate", "stop")


@contextmanager
def store_on(database: str, place: Path) -> Iterator[Store]:
    """An open store in a folder, on `sqlite` or on a PostgreSQL of its own."""
    if database == "sqlite":
        with open_store(place) as opened:
            yield opened
        return
    with cluster() as url, open_store(place, url) as opened:
        yield opened
