"""Certification logs on the command line: reported, converted, written and read again."""

import json
from pathlib import Path

import pytest
from tests.cli.helpers import run
from tests.evaluation.test_cohen import BODY, log
from tests.evaluation.test_ledger import run as known
from tests.evaluation.test_transcript import claim

from certus.evaluation import Ledger, LogSettings, read


def kept(path: Path, *rows: dict) -> Path:
    """A ledger with these rows of the run r."""
    with Ledger(path) as ledger:
        ledger.add_run(known() | {"card": json.dumps({"recipe": {"sigma": 0.25}})})
        ledger.append(rows)
    return path


def test_logs_are_reported_and_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, page = log(tmp_path, *BODY), tmp_path / "report.html"
    assert run("report", path, "--n", 1000, "--out", page) == 0
    text = page.read_text(encoding="utf-8")
    assert "alpha 0.001 per input" in text and "fit alpha = 0.001 (n = 1000)" in text
    assert run("report", path, "--n", 1000, "--alpha", 0.01, "--out", page) == 0
    text = page.read_text(encoding="utf-8")
    assert "alpha 0.01 per input" in text and "Converted from alpha 0.001 to 0.01." in text
    capsys.readouterr()
    assert run("report", path, "--n", 1000, "--log-alpha", 0.01, "--out", page) == 0
    assert "do not fit it" in " ".join(capsys.readouterr().err.split())


def test_runs_are_written_as_logs(tmp_path: Path) -> None:
    base = kept(tmp_path / "a.sqlite", claim(radius=1.05), claim(radius=1.0) | {"index": 4})
    assert run("report", base, "--logs", tmp_path, "--out", tmp_path / "r.html") == 0
    path = tmp_path / "tiny__small__noise_0.25__test__sigma_0.5.tsv"
    back = read(path, LogSettings(n=1000, alpha=0.001))
    assert [(r["index"], r["radius"]) for r in back] == [(0, 1.05), (4, 1.0)]


def test_claims_without_proof_are_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = kept(tmp_path / "a.sqlite", claim(radius=1.0), claim(radius=2.5) | {"index": 4})
    assert run("report", base, "--out", tmp_path / "r.html") == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "warning: Smoothing certificates that claim more than the counts" in shown
    assert "input 4 of small: it claims 2.5" in shown
    assert "do not trust their file" in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("report {p} --n 100", "n = 100"),
        ("report {p} --n 1000 --sigma 3", "the name says sigma 0.25"),
        ("report {p} --n 50", "n0"),
        ("report {p} --n 1000 --alpha 2", "alpha"),
        ("report {p} --n 1000 --log-alpha 0", "alpha"),
        ("report {p} {p} --n 1000", "named twice"),
        ("report {p} --n 1000 --logs {t}/none", "create it first"),
        ("report {t}/none.tsv", "no such file"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    path = log(tmp_path, *BODY)
    given = words.format(p=path, t=tmp_path).split()
    status = run(*given, "--out", tmp_path / "r.html")
    shown = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(shown) == 1 and message in shown[0]
