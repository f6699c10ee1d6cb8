"""Conversion of radii: a ball of one norm that lies within a ball of another."""

import math

import numpy as np

from certus.core import ArgumentError, validate
from certus.threats.norm import norm_of

Radius = float | np.ndarray


def convertible(source: str, target: str) -> bool:
    """Whether a radius in the norm `source` says anything about the norm `target`."""
    return norm_of(source).exponent(norm_of(target)) is not None


def converted(radius: Radius, source: str, target: str, size: int) -> np.ndarray:
    """The radius in the norm `target` that a certificate of this radius in `source` includes, float64.

    size is the number of values that an adversary may change: all of an input, as a rule. The largest
    such radius, rounded down: radius / size ** e with e = 1/2 from "l2" to "linf" and from "l1" to
    "l2", 1 from "l1" to "linf", 0 towards a larger norm. Radii of a norm in itself stay as they are.
    Raises ArgumentError for a pair that allows no conversion ("l0" bounds no other of them without
    limits on the values, nor is it bounded by one), a negative or NaN radius and size < 1.
    """
    validate.count(size, "size")
    exponent = norm_of(source).exponent(norm_of(target))
    if exponent is None:
        raise ArgumentError(
            f"a radius in {source} certifies nothing in {target}: choose a noise whose norm is "
            f"{target}, or one of l1, l2 and linf for both"
        )
    found = np.asarray(radius, dtype=np.float64)
    if not (found >= 0).all():
        raise ArgumentError("a radius must be a number >= 0")
    if exponent == 0.0 or size == 1:
        return found
    factor = math.sqrt(size) if exponent == 0.5 else float(size)
    # The root and the quotient are each off by half a unit in the last place.
    down = np.nextafter(np.nextafter(found / factor, 0.0), 0.0)
    return np.where(np.isfinite(found), down, found)
