"""Masses of balls and of their complements under the standard normal law, to 1e-13 in any dimension."""

from functools import lru_cache
from math import sqrt

import numpy as np
from scipy.special import gammainc, gammaincc, ndtr

# A normal value, and the length of a normal vector, is farther off with chance below 1e-18.
_FAR = 9.0
_STRAIGHT = 1e-16  # a border that bends by less is straight
_ORDER = 16  # Gauss-Legendre nodes a panel
PANELS = 16


def mass(size: int, bend: float, level: float, panels: int = PANELS) -> float:
    """P(z_1 + bend |z|^2 <= level) for z of `size` independent standard normal values.

    The event is a half-space for bend = 0, a ball for bend > 0, the complement of a ball for bend < 0;
    its centre is at -1 / (2 bend) on the first axis, so that a ball that is nearly a half-space has a
    huge centre and radius, whose non-central chi-squared law is out of reach of the usual series.
    Here it is one integral with a smooth integrand: over the length of z_2, ..., where the cut through
    the ball along z_1 does not shrink to a point, otherwise over z_1, by the angle that it is seen at
    from the centre. `panels` is the number of pieces of the quadrature: two of them tell its error.
    """
    if abs(bend) * (sqrt(size) + _FAR) ** 2 < _STRAIGHT:
        return float(ndtr(level))
    squared = level / bend + 1 / (4 * bend * bend)  # radius of the ball, squared
    if size == 1 or squared > 1.5 * (sqrt(size - 1) + _FAR) ** 2:
        return _by_length(size, bend, level, panels)
    if squared <= 0:
        return 0.0 if bend > 0 else 1.0
    return _by_angle(size, bend, level, panels)


def _by_length(size: int, bend: float, level: float, panels: int) -> float:
    """Integral over the length of the other values: normal masses between the roots in z_1."""
    others, weight = _lengths(size - 1, panels)
    rest = level - bend * others
    square = 1 + 4 * bend * rest
    root = np.sqrt(np.maximum(square, 0.0))
    near, far = 2 * rest / (1 + root), -(1 + root) / (2 * bend)
    if bend > 0:
        found = np.where(square >= 0, ndtr(near) - ndtr(far), 0.0)
    else:
        found = np.where(square >= 0, ndtr(near) + ndtr(-far), 1.0)
    return float(weight @ found)


def _by_angle(size: int, bend: float, level: float, panels: int) -> float:
    """Integral over z_1: chi-squared masses of the other values."""
    centre = -1 / (2 * bend)
    radius = sqrt(level / bend + centre * centre)
    ends = np.arccos(np.clip([(centre + _FAR) / radius, (centre - _FAR) / radius], -1, 1))
    share, weight = _panels(panels)
    angle = ends[0] + (ends[1] - ends[0]) * share
    first = centre - radius * np.cos(angle)
    weight = weight * (ends[1] - ends[0]) * radius * np.sin(angle)
    weight = weight * np.exp(-first * first / 2) / sqrt(2 * np.pi)
    room = np.maximum((level - first - bend * first * first) / bend, 0.0)
    if bend > 0:
        return float(weight @ gammainc((size - 1) / 2, room / 2))
    beside = float(ndtr(centre - radius) + ndtr(-centre - radius))
    return float(weight @ gammaincc((size - 1) / 2, room / 2)) + beside


@lru_cache(maxsize=64)
def _lengths(free: int, panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared lengths of `free` standard normal values, and their weights."""
    if free == 0:
        return np.zeros(1), np.ones(1)
    low, high = max(0.0, sqrt(free) - _FAR), sqrt(free) + _FAR
    share, weight = _panels(panels)
    length = low + (high - low) * share
    log = -length * length / 2
    if free > 1:  # beside the mode, so that large terms cancel before they are rounded
        mode = sqrt(free - 1)
        log = (free - 1) * np.log(length / mode) - (length - mode) * (length + mode) / 2
    weight = weight * np.exp(log)
    return length * length, weight / weight.sum()


@lru_cache(maxsize=8)
def _panels(panels: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of so many pieces of [0, 1]."""
    node, weight = np.polynomial.legendre.leggauss(_ORDER)
    place = (np.arange(panels)[:, None] + (node + 1) / 2) / panels
    return place.ravel(), np.tile(weight / 2 / panels, panels)
