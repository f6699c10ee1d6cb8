"""Audits of rows that the certifier itself wrote to a ledger: every noise and rule, honest and tampered."""

import json
import math
from collections.abc import Callable
from functools import cache
from inspect import isabstract
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from tests.evaluation.fakes import Data, row

import certus
from certus.certifiers.smoothing import SmoothingCertifier
from certus.core.results import statistical
from certus.evaluation import (
    Job,
    Ledger,
    at_alpha,
    audit,
    evaluate,
    evidence_of,
    reproduced,
    spelling,
)
from certus.evaluation.transcript import PROVED, UNCHECKED, WRONG
from certus.smoothing import Derandomized, DoubleSampling, Gaussian, Noise, derandomized
from certus.smoothing import noise as noise_package
from certus.smoothing import rules as rules_package
from certus.smoothing.derandomized import Columns, Windows
from certus.smoothing.names import NOISES, RULES, noise_named, rule_named
from certus.smoothing.noise import (
    AnisotropicGaussian,
    ElasticGaussian,
    Flips,
    GeneralGaussian,
    Laplace,
    PixelAblation,
    SparseFlips,
    Truncated,
    Uniform,
)
from certus.smoothing.rules import AtRadius, Fixed, Precision, Rule
from certus.threats import NORMS

Row = dict[str, Any]

SHAPE = (1, 4, 4)
NUMBERS = {"flips": "0.9", "splitting": "20", "columns": "1", "rows": "1", "blocks": "2"}
NAMED = {
    name: noise_named(f"{name}:{NUMBERS.get(name, '0.25')}", SHAPE)
    for name in NOISES
    if "ab" not in name
}
NAMED |= {name: noise_named(f"{name}:2", SHAPE) for name in NOISES if "ablation" in name}
OTHERS = {
    "general": GeneralGaussian(0.5, 2, 16),
    "elastic": ElasticGaussian(0.25, 0.05, 16, 1e-6),
    "sparse": SparseFlips(0.2, 0.3, 16),
}
RATIO = {"at-radius": ":0.1", "precision": ":0.5"}
ONE_LOOK = Fixed(n0=10, n=400)

CASES = [
    (name, noise, rule)
    for name, noise in (NAMED | OTHERS).items()
    for rule in ([None] if isinstance(noise, Derandomized) else RULES)
]


def inputs(count: int) -> torch.Tensor:
    """Images [count, 1, 4, 4] of zeros and ones, on every grid: one value alone, some of each, nearly all."""
    share = torch.linspace(0.0, 1.0, count)[:, None]
    draws = torch.rand(count, 16, generator=torch.Generator().manual_seed(3))
    return (draws < share).float().view(count, *SHAPE)


@cache
def graph() -> certus.Graph:
    """Three classes by the sum of the values."""
    layer = torch.nn.Linear(16, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0], [0.0]]).expand(3, 16))
        layer.bias.copy_(torch.tensor([6.2, -7.4, -1.0]))
    return certus.trace(torch.nn.Sequential(torch.nn.Flatten(), layer).eval(), inputs(1))


def rows(
    noise: Noise | Derandomized, rule: Rule | None = None, norm: str = "", count: int = 4
) -> list[Row]:
    """Rows of an evaluation in a ledger; labels are the network's answers."""
    x = inputs(count)
    job = Job(
        model=graph(),
        model_name="sum",
        model_hash="sum",
        data=Data(x, graph()(x).argmax(1)),
        certifier=SmoothingCertifier(noise=noise, rule=rule, block=count, quantised=True),
        threat=NORMS[norm or noise.norm.removesuffix("-pixels")](0.0, (0.0, 1.0)),
    )
    with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        return evaluate(job, ledger)


def sure(found: list[Row]) -> list[Row]:
    """Those that certify something."""
    assert {r["verdict"] for r in found} == {""}, "a radius is about no threat of its own"
    kept = [r for r in found if r["radius"] > 0]
    assert kept and all(r["prediction"] == r["label"] for r in kept)
    return kept


def edited(own: Row, **changes: Any) -> Row:
    """The row with other parts of its transcript; None takes a part away."""
    record = {k: v for k, v in (evidence_of(own) | changes).items() if v is not None}
    return own | {"evidence": json.dumps(record)}


def halved(own: Row) -> Row:
    """Half of the hits go to the next class, at all looks that were kept."""
    record = evidence_of(own)
    for key in {"counts", "look_counts"} & set(record):
        counts, chosen = record[key], record["class"]
        moved = counts[chosen] // 2 + 1
        counts[chosen] -= moved
        counts[chosen - 1] += moved
    return edited(own, **record)


TAMPERED: dict[str, Callable[[Row], Row]] = {
    "radius": lambda own: own | {"radius": own["radius"] * 1.01},
    "prediction": lambda own: own | {"prediction": (own["prediction"] + 1) % 3},
    "class": lambda own: edited(own, **{"class": (own["prediction"] + 1) % 3}),
    "other class": lambda own: edited(
        own | {"prediction": (own["prediction"] + 1) % 3}, **{"class": (own["prediction"] + 1) % 3}
    ),
    "confidence": lambda own: own | {"confidence": own["confidence"] + 5e-4},
    "hits": halved,
    "one count more": lambda own: edited(
        own, counts=[evidence_of(own)["counts"][0] + 1, *evidence_of(own)["counts"][1:]]
    ),
    "samples": lambda own: edited(own, n=evidence_of(own)["n"] + 1),
    "another input": lambda own: own | {"index": own["index"] + 1},
}


@pytest.mark.parametrize(
    ("name", "noise", "rule"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_every_row_is_proved_and_every_change_of_it_is_found(
    name: str, noise: Noise | Derandomized, rule: str | None
) -> None:
    ratio = (
        ":1" if rule == "at-radius" and noise.norm.startswith("l0") else RATIO.get(rule or "", "")
    )
    made = rule_named(f"{rule}{ratio}", 10, 400) if rule else None
    own = rows(noise, made)
    assert {audit(r) for r in own} == {audit(row(verdict="unknown"))}, name
    for r in sure(own):
        found = reproduced(evidence_of(r))
        assert found == pytest.approx((r["radius"],) * 2, rel=1e-12)
        states = {change: audit(make(r)).state for change, make in TAMPERED.items()}
        assert set(states.values()) == {WRONG}, states


@pytest.mark.parametrize("noise", [*NAMED.values(), *OTHERS.values()], ids=repr)
def test_another_shape_is_found_where_the_proof_needs_it(noise: Noise | Derandomized) -> None:
    own = sure(rows(noise, None if isinstance(noise, Derandomized) else ONE_LOOK))[0]
    needed = hasattr(noise, "size")
    for shape in ([1, 5, 5], [1, 3, 3], [1, 4, 4, 2], [16], [5]):
        other = audit(edited(own, shape=shape)).state
        if len(shape) == 3 or not needed:
            assert other == (WRONG if needed else PROVED), shape
    for shape in ([], [0, 4, 4], [1.0, 4, 4], ["1"], "144", 16, [-1, -4, 4], {"1": 1}):
        assert audit(edited(own, shape=shape)).state == WRONG, shape
    assert audit(edited(own, shape=[1, 2**13, 2**13])).state == UNCHECKED
    lost = isinstance(noise, Windows) or noise.norm != own["norm"]
    assert audit(edited(own, shape=None)).state == (UNCHECKED if lost else PROVED)


@pytest.mark.parametrize(
    ("noise", "norm", "factor"),
    [
        (Gaussian(0.25), "linf", 4.0),
        (Gaussian(0.25), "l1", 1.0),
        (Laplace(0.25), "linf", 16.0),
        (Uniform(0.5), "l2", 4.0),
        (PixelAblation(2, 16, 0.0), "l0", 1.0),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_converted_radii_are_proved(noise: Noise, norm: str, factor: float) -> None:
    for own in sure(rows(noise, ONE_LOOK, norm)):
        assert audit(own) == audit(row(verdict="unknown"))
        assert reproduced(evidence_of(own))[0] == pytest.approx(own["radius"] * factor)
        assert {audit(make(own)).state for make in TAMPERED.values()} == {WRONG}
        assert audit(edited(own, shape=[3, 4, 4])).state == (WRONG if factor > 1 else PROVED)
        old = edited(own, shape=None)
        assert audit(old).state == UNCHECKED and "shape" in audit(old).why
        assert audit(old | {"radius": own["radius"] * factor * 1.01}).state == WRONG


def test_a_norm_that_the_noise_says_nothing_about() -> None:
    own = rows(Gaussian(0.25), ONE_LOOK, "l0")
    assert {audit(r).state for r in own if math.isnan(r["radius"])} == {UNCHECKED}
    assert audit(own[0] | {"radius": 1.0}).state == WRONG


@pytest.mark.parametrize(
    "rule", [AtRadius(n0=10, n=3000, radius=0.4), Precision(n0=10, n=3000, width=0.2)], ids=repr
)
def test_a_bound_from_an_earlier_look_is_proved_by_the_counts_of_that_look(rule: Rule) -> None:
    own = sure(rows(Gaussian(0.5), rule, count=90))
    assert {audit(r) for r in own} == {audit(row(verdict="unknown"))}
    early = [r for r in own if evidence_of(r)["look"] < evidence_of(r)["n"]]
    late = [r for r in own if "look_counts" not in evidence_of(r)]
    assert len(early) > 3 and len(late) > 3 and len(early) + len(late) == len(own)
    for r in early:
        record = evidence_of(r)
        look, first = record["look"], record["look_counts"]
        assert sum(first) == look and look in rule.looks()
        last = edited(r, look=record["n"], look_counts=None)
        assert reproduced(evidence_of(last))[0] < r["radius"] and audit(last).state == WRONG
        assert audit(edited(r, look=None, look_counts=None)).state == UNCHECKED  # as of old
        other = [k - sum(first) for k in record["counts"]]
        changes = (
            {"look": look + 1},
            {"look": look + 1, "look_counts": [first[0] + 1, *first[1:]]},
            {"look_counts": None},
            {"look_counts": other},
            {"look_counts": first[:2]},
            {"look": -1},
            {"look": record["n"] + 1},
            {"look": str(look)},
        )
        states = [audit(edited(r, **change)).state for change in changes]
        assert set(states) == {WRONG}, states


def test_two_laws_are_proved_by_the_counts_under_both() -> None:
    first = GeneralGaussian(0.5, 2, 16)
    x, gained = inputs(5), 0
    for second in (GeneralGaussian(0.4, 2, 16), Truncated(first, 0.75)):
        found = DoubleSampling(graph().original, first, second, 3).certify(x, 10, 400, 400)
        for answer, evidence in zip(found.to_rows(), found.evidence, strict=True):
            keys = ("prediction", "verdict", "radius", "confidence")
            own = row(
                evidence["id"],
                method="smoothing",
                norm="l2",
                eps=None,
                **{k: answer[k] for k in keys},
            )
            own |= {"evidence": json.dumps(evidence)}
            if answer["verdict"] != "verified":
                continue
            assert audit(own) == audit(row(verdict="unknown"))
            assert {audit(make(own)).state for make in TAMPERED.values()} == {WRONG}
            if evidence["radius"] > evidence["first_radius"]:
                gained += 1
                fewer = [80, 80, 80]
                fewer[evidence["class"]] = 240
                assert audit(edited(own, second_counts=fewer)).state == WRONG
            assert audit(edited(own, second_counts=[200, 200])).state == WRONG
            assert audit(edited(own, second="Gaussian(sigma=0.1)")).state == UNCHECKED
            assert audit(edited(own, second=repr(GeneralGaussian(0.4, 3, 16)))).state == WRONG
            assert audit(edited(own, noise="Gaussian(sigma=0.5)")).state == WRONG
    assert gained > 0


def test_every_noise_and_rule_is_in_a_table() -> None:
    tables = spelling.NOISES | spelling.RULES | spelling.HASHED
    for package in (noise_package, derandomized, rules_package):
        for name, kind in vars(package).items():
            if isinstance(kind, type) and issubclass(kind, Noise | Derandomized | Rule):
                assert name in tables or isabstract(kind), name


def test_noises_that_a_hash_stands_for_are_not_checked_and_say_why() -> None:
    own = sure(rows(AnisotropicGaussian(torch.linspace(0.2, 0.4, 16).view(SHAPE)), ONE_LOOK))[0]
    found = audit(own)
    assert found.state == UNCHECKED and "hash" in found.why


NASTY = [
    *(None, "", "Gaussian(", "Gaussian()", "Gaussian(sigma=0.5", "a(" * 100, "x" * 10_000, -1, 0.5),
    *(float("nan"), float("inf"), 10**30, True, [], {}, [[1, 2], [3]], [float("nan")], [10**30, 1]),
    *(
        "Truncated(whole=Truncated(whole=1, mass=0.5), mass=0.5)",
        "Gaussian(sigma=" + "9" * 390 + ")",
    ),
    *(
        "Flips(keep=nan, size=16, levels=1)",
        "Columns(size=0, null=None)",
        "Uniform(half_width=inf)",
    ),
    *([2**63 - 1, 2**63 - 1, 402, 0], {"a": 1}, "Fixed(n0=1, n=1e400)"),
]


@pytest.mark.parametrize("noise", [Gaussian(0.25), Columns(1, 0.0), Flips(0.9, 16)], ids=repr)
@pytest.mark.parametrize("key", ["noise", "rule", "alpha", "class", "counts", "n", "look"])
def test_nothing_that_cannot_be_read_is_an_exception_or_proved(
    noise: Noise | Derandomized, key: str
) -> None:
    proof = isinstance(noise, Derandomized)
    own = sure(rows(noise, None if proof else ONE_LOOK))[0]
    if proof and key in ("rule", "alpha", "look"):  # a proof has none of them
        return
    for value in NASTY:
        if value is None and key == "look":
            continue  # as of old
        record = evidence_of(own) | {key: value}
        if value is True and record[key] == evidence_of(own)[key]:
            continue
        assert audit(own | {"evidence": json.dumps(record)}).state in (WRONG, UNCHECKED), value
    for text in ("{", "[1]", "[" * 100_000, '{"counts": }', "3"):
        assert audit(own | {"evidence": text}).state == WRONG


@pytest.mark.parametrize("alpha", [1e-10, 1e-20])
def test_a_tiny_alpha_makes_no_proof(alpha: float) -> None:
    own = edited(sure(rows(Gaussian(0.25), Fixed(n0=10, n=400)))[0], alpha=alpha)
    proven = reproduced(evidence_of(own))
    assert proven is not None
    own |= {"radius": proven[0], "confidence": statistical(alpha)}
    assert own["confidence"] < 1 and audit(own).state == PROVED
    assert audit(own | {"confidence": 1.0}).state == WRONG
    assert audit(own | {"eps": 5.0, "verdict": "verified"}).state == WRONG
    (again,) = at_alpha([own], alpha / 10)
    assert again["confidence"] < 1 and audit(again).state == PROVED
