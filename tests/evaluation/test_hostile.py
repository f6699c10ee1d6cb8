"""Ledgers and logs that others made, or that lie where nothing can be written: one line in time."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.evaluation.fakes import row
from tests.evaluation.test_ledger import ledger, run

from certus.core import FileError
from certus.evaluation import Ledger, read
from certus.evaluation.cohen import FIELDS

__all__ = ["ledger"]  # a fixture


def changed(*commands: str):
    """A ledger with one row, in which these commands were run."""

    def make(path: Path) -> None:
        with Ledger(path) as made:
            made.add_run(run())
            made.append([row(1)])
        database = sqlite3.connect(path)
        for command in commands:
            database.execute(command)
        database.commit()
        database.close()

    return make


VIEW = (
    "CREATE VIEW rows AS WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM t) "
    "SELECT old.* FROM old, t"
)
endless = changed("ALTER TABLE rows RENAME TO old", VIEW)
computing = changed("ALTER TABLE rows ADD COLUMN g AS (hex(zeroblob(1000000000)))")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (endless, "not a Certus ledger"),
        (computing, "not a Certus ledger"),
        (pipe, "is a pipe"),
        (zeros, "is a device"),
        (sparse, "not a Certus ledger"),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_ledger_is_not_waited_for(
    tmp_path: Path, damage: object, message: str, create: bool
) -> None:
    path = tmp_path / "bad.sqlite"
    damage(path)
    with pytest.raises(FileError, match=message) as caught:
        Ledger(path, create=create)
    assert len(str(caught.value)) < 300 and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        "UPDATE rows SET radius = 'wide'",
        "UPDATE rows SET evidence = zeroblob(100000000)",
        "UPDATE rows SET seconds = 9e999",
        "UPDATE rows SET model = CAST(x'fffe' AS TEXT)",
        "ALTER TABLE rows RENAME TO others",
        "ALTER TABLE runs RENAME COLUMN card TO cards",
    ],
)
def test_a_ledger_whose_rows_are_damaged_is_one_line(tmp_path: Path, command: str) -> None:
    path = tmp_path / "a.sqlite"
    changed("PRAGMA foreign_keys = OFF", command)(path)
    with Ledger(path, create=False) as damaged:
        if "cards" in command:  # the name of a column says nothing
            assert damaged.rows() and damaged.runs()
            return
        with pytest.raises(FileError, match=r"a\.sqlite") as caught:
            damaged.rows()
        assert len(str(caught.value)) < 300


def test_what_no_ledger_can_hold_is_one_line(ledger: Ledger) -> None:
    for values in ({"seed": 2**63}, {"model": "\ud800"}):
        with pytest.raises(FileError, match="cannot be used"):
            ledger.add_run(run("s") | values)
    assert len(ledger.runs()) == 1


@pytest.fixture
def fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger on a medium on which nothing can be written; to root only the kernel could forbid it."""
    changed()(tmp_path / "a.sqlite")
    assert [path.name for path in tmp_path.iterdir()] == ["a.sqlite"]
    monkeypatch.setattr(os, "access", lambda *_: False)
    return tmp_path / "a.sqlite"


def test_a_ledger_on_a_medium_that_can_only_be_read(fixed: Path) -> None:
    with Ledger(fixed, create=False) as found:
        assert [r["index"] for r in found.rows()] == [1] and found.runs()
        assert [path.name for path in fixed.parent.iterdir()] == ["a.sqlite"], "nothing is made"
        with pytest.raises(FileError, match=r"cannot be used .attempt to write a readonly"):
            found.append([row(2)])
    with pytest.raises(FileError, match="is read-only"):
        Ledger(fixed)


def test_rows_that_only_a_writer_could_fetch_are_not_left_out(fixed: Path) -> None:
    fixed.with_name("a.sqlite-wal").write_bytes(b"rows")
    with pytest.raises(
        FileError, match=r"was not closed by who wrote it; copy it, with a.sqlite-wal"
    ):
        Ledger(fixed, create=False)


def test_a_ledger_in_a_folder_without_the_right_to_write() -> None:
    """The same without pretence, by a user who may not write there."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    code = (
        "import os, sys; from certus.evaluation import read; os.setuid(65534)\n"
        "print(len(read(sys.argv[1])))"
    )
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        path = Path(name) / "a #1?.sqlite"
        changed()(path)
        words = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("name", ["sigma_1.2.3", "sigma_...", "sigma_"])
def test_a_name_with_a_sigma_that_is_no_number(tmp_path, name):
    path = tmp_path / f"d__n__noise_0.25__test__{name}.tsv"
    path.write_text("\t".join(FIELDS) + "\n0\t1\t1\t0.3\t1\t1\n")
    with pytest.raises(FileError, match="does not say sigma"):
        read(path)


@pytest.mark.parametrize("time", ["nan", "inf", "-1", f"{10**19} days, 0:00:01", "1e400"])
def test_times_that_are_none(tmp_path, time):
    path = tmp_path / "d__n__noise_0.25__test__sigma_0.5.tsv"
    path.write_text("\t".join(FIELDS) + f"\n0\t1\t1\t0.3\t1\t{time}\n")
    with pytest.raises(FileError, match="line 2: is not a line"):
        read(path)
