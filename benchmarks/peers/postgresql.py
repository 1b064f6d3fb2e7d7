"""PostgreSQL: a cluster of its own in a temporary folder, an analyzed table, two parallel workers,
memory enough to sort in.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from glob import glob
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import psycopg

from benchmarks.competing import aligned_rows
from benchmarks.datasets import Dataset, Question
from benchmarks.peers import UnavailableError, Way
from benchmarks.sql_forms import queries

QUERIES: Final = queries(
    "SELECT DISTINCT ON (item) item, quantity AS last FROM cells ORDER BY item, timestamp DESC"
)

SETTINGS: Final = {
    "listen_addresses": "''",
    "fsync": "off",
    "shared_buffers": "1GB",
    "work_mem": "512MB",
    "max_parallel_workers_per_gather": "2",
}
_PLACES: Final = "/usr/lib/postgresql/*/bin/initdb"


class PostgreSQL:
    """See :class:`~benchmarks.peers.Peer`."""

    def __init__(self, dataset: Dataset) -> None:
        self._items = dataset.items
        self._cluster = Cluster()
        self._connection = psycopg.connect(
            host=str(self._cluster.folder), dbname="postgres", user="usage", autocommit=True
        )
        self._connection.execute(
            "CREATE UNLOGGED TABLE usage (item INT, timestamp BIGINT, quantity BIGINT, "
            "is_set BOOLEAN, seq BIGINT)"
        )
        self._name = f"PostgreSQL {self._connection.info.server_version // 10_000}"
        rows = zip(*(column.tolist() for column in dataset.columns().values()), strict=True)
        with (
            self._connection.cursor() as cursor,
            cursor.copy("COPY usage FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "int8", "int8", "bool", "int8"])
            for row in rows:
                copy.write_row(row)
        self._connection.execute("VACUUM ANALYZE usage")

    def ways(self, question: Question) -> Iterator[Way]:
        """Yield the ways to answer a question."""
        for form, text in QUERIES[question].items():
            yield Way(
                f"{self._name}, {form}",
                partial(partial, self._run, text),
                partial(aligned_rows, self._items),
            )

    def _run(self, text: str) -> list[Any]:
        return self._connection.execute(text, binary=True).fetchall()

    def close(self) -> None:
        """Give everything back."""
        self._connection.close()
        self._cluster.close()


class Cluster:
    """A PostgreSQL of our own that listens on a socket in its folder.

    Raises:
        UnavailableError: where its programs are not found, or do not start.
    """

    def __init__(self) -> None:
        found = shutil.which("initdb") or max(glob(_PLACES), default=None)  # noqa: PTH207 - a pattern of absolute paths
        if found is None:
            raise UnavailableError("initdb was not found")
        self._programs = Path(found).resolve().parent
        # A short path: the name of a socket may have 107 bytes.
        self.folder = Path(mkdtemp(prefix="usage", dir="/tmp"))
        # PostgreSQL refuses to run as root.
        self._user = next(
            (one.pw_name for one in pwd.getpwall() if one.pw_name in {"postgres", "nobody"}), None
        )
        if os.geteuid() != 0:
            self._user = None
        elif self._user is None:
            raise UnavailableError(
                "this is root, and there is no user postgres or nobody to run it"
            )
        else:
            shutil.chown(self.folder, self._user)
        data = str(self.folder / "data")
        self._run(
            "initdb",
            "--pgdata",
            data,
            "--username",
            "usage",
            "--auth",
            "trust",
            "--no-sync",
            "--encoding",
            "UTF8",
        )
        options = (
            " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
            + f" -k {self.folder}"
        )
        self._run(
            "pg_ctl",
            "start",
            "--wait",
            "--pgdata",
            data,
            "--log",
            str(self.folder / "log"),
            "--options",
            options,
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        # To a file: the server inherits the output, and a pipe would be read until it ends.
        with Path(self.folder / f"{program}.out").open("w") as output:
            done = subprocess.run(  # noqa: S603 - its own programs
                command, stdout=output, stderr=output, check=False, cwd=self.folder, user=self._user
            )
        if done.returncode != 0:
            lines = Path(output.name).read_text(encoding="utf-8").splitlines()
            shutil.rmtree(self.folder, ignore_errors=True)
            raise UnavailableError(f"{program} failed: {lines[-1] if lines else done.returncode}")

    def close(self) -> None:
        """Give everything back."""
        self._run(
            "pg_ctl", "stop", "--wait", "--mode", "fast", "--pgdata", str(self.folder / "data")
        )
        shutil.rmtree(self.folder, ignore_errors=True)
