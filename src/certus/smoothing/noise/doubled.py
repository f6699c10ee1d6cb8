"""The radius that follows from a class' probability under two laws of noise (Li et al. 2022, DSRS)."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq, root

from certus.core import ArgumentError
from certus.smoothing.noise.general_gaussian import (
    GeneralGaussian,
    given_up,
    increasing_root,
)
from certus.smoothing.noise.isotropic import Event
from certus.smoothing.noise.truncated import Truncated

_SHARES = (
    0.5,
    0.2,
    0.8,
    0.05,
    0.95,
)  # of the second law in the multipliers that a search starts at
_ENOUGH = 1e-8  # a solution of the three equations is taken when it is off by less
_WIDE = 1e3  # no logarithm of a multiplier that is looked for is larger


@lru_cache(maxsize=4096)
def doubled_radius(
    first: GeneralGaussian, second: GeneralGaussian | Truncated, lower: float, other: float
) -> float:
    """L2 radius (input units) within which a class keeps probability above 1/2 under `first`.

    lower and other bound the class' probability at x under `first` and under `second` from below.
    `second` is `first` with a smaller sigma, or cut from it. Never below first.radius(lower), which
    needs no second law, and never above the exact optimum: it is found as the solution of three
    equations (both probabilities are met, or the second alone, and 1/2 is reached), and then given up
    by a share of 1e-9 or more until weak duality confirms it (`Event.least`), which needs no
    optimality. Where no solution is found it is that of `first` alone.

    Only lower bounds enter, so both multipliers are >= 0 and smaller shifts are covered as well;
    upper bounds as in the paper's program would allow negative ones, for which it takes that for
    granted. Takes about 50 ms. Raises ArgumentError for laws that do not belong together and numbers
    outside [0, 1].
    """
    relation = second.relative_to(first)
    alone = float(first.radius(lower))
    if not 0 <= other <= 1:
        raise ArgumentError("a probability must lie in [0, 1]")
    rests = (1.0 - lower, 1.0 - other)
    if not 0 < alone < math.inf or rests[1] == 0:
        return alone
    event = replace(first.tightest(rests[0], alone), second=relation)
    if event.missed_second(first.nodes) <= rests[1]:
        return alone  # the worst event for `first` agrees with what `second` says
    found = _optimum(event, rests, first.nodes)
    if found is None:
        return alone
    unit = first.scale * math.sqrt(2)

    def holds(radius: float) -> bool:
        return replace(found, shift=radius / unit).least(*rests, 2 * first.nodes) > 0.5

    return max(alone, given_up(found.shift * unit, holds))


def _optimum(first: Event, rests: tuple[float, float], nodes: int) -> Event | None:
    """The event that the largest shift leaves 1/2 of; first is the one of the first law alone.

    Either both probabilities are met, or that of the second law alone decides.
    """
    assert first.second is not None
    squared = np.array([_typical(first, nodes)])
    level = first.log_first - float(first.second.log_ratio(squared)[0])
    found = _met(first, rests, nodes, [first.log_first - 0.7, level - 0.7])
    if found is not None:
        return found
    second = _second_alone(first, rests[1], nodes)
    if second is None or second.missed(nodes) <= rests[0]:
        return second
    for share in _SHARES:
        logs = [first.log_first + math.log(1 - share), second.log_second + math.log(share)]
        found = _met(first, rests, nodes, logs)
        if found is not None:
            return found
    return None


def _met(start: Event, rests: tuple[float, float], nodes: int, logs: list[float]) -> Event | None:
    """The event that meets both probabilities and keeps exactly 1/2, at a larger shift than `start`."""

    def event(values: np.ndarray) -> Event:
        log_first, log_second, shift = values.tolist()
        return replace(start, shift=abs(shift), log_first=log_first, log_second=log_second)

    def residual(values: np.ndarray) -> list[float]:
        if not np.isfinite(values).all() or np.abs(values).max() > _WIDE or values[2] == 0:
            return [1.0, 1.0, 1.0]
        found = event(values)
        missed, other = found.missed(nodes) / rests[0], found.missed_second(nodes) / rests[1]
        return [missed - 1, other - 1, found.held(nodes) - 0.5]

    answer = root(residual, [*logs, start.shift * 1.05], tol=1e-11)
    good = max(map(abs, answer.fun)) < _ENOUGH and abs(answer.x[2]) > start.shift
    return event(answer.x) if good else None


def _second_alone(first: Event, rest: float, nodes: int) -> Event | None:
    """The event that the largest shift leaves 1/2 of, given the second probability only."""

    def worst(shift: float) -> Event:
        event = replace(first, shift=shift, log_first=-math.inf)
        log = increasing_root(
            lambda value: rest - replace(event, log_second=value).missed_second(nodes), 0.0, _WIDE
        )
        return replace(event, log_second=log)

    low = high = first.shift
    while worst(high).held(nodes) > 0.5:
        low, high = high, 1.3 * high
    while worst(low).held(nodes) < 0.5:
        low, high = low / 1.3, low
        if low < 1e-3 * first.shift:
            return None
    return worst(brentq(lambda shift: worst(shift).held(nodes) - 0.5, low, high, xtol=1e-12))


def _typical(event: Event, nodes: int) -> float:
    """Mean squared length under the second law."""
    assert event.second is not None
    t, weight = event.second.lengths(event.law, nodes)
    return float(weight @ (t * t))
