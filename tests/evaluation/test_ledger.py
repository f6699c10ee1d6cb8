"""The ledger: whole blocks or nothing, and one clear line for every damaged file."""

import json
import math
import sqlite3
from pathlib import Path

import pytest
from tests.evaluation.fakes import row

from certus.core import ArgumentError, FileError
from certus.evaluation import Ledger
from certus.evaluation.ledger import RUN_COLUMNS


def run(key: str = "r") -> dict:
    """A run with every column."""
    values = {str: "x", int: 1, float: 0.5}
    return {n: values[k] for n, k in RUN_COLUMNS.items()} | {"run": key, "card": json.dumps({})}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "a.sqlite")
    found.add_run(run())
    yield found
    found.close()


def test_rows_come_back_as_they_were(ledger: Ledger) -> None:
    rows = [row(3), row(1, eps=None, margin=math.nan, radius=math.inf), row(2, radius=0.1 + 0.2)]
    ledger.append(rows)
    found = ledger.rows("r")
    assert [r["index"] for r in found] == [1, 2, 3]
    assert found[0]["eps"] is None and math.isnan(found[0]["margin"])
    assert found[0]["radius"] == math.inf and found[1] == rows[2] and found[2] == rows[0]
    assert list(found[0]) == list(rows[0]) and ledger.done("r") == {1, 2, 3}
    assert ledger.done("other") == set()


def test_filters(ledger: Ledger) -> None:
    ledger.add_run(run("s"))
    ledger.append([row(0), row(1)])
    ledger.append([row(0, run="s", method="ibp")])
    assert len(ledger.rows()) == 3 and len(ledger.rows(method="ibp")) == 1
    assert len(ledger.rows("r", index=1)) == 1 and [r["run"] for r in ledger.runs()] == ["r", "s"]
    with pytest.raises(ArgumentError, match="no column 'colour'"):
        ledger.rows(colour="red")


@pytest.mark.parametrize(
    "bad", [row(2, verdict="proven"), row(2, label=None), row(2, run="unknown")]
)
def test_a_block_with_a_bad_row_is_not_written_at_all(ledger: Ledger, bad: dict) -> None:
    with pytest.raises(FileError):
        ledger.append([row(0), row(1), bad])
    assert ledger.rows() == []
    ledger.append([row(0)])
    assert len(ledger.rows()) == 1


def test_wrong_columns_are_refused(ledger: Ledger) -> None:
    with pytest.raises(ArgumentError, match="colour"):
        ledger.append([row(0, colour="red")])


def test_a_full_disk_keeps_what_was_finished(ledger: Ledger) -> None:
    ledger.append([row(i) for i in range(10)])
    pages = ledger._pragma("page_count")
    ledger._pragma(f"max_page_count = {pages + 1}")
    with pytest.raises(FileError, match="disk is full") as caught:
        ledger.append([row(i) for i in range(10, 2000)])
    assert "\n" not in str(caught.value)
    assert ledger.done("r") == set(range(10))
    ledger._pragma("max_page_count = 1000000")
    ledger.append([row(i) for i in range(10, 2000)])
    assert len(ledger.done("r")) == 2000


def test_another_process_that_writes_is_named(tmp_path: Path, ledger: Ledger) -> None:
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Ledger(ledger.path, wait=0.05) as second:
        with pytest.raises(FileError, match="another process"):
            second.append([row(0)])
        other.execute("ROLLBACK")
        second.append([row(0)])
    other.close()


def text(path: Path) -> None:
    path.write_text("run,model\n" * 100)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cooking (recipe TEXT)")
    db.close()


def newer(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def torn(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add_run(run())
        ledger.append([row(i) for i in range(3000)])
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 40960] = b"\xff" * 40960
    path.write_bytes(content)


def cut(path: Path) -> None:
    torn(path)
    path.write_bytes(path.read_bytes()[:9000])


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (text, "not a Certus ledger"),
        (foreign, "not a Certus ledger"),
        (newer, "schema 99"),
        (torn, "damaged"),
        (cut, "damaged"),
        (folder, "cannot be used"),
    ],
)
def test_a_file_that_is_no_sound_ledger_is_one_line(
    tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "bad.sqlite"
    damage(path)
    with pytest.raises(FileError, match=message) as caught:
        Ledger(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such ledger"):
        Ledger(tmp_path / "none.sqlite", create=False)
    with pytest.raises(FileError, match="folder does not exist"):
        Ledger(tmp_path / "none" / "a.sqlite")
    assert not list(tmp_path.iterdir())
