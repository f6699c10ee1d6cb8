"""Certification logs on the command line: reported, converted, written and read again."""

import json
from pathlib import Path

import pytest
from tests.cli.helpers import run
from tests.evaluation.fakes import run as known
from tests.evaluation.test_cohen import BODY, log
from tests.evaluation.test_transcript import claim

from certus.evaluation import Ledger, read


def kept(path: Path, *rows: dict) -> Path:
    """A ledger with these rows and their runs."""
    with Ledger(path) as ledger:
        texts = {
            "card": json.dumps({"recipe": {"sigma": 0.25}}),
            "versions": json.dumps({"certus": "0.1.0", "code": "abc"}),
        }
        for key in dict.fromkeys(row["run"] for row in rows):
            first = next(row for row in rows if row["run"] == key)
            ledger.add_run(known(first, **texts))
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
    base = kept(tmp_path / "a.sqlite", claim(radius=1.05), claim(4, radius=1.0))
    folder = tmp_path / "new" / "logs"
    assert run("report", base, "--logs", folder, "--out", tmp_path / "r.html") == 0
    back = read(folder / "tiny__small__noise_0.25__test__sigma_0.5.tsv")
    assert [(r["index"], r["radius"]) for r in back] == [(0, 1.05), (4, 1.0)]


@pytest.mark.parametrize("more", [(), ("--log-alpha", 0.001)])
def test_a_log_of_a_rule_that_stops_early_is_never_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple
) -> None:
    rule = "AtRadius(n0=100, n=10000, radius=0.5)"
    base = kept(tmp_path / "a.sqlite", claim(radius=0.5, rule=rule))
    page = tmp_path / "r.html"
    assert run("report", base, "--logs", tmp_path, "--out", page) == 0
    page.unlink()
    (path,) = tmp_path.glob("*.tsv")
    path = path.rename(tmp_path / "tiny__other__noise_0.25__test__sigma_0.5.tsv")
    capsys.readouterr()
    assert run("report", path, *more, "--alpha", 1e-4, "--out", page) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert str(path) in shown and f"not {rule}" in shown and not page.exists()
    assert run("report", path, "--out", page) == 0
    assert "alpha 0.001 per input" in page.read_text(encoding="utf-8")


def test_runs_of_one_name_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        claim(),
        claim(rule="AtRadius(n0=100, n=10000, radius=0.5)") | {"run": "s"},
        claim() | {"run": "t"},
    ]
    base = kept(tmp_path / "a.sqlite", *rows)
    assert run("report", base, "--logs", tmp_path / "logs", "--out", tmp_path / "r.html") == 0
    end = "__noise_0.25__test__sigma_0.5.tsv"
    assert {p.name for p in (tmp_path / "logs").iterdir()} == {
        f"tiny__small-Fixed-n=1000{end}",
        f"tiny__small-AtRadius-radius=0.5-n=10000{end}",
        f"tiny__small-Fixed-n=1000-2{end}",
    }
    shown = " ".join(capsys.readouterr().err.split())
    for said in ("run t, rule Fixed(n0=100, n=1000), alpha 0.001", "certus 0.1.0, code abc"):
        assert said in shown[shown.index(f"n=1000-2{end}: ") :]


def test_claims_without_proof_are_said_loudly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = kept(tmp_path / "a.sqlite", claim(radius=1.0), claim(4, radius=2.5))
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
        ("report {p} --n 1000 --logs {p}", "cannot be created"),
        ("report {t}/none.tsv", "No such file"),
        ("report {t}/empty.tsv --sigma 1", "empty.tsv: the log holds no rows"),
        ("report {t}/empty.tsv", "state it with --sigma"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    path = log(tmp_path, *BODY)
    log(tmp_path, name="empty.tsv")
    given = words.format(p=path, t=tmp_path).split()
    status = run(*given, "--out", tmp_path / "r.html")
    shown = capsys.readouterr().err.strip().splitlines()
    assert status == 2 and len(shown) == 1 and message in shown[0]
