"""Evaluation resumes: after an error, after kill -9, and when the limit grows."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.fakes import Exact, Shift, StopHereError, data, job, model

from certus.attacks import FGSM
from certus.certifiers import AttackCertifier, certifier
from certus.core import ArgumentError, Certificates
from certus.core.kinds import parsed
from certus.evaluation import Ledger, check, evaluate
from certus.graph import Graph, trace
from certus.threats import L2, Box, Linf


def same(rows: list, others: list) -> bool:
    """Whether rows agree in everything but the time they took."""
    return [{**r, "seconds": 0} for r in rows] == [{**r, "seconds": 0} for r in others]


def whole(tmp_path: Path, **changes: object) -> list:
    """Rows of a run that is not interrupted."""
    with Ledger(tmp_path / "whole.sqlite") as ledger:
        return evaluate(job(**changes), ledger)


def test_rows_say_what_was_asked(tmp_path: Path) -> None:
    rows = whole(tmp_path)
    assert [r["index"] for r in rows] == list(range(20))
    x, y = data().x_test, data().y_test
    for row in rows:
        mean = x[row["index"]].mean()
        good = bool((mean > 0.5) == y[row["index"]])
        assert row["label"] == y[row["index"]] and row["eps"] == 0.1 and row["method"] == "exact"
        assert (row["verdict"] == "verified") == (good and bool((mean - 0.5).abs() > 0.1))
        assert (row["verdict"] == "falsified") == (not good)


@pytest.mark.parametrize("block", [1, 3, 4, 32])
def test_an_interrupted_run_gives_the_rows_of_an_uninterrupted_one(
    tmp_path: Path, block: int
) -> None:
    expected = whole(tmp_path, certifier=Exact(block=block))
    with Ledger(tmp_path / "cut.sqlite") as ledger:
        for fail_at in (2, 0, 1):
            certifier = Exact(block=block, fail_at=fail_at)
            if -(-20 // block) > 3:
                with pytest.raises(StopHereError):
                    evaluate(job(certifier=certifier), ledger)
        done = {r["index"] for r in ledger.rows()}
        assert all(len([i for i in done if i // block == b]) in (0, block) for b in range(4))
        certifier = Exact(block=block)
        assert same(evaluate(job(certifier=certifier), ledger), expected)
        assert not done & {i for call in certifier.calls for i in call}
        certifier.calls.clear()
        assert same(evaluate(job(certifier=certifier), ledger), expected) and not certifier.calls


def test_a_larger_limit_continues_and_a_smaller_one_selects(tmp_path: Path) -> None:
    expected = whole(tmp_path)
    with Ledger(tmp_path / "limit.sqlite") as ledger:
        assert [r["index"] for r in evaluate(job(limit=6), ledger)] == list(range(6))
        certifier = Exact()
        assert same(evaluate(job(limit=15, certifier=certifier), ledger), expected[:15]) is False
        # Block 4..7 lacked inputs 6 and 7, so it was computed anew; block 0..3 was not.
        assert certifier.calls[0] == [4, 5, 6, 7] and certifier.calls[-1] == [12, 13, 14]
        assert same(evaluate(job(), ledger), expected)
        assert [r["index"] for r in evaluate(job(limit=3), ledger)] == [0, 1, 2]
        assert [r["index"] for r in evaluate(job(indices=[9, 2, 9]), ledger)] == [2, 9]
        assert [r["index"] for r in evaluate(job(every=7), ledger)] == [0, 7, 14]
        assert same(evaluate(job(every=6, limit=3), ledger), [expected[i] for i in (0, 6, 12)])
        assert len(ledger.runs()) == 1


@pytest.mark.parametrize(
    ("changes", "equal"),
    [
        ({"limit": 3}, True),
        ({"card": {}}, True),
        ({"model_name": "other"}, True),
        ({"model_hash": "m1"}, False),
        ({"data": data(19)}, False),
        ({"certifier": Exact(block=5)}, False),
        ({"certifier": Exact(gives_radius=True)}, False),
        ({"threat": Linf(0.1)}, False),
        ({"threat": Linf(0.10000001, clip=None)}, False),
        ({"threat": L2(0.1, clip=None)}, False),
        ({"seed": 1}, False),
    ],
)
def test_the_key_depends_on_what_the_rows_depend_on(changes: dict, equal: bool) -> None:
    assert (job(**changes).key == job().key) is equal


def test_a_radius_method_ignores_eps(tmp_path: Path) -> None:
    certifier = Exact(gives_radius=True)
    one, two = (job(certifier=certifier, threat=Linf(e, clip=None)) for e in (0.1, 0.2))
    assert one.key == two.key and one.eps is None
    with Ledger(tmp_path / "radius.sqlite") as ledger:
        rows = evaluate(two, ledger)
    assert {r["eps"] for r in rows} == {None}
    mean = data().x_test.mean(1)
    assert {r["verdict"] for r in rows} == {""}, "a row without a threat has no verdict"
    for row in rows:  # radii below the threat's eps are kept too
        expected = abs(float(mean[row["index"]]) - 0.5)
        right = row["prediction"] == row["label"]
        assert row["radius"] == pytest.approx(expected if right else 0.0)
        assert row["reason"] == ("" if right else "misclassified")
    assert 0 < min(r["radius"] for r in rows if r["radius"]) < 0.1


def test_progress_counts_what_is_certified(tmp_path: Path) -> None:
    notes = []
    with Ledger(tmp_path / "a.sqlite") as ledger:
        rows = evaluate(job(limit=6), ledger, lambda done, total, note: notes.append((done, note)))
    certified = sum(r["verdict"] == "verified" for r in rows)
    assert notes[0] == (0, "certified 0/0") and notes[-1] == (6, f"certified {certified}/6")
    assert len({done for done, _ in notes}) > 1 + len(rows) // job().certifier.block, (
        "within blocks"
    )
    assert [done for done, _ in notes] == sorted(done for done, _ in notes)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.1])
def test_progress_judges_radii_at_the_threat(tmp_path: Path, eps: float) -> None:
    notes: list[str] = []
    asked = job(certifier=Exact(gives_radius=True), threat=Linf(eps, clip=None))
    for _ in range(2):  # computed, then found in the ledger
        with Ledger(tmp_path / "a.sqlite") as ledger:
            rows = evaluate(asked, ledger, lambda done, total, note: notes.append(note))
        share = sum(r["radius"] >= max(eps, 1e-9) for r in rows)
        assert notes[-1] == f"{'certified' if eps else 'radius > 0:'} {share}/20"
    assert {r["eps"] for r in rows} == {None}


def test_attacks_are_evaluated_too(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        rows = evaluate(job(certifier=AttackCertifier(attack=Shift(), block=8)), ledger)
        (told,) = ledger.runs()
    exact = whole(tmp_path)
    assert {r["method"] for r in rows} == {"shift"} and {r["kind"] for r in rows} == {"attack"}
    assert parsed(told["settings"])["block"] == 8 and told["kind"] == "attack"
    for row, truth in zip(rows, exact, strict=True):
        reason = {"verified": "survived", "unknown": "attacked", "falsified": "misclassified"}
        assert row["reason"] == reason[truth["verdict"]]
        assert row["verdict"] == ("unknown" if row["reason"] == "survived" else "falsified")


def test_a_radius_that_is_not_proven_is_no_claim(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Guess(Exact):
        def __call__(self, *args: Any, **named: Any) -> Certificates:
            found = super().__call__(*args, **named)
            return replace(found, radius=torch.full_like(found.radius, 0.7))

    with Ledger(tmp_path / "a.sqlite") as ledger:
        rows = evaluate(job(certifier=Guess(gives_radius=True, name="lipschitz")), ledger)
    assert {r["verdict"] for r in rows} == {""}
    wrong = [r for r in rows if r["prediction"] != r["label"]]
    assert wrong and {r["radius"] for r in wrong} == {0.0}


def test_threats_without_a_single_size_are_evaluated_like_balls(tmp_path: Path) -> None:
    x = data().x_test
    low, high = x - 0.03, x + torch.linspace(0.01, 0.3, 20)[:, None]
    threats = {
        "box of each": Box(low, high),
        "box of all": Box(torch.full((1, 4), -1.0), torch.full((1, 4), 2.0)),
        "eps of each": Linf(torch.linspace(0.01, 0.3, 20), clip=None),
    }
    keys = set()
    for threat in threats.values():
        asked = job(certifier=certifier("ibp", block=6), model=traced(x), threat=threat)
        attacked = job(certifier=AttackCertifier(attack=FGSM()), model=traced(x), threat=threat)
        with Ledger(tmp_path / "a.sqlite") as ledger:
            rows = evaluate(asked, ledger)
            found = check(rows + evaluate(attacked, ledger), ledger.runs())
            again = evaluate(asked, ledger)
        assert repr(rows) == repr(again) and [layer.n for layer in found.layers] == [20]
        assert {(r["eps"], r["norm"].partition(":")[0]) for r in rows} == {(1.0, threat.norm)}
        keys |= {(r["run"], r["norm"]) for r in rows}
        exact = traced(x)(x).argmax(1) == data().y_test
        for row, right in zip(rows, exact.tolist(), strict=True):  # a linear model: ibp is exact
            mean, label = float(x[row["index"]].mean()), row["label"]
            part = threat.at([row["index"]]).region(x[row["index"]][None])
            worst = float((part.upper if label == 0 else part.lower).mean())
            stays = right and (worst > 0.5) == (mean > 0.5)
            assert (row["verdict"] == "verified") == stays or abs(worst - 0.5) < 1e-5
    assert len({key for key, _ in keys}) == len({norm for _, norm in keys}) == 3


def traced(x: torch.Tensor) -> Graph:
    """The model of the fakes as a graph."""

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model(x)

    return trace(Mean().eval(), x)


class Nameless:
    """An attack whose repr is an address."""

    name = "nameless"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: job(limit=0), "limit must be"),
        (lambda: job(limit=3, indices=[1]), "not both"),
        (lambda: job(every=3, indices=[1]), "not both"),
        (lambda: job(every=0), "every must be"),
        (lambda: job(indices=[20]).wanted(), "0..19"),
        (lambda: job(indices=[-1]).wanted(), "0..19"),
        (lambda: job(indices=[]).wanted(), "0..19"),
        (lambda: job(threat=Linf(torch.tensor([0.1, 0.2]))), "for 2 inputs, the data has 20"),
        (lambda: job(threat=Box(torch.zeros(3, 4), torch.ones(3, 4))), "for 3 inputs"),
        (lambda: job(threat=0.1), "such as certus.Linf"),
        (lambda: job(certifier=Exact(block=0)), "block"),
        (lambda: AttackCertifier(attack=Nameless()), "cannot be told as settings"),
    ],
)
def test_bad_arguments_are_one_clear_line(make: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from tests.evaluation import fakes
from certus.evaluation import Ledger, evaluate

answer = fakes.Exact.__call__

def slow(self, *args, **named):
    time.sleep(0.05)
    return answer(self, *args, **named)

fakes.Exact.__call__ = slow
evaluate(fakes.job(data=fakes.data(2000)), Ledger(sys.argv[2]))
"""


def test_kill_9_leaves_whole_blocks_and_the_next_run_continues(tmp_path: Path) -> None:
    path = tmp_path / "killed.sqlite"
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, root, str(path)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None and blocks(path) < 3:
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    with Ledger(path) as ledger:
        stored = {r["index"] for r in ledger.rows()}
        assert 12 <= len(stored) < 2000 and stored == set(range(len(stored) // 4 * 4))
        again = evaluate(job(data=data(2000), limit=len(stored) + 40), ledger)
        assert len(ledger.runs()) == 1
    assert same(again, whole(tmp_path, data=data(2000), limit=len(stored) + 40))


def blocks(path: Path) -> int:
    """Finished blocks of a ledger that another process is writing."""
    if not path.exists() or path.stat().st_size == 0:
        return 0
    with Ledger(path) as ledger:
        return len(ledger.rows()) // 4
