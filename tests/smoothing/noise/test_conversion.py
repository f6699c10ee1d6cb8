"""Radii of one norm in another: the largest ball inside, rounded down, or a refusal."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from certus.core import ArgumentError
from certus.core.random import generator
from certus.smoothing.noise import converted, convertible

ORDER = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}


@pytest.mark.parametrize("source", ORDER)
@pytest.mark.parametrize("target", ORDER)
@pytest.mark.parametrize("size", [1, 3, 784])
def test_the_ball_lies_inside_and_touches(source, target, size):
    radius = float(converted(1.7, source, target, size))
    drawn = torch.randn(200, size, generator=generator(1), dtype=torch.float64)
    corner = torch.ones(1, size, dtype=torch.float64)
    axis = torch.eye(size, dtype=torch.float64)[:1]
    points = torch.cat([drawn, drawn.sign(), corner, axis])
    points *= radius / points.norm(ORDER[target], dim=1, keepdim=True)
    reach = points.norm(ORDER[source], dim=1)
    assert float(reach.max()) == pytest.approx(1.7, rel=1e-12)


@pytest.mark.parametrize(
    ("source", "target", "power"), [("l1", "l2", 1), ("l2", "linf", 1), ("l1", "linf", 2)]
)
def test_conversion_rounds_down(source, target, power):
    for size in (2, 3, 7, 784, 3072, 150528):
        for radius in (0.1, 1 / 3, 1.0, 2.2, 1e-30):
            found = Fraction(float(converted(radius, source, target, size)))
            assert found**2 * size**power <= Fraction(radius) ** 2  # exact arithmetic
            assert float(found) * size ** (power / 2) == pytest.approx(radius, rel=1e-15)


def test_arrays_keep_their_shape_and_infinity():
    found = converted(np.array([[0.0, 1.0, np.inf]]), "l2", "linf", 4)
    assert found.shape == (1, 3)
    assert found[0, 0] == 0
    assert found[0, 1] == pytest.approx(0.5)
    assert found[0, 2] == np.inf
    assert float(converted(3.0, "l0", "l0", 5)) == 3


@pytest.mark.parametrize(("source", "target"), [("l0", "l2"), ("l2", "l0"), ("patch", "linf")])
def test_other_pairs_are_refused_by_name(source, target):
    assert not convertible(source, target)
    with pytest.raises(ArgumentError, match=f"{source} certifies nothing in {target}"):
        converted(1.0, source, target, 9)


@pytest.mark.parametrize("radius", [-1.0, float("nan")])
def test_bad_radius_and_size(radius):
    with pytest.raises(ArgumentError, match="radius"):
        converted(radius, "l2", "linf", 9)
    with pytest.raises(ArgumentError, match="size"):
        converted(1.0, "l2", "linf", 0)
