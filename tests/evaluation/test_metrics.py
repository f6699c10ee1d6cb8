"""Figures against numbers computed by hand."""

import json
import math
import random

import pytest
from tests.evaluation.fakes import fallen, retold, row

from certus.core import ArgumentError
from certus.evaluation import (
    attack_curve,
    average_certified_radius,
    clean_accuracy,
    curve,
    gap,
    summary,
)


def radius(index: int, value: float, **changes: object) -> dict:
    """A row of a method that gives a radius by itself."""
    return row(
        index, **({"radius": value, "eps": None, "verdict": "", "method": "lipschitz"} | changes)
    )


UNSURE = {"verdict": "unknown", "reason": "loose", "radius": 0.0}
ABSTAINED = {"prediction": -1, "verdict": "unknown", "reason": "abstained", "radius": 0.0}
RADII = [
    radius(0, 0.5),
    radius(1, 0.25),
    radius(2, 0.1),
    radius(3, 0.0, reason="misclassified", prediction=0),
]
DECIDED = [
    *[row(i, eps=0.1, run="a") for i in range(3)],
    row(3, eps=0.1, run="a", **UNSURE),
    *[row(i, eps=0.2, radius=0.2, run="b") for i in range(1)],
    *[row(i, eps=0.2, run="b", **UNSURE) for i in range(1, 4)],
]


@pytest.mark.parametrize(
    ("rows", "eps", "certified", "n"),
    [
        (RADII, 0.0, 3, 4),
        (RADII, 0.1, 3, 4),
        (RADII, 0.100001, 2, 4),
        (RADII, 0.25, 2, 4),
        (RADII, 0.5, 1, 4),
        (RADII, 0.51, 0, 4),
        (DECIDED, 0.0, 3, 4),
        (DECIDED, 0.1, 3, 4),
        (DECIDED, 0.15, 1, 4),
        (DECIDED, 0.2, 1, 4),
        (DECIDED, 0.3, 0, 4),
        (DECIDED[4:], 0.1, 1, 4),  # a certificate at a larger eps counts at a smaller one
        ([row(0, eps=0.7, radius=0.699999988079071)], 0.7, 1, 1),  # the radius was float32
        ([row(0, eps=0.1 * 3, radius=0.3)], 0.3, 1, 1),
        ([row(0, radius=math.nan)], 0.1, 1, 1),
        ([radius(0, math.nan)], 0.0, 0, 1),
        ([row(0, prediction=0)], 0.0, 0, 1),  # verified for a class that is not the label
        ([row(0, prediction=-1, label=-1)], 0.0, 0, 1),
        ([row(0, **ABSTAINED), row(1)], 0.0, 1, 2),
    ],
)
def test_certified_accuracy(rows: list, eps: float, certified: int, n: int) -> None:
    found = curve(rows, [eps])
    assert found.accuracy == (certified / n,) and found.n == (n,)
    assert found.low[0] <= certified / n <= found.high[0]


def test_the_interval_is_clopper_pearson() -> None:
    found = curve([row(i) for i in range(8)] + [row(i, **UNSURE) for i in (8, 9)], [0.1])
    # 8 of 10: the published exact 95% interval.
    assert found.low[0] == pytest.approx(0.4439, abs=1e-4)
    assert found.high[0] == pytest.approx(0.9748, abs=1e-4)
    none = curve([row(i, **UNSURE) for i in range(10)], [0.1])
    assert none.low == (0.0,) and none.high[0] == pytest.approx(1 - 0.025**0.1, abs=1e-9)


def test_every_point_carries_its_own_n() -> None:
    rows = [row(i, eps=0.1) for i in range(10)] + [row(i, eps=0.2, radius=0.2) for i in range(4)]
    found = curve(rows, [0.1, 0.2])
    assert found.n == (10, 4) and found.accuracy == (1.0, 1.0)


ATTACKED = [
    fallen(0, eps=0.1),
    row(1, eps=0.1, method="pgd", verdict="unknown", reason="survived"),
    fallen(1, eps=0.2),
    fallen(2, eps=0.1, prediction=0, reason="misclassified"),
    row(3, eps=0.1, method="pgd", verdict="unknown", reason="survived"),
    *[row(i, eps=0.2, method="pgd", verdict="unknown", reason="survived") for i in (0, 2, 3)],
]


@pytest.mark.parametrize(
    ("eps", "standing"), [(0.0, 3), (0.05, 3), (0.1, 2), (0.15, 2), (0.2, 1), (0.9, 1)]
)
def test_attack_accuracy(eps: float, standing: int) -> None:
    assert attack_curve(ATTACKED, [eps]).accuracy == (standing / 4,)


def test_several_attacks_count_together() -> None:
    rows = [fallen(0), row(1, method="pgd", verdict="unknown", reason="survived")]
    other = [row(0, method="fgsm", verdict="unknown", reason="survived"), fallen(1, method="fgsm")]
    assert attack_curve(rows, [0.1]).accuracy == (0.5,)
    assert attack_curve(rows + other, [0.1]).accuracy == (0.0,)


def test_radius_and_clean_accuracy() -> None:
    assert average_certified_radius(RADII).value == pytest.approx(0.85 / 4)
    assert average_certified_radius(DECIDED).value == pytest.approx((0.2 + 0.1 + 0.1) / 4)
    assert average_certified_radius(RADII).n == 4
    assert clean_accuracy(RADII).value == 0.75
    assert clean_accuracy([row(0, **ABSTAINED), row(1)]).value == 0.5
    assert math.isnan(clean_accuracy([]).value) and clean_accuracy([]).n == 0


@pytest.mark.parametrize("column", ["model", "data", "norm", "method"])
def test_figures_refuse_a_mixture(column: str) -> None:
    with pytest.raises(ArgumentError, match=f"one {column}"):
        curve([row(0), row(1, **{column: "other"})], [0.1])


def test_a_statistical_method_is_one_run() -> None:
    rows = [radius(0, 0.1, run="a", confidence=0.999), radius(0, 0.2, run="b", confidence=0.999)]
    with pytest.raises(ArgumentError, match="its own alpha"):
        curve(rows, [0.1])
    with pytest.raises(ArgumentError, match="its own alpha"):
        average_certified_radius(rows)
    assert [line["certified"] for line in summary(rows, grid=[0.15])] == [0.0, 1.0]


def test_base_and_smoothed_attacks_do_not_mix() -> None:
    with pytest.raises(ArgumentError, match="one subject"):
        attack_curve([fallen(0), fallen(1, method="smoothed-pgd")], [0.1])


def test_summary_by_hand() -> None:
    attacks = [{**r, "run": "c"} for r in ATTACKED if r["eps"] == 0.1]
    attacks += [fallen(0, eps=0.1, run="d", method="smoothed-pgd")]
    smooth = [retold(radius(0, 0.15, run="e") | {"method": "smoothing", "confidence": 0.999})]
    smooth += [{**smooth[0], **ABSTAINED, "index": 1, "seconds": 1.5}]
    cards = {"a": {"train_seconds": 12}}
    runs = [
        {"run": key, "settings": "{}", "card": json.dumps(cards.get(key, {}))} for key in "abcde"
    ]
    lines = summary(DECIDED + attacks + smooth, runs)
    table = {(line["method"], line["eps"]): line for line in lines}
    assert list(table) == [
        *[("crown", 0.1), ("crown", 0.2), ("pgd", 0.1), ("smoothed-pgd", 0.1)],
        *[("smoothing", 0.1), ("smoothing", 0.2)],
    ]
    first = table["crown", 0.1]
    assert (first["clean"], first["certified"], first["attack"], first["n"]) == (1.0, 0.75, 0.5, 4)
    assert first["train_seconds"] == 12 and first["median_seconds"] == 0.5
    assert first["acr"] == pytest.approx(0.1) and first["kind"] == "certificate"
    assert table["crown", 0.2]["certified"] == 0.25 and table["crown", 0.2]["attack"] == 0.5
    pgd = table["pgd", 0.1]
    assert (pgd["kind"], pgd["certified"], pgd["attack"], pgd["acr"]) == ("attack", None, 0.5, None)
    smoothing = table["smoothing", 0.1]
    assert (smoothing["certified"], smoothing["abstained"], smoothing["attack"]) == (0.5, 0.5, 0.0)
    assert smoothing["confidence"] == 0.999 and smoothing["median_seconds"] == 1.0
    assert table["smoothing", 0.2]["certified"] == 0.0


def test_summary_keeps_two_models_of_one_name_apart() -> None:
    runs = [{"run": key, "settings": "{}", "model_hash": key} for key in "ab"]
    lines = summary([row(0, run="a"), row(0, run="b", **UNSURE)], runs)
    assert [line["certified"] for line in lines] == [1.0, 0.0]


SURVIVED = {"method": "pgd", "verdict": "unknown", "reason": "survived", "radius": 0.0}


@pytest.mark.parametrize("seed", range(8))
def test_a_gap_is_about_the_inputs_that_both_sides_saw(seed: int) -> None:
    """Against counting one input after the other: proofs and attacks on random parts of 60 inputs."""
    draw = random.Random(seed)
    limit = [draw.uniform(0, 1) for _ in range(60)]  # robust below, attacked successfully above
    proven, attacked = (draw.sample(range(60), draw.randint(5, 50)) for _ in range(2))
    proofs = [radius(i, limit[i] * draw.uniform(0.3, 1)) for i in proven]
    attacks = [
        fallen(i, eps=eps) if eps > limit[i] else row(i, eps=eps, **SURVIVED)
        for i in attacked
        for eps in (0.25, 0.5)
    ]
    for eps in (0.25, 0.4, 0.5):
        level = 0.5 if eps == 0.5 else 0.25
        shared = set(proven) & set(attacked)
        open_ = [
            i
            for i in shared
            if level <= limit[i] and not next(r["radius"] for r in proofs if r["index"] == i) >= eps
        ]
        found = gap(proofs, attacks, eps)
        assert found.n == len(shared) and found.value == pytest.approx(len(open_) / len(shared))
        (line,) = [m for m in summary(proofs + attacks, grid=[eps]) if m["kind"] == "certificate"]
        assert (line["gap"], line["gap_n"], line["attack_n"]) == (found.value, found.n, found.n)
        assert line["n"] == len(proven) and line["inputs"] == tuple(sorted(proven))


def test_inputs_attacked_elsewhere_make_no_gap() -> None:
    proofs = [row(i) for i in range(10)]
    attacks = [fallen(i) for i in range(10, 20)] + [row(20, **SURVIVED)]
    assert gap(proofs, attacks, 0.1).n == 0
    first = summary(proofs + attacks)[0]
    assert (first["attack"], first["attack_n"], first["gap"], first["gap_n"]) == (None, 0, None, 0)
    late = [row(0, eps=0.2, **SURVIVED)]  # attacked at larger eps only
    assert math.isnan(gap(proofs, late, 0.1).value)
    assert gap(proofs, [*attacks, row(3, **SURVIVED), fallen(4)], 0.1).n == 2


def test_a_mean_radius_is_about_the_inputs_beside_it() -> None:
    rows = [row(i, run="a") for i in range(4)]
    rows += [row(i, eps=0.2, radius=0.2, run="b") for i in range(2)]
    found = {line["eps"]: (line["acr"], line["n"]) for line in summary(rows)}
    assert found == {0.1: (pytest.approx(0.15), 4), 0.2: (pytest.approx(0.2), 2)}
