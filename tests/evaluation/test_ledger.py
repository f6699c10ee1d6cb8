"""The ledger: whole blocks or nothing, and one clear line for every damaged file."""

import math
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.evaluation.fakes import fallen, row, run

from certus.core import ArgumentError, FileError
from certus.core.kinds import text as settings_text
from certus.evaluation import Ledger
from certus.evaluation.columns import COLUMNS
from certus.evaluation.ledger import SCHEMA
from certus.evaluation.legacy import CLAIMED, OLD_RUN_COLUMNS
from certus.evaluation.witness import WITNESS, packed, unpacked


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "a.sqlite")
    found.add_run(run())
    yield found
    found.close()


def test_rows_come_back_as_they_were(ledger: Ledger) -> None:
    radius = row(1, eps=None, verdict="", margin=math.nan, radius=math.inf, run="s")
    rows = [row(3), row(2, radius=0.1 + 0.2)]
    ledger.add_run(run(radius))
    ledger.append([*rows, radius])
    found = [*ledger.rows("s"), *ledger.rows("r")]
    assert [r["index"] for r in found] == [1, 2, 3]
    assert found[0]["eps"] is None and math.isnan(found[0]["margin"])
    assert found[0]["radius"] == math.inf and found[1] == rows[1] and found[2] == rows[0]
    assert list(found[0]) == list(rows[0]) and ledger.done("r") == {2, 3}
    assert ledger.done("other") == set()


def test_filters(ledger: Ledger) -> None:
    ledger.add_run(run(run="s"))
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


def test_a_run_has_one_claim(ledger: Ledger) -> None:
    for other in (row(1, eps=0.05), row(1, method="smoothing", confidence=0.9), fallen(1)):
        with pytest.raises(FileError, match="claim something else"):
            ledger.append([row(0), other])
    assert ledger.rows() == []


def test_witnesses_are_kept(ledger: Ledger) -> None:
    points = [torch.rand(2, 3, dtype=dtype) for dtype in (torch.float32, torch.float64)]
    ledger.append([row(i) | {WITNESS: packed(point)} for i, point in enumerate(points)])
    ledger.append([row(5) | {WITNESS: None}, row(6)])
    for i, point in enumerate(points):
        kept = ledger.witness("r", i)
        assert torch.equal(kept, point) and kept.dtype == point.dtype
    assert ledger.witness("r", 5) is None and WITNESS not in ledger.rows()[0]
    assert torch.equal(unpacked(packed(torch.ones(2, dtype=torch.bfloat16))), torch.ones(2))
    for damaged in (b"", b"junk", packed(torch.ones(2))[:-3], pickle.dumps(torch.ones(2))):
        with pytest.raises(FileError, match="damaged"):
            unpacked(damaged)


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
        (folder, "is a folder"),
    ],
)
def test_a_file_that_is_no_sound_ledger_is_one_line(
    tmp_path: Path, damage: object, message: str
) -> None:
    path = tmp_path / "bad.sqlite"
    damage(path)
    for create in (True, False):
        with pytest.raises(FileError, match=message) as caught:
            Ledger(path, create=create)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        Ledger(tmp_path / "none.sqlite", create=False)
    with pytest.raises(FileError, match=r"folder .* does not exist"):
        Ledger(tmp_path / "none" / "a.sqlite")
    assert not list(tmp_path.iterdir())


def old(path: Path) -> None:
    """A ledger of schema 1, as it was written before rows had evidence."""
    rows = {name: kind for name, kind in COLUMNS.items() if name not in ("evidence", *CLAIMED)}
    sql = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL"}

    def columns(table: dict) -> str:
        return ", ".join(f"{'idx' if n == 'index' else n} {sql[k]}" for n, k in table.items())

    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"CREATE TABLE runs ({columns(OLD_RUN_COLUMNS)}, PRIMARY KEY (run))")
    db.execute(
        f"CREATE TABLE rows ({columns(rows)}, PRIMARY KEY (run, idx), FOREIGN KEY (run) REFERENCES "
        "runs (run), CHECK (verdict IN ('verified', 'falsified', 'unknown')))"
    )
    db.execute("PRAGMA application_id = 1128616532")
    db.execute("PRAGMA user_version = 1")
    told = run() | {"config": "Crown()", "clip": "[0.0, 1.0]"}
    values = [told[name] for name in OLD_RUN_COLUMNS]
    db.execute(f"INSERT INTO runs VALUES ({', '.join('?' * len(values))})", values)
    for index in range(3):
        values = [row(index)[name] for name in rows]
        db.execute(f"INSERT INTO rows VALUES ({', '.join('?' * len(values))})", values)
    db.close()


def clipped(index: int, **changes: object) -> dict:
    """A row under the clip of the old ledger's run."""
    told = {"kind": "linf", "eps": changes.get("eps", 0.1), "clip": [0.0, 1.0]}
    return row(index, **changes) | {"threat": settings_text(told)}


def version(path: Path) -> int:
    with sqlite3.connect(path) as db:
        found = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


def test_an_old_ledger_is_read_as_it_is_and_upgraded_by_writing(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old(path)
    with Ledger(path, create=False) as ledger:
        before = ledger.rows()
        assert before == [clipped(i) for i in range(3)] and len(ledger.runs()) == 1
        assert ledger.rows(method="crown") == before and version(path) == 1
        with pytest.raises(FileError):
            ledger.append([clipped(3, evidence='{"n": 1}'), clipped(4, verdict="proven")])
        assert version(path) == 1 and ledger.rows() == before
        ledger.append([clipped(3, evidence='{"n": 1}')])
        assert version(path) == SCHEMA
    with Ledger(path) as ledger:
        assert ledger.rows() == [*before, clipped(3, evidence='{"n": 1}')]
        (told,) = ledger.runs()
        assert "Crown()" in told["settings"] and told["kind"] == "certificate"
        ledger.append([clipped(0, evidence="{}")])
        assert ledger.rows("r", index=0)[0]["evidence"] == "{}"


def before_radii_were_claims(path: Path) -> None:
    """A ledger of schema 2, whose rows without eps hold the verdict at eps 0."""
    old(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("ALTER TABLE rows ADD COLUMN evidence TEXT NOT NULL DEFAULT ''")
    db.execute("PRAGMA user_version = 2")
    db.execute("UPDATE rows SET eps = NULL, method = 'lipschitz'")
    db.execute("UPDATE rows SET verdict = 'unknown', radius = 0.7 WHERE idx = 1")
    db.execute("UPDATE rows SET verdict = 'falsified', prediction = 0, radius = 0.0 WHERE idx = 2")
    db.close()


def test_verdicts_that_were_about_no_threat_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    before_radii_were_claims(path)
    radii = {"eps": None, "verdict": "", "method": "lipschitz"}
    meant = [clipped(0, **radii), clipped(1, **radii | {"radius": 0.0})]
    meant += [clipped(2, **radii | {"prediction": 0, "radius": 0.0})]
    with Ledger(path) as ledger:
        assert ledger.rows() == meant and version(path) == 2
        assert ledger.rows(verdict="verified") == [] and len(ledger.rows(verdict="")) == 3
        more = [clipped(4, **radii), clipped(5, **radii)]
        ledger.append(more)
        assert ledger.rows() == meant + more and version(path) == SCHEMA
    with sqlite3.connect(path) as db:  # whoever opens the file itself sees no verdict either
        stored = db.execute("SELECT DISTINCT verdict FROM rows WHERE eps IS NULL").fetchall()
        assert stored == [("",)]
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE rows SET verdict = 'verified' WHERE idx = 4")
    db.close()


def test_a_damaged_claim_is_one_line_that_names_file_and_input(ledger: Ledger) -> None:
    ledger.append([row(0), row(1)])
    ledger._db.execute("UPDATE rows SET confidence = 0.5 WHERE idx = 1")
    with pytest.raises(FileError, match="input 1 of small by crown") as caught:
        ledger.rows()
    assert str(ledger.path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileError, match="input 2 of small"):
        ledger.append([row(2, radius=-1.0)])


def test_two_processes_may_have_an_old_ledger_open(tmp_path: Path) -> None:
    old(tmp_path / "old.sqlite")
    with Ledger(tmp_path / "old.sqlite") as one, Ledger(tmp_path / "old.sqlite") as other:
        one.append([clipped(5, evidence="{}")])
        assert [r["evidence"] for r in other.rows()] == ["", "", "", "{}"]
        other.append([clipped(6, evidence="{}")])
        assert len(one.rows()) == 5


KILLED = """
import os, signal, sys
from certus.evaluation import Ledger
from tests.evaluation.test_ledger import clipped
upgrade = Ledger._upgrade
def die(self):
    upgrade(self)
    os.kill(os.getpid(), signal.SIGKILL)
Ledger._upgrade = die
Ledger(sys.argv[1]).append([clipped(9)])
"""


def test_an_upgrade_that_is_killed_leaves_the_old_ledger(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old(path)
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL and version(path) == 1
    with Ledger(path) as ledger:
        assert ledger.rows() == [clipped(i) for i in range(3)]
        ledger.append([clipped(9)])
        assert len(ledger.rows()) == 4 and version(path) == SCHEMA


def test_two_processes_may_create_a_ledger_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path = Ledger._pragma, tmp_path / "both.sqlite"

    def overtaken(self: Ledger, name: str) -> object:
        """What was read before another process created the tables."""
        found = plain(self, name)
        monkeypatch.setattr(Ledger, "_pragma", plain)
        Ledger(path).close()
        return found

    monkeypatch.setattr(Ledger, "_pragma", overtaken)
    with Ledger(path) as ledger:
        assert ledger.rows() == [] and ledger.runs() == []
