"""The sealed call trusts no certifier: lies, limits of time, broken models, rows."""

import sys
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from tests.certifiers.nets import digits, graph, inputs, net

from certus.bounding import Crown
from certus.certifiers import (
    AutoCertifier,
    BoundCertifier,
    Certifier,
    MilpCertifier,
    SmoothedAttackCertifier,
    SmoothingCertifier,
    certifier,
)
from certus.certifiers.base import Answer, Query
from certus.core import (
    ArgumentError,
    CertusError,
    ContradictionError,
    DependencyError,
    Reason,
    Verdict,
)
from certus.core.kinds import text
from certus.graph import trace
from certus.smoothing import Gaussian, Smoothed
from certus.threats import L2, Linf

TINY = 1e-6


@dataclass(frozen=True, kw_only=True)
class Liar(Certifier):
    """Claims whatever it was told to, about every input."""

    name: ClassVar[str] = "liar"
    gives_radius: ClassVar[bool] = False
    answer: Answer
    move: float | None = None

    def run(self, query: Query) -> list[Answer]:
        point = None if self.move is None else query.x + self.move
        return [
            replace(self.answer, witness=None if point is None else point[b])
            for b in range(len(query.x))
        ]


FALSIFIED = Answer(verdict=Verdict.FALSIFIED, reason=Reason.ATTACKED, radius=0.0)
VERIFIED = Answer(verdict=Verdict.VERIFIED, reason=None, radius=0.1)


@pytest.mark.parametrize("move", [0.0, 0.01, 0.2, float("nan")])
def test_a_bogus_witness_becomes_unknown(move):
    x, y = digits().x_test[:6], net()(digits().x_test[:6]).argmax(1)
    c = Liar(answer=FALSIFIED, move=move)(graph(), x, y, Linf(0.05))
    wrong = net()(x + move).argmax(1) != y
    for b in range(6):
        true = move <= 0.05 and bool(wrong[b])  # inside the region and wrong; NaN is neither
        assert c.verdict[b] is (Verdict.FALSIFIED if true else Verdict.UNKNOWN)
        assert (c.witness[b] is None) == (not true)


def test_verified_for_a_misclassified_input_is_a_contradiction():
    x, y = inputs()
    with pytest.raises(ContradictionError):
        Liar(answer=VERIFIED)(graph(), x, y, Linf(0.05))


def test_falsified_without_a_witness_is_refused():
    x, y = inputs()
    with pytest.raises(ArgumentError, match="witness"):
        Liar(answer=FALSIFIED)(graph(), x, y, Linf(0.05))


def test_auto_without_time_says_so_and_returns():
    x, y = inputs()
    start = time.perf_counter()
    c = AutoCertifier(timeout=TINY)(graph(), x, y, Linf(0.05))
    assert time.perf_counter() - start < 2
    assert all(r is Reason.TIMEOUT for r in c.reason[:-1]) and not c.certified.any()
    assert c.reason[-1] is Reason.MISCLASSIFIED, "known before any method runs"


def test_milp_without_time_says_so_and_returns():
    x, y = inputs()
    threat = Linf(0.07)
    start = time.perf_counter()
    c = MilpCertifier(timeout=TINY)(graph(), x, y, threat)
    assert time.perf_counter() - start < 10
    crown = BoundCertifier(method=Crown())(graph(), x, y, threat)
    for b, verdict in enumerate(c.verdict[:-1]):
        if verdict is Verdict.UNKNOWN:
            assert c.reason[b] is Reason.TIMEOUT
        if bool(crown.certified[b]):
            assert verdict is Verdict.VERIFIED, "CROWN's bound needs no solver"
    assert Reason.TIMEOUT in c.reason


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_timeouts_are_positive_numbers(timeout):
    for kind in (AutoCertifier, MilpCertifier):
        with pytest.raises(ArgumentError, match="timeout"):
            kind(timeout=timeout)


@pytest.mark.parametrize("method", ["ibp", "crown", "lipschitz", "smoothing", "milp", "auto"])
def test_a_model_with_nan_is_an_error_before_any_work(method):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    x, y = inputs(3)
    traced = trace(module, x[:1])
    with torch.no_grad():
        module[1].weight[0, 0] = float("nan")
    with pytest.raises(CertusError, match="NaN") as caught:
        certifier(method)(traced, x, y, Linf(0.1))
    assert "\n" not in str(caught.value)


def test_rows_have_the_columns_that_were_promised():
    x, y = inputs(4)
    c = certifier("crown")(graph(), x, y, Linf(0.03))
    names = [
        "prediction",
        "verdict",
        "reason",
        "radius",
        "margin",
        "method",
        "threat",
        "confidence",
        "seconds",
    ]
    rows = c.to_rows()
    assert [list(row) for row in rows] == [names] * 4
    plain = {str, int, float}
    assert all(type(value) in plain for row in rows for value in row.values())
    assert rows[0]["method"] == "crown" and rows[0]["threat"] == "linf:0.03"
    assert rows[-1]["reason"] == "misclassified" and rows[-1]["verdict"] == "falsified"


def test_to_frame_needs_pandas(monkeypatch):
    x, y = inputs(4)
    c = certifier("ibp")(graph(), x, y, Linf(0.03))
    pandas = pytest.importorskip("pandas")
    frame = c.to_frame()
    assert isinstance(frame, pandas.DataFrame) and frame.shape == (4, 9)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError, match=r"pip install .*certus\[report\]"):
        c.to_frame()


def test_smoothing_answers_about_the_smoothed_classifier():
    x, y = inputs()
    c = SmoothingCertifier(noise=Gaussian(0.3), n=400, n0=50)(graph(), x, y, L2(0.1))
    own = Smoothed(net(), Gaussian(0.3), 10).certify(x, 50, 400)
    assert torch.equal(c.prediction, own.prediction) and c.confidence == own.confidence
    for b in range(len(x)):
        if c.prediction[b] < 0:
            assert c.reason[b] is Reason.ABSTAINED
        elif c.prediction[b] != y[b]:
            assert c.reason[b] is Reason.WRONG_CLASS
        else:
            assert c.radius[b] == own.radius[b] and c.certified[b] == (own.radius[b] > 0.1)
            continue
        assert c.verdict[b] is Verdict.UNKNOWN and c.radius[b] == 0 and c.witness[b] is None
    assert c.prediction[-1] != y[-1] and c.verdict[-1] is Verdict.UNKNOWN


def test_an_abstention_is_not_counted_as_correct():
    x, y = inputs()
    c = SmoothingCertifier(noise=Gaussian(8.0), n=100, n0=20)(graph(), x, y, L2(0.01))
    assert Reason.ABSTAINED in c.reason
    for b, reason in enumerate(c.reason):
        if reason is Reason.ABSTAINED:
            assert c.prediction[b] == -1 != y[b] and not c.certified[b] and c.radius[b] == 0


def test_smoothed_noise_belongs_to_the_input_and_not_to_its_batch():
    x, y = inputs()
    method = SmoothingCertifier(n=200, n0=20, seed=4)
    whole = method(graph(), x, y, L2(0.1), ids=list(range(40, 48)))
    part = method(graph(), x[3:6], y[3:6], L2(0.1), ids=[43, 44, 45])
    assert torch.equal(whole.radius[3:6], part.radius) and bool((part.radius > 0).any())


def test_smoothed_attack_is_judged_by_predict():
    x, y = inputs()
    method = SmoothedAttackCertifier(noise=Gaussian(0.25), samples=8, n=300)
    c = method(graph(), x, y, L2(1.5))
    g = Smoothed(net(), Gaussian(0.25), 10, seed=method.seed)
    region = L2(1.5).region(x)
    clean = g.predict(x, 300, method.alpha / 2)
    assert torch.equal(c.prediction, clean)
    assert Reason.ATTACKED in c.reason and c.reason[-1] is Reason.MISCLASSIFIED
    for b, reason in enumerate(c.reason):
        assert (c.verdict[b] is Verdict.FALSIFIED) == (reason is not Reason.SURVIVED)
        if reason is Reason.ATTACKED:
            point = c.witness[b][None]
            assert bool(region.select(torch.tensor([b])).contains(point))
            said = int(g.predict(point, 300, method.alpha / 2, ids=[b]))
            assert said >= 0 and said != y[b]
    assert c.confidence == pytest.approx(1 - method.alpha)


def test_smoothed_attack_never_beats_a_certificate():
    x, y = inputs()
    for eps in (0.5, 0.2):
        proven = SmoothingCertifier(noise=Gaussian(0.25), n=1000)(graph(), x, y, L2(eps))
        broken = SmoothedAttackCertifier(noise=Gaussian(0.25), samples=8, n=300)(
            graph(), x, y, L2(eps)
        )
        fell = torch.tensor([v is Verdict.FALSIFIED for v in broken.verdict])
        assert not bool((proven.certified & fell).any())
    assert bool(proven.certified.any())


BALL = text(L2(0.5).to_json())


def test_claims_hold_the_whole_configuration():
    assert certifier("milp", timeout=3.0).claim(BALL) != certifier("milp").claim(BALL)
    for option in ({"n": 5000}, {"n0": 7}, {"alpha": 0.01}, {"noise": Gaussian(0.5)}, {"seed": 2}):
        assert certifier("smoothing", **option).claim(BALL) != certifier("smoothing").claim(BALL)
    assert SmoothedAttackCertifier(n=7).claim(BALL) != SmoothedAttackCertifier().claim(BALL)
