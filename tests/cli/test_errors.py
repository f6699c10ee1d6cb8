"""Exit status: 0 done, 2 for what cannot be used, in one line; 1 for a contradiction."""

import errno
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from tests.cli.helpers import run, start

from certus.cli import commands
from certus.core import ContradictionError
from certus.evaluation import Ledger


def broken(model: Path, kind: str) -> Path:
    """A copy of a checkpoint with one thing wrong."""
    path = Path(shutil.copytree(model, model.parent / "broken"))
    card, weights = path / "card.json", path / "model.safetensors"
    if kind == "no card":
        card.unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "flipped weights":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(bytes(data))
    elif kind == "cut card":
        card.write_text(card.read_text()[:50])
    elif kind == "binary card":
        card.write_bytes(b"\xff\xfe\x00")
    else:
        values = json.loads(card.read_text())
        values.update(json.loads(kind))
        card.write_text(json.dumps(values))
    return path


KINDS = (
    "no card",
    "no weights",
    "cut weights",
    "flipped weights",
    "cut card",
    "binary card",
    '{"net": "nothing"}',
    '{"classes": 3}',
    '{"shape": [1, 5]}',
    '{"data": "nothing"}',
    '{"data": ""}',
    '{"surprise": 1}',
    '{"recipe": 3}',
)


def assert_one_line(
    capsys: pytest.CaptureFixture[str], status: int, *texts: str, worked: bool = False
) -> None:
    error = capsys.readouterr().err.strip()
    assert status == 2, error
    if worked:  # a progress bar may stand above the error
        error = error.splitlines()[-1]
    assert error.startswith("error: ") and len(error.splitlines()) == 1, error
    assert "Traceback" not in error
    for text in texts:
        assert text in error, error


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_checkpoints(model, capsys, kind):
    assert_one_line(capsys, run("certify", broken(model, kind), "--method", "ibp", "--limit", 2))


def test_a_card_with_a_sigma_that_is_no_number(model, capsys):
    path = broken(model, '{"recipe": {"sigma": "much"}}')
    assert_one_line(capsys, run("certify", path, "--method", "smoothing"), "--sigma")


COMMANDS = {
    "unknown method": ("certify {m} --method magic", "crown"),
    "several methods": ("certify {m} --method ibp,crown", "compare"),
    "no method": ("certify {m} --method ,", "crown"),
    "unknown attack": ("attack {m} --method crown", "pgd"),
    "missing checkpoint": ("certify {t}/nowhere", "nowhere"),
    "missing checkpoint, data given": ("compare {t}/nowhere --data digits", "nowhere"),
    "threat without a number": ("certify {m} --threat linf", "linf:0.1"),
    "threat without a norm": ("certify {m} --threat 0.1", "linf"),
    "threat of words": ("attack {m} --threat linf:much", "number"),
    "threat by zero": ("attack {m} --threat linf:8/0", "number"),
    "negative eps": ("certify {m} --threat linf:-0.1", ">= 0"),
    "nan eps": ("certify {m} --threat linf:nan", "finite"),
    "limit": ("certify {m} --limit 0", "limit"),
    "every": ("certify {m} --every 0", "every"),
    "negative limit": ("attack {m} --limit -3", "limit"),
    "alpha": ("certify {m} --method smoothing --alpha 2", "alpha"),
    "sigma": ("certify {m} --method smoothing --sigma -1", "> 0"),
    "n": ("certify {m} --method smoothing --n 10", "n0"),
    "timeout": ("certify {m} --method milp --timeout 0", "timeout"),
    "seed": ("certify {m} --method smoothing --seed -1", "seed"),
    "seed of an attack": ("attack {m} --seed -1", "seed"),
    "milp with l2": ("certify {m} --method milp --threat l2:0.1 --limit 2", "milp"),
    "table name": ("certify {m} --method ibp --limit 2 --out {t}/rows.txt", ".csv"),
    "table folder": ("attack {m} --limit 2 --out {t}/a/rows.csv", "folder"),
    "other data": ("certify {m} --data breast-cancer", "--data"),
    "unknown data": ("certify {m} --data nothing", "digits"),
    "mnist without files": ("train --data mnist --data-dir {t} --out {t}/x", "download"),
    "mnist without a folder": ("train --data mnist --out {t}/x", "--data-dir"),
    "unknown data to describe": ("data nothing", "digits"),
    "nothing to download": ("data digits --download", "mnist"),
    "unknown net": ("train --net magic --out {t}/x", "mlp-small"),
    "unknown recipe": ("train --recipe magic --out {t}/x", "standard"),
    "existing out": ("train --out {m}", "already"),
    "out is a file": ("train --net linear --epochs 1 --out {m}/card.json", "card.json"),
    "out in a file": ("train --net linear --epochs 1 --out {m}/card.json/x", "card.json"),
    "epochs": ("train --epochs 0 --out {t}/x", "epochs"),
    "train eps": ("train --eps -1 --out {t}/x", "> 0"),
    "train seed": ("train --seed -1 --out {t}/x", "seed"),
    "sigma for ibp": ("train --recipe ibp --sigma 0.1 --out {t}/x", "eps"),
    "eps for gaussian": ("train --recipe gaussian --eps 0.1 --out {t}/x", "sigma"),
    "eps for standard": ("train --recipe standard --eps 0.1 --out {t}/x", "no eps"),
    "denoiser that is none": (
        "train --net linear --recipe denoiser --epochs 1 --out {t}/x/y",
        "shape",
    ),
    "nothing to compare": ("compare", "checkpoint"),
    "norm": ("compare {m} --threat linf:0.1", "linf"),
    "same names": ("compare {m} {m}", "name"),
    "grid of words": ("compare {m} --eps much", "start:stop:step"),
    "grid without end": ("compare {m} --eps 0:inf:1", "start:stop:step"),
    "grid of nan": ("compare {m} --eps nan", "sizes"),
    "huge grid": ("compare {m} --eps 0:1:1e-9", "1000"),
    "negative grid": ("compare {m} --eps=-0.1,0.1", ">= 0"),
    "zero grid": ("compare {m} --eps 0", "above 0"),
    "backward grid": ("compare {m} --eps 0.2:0:0.1", "sizes"),
    "compare method": ("compare {m} --methods ibp,magic", "magic"),
    "nothing to report": ("report", "table"),
    "missing table": ("report {t}/nowhere.csv", "nowhere"),
    "missing ledger": ("report {t}/nowhere.sqlite", "nowhere"),
    "table of another kind": ("report {m}/card.json", ".csv"),
    "ledger is a folder": ("certify {m} --method ibp --limit 2 --ledger {t}/f.db", "is a folder"),
    "ledger is a checkpoint": (
        "certify {m} --method ibp --limit 2 --ledger {m}/model.safetensors",
        "must end in .sqlite or .db",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_arguments(model, tmp_path, capsys, monkeypatch, name):
    monkeypatch.delenv("CERTUS_DATA", raising=False)
    line, text = COMMANDS[name]
    (tmp_path / "f.db").mkdir()
    status = run(*line.format(m=model, t=tmp_path).split())
    assert_one_line(capsys, status, text, worked=name == "milp with l2")
    assert not (tmp_path / "x").exists(), "a refused command leaves no folder"


@pytest.mark.parametrize(
    "line", ["certify {m} --magic 3", "magic", "certify", "", "data a b c", "certify {m} --limit x"]
)
def test_flags_that_do_not_exist(model, capsys, line):
    assert run(*line.format(m=model).split()) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "certus" in error


@pytest.mark.parametrize("damage", ["other schema", "foreign", "cut", "text"])
def test_damaged_ledgers(model, tmp_path, capsys, damage):
    ledger = tmp_path / "ledger.sqlite"
    if damage == "text":
        ledger.write_text("not a database, but long enough to be taken for one" * 50)
    elif damage == "foreign":
        database = sqlite3.connect(ledger)
        database.execute("CREATE TABLE t (a)")
        database.close()
    else:
        with Ledger(ledger):
            pass
        if damage == "cut":
            ledger.write_bytes(ledger.read_bytes()[:5000])
        else:
            database = sqlite3.connect(ledger)
            database.execute("PRAGMA user_version = 99")
            database.close()
    words = ("certify", model, "--method", "ibp", "--limit", 2, "--ledger", ledger)
    assert_one_line(capsys, run(*words), "ledger")
    assert_one_line(capsys, run("report", ledger, "--out", tmp_path / "r.html"), "ledger")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "\x00\x01"])
def test_damaged_tables(tmp_path, capsys, text):
    table = tmp_path / "rows.csv"
    table.write_text(text)
    assert_one_line(capsys, run("report", table, "--out", tmp_path / "r.html"), "rows.csv")


def test_a_table_without_rows(tmp_path, capsys):
    with Ledger(tmp_path / "empty.sqlite"):
        pass
    status = run("report", tmp_path / "empty.sqlite", "--out", tmp_path / "r.html")
    assert_one_line(capsys, status, "row")


def test_a_full_disk_is_one_line(model, tmp_path, capsys, monkeypatch):
    words = ("certify", model, "--method", "ibp", "--limit", 2)

    def full(*arguments, **options):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", lambda self, rows: _speak(self, full))
        assert_one_line(capsys, run(*words), "disk is full", worked=True)

    def no_space(self, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_space)
        assert_one_line(
            capsys, run(*words, "--out", tmp_path / "rows.csv"), "No space left", worked=True
        )
    assert not list(tmp_path.glob("*rows.csv*")), "nothing half-written is left"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_space)
        status = run("train", "--net", "linear", "--epochs", 1, "--out", tmp_path / "x")
        assert_one_line(capsys, status, "No space left", worked=True)
    assert run(*words, "--out", tmp_path / "rows.csv") == 0


def _speak(ledger: Ledger, action) -> None:
    with ledger._speaking():
        action()


def test_a_full_device_for_standard_output():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with Path("/dev/full").open("w") as device:
        process = start("data", stdout=device)
        _, error = process.communicate()
    assert process.returncode == 2 and error.startswith("error: "), error
    assert "No space left" in error and "Traceback" not in error


def test_a_contradiction_is_status_1(model, capsys, monkeypatch):
    def contradict(*arguments, **options):
        raise ContradictionError("a certificate and an attack disagree on input 3")

    monkeypatch.setattr(commands, "evaluate", contradict)
    assert run("certify", model, "--method", "ibp") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "contradiction: a certificate and an attack disagree on input 3"


def test_an_interruption_says_how_to_go_on(model, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "evaluate", interrupt)
    assert run("certify", model, "--method", "ibp") == 130
    assert "same command" in capsys.readouterr().err
