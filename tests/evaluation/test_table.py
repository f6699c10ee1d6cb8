"""Tables come back as they were written; damaged ones are named with the line."""

import math
from pathlib import Path

import pytest
from tests.evaluation.fakes import fallen, job, row

from certus.core import ArgumentError, DependencyError, FileError
from certus.evaluation import COLUMNS, Ledger, evaluate, export, read
from certus.evaluation import table as module
from certus.evaluation.legacy import CLAIMED

ROWS = [
    row(0, radius=0.1 + 0.2, seconds=1e-9),
    row(1, eps=None, verdict="", margin=math.nan, radius=math.inf, model='a "net", 2\nlines'),
    fallen(2, prediction=-1, confidence=0.999, model="Netz-ü", evidence='{"counts": [1, 2]}'),
]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "A.CSV"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = export(ROWS, tmp_path / name)
    assert repr(read(path)) == repr(ROWS)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert read(export([], path)) == []


def test_ledger(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with Ledger(path) as ledger:
        rows = evaluate(job(), ledger)
    assert read(path) == rows
    assert read(export(rows, tmp_path / "a.csv")) == rows


def test_csv_is_plain(tmp_path: Path) -> None:
    lines = export(ROWS[:1], tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS) and "0.30000000000000004" in lines[1] and len(lines) == 2


def test_a_failed_export_leaves_the_old_file(tmp_path: Path, monkeypatch: object) -> None:
    path = export(ROWS[:1], tmp_path / "a.csv")

    def full(rows: list, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_csv", full)
    with pytest.raises(FileError, match="No space left"):
        export(ROWS, path)
    assert len(read(path)) == 1 and [p.name for p in tmp_path.iterdir()] == ["a.csv"]


HEAD = ",".join(name for name in COLUMNS if name not in CLAIMED)
GOOD = "r,small,tiny,0,1,1,verified,,0.1,1.0,crown,linf,0.1,1.0,0.5,"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column run"),
        ("a,b\n1,2\n", "lacks the column run"),
        (HEAD.replace("eps", "epsilon") + "\n", "lacks the column eps"),
        (f"{HEAD}\n{GOOD}\n{GOOD.replace('verified', 'certified')}\n", "line 3: 'certified'"),
        (f"{HEAD}\n{GOOD.replace('0.1,1.0,crown', 'wide,1.0,crown')}\n", "line 2: 'wide'.*radius"),
        (f"{HEAD}\n{GOOD.replace(',0,1,1,', ',0,1,,')}\n", "line 2: ''.*prediction"),
        (f"{HEAD}\n{GOOD.replace('0.1,1.0,0.5', '0.1,,0.5')}\n", "line 2: ''.*confidence"),
        (f"{HEAD}\n{GOOD[:30]}\n", "line 2: None"),
        (f"{HEAD}\n{GOOD},9\n", "line 2: more values"),
        (f'{HEAD}\n"{GOOD}\n', "not a readable CSV"),
    ],
)
def test_a_damaged_csv_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_other_files(tmp_path: Path, monkeypatch: object) -> None:
    for name in ("a.parquet", "a.sqlite"):
        (tmp_path / name).write_bytes(b"no table" * 100)
        with pytest.raises(FileError, match=name):
            read(tmp_path / name)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not a readable CSV"):
        read(tmp_path / "a.csv")
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(FileError, match="cannot be written"):
        export(ROWS, tmp_path / "none" / "a.csv")
    with pytest.raises(ArgumentError, match="must end in"):
        export(ROWS, tmp_path / "a.xlsx")
    with pytest.raises(ArgumentError, match="columns"):
        export([{"run": "r"}], tmp_path / "a.csv")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DependencyError, match="pyarrow is not installed"):
        export(ROWS, tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_tables_from_before_rows_had_evidence(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(0), row(1)]
    older = {name: kind for name, kind in COLUMNS.items() if name != "evidence"}
    with monkeypatch.context() as patch:
        patch.setattr(module, "COLUMNS", older)
        path = export([{k: v for k, v in r.items() if k in older} for r in rows], tmp_path / name)
    assert read(path) == rows
