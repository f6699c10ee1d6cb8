"""Settings as JSON: equal texts for equal settings, other texts for others, and back."""

import json
import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import pytest
import torch

from certus.core import ArgumentError
from certus.core.kinds import Kinds, parsed, text, to_json
from certus.evaluation.spelling import NOISES, RULES
from certus.smoothing import AnisotropicGaussian, Gaussian
from certus.smoothing.noise import GeneralGaussian, Truncated
from certus.smoothing.rules import AtRadius, Fixed


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Inner:
    size: float = 0.5
    names: tuple[str, ...] = ("a", "b")
    left_out: int = field(default=3, init=False)


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    limit: float = math.inf
    steps: int | None = None
    exact: bool = True


HERE = Kinds(Inner, Outer)


@pytest.mark.parametrize(
    "value",
    [
        Outer(),
        Outer(inner=Inner(-math.inf, ()), limit=1e-300, steps=0, exact=False),
        Outer(limit=0.1 + 0.2),
        Inner(names=("\u00fc", '"')),
        {"eps": None, "clip": (0.0, 1.0), "more": {"a": 1}},
    ],
)
def test_settings_come_back(value):
    told = text(value)
    assert HERE.from_json(parsed(told)) == value and text(HERE.from_json(parsed(told))) == told
    assert json.loads(told) == to_json(value)


@pytest.mark.parametrize(
    "value",
    [
        Gaussian(0.3),
        Fixed(n0=3, n=70),
        AtRadius(n0=1, n=2, radius=0.1),
        Truncated(GeneralGaussian(0.5, 3, 16), 0.8),
    ],
)
def test_noises_and_rules_come_back(value):
    known = Kinds(*NOISES.values(), *RULES.values())
    assert known.from_json(parsed(text(value))) == value


def test_other_settings_have_other_texts():
    values = [
        *(Inner(), Inner(0.5000000000000001), Inner(names=("b", "a")), Outer(), Outer(steps=0)),
        *(
            Outer(exact=False),
            Outer(limit=-math.inf),
            Outer(limit=math.nan),
            1,
            1.5,
            "1",
            True,
            None,
        ),
        *(torch.ones(2), torch.ones(2).double(), torch.ones(1, 2), torch.zeros(2), np.ones(3)),
        *(Colour.RED, torch.float16, torch.bfloat16, [1], ["1"], {"a": 1}, {"a": 2}),
        *(AnisotropicGaussian(torch.ones(4)), AnisotropicGaussian(2 * torch.ones(4))),
    ]
    assert len({text(value) for value in values}) == len(values)


def test_the_order_of_names_does_not_matter():
    assert text({"a": 1, "b": 2}) == text({"b": 2, "a": 1})
    assert text({"x", "y", "z"}) == text({"z", "y", "x"})


@pytest.mark.parametrize("value", [lambda: 0, object(), 1j, {1: 2}, Inner, b"bytes"])
def test_what_cannot_be_told_is_refused(value):
    with pytest.raises(ArgumentError, match="frozen dataclass") as caught:
        text({"value": value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "Path", "value": "/etc"},
        {"kind": "Inner", "size": 1, "colour": "red"},
        {"kind": ["Inner"]},
        {"kind": None},
        {"kind": "array", "dtype": "float32", "shape": [2], "sha256": "00"},
        {"kind": "Outer", "inner": {"kind": "Colour"}},
    ],
)
def test_only_known_kinds_are_made(told):
    with pytest.raises(ArgumentError):
        HERE.from_json(told)


@pytest.mark.parametrize("told", ["{", "nonsense", "[" * 100_000])
def test_damaged_texts_are_one_line(told):
    with pytest.raises(ArgumentError, match="not JSON") as caught:
        parsed(told)
    assert len(str(caught.value)) < 100
