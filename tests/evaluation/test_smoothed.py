"""Figures of one smoothing run, against numbers by hand and against what they promise."""

import json
import math

import numpy as np
import pytest
from scipy.stats import beta
from tests.evaluation.fakes import fallen, row

from certus.core import ArgumentError
from certus.evaluation import certificates, figures

ABSTAINED = {"prediction": -1, "verdict": "unknown", "reason": "abstained", "radius": 0.0}


def smooth(index: int, radius: float, **changes: object) -> dict:
    """A certificate of this radius that took 100 + 10 * index samples."""
    record = {"n0": 50, "n": 50 + 10 * index, "alpha": 0.001, "shared": False}
    columns = {"method": "smoothing", "norm": "l2", "eps": None, "confidence": 0.999}
    own = row(index, radius=radius, **columns, evidence=json.dumps(record))
    return own | changes


ROWS = [smooth(0, 0.5), smooth(1, 0.25), smooth(2, 0.3, prediction=0), smooth(3, 0.0) | ABSTAINED]


def test_figures_by_hand() -> None:
    found = figures(ROWS, [0.0, 0.25, 0.4, 0.6])
    assert [f.value for f in found.certified] == [0.5, 0.5, 0.25, 0.0]
    assert {f.n for f in found.certified} == {4} and found.n == 4
    assert found.acr.value == 0.75 / 4 and found.abstained == 0.25
    assert (found.median_samples, found.samples) == (115.0, 460.0)
    assert (found.alpha, found.independent, found.median_seconds) == (0.001, True, 0.5)
    low = beta.ppf(0.05, 2, 3)
    assert found.population[0] == pytest.approx((low - 0.001) / 0.999, rel=1e-9)
    assert found.true == (2, 2, 1, 0) and found.population[3] == 0.0


def test_proofs_need_no_alpha() -> None:
    own = [r | {"confidence": 1.0, "evidence": json.dumps({"n": 8})} for r in ROWS]
    found = figures(own, [0.25])
    assert found.alpha == 0.0 and found.true == (2,) and found.samples == 32
    assert found.population[0] == pytest.approx(beta.ppf(0.05, 2, 3), rel=1e-9)


def test_shared_or_unknown_draws_say_less() -> None:
    many = [smooth(i, 0.5) for i in range(200)]
    shared = [
        r | {"evidence": r["evidence"].replace('"shared": false', '"shared": true')} for r in many
    ]
    unknown = [r | {"evidence": ""} for r in many]
    own, other, least = (figures(rows, [0.5]) for rows in (many, shared, unknown))
    assert own.independent and not other.independent and not least.independent
    assert own.true >= other.true and own.population > other.population
    assert least.population == pytest.approx(other.population, rel=1e-6)
    assert least.alpha == pytest.approx(0.001) and math.isnan(least.samples)


def test_the_statement_about_the_population_holds() -> None:
    """Half of the population is robust; the others get a false certificate with chance alpha."""
    rng, alpha, wrong = np.random.default_rng(5), 0.05, 0
    record = json.dumps({"alpha": alpha, "shared": False})
    for _ in range(400):
        robust = rng.random(60) < 0.5
        issued = robust | (rng.random(60) < alpha)
        rows = [
            smooth(i, 1.0 if hit else 0.0, evidence=record, confidence=1 - alpha)
            for i, hit in enumerate(issued)
        ]
        found = figures(rows, [0.5])
        assert found.true[0] <= issued.sum()
        wrong += found.population[0] > 0.5
    assert wrong <= 32  # 5% of 400, and three standard deviations


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "need certificates"),
        ([row(0)], "need certificates"),
        ([*ROWS, smooth(0, 0.1, run="other")], "its own alpha"),
        ([*ROWS, smooth(9, 0.1, evidence=json.dumps({"alpha": 0.01}))], "one alpha"),
        ([*ROWS, smooth(9, 0.1, model="other")], "one model"),
    ],
)
def test_what_is_no_single_run_is_refused(rows: list, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        figures(rows, [0.0])


def test_attacks_on_the_smoothed_classifier_are_no_certificates() -> None:
    attack = fallen(0, method="smoothed-pgd")
    assert certificates([*ROWS, attack, row(1)]) == ROWS
