"""Names of noises and rules: every row can be built, and what cannot be read is refused in one line."""

import pytest
import torch

from certus.core import ArgumentError
from certus.smoothing import Derandomized, Gaussian, Smoothed
from certus.smoothing.derandomized import Columns, Splitting
from certus.smoothing.names import NOISES, RULES, noise_named, rule_named
from certus.smoothing.noise import PixelAblation
from certus.smoothing.rules import AtRadius, Fixed
from certus.threats import NORMS

NUMBERS = {
    "gaussian": "0.5",
    "integer-gaussian": "0.5",
    "laplace": "0.5",
    "uniform": "0.5",
    "flips": "0.8",
}


@pytest.mark.parametrize("name", NOISES)
def test_every_noise_certifies_its_norm(name):
    kind = NOISES[name]
    grid = "/16" if kind.levels else ""
    noise = noise_named(f"{name}:{NUMBERS.get(name, '3')}{grid}", (1, 8, 8))
    assert noise.norm == kind.norm
    assert kind.norm in NORMS
    x = torch.randint(0, 17, (2, 1, 8, 8)) / 16

    def module(rows):
        return torch.stack([rows.flatten(1).sum(1), torch.full((len(rows),), 1e4)], 1)

    found = Smoothed(module, noise, 2).certify(x, n0=10, n=2000)
    assert found.prediction.tolist() == [1, 1]
    assert (found.radius > 0).all()
    assert found.confidence == (1.0 if isinstance(noise, Derandomized) else 0.999)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_built(name):
    rule = rule_named(f"{name}:0.3" if RULES[name].number else name, 10, 1000)
    assert (rule.n0, rule.n) == (10, 1000)
    assert rule.looks()[-1] == 1000


def test_what_the_numbers_mean():
    assert noise_named("gaussian:0.25", (3,)) == Gaussian(0.25)
    assert noise_named("splitting:12/16", (3,)) == Splitting(12, 16)
    assert noise_named("splitting:12", (3,)) == Splitting(12, 255)
    assert noise_named("columns:2", (1, 8, 8)) == Columns(2, 0.0)
    assert noise_named("columns:2/-1.5", (1, 8, 8)) == Columns(2, -1.5)
    assert noise_named("pixel-ablation:2/0.5", (3, 8, 8)) == PixelAblation(2, 64, 0.5)
    assert rule_named("at-radius:0.5", 1, 2) == AtRadius(radius=0.5, n0=1, n=2)
    assert rule_named("fixed", 1, 2) == Fixed(n0=1, n=2)


@pytest.mark.parametrize(
    "text",
    ["", "poisson:1", "gaussian", "gaussian:", "gaussian:x", "gaussian:0", "gaussian:nan", "columns:2.5",
     "columns:0", "columns:inf", "gaussian:1/255", "splitting:3/x", "splitting:3/0", "splitting:nan",
     "columns:2/", "columns:2/null", "ablation:2/nan", "rows:2/inf"],
)  # fmt: skip
def test_unreadable_noises(text):
    with pytest.raises(ArgumentError):
        noise_named(text, (1, 8, 8))


@pytest.mark.parametrize(
    "text", ["", "ever", "fixed:3", "at-radius", "at-radius:x", "at-radius:-1"]
)
def test_unreadable_rules(text):
    with pytest.raises(ArgumentError):
        rule_named(text, 10, 100)
