"""Smoothing on the command line: what is printed of radii, noises by name, training for them."""

import json
import re
import shutil
from pathlib import Path
from statistics import NormalDist

import pytest
from tests.cli.helpers import rows_of, run

from certus.cli.summary import nice_radii

SMALL = ("--method", "smoothing", "--n", 200, "--limit", 40)


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained for bands of columns."""
    out = tmp_path_factory.mktemp("banded") / "bands"
    words = ("--net", "cnn-small", "--recipe", "gaussian", "--noise", "columns:2", "--epochs", 12)
    assert run("train", *words, "--out", out) == 0
    return out


def test_progress_and_summary_give_one_number(model, tmp_path, capsys):
    words = ("--sigma", 0.25, "--out", tmp_path / "a.csv")
    assert run("certify", model, *SMALL, "--threat", "l2:0.25", *words) == 0
    shown = capsys.readouterr()
    rows = rows_of(tmp_path / "a.csv")
    assert {(r["eps"], r["verdict"]) for r in rows} == {(None, "")}
    wide = sum(r["radius"] >= 0.25 for r in rows)
    assert wide < sum(r["radius"] > 0 for r in rows), "the test needs smaller radii"
    assert f"certified {wide}/40" in shown.err
    right = sum(r["prediction"] == r["label"] for r in rows) / 40
    lost = sum(r["prediction"] < 0 for r in rows) / 40
    assert (
        "l2:0.25 by smoothing with Gaussian(sigma=0.25) on 40 inputs: "
        f"smoothed accuracy {right:.2%}, abstained {lost:.2%}, certified {wide / 40:.2%} (95% "
    ) in shown.out
    assert "clean" not in shown.out and "counterexamples" not in shown.out


def test_without_a_threat_radii_are_shown(model, tmp_path, capsys):
    assert run("certify", model, *SMALL, "--sigma", 0.25, "--out", tmp_path / "a.csv") == 0
    shown = capsys.readouterr()
    rows = rows_of(tmp_path / "a.csv")
    assert {(r["norm"], r["eps"]) for r in rows} == {("l2", None)}
    sure = [r["radius"] for r in rows if r["radius"] > 0]
    first, *others = shown.out.strip().splitlines()
    assert first.startswith("l2 radii by smoothing with Gaussian(sigma=0.25) on 40 inputs")
    assert f"average certified radius {sum(sure) / 40:.4g} (each with confidence 0.999)" in first
    assert len(others) >= 2 and f"radius > 0: {len(sure)}/40" in shown.err
    for line in others:
        eps, share = re.fullmatch(r"certified at l2:(\S+): (\S+)% \(95% .*\)", line).groups()
        assert float(share) / 100 == pytest.approx(sum(r >= float(eps) for r in sure) / 40)
    assert run("certify", model, "--method", "lipschitz", "--limit", 40) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("l2 radii by lipschitz on 40 inputs: clean ") and "(proof)" in shown
    assert run("certify", model, "--method", "ibp", "--limit", 2) == 0
    assert capsys.readouterr().out.startswith("linf:0.1 by ibp on 2 inputs: clean ")


def test_a_threat_beyond_every_radius_is_said(model, capsys):
    most = 0.25 * NormalDist().inv_cdf(0.001 ** (1 / 200))  # all 200 samples hit
    line = (
        "is out of reach, unless the valid range of inputs cuts it: with this noise, n and alpha "
        f"no radius exceeds linf:{most / 8:.3g} (l2:{most:.3g})"
    )
    words = ("--sigma", 0.25, "--alpha", 0.001)
    assert run("certify", model, *SMALL, *words, "--threat", "linf:0.1") == 0
    assert f"linf:0.1 {line}" in capsys.readouterr().err
    assert run("certify", model, *SMALL, *words, "--threat", "linf:0.05") == 0
    assert "out of reach" not in capsys.readouterr().err


@pytest.mark.parametrize("method", ["smoothing", "lipschitz"])
def test_a_norm_that_radii_say_nothing_about_is_refused(model, capsys, method):
    assert run("certify", model, "--method", method, "--threat", "l0:1") == 2
    assert "l2 radii here, which say nothing about l0:1" in capsys.readouterr().err


def test_a_noise_that_nobody_chose_is_said(model, tmp_path, capsys):
    assert run("certify", model, *SMALL) == 0
    line = "small was trained without noise: smoothing takes Gaussian(sigma=0.25)"
    assert line in capsys.readouterr().err
    card = json.loads((model / "card.json").read_text())
    trained = Path(shutil.copytree(model, tmp_path / "trained"))
    card["recipe"]["sigma"] = 0.5
    (trained / "card.json").write_text(json.dumps(card))
    assert run("certify", trained, *SMALL) == 0
    shown = capsys.readouterr()
    assert "without noise" not in shown.err and "with Gaussian(sigma=0.5)" in shown.out


def test_a_network_trained_for_columns_certifies_patches(banded, tmp_path, capsys):
    card = json.loads((banded / "card.json").read_text())["recipe"]
    assert card["noise"] == "columns:2" and "sigma" not in card
    assert "noise=Columns(size=2, null=0.0)" in card["loss"]
    words = ("--method", "smoothing", "--limit", 100)
    out = tmp_path / "a.csv"
    assert run("certify", banded, *words, "--threat", "patch:1", "--out", out) == 0
    assert "patch:1 by smoothing with Columns(size=2, null=0.0)" in capsys.readouterr().out
    assert sum(r["radius"] >= 1 for r in rows_of(out)) >= 5
    assert run("certify", banded, *words, "--noise", "columns:4/0.5", "--threat", "patch:2") == 0
    shown = capsys.readouterr()
    assert "with Columns(size=4, null=0.5)" in shown.out and "abstained" not in shown.out
    assert "no radius exceeds patch:1" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--recipe ibp --noise columns:2", "takes eps, not noise"),
        ("--recipe gaussian --noise columns:2 --sigma 1", "not both"),
        ("--recipe gaussian --noise magic:2", "columns"),
        ("--recipe smoothadv --noise columns:2", "additive"),
        ("--recipe macer --noise laplace:1", "Gaussian"),
    ],
)
def test_noise_that_a_recipe_does_not_take(tmp_path, capsys, words, message):
    assert run("train", *words.split(), "--out", tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "x" / "card.json").exists()


def test_what_methods_lists_can_be_asked(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run("methods") == 0
    assert "/value of what is hidden (0)" in capsys.readouterr().out
    words = ("--noise", "pixel-ablation:40", "--threat", "l0-pixels:1")
    assert run("certify", model, *SMALL, *words, "--out", tmp_path / "a.csv") == 0
    assert {r["norm"] for r in rows_of(tmp_path / "a.csv")} == {"l0-pixels"}
    assert run("certify", "--help") == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("l0:3", "l0-pixels:3", "patch:2", "columns:2/v"))


def test_a_denoiser_is_told_apart(tmp_path, capsys):
    out = tmp_path / "den"
    words = ("--net", "dncnn", "--recipe", "denoiser", "--epochs", 1)
    assert run("train", *words, "--out", out) == 0
    capsys.readouterr()
    assert run("certify", out, "--method", "smoothing") == 2
    error = capsys.readouterr().err
    assert "is a denoiser" in error and "Denoised(denoiser, classifier)" in error


@pytest.mark.parametrize(
    ("largest", "norm", "radii"),
    [
        (0.951, "l2", [0.25, 0.5, 0.75]),
        (1.9, "l2", [0.5, 1.0, 1.5]),
        (0.0235, "l1", [0.01, 0.02]),
        (1.0, "patch", [1.0]),
        (3.0, "l0", [1.0, 2.0, 3.0]),
        (9.0, "l0-pixels", [2.0, 4.0, 6.0, 8.0]),
        (0.0, "l2", []),
        (-1.0, "l2", []),
        (float("inf"), "l2", []),
    ],
)
def test_radii_of_the_summary(largest, norm, radii):
    assert list(nice_radii(largest, norm)) == radii


def test_a_tiny_alpha_is_printed_as_what_it_is(model, capsys):
    for alpha, said in (
        (1e-7, "each with confidence 1 - 1e-07"),
        (1e-20, "each with confidence 1 - 1.1e-16"),
    ):
        assert run("certify", model, *SMALL, "--sigma", 0.25, "--alpha", alpha) == 0
        shown = capsys.readouterr().out
        assert said in shown and "proof" not in shown and "abstained" in shown
