"""Transcripts: honest rows are reproduced from their counts, dishonest ones are found out."""

import json
import math
import re

import pytest
import torch
from scipy.stats import beta, norm
from tests.evaluation.fakes import row

from certus.core import FileError
from certus.evaluation import audit, evidence_of, reproduced
from certus.evaluation.spelling import noise_of, rule_of
from certus.evaluation.transcript import PROVED, UNCHECKED, WRONG
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.derandomized import Columns, Splitting
from certus.smoothing.noise import (
    Ablation,
    AnisotropicGaussian,
    Flips,
    IntegerGaussian,
    Laplace,
    PixelAblation,
    Uniform,
)
from certus.smoothing.rules import (
    AtRadius,
    Fixed,
    FixedRandomized,
    Largest,
    Precision,
    TwoSided,
)

NOISES = [
    *(Gaussian(0.5), Laplace(0.3), Uniform(0.75), IntegerGaussian(0.25), Flips(0.9, 6)),
    *(Ablation(2, 6, 0.0), PixelAblation(2, 6, 0.0), Splitting(8, levels=5)),
]
RULES = [
    *(Fixed(n0=8, n=300), TwoSided(n0=8, n=300), FixedRandomized(n0=8, n=300)),
    *(Largest(n0=8, n=300), AtRadius(n0=8, n=300, radius=0.2), Precision(n0=8, n=300, width=0.3)),
]


def inputs(count: int = 12) -> torch.Tensor:
    """Images [count, 1, 2, 3] of zeros and ones: on every grid that a noise asks for."""
    draws = torch.rand(count, 1, 2, 3, generator=torch.Generator().manual_seed(4))
    return (draws > 0.5).float()


def model(x: torch.Tensor) -> torch.Tensor:
    """Three classes by the sum of the values; some inputs lie near a border, some far from all."""
    total = x.flatten(1).sum(1, keepdim=True)
    return torch.cat([2.2 - total, total - 3.4, 0.3 + 0 * total], 1)


def rows(noise: object, rule: object = None, seed: int = 0) -> list[dict]:
    """Rows of the smoothed model, each with its prediction as the label."""
    found = Smoothed(model, noise, 3, seed=seed).certify(inputs(), rule=rule)
    return [
        row(
            b,
            label=answer["prediction"],
            **{k: answer[k] for k in ("prediction", "reason", "radius", "confidence")},
            verdict="",
            method="smoothing",
            norm=noise.norm,
            eps=None,
            evidence=json.dumps(evidence),
        )
        for b, (answer, evidence) in enumerate(zip(found.to_rows(), found.evidence, strict=True))
    ]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("noise", NOISES[:-1], ids=repr)
def test_honest_rows_are_proved(noise: object, rule: object) -> None:
    if isinstance(rule, AtRadius) and noise.norm.startswith("l0"):
        rule = AtRadius(n0=8, n=300, radius=1.0)
    own = rows(noise, rule)
    states = [audit(r).state for r in own]
    assert set(states) == {PROVED}
    for r in own:
        found = reproduced(evidence_of(r))
        assert found is not None and found[0] == found[1]
        if r["radius"] > 0:
            assert found[0] == pytest.approx(r["radius"], rel=1e-12)


def test_proofs_from_all_copies_are_reproduced() -> None:
    own = rows(NOISES[-1])
    assert {audit(r).state for r in own} == {PROVED}
    sure = [r for r in own if r["radius"] > 0]
    assert sure and all(reproduced(evidence_of(r))[0] == r["radius"] for r in sure)
    record = evidence_of(sure[0]) | {"counts": [1, 7, 0], "class": 0}
    assert audit(sure[0] | {"evidence": json.dumps(record)}).state == WRONG


def claim(index: int = 0, **changes: object) -> dict:
    """A row of 995 hits among 1,000 under Gaussian noise of 1/2 at alpha 1/1000."""
    record = {
        "noise": {"kind": "Gaussian", "sigma": 0.5},
        "rule": {"kind": "Fixed", "n0": 100, "n": 1000},
        "n0": 100,
        "n": 1000,
        "alpha": 0.001,
        "seed": 0,
        "shared": False,
        "id": index,
        "class": 1,
        "counts": [5, 995],
    }
    columns = {
        "radius": 1.05,
        "method": "smoothing",
        "norm": "l2",
        "eps": None,
        "verdict": "",
        "confidence": 0.999,
    }
    own = {k: v for k, v in changes.items() if k in columns or k == "prediction"}
    record |= {k: v for k, v in changes.items() if k not in own}
    return row(index, **(columns | own), evidence=json.dumps(record))


def test_the_radius_is_that_of_clopper_and_pearson() -> None:
    found = reproduced(evidence_of(claim()))
    assert found[0] == found[1] == pytest.approx(0.5 * norm.ppf(beta.ppf(0.001, 995, 6)), rel=1e-9)
    assert audit(claim(radius=found[0])).state == PROVED
    assert audit(claim(radius=found[0] * 1.0001)).state == WRONG


STOPPED = {"rule": "AtRadius(n0=100, n=1000, radius=0.5)", "counts": [300, 700]}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"radius": 1.2}, "claims 1.2, its counts prove 1.0"),
        ({"radius": math.nan}, "claims nan"),
        ({"radius": math.inf}, "claims inf"),
        ({"counts": [300, 700]}, "claims 1.05"),
        ({"counts": [600, 400], "radius": 1e-6}, "claims 1e-06, its counts prove 0"),
        ({"counts": [5, 996]}, "do not add up"),
        ({"counts": [-5, 1005]}, "do not add up"),
        ({"counts": [[5, 995]]}, "do not add up"),
        ({"counts": [2**63 - 1, 1000, 2**63 - 1, 2]}, "do not add up"),
        ({"counts": [1000], "class": 0, "prediction": 0}, "do not add up"),
        ({"counts": [5.0, 995.0]}, "do not add up"),
        ({"counts": "many"}, ""),
        ({"class": 0}, "chose class 0|claims"),
        ({"class": 2}, "not among"),
        ({"class": -1}, "not among"),
        ({"prediction": 0}, "chose class 1"),
        ({"confidence": 0.9999}, "confidence"),
        ({"confidence": math.nan}, "confidence"),
        ({"alpha": 1e-6}, "claims 1.05"),
        ({"alpha": 1e-200}, "at least 1e-100"),
        ({"alpha": 0.0}, "strictly between"),
        ({"n": 500, "counts": [5, 495]}, "does not look after 500"),
        ({"noise": "Gaussian(sigma=0.25)"}, "claims 1.05"),
        ({"rule": "AtRadius(n0=100, n=1000, radius=0.5)"}, "claims 1.05"),
        ({"look": 500, "look_counts": [2, 498]}, "contradict each other"),
        (STOPPED | {"look": 192, "look_counts": [0, 192]}, "would have stopped after 192"),
        (STOPPED | {"look": 192, "look_counts": [301, -109]}, "do not add up"),
        (STOPPED | {"look": 32, "look_counts": [0, 31]}, "do not add up"),
        (STOPPED | {"look": 33, "look_counts": [3, 30]}, "contradict each other"),
        (STOPPED | {"look": 192, "counts": [10, 990], "look_counts": [11, 181]}, "contradict"),
        (STOPPED | {"look": 1000}, "claims 1.05"),
        ({"rule": "Precision(n0=100, n=1000, width=0.1)", "radius": 2.0}, "claims 2"),
    ],
)
def test_rows_that_claim_more_than_their_counts_are_wrong(changes: dict, why: str) -> None:
    found = audit(claim(**changes))
    assert found.state == WRONG
    assert re.search(why, found.why), found.why


@pytest.mark.parametrize("missing", ["n", "class", "seed", "id", "alpha"])
def test_rows_that_lack_a_part_are_wrong(missing: str) -> None:
    record = {k: v for k, v in evidence_of(claim()).items() if k != missing}
    assert audit(claim() | {"evidence": json.dumps(record)}).state == WRONG


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": "Cauchy(scale=1.0)"},
        {"noise": "Gaussian(sigma=0.50)"},
        {"noise": "Gaussian(sigma=-1.0)"},
        {"noise": "Gaussian(sigma=open('/etc/passwd'))"},
        {"noise": "Gaussian(scale=0.5)"},
        {"noise": repr(Columns(3))},
        {"noise": repr(AnisotropicGaussian(torch.ones(4)))},
        {"rule": "Peek(n0=100, n=1000)"},
    ],
)
def test_what_has_no_rule_here_is_not_checked(changes: dict) -> None:
    assert audit(claim(**changes)).state == UNCHECKED
    assert reproduced(evidence_of(claim(**changes))) is None


def test_of_old_a_converted_radius_is_only_known_not_to_be_too_large() -> None:
    small, large = claim(radius=0.01) | {"norm": "linf"}, claim(radius=1.2) | {"norm": "linf"}
    assert audit(small).state == UNCHECKED and audit(large).state == WRONG


def test_of_old_an_earlier_look_may_have_proved_more_but_not_anything() -> None:
    rule = {"rule": "AtRadius(n0=100, n=1000, radius=2.0)", "counts": [100, 900]}
    least, most = reproduced(evidence_of(claim(**rule)))
    assert 0 < least < most
    assert audit(claim(**rule, radius=least)).state == PROVED
    assert audit(claim(**rule, radius=most)).state == UNCHECKED
    assert audit(claim(**rule, radius=most * 1.001)).state == WRONG


def test_the_coin_of_a_randomized_bound_is_the_inputs_own() -> None:
    randomized = {"rule": "FixedRandomized(n0=100, n=1000)"}
    radii = [reproduced(evidence_of(claim(**randomized, seed=s)))[0] for s in range(8)]
    assert len(set(radii)) == 8 and min(radii) > reproduced(evidence_of(claim()))[0]
    best = radii.index(max(radii))
    states = {audit(claim(**randomized, seed=s, radius=radii[best])).state for s in range(8)}
    assert states == {PROVED, WRONG}


def test_rows_without_transcript_and_damaged_ones() -> None:
    assert evidence_of(row(0)) == {}
    assert audit(row(0, method="smoothing", eps=None)).state == UNCHECKED
    assert audit(row(0, verdict="unknown", reason="abstained")).state == PROVED
    for text in ("{", "[1]", "3", "nonsense", "[" * 100_000):
        with pytest.raises(FileError, match="damaged"):
            evidence_of(row(0, evidence=text))


@pytest.mark.parametrize("kind", [*NOISES, *RULES], ids=repr)
def test_noises_and_rules_are_known_by_their_text(kind: object) -> None:
    found = noise_of({"noise": repr(kind)}) or rule_of({"rule": repr(kind)})
    assert found == kind
