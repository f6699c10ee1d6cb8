"""Train, certify, attack, compare, report, as a user does; and go on after kill -9."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.helpers import SOURCE, rows_of, run, same, start

from certus.certifiers import CERTIFIERS, certifier
from certus.cli.main import COMMANDS
from certus.training import RECIPES
from certus.zoo import NETS, load_checkpoint, load_data

LIMIT_SECONDS = 120


def kill_when(process: subprocess.Popen[str], ready) -> None:
    """kill -9 as soon as `ready()`; fails where the process ends before."""
    end = time.monotonic() + LIMIT_SECONDS
    while not ready():
        assert process.poll() is None, f"ended before it was killed: {process.communicate()}"
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_training_leaves_a_checkpoint(trained):
    module, card = load_checkpoint(trained)
    data = load_data("digits")
    accuracy = float((module(data.x_test).argmax(1) == data.y_test).double().mean())
    assert card.metrics["clean_accuracy"] == accuracy > 0.5
    assert card.net == "mlp-small" and card.data == "digits" and card.recipe["name"] == "standard"
    assert "eps" not in card.recipe, "the standard recipe trains for no threat"
    assert sorted(p.name for p in trained.iterdir()) == ["card.json", "model.safetensors"]


@pytest.mark.parametrize(("recipe", "key"), [("ibp", "eps"), ("gaussian", "sigma")])
def test_the_card_says_what_it_was_trained_for(tmp_path, recipe, key):
    out = tmp_path / "a"
    assert run("train", "--net", "linear", "--recipe", recipe, f"--{key}", 0.05, "--epochs", 1,
               "--out", out) == 0  # fmt: skip
    assert json.loads((out / "card.json").read_text())["recipe"][key] == 0.05


@pytest.mark.parametrize("method", ["crown", "smoothing"])
def test_a_second_run_computes_nothing_and_gives_the_same_rows(
    model, tmp_path, capsys, monkeypatch, method
):
    words = ["certify", model, "--method", method, "--threat", "l2:0.1", "--n", 200]
    assert run(*words, "--limit", 20, "--out", tmp_path / "a.csv") == 0
    first = capsys.readouterr().out
    assert "on 20 inputs" in first and "certified" in first
    with monkeypatch.context() as patch:
        kind = type(certifier(method))
        patch.setattr(kind, "run", lambda *_: pytest.fail("computed again"))
        assert run(*words, "--limit", 20, "--out", tmp_path / "b.csv") == 0
        assert run(*words, "--limit", 7, "--out", tmp_path / "c.csv") == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert repr(rows_of(tmp_path / "c.csv")) == repr(rows_of(tmp_path / "a.csv")[:7])
    assert run(*words, "--limit", 50, "--out", tmp_path / "d.csv") == 0
    fresh = ("--ledger", tmp_path / "fresh.sqlite", "--limit", 50, "--out", tmp_path / "e.csv")
    assert run(*words, *fresh) == 0
    rows = rows_of(tmp_path / "d.csv")
    assert len(rows) == 50 and same(rows, rows_of(tmp_path / "e.csv"))
    data = load_data("digits")
    assert [row["label"] for row in rows] == data.y_test[:50].tolist()


@pytest.mark.parametrize("eps", [0.01, 0.07, 0.1])
def test_the_summary_counts_what_the_rows_say(model, tmp_path, capsys, eps):
    """Also where eps is no float32 number."""
    words = (
        "--threat",
        f"linf:{eps}",
        "--method",
        "ibp",
        "--limit",
        60,
        "--out",
        tmp_path / "a.csv",
    )
    assert run("certify", model, *words) == 0
    proven = sum(row["verdict"] == "verified" for row in rows_of(tmp_path / "a.csv"))
    assert f"certified {proven / 60:.2%}" in capsys.readouterr().out


def test_a_radius_is_judged_at_the_threat(model, tmp_path, capsys):
    """Lipschitz rows hold radii, whatever eps: the summary compares them with the threat."""
    for eps in (0.0, 0.1, 100.0):
        out = tmp_path / f"{eps}.csv"
        words = ("--threat", f"l2:{eps}", "--method", "lipschitz", "--limit", 60, "--out", out)
        assert run("certify", model, *words) == 0
        rows = rows_of(out)
        assert {(r["eps"], r["verdict"]) for r in rows} == {(None, "")}
        wide = sum(r["radius"] > 0 and r["radius"] >= eps for r in rows)
        assert f"certified {wide / 60:.2%}" in capsys.readouterr().out
    assert (tmp_path / "0.0.csv").read_bytes() == (tmp_path / "100.0.csv").read_bytes()


def test_kill_9_while_certifying(trained, tmp_path):
    model = Path(shutil.copytree(trained, tmp_path / "m"))
    words = ["certify", model, "--method", "smoothing", "--n", 20_000, "--limit", 96]
    ledger = model / "ledger.sqlite"

    def begun() -> bool:
        return ledger.exists() and len(rows_of(ledger)) > 0

    process = start(*words)
    kill_when(process, begun)
    done = rows_of(ledger)
    assert 0 < len(done) < 96
    assert run(*words, "--out", tmp_path / "resumed.csv") == 0
    assert run(*words, "--ledger", tmp_path / "whole.sqlite", "--out", tmp_path / "whole.csv") == 0
    resumed = rows_of(tmp_path / "resumed.csv")
    assert len(resumed) == 96 and same(resumed, rows_of(tmp_path / "whole.csv"))
    kept = [repr(row) for row in resumed[: len(done)]]  # repr, since NaN is not equal to NaN
    assert kept == [repr(row) for row in done], "finished blocks stay as they are, seconds too"


def test_kill_9_while_training(tmp_path):
    words = ["train", "--net", "mlp-small", "--recipe", "ibp", "--epochs", 40, "--seed", 3, "--out"]
    process = start(*words, tmp_path / "cut")
    kill_when(process, (tmp_path / "cut" / "training.safetensors").exists)
    assert not (tmp_path / "cut" / "card.json").exists(), "killed too late to test anything"
    for name in ("cut", "whole"):
        process = start(*words, tmp_path / name)
        _, error = process.communicate()
        assert process.returncode == 0, error
        assert ("going on" in error) == (name == "cut")
    cut, whole = ((tmp_path / n / "model.safetensors").read_bytes() for n in ("cut", "whole"))
    assert cut == whole
    assert not (tmp_path / "cut" / "training.safetensors").exists()


def test_attack_compare_and_report(model, tmp_path, capsys):
    other = Path(shutil.copytree(model, tmp_path / "other [b]"))
    assert (
        run(
            "train",
            "--net",
            "mlp-small",
            "--recipe",
            "adversarial",
            "--epochs",
            2,
            "--out",
            tmp_path / "robust",
        )
        == 0
    )
    assert run("attack", model, "--limit", 20, "--out", tmp_path / "attack.csv") == 0
    rows = rows_of(tmp_path / "attack.csv")
    assert {row["method"] for row in rows} == {"pgd"}
    assert "counterexamples" in capsys.readouterr().out
    page = tmp_path / "out" / "report.html"
    status = run(
        "compare", model, tmp_path / "robust", "--eps", "0:0.04:0.02",
        "--methods", "ibp,crown,lipschitz,milp",
        "--limit", 12, "--exact-limit", 3, "--timeout", 5, "--out", page,
    )  # fmt: skip
    assert status == 0
    text = page.read_text()
    assert "small" in text and "robust" in text
    assert not re.search(
        r"""(?:src|href)\s*=\s*["']?(?:https?:)?//[^"'> ]+\.(?:js|css|png)""", text
    )
    assert "<script" not in text and "@import" not in text and "<link" not in text
    rows = rows_of(page.parent / "ledger.sqlite")
    assert {row["method"] for row in rows} == {"ibp", "crown", "lipschitz", "milp", "pgd"}
    assert {row["model"] for row in rows} == {"small", "robust"}
    of = {(r["model"], r["method"], r["eps"], r["index"]): r["verdict"] for r in rows}
    for (name, method, eps, index), verdict in of.items():
        if verdict == "verified" and eps:
            assert of[name, "pgd", eps, index] != "falsified"
        if method == "milp" and verdict == "falsified":
            assert of[name, "crown", eps, index] != "verified"
    tables = (page.parent / "ledger.sqlite", tmp_path / "attack.csv")
    for number, chosen in enumerate((tables, tables[:1])):
        again = tmp_path / f"{number}.html"
        assert run("report", *chosen, "--out", again) == 0
        assert "small" in again.read_text()
    shown = capsys.readouterr().err
    assert "report: " in shown and "Traceback" not in shown
    assert run("certify", other, "--method", "ibp", "--limit", 2, "--out", tmp_path / "o.csv") == 0
    assert rows_of(tmp_path / "o.csv")[0]["model"] == "other [b]"


def test_milp_is_left_out_of_an_l2_comparison_with_a_line(model, tmp_path, capsys):
    words = ("--threat", "l2", "--eps", "0.1", "--methods", "milp,crown", "--limit", 4)
    assert run("compare", model, *words, "--out", tmp_path / "r.html") == 0
    assert "milp left out" in capsys.readouterr().err
    assert {"crown", "pgd"} <= {r["method"] for r in rows_of(tmp_path / "ledger.sqlite")}


def test_the_folder_one_stands_in_is_a_checkpoint_too(model, tmp_path, monkeypatch):
    monkeypatch.chdir(model)
    assert run("certify", ".", "--method", "ibp", "--limit", 2, "--out", "rows.csv") == 0
    assert rows_of(Path("rows.csv"))[0]["model"] == "small"


def test_methods_lists_every_name(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("methods") == 0
    shown = capsys.readouterr().out
    for name in (*CERTIFIERS, *RECIPES, *NETS, "pgd", "fgsm", "tightest"):
        assert name in shown


def test_data_lists_describes_and_says_what_is_missing(capsys):
    assert run("data") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("digits", "breast-cancer", "mnist", "fashion-mnist"))
    assert run("data", "digits") == 0
    assert "1347 train and 450 test inputs of 1x8x8" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(capsys, command):
    assert run(*command.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert f"certus {command}" in shown
    assert command in ("methods",) or "xample" in shown
    if command in ("certify", "compare"):
        for flag in ("--limit", "--data", "--ledger", "--seed", "--sigma", "--timeout"):
            assert re.search(rf"{flag}\b", shown), flag
        assert "--which" not in shown and "--how" not in shown


def test_the_package_is_the_command():
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "certus", "data"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "always there: " in done.stdout, done.stderr


@pytest.mark.parametrize("words", ["['--help']", "['methods']", "['data']"])
def test_what_needs_no_plots_imports_none(words):
    code = (
        "import sys\nfrom certus.cli.main import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        "bad = {'matplotlib', 'sklearn', 'pandas', 'pyarrow', 'torch._dynamo'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
