"""Arguments and files that nobody means well with: one line in time, and nothing is replaced."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.helpers import SOURCE, run, start
from tests.cli.test_errors import assert_one_line
from tests.evaluation.fakes import row
from tests.evaluation.fakes import run as known

from certus.evaluation import Ledger

HOSTILE = {
    "seed": ("certify {m} --method ibp --seed " + "9" * 400, "seed"),
    "seed of a ledger": ("certify {m} --method ibp --seed " + str(2**63), "2^63"),
    "samples": ("certify {m} --method smoothing --n " + "9" * 400, "at most"),
    "ledger in a file": ("certify {m} --ledger {m}/card.json/a.db", "cannot be made"),
    "threat": ("certify {m} --threat linf:1e400", "finite"),
    "long threat": ("certify {m} --threat linf:" + "1" * 5000, "finite"),
    "long noise": ("certify {m} --method smoothing --noise " + "a" * 10_000, "noise"),
    "long model": ("certify " + "a" * 5000, "aaa"),
    "out is a folder": ("certify {m} --out {t}/f.csv", "is a folder"),
    "out is a pipe": ("certify {m} --out {t}/p.csv", "is a pipe"),
    "out is a device": ("certify {m} --out {t}/z.csv", "is a device"),
    "out without a folder": ("attack {m} --out {t}/none/a.csv", "create it first"),
    "report to a pipe": ("report {t}/rows.csv --out {t}/p.csv", "is a pipe"),
    "report without a folder": ("report {t}/rows.csv --out {t}/none/a.html", "create it first"),
    "compare to a device": ("compare {m} --out {t}/z.csv", "is a device"),
    "ledger is a device": ("certify {m} --method ibp --ledger {t}/z.db", "is a device"),
    "ledger that no report reads": ("certify {m} --method ibp --ledger {t}/rows", ".sqlite or .db"),
    "table is a pipe": ("report {t}/p.csv", "is a pipe"),
    "table is a device": ("report {t}/z.csv", "is a device"),
    "training is a pipe": ("train --net linear --epochs 1 --out {t}/w", "is a pipe"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arguments(model, tmp_path, capsys, name):
    """Refused before any work, in less than 300 characters, and what was there stays as it was."""
    line, text = HOSTILE[name]
    (tmp_path / "f.csv").mkdir()
    (tmp_path / "w").mkdir()
    for pipe in ("p.csv", "w/training.safetensors"):
        os.mkfifo(tmp_path / pipe)
    for link in ("z.csv", "z.db"):
        (tmp_path / link).symlink_to("/dev/zero")
    status = run(*line.format(m=model, t=tmp_path).split())
    error = capsys.readouterr().err.strip()
    error = error.splitlines()[-1]  # of a training that seemed to go on
    assert status == 2 and error.startswith("error: ") and text in error, error
    assert len(error) <= 300 and error.isprintable()
    assert (tmp_path / "p.csv").is_fifo() and (tmp_path / "z.csv").is_symlink()


def test_names_with_control_characters(model, tmp_path, capsys):
    odd = Path(shutil.copytree(model, tmp_path / "a\nb\x1b[31m"))
    ledger = tmp_path / "l.sqlite"
    assert run("certify", odd, "--method", "ibp", "--limit", 2, "--ledger", ledger) == 0
    with Ledger(ledger) as kept:
        assert {row["model"] for row in kept.rows()} == {"a\\nb\\x1b[31m"}
    bad = Path(shutil.copytree(model, os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
    assert run("certify", bad, "--method", "ibp", "--limit", 2, "--ledger", ledger) == 0
    assert run("report", ledger, "--out", tmp_path / "a\nb.html") == 0
    capsys.readouterr()
    assert_one_line(capsys, run("certify", tmp_path / "no\nne\x1b"), "no\\nne\\x1b")


def test_nobody_reads_standard_output(model, tmp_path):
    table = tmp_path / "rows.csv"
    words = ("certify", model, "--method", "ibp", "--limit", 2, "--out", table)
    for line in (("methods",), ("data",), words):
        process = start(*line)
        process.stdout.close()
        _, error = process.communicate()
        assert process.returncode == 141 and "Traceback" not in error and "rror" not in error, error
    assert table.exists(), "the work is done, whether or not somebody reads about it"


def test_standard_output_is_closed(tmp_path):
    code = (
        "import os, sys; os.close(1); sys.stdout = None; from certus.cli.main import main; "
        "sys.exit(main(['methods']))"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_two_trainings_into_one_folder(tmp_path, capsys):
    pytest.importorskip("fcntl")
    out = tmp_path / "x"
    out.mkdir()
    code = (
        "import sys; from pathlib import Path; from certus.core.files import locked\n"
        "with locked(Path(sys.argv[1])) as free: print(free, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        line = ("train", "--net", "linear", "--recipe", "standard", "--epochs", 1, "--out", out)
        assert_one_line(capsys, run(*line), "another training is at work")
        other.kill()
    assert run(*line) == 0 and (out / "card.json").exists()


def test_the_ledger_of_others_is_refused_in_one_line(tmp_path, capsys):
    """Text of runs that Certus writes as JSON, in a file that says something else."""
    ledger = tmp_path / "a.sqlite"
    with Ledger(ledger) as made:
        evidence = json.dumps({"noise": "Gaussian(sigma=0.5)", "alpha": 0.001, "n": 100})
        radius = {"eps": None, "verdict": "", "confidence": 0.999, "evidence": evidence}
        first = row(0, method="smoothing", norm="l2", run="x", **radius)
        made.add_run(known(first, card="[" * 100_000))
        made.append([first])
    words = ("report", ledger, "--out", tmp_path / "a.html")
    assert run(*words) == 0
    capsys.readouterr()
    assert_one_line(capsys, run(*words, "--logs", tmp_path / "logs"), "card of run x")
