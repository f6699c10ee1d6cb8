"""Another alpha after the fact: the same counts, the radii that they prove there."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.fakes import row
from tests.evaluation.test_audit import edited, sure
from tests.evaluation.test_audit import rows as evaluated
from tests.evaluation.test_transcript import claim, rows

from certus.core import ArgumentError
from certus.evaluation import (
    at_alpha,
    audit,
    average_certified_radius,
    curve,
    evidence_of,
    fitting,
    read,
)
from certus.evaluation.alpha import USUAL, implied_counts
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.noise import Laplace
from certus.smoothing.rules import AtRadius, Fixed
from certus.smoothing.statistics import lower_bound


@pytest.mark.parametrize("noise", [Gaussian(0.5), Laplace(0.3)], ids=repr)
@pytest.mark.parametrize(("n", "alpha"), [(100, 0.05), (1000, 0.001), (100_000, 0.01)])
def test_counts_are_found_from_radii_in_full(noise: object, n: int, alpha: float) -> None:
    hits = np.unique(np.linspace(0.75 * n, n, 60).astype(int))
    radii = noise.radius(lower_bound(hits, n, alpha))
    assert implied_counts(radii, noise, n, alpha).tolist() == hits.tolist()
    assert fitting(radii, noise, n) == [alpha]
    assert fitting(radii, noise, n + 7) == []
    printed = np.array([float(f"{r:.3}") for r in radii])
    assert alpha in fitting(printed, noise, n)


def test_one_wrong_digit_at_the_top_does_not_fit() -> None:
    radii = Gaussian(0.5).radius(lower_bound(np.arange(99_990, 100_001), 100_000, 0.001))
    printed = np.array([float(f"{r:.3}") for r in radii])
    assert fitting(printed, Gaussian(0.5), 100_000) == [0.001]
    printed[-1] += 0.01
    assert fitting(printed, Gaussian(0.5), 100_000) == []


def test_nothing_certified_fits_everything() -> None:
    assert fitting(np.zeros(3), Gaussian(0.5), 1000) == list(USUAL)


def test_rows_with_counts_are_those_of_a_run_at_that_alpha(monkeypatch: object) -> None:
    rule = Fixed(n0=8, n=300)
    strict = rows(Gaussian(0.5), rule)
    certify = Smoothed.certify
    monkeypatch.setattr(
        Smoothed, "certify", lambda self, x, rule: certify(self, x, alpha=0.05, rule=rule)
    )
    loose = rows(Gaussian(0.5), rule)
    found = at_alpha(strict, 0.05)
    for name in ("prediction", "radius", "confidence"):
        assert [r[name] for r in found if r["label"] >= 0] == [
            r[name] for r, s in zip(loose, strict, strict=True) if s["label"] >= 0
        ]
    assert {r["run"] for r in found} == {"r at alpha 0.05"}
    assert {audit(r).state for r in found} == {"proved"}
    assert {evidence_of(r)["from_alpha"] for r in found} == {0.001}
    back = at_alpha(found, 0.001)
    assert [r["radius"] for r in back] == [r["radius"] for r in strict]


def test_a_stricter_alpha_abstains_where_the_counts_are_too_few() -> None:
    own = claim(counts=[460, 540], radius=1e-3, alpha=0.05, confidence=0.95)
    found = at_alpha([own], 0.001)[0]
    assert (found["prediction"], found["verdict"], found["radius"]) == (-1, "", 0.0)
    assert found["reason"] == "abstained" and found["confidence"] == 0.999
    wrong = at_alpha([claim() | {"label": 0, "radius": 0.0}], 0.01)[0]
    assert (wrong["prediction"], wrong["reason"], wrong["radius"]) == (1, "wrong_class", 0.0)


@pytest.mark.parametrize(
    "bad",
    [
        claim(rule=repr(AtRadius(n0=100, n=1000, radius=0.5))),
        claim(noise="Cauchy(scale=1.0)"),
        claim(noise="Laplace(scale=1.0)") | {"norm": "linf"},
        claim() | {"norm": "linf"},
        row(0),
    ],
)
def test_what_cannot_be_converted_is_refused(bad: dict) -> None:
    with pytest.raises(ArgumentError):
        at_alpha([bad], 0.01)
    with pytest.raises(ArgumentError):
        at_alpha([claim()], 1.5)


def test_a_converted_radius_is_not_taken_to_another_alpha() -> None:
    own = sure(evaluated(Laplace(0.25), Fixed(n0=10, n=400), "l2"))
    assert {audit(r).state for r in own} == {"proved"}
    with pytest.raises(ArgumentError, match="converted to l2"):
        at_alpha(own, 1e-6)


DAMAGED = [
    ("n", [1], "n"),
    ("n", 10**400, "n"),
    ("n", 399, "399 samples"),
    ("alpha", [1], "alpha"),
    ("alpha", 0, "alpha"),
    ("noise", [1], "noise"),
    ("rule", None, "rule"),
    ("class", 3, "class"),
    ("class", -1, "class"),
    ("counts", [400], "counts"),
    ("counts", [1, 1, 1], "counts"),
    ("counts", [401, -1, 0], "counts"),
    ("counts", {"0": 400}, "counts"),
]


@pytest.mark.parametrize(("key", "value", "named"), DAMAGED, ids=lambda v: str(v)[:20])
def test_damaged_settings_are_refused_in_one_line(key: str, value: object, named: str) -> None:
    own = sure(evaluated(Gaussian(0.25), Fixed(n0=10, n=400)))[0]
    assert at_alpha([own], 1e-6)[0]["confidence"] == 1 - 1e-6
    with pytest.raises(ArgumentError, match=named) as caught:
        at_alpha([edited(own, **{key: value})], 1e-6)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


# Published logs at alpha .01, converted to .001: radius -> share, and the average certified radius.
CONVERTED = [
    ("imagenet__resnet50__noise_0.25__test__sigma_0.25", {0.75: 0.372, 0.954: 0.0}, 0.468),
    ("imagenet__resnet50__noise_0.50__test__sigma_0.50", {1.5: 0.28}, 0.720),
    (
        "imagenet__resnet50__noise_1.00__test__sigma_1.00",
        *({1: 0.324, 2.5: 0.144, 3: 0.12, 3.5: 0.088}, 0.864),
    ),
    ("cifar10__resnet110__noise_0.25__test__sigma_0.25", {0.75: 0.258}, 0.423),
    (
        "cifar10__resnet110__noise_0.50__test__sigma_0.50",
        *({0: 0.65, 1: 0.232, 1.25: 0.15, 1.5: 0.09, 1.75: 0.048}, 0.533),
    ),
    (
        "cifar10__resnet110__noise_1.00__test__sigma_1.00",
        *({0.5: 0.338, 1: 0.212, 2: 0.098}, 0.539),
    ),
]


@pytest.mark.parametrize(("name", "accuracy", "acr"), CONVERTED)
def test_published_logs_at_a_thousandth(
    shared_data: Path, name: str, accuracy: dict, acr: float
) -> None:
    found = at_alpha(read(shared_data / "cohen_logs" / f"{name}.tsv"), 0.001)
    assert curve(found, accuracy).accuracy == pytest.approx(tuple(accuracy.values()), abs=5e-4)
    assert average_certified_radius(found).value == pytest.approx(acr, abs=5e-4)
    assert all(json.loads(r["evidence"])["from_alpha"] == 0.01 for r in found)
