"""Running the command line in this process and as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import certus
from certus.cli.main import main
from certus.evaluation import read

SOURCE = Path(certus.__file__).resolve().parents[1]
Rows = list[dict[str, Any]]


def run(*words: object) -> int:
    """Exit status of a command line in this process."""
    try:
        return main([str(word) for word in words])
    except SystemExit as stop:  # help and bad flags
        return int(stop.code or 0)


def start(*words: object, stdout: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    """A command line as a process of its own, one thread."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "certus.cli.main", *map(str, words)],
        env=environment,
        text=True,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def rows_of(path: Path) -> Rows:
    """Rows of a table in order of run and index."""
    return sorted(read(path), key=lambda row: (row["run"], row["index"]))


def same(rows: Rows, others: Rows) -> bool:
    """Whether rows agree in everything but the time they took and the model's name."""

    def known(row: dict[str, Any]) -> dict[str, str]:
        return {k: repr(v) for k, v in row.items() if k not in ("seconds", "model")}

    return [known(r) for r in rows] == [known(r) for r in others]
