"""Which cases the quick run takes, which every run, and which only the slow one."""

from collections.abc import Callable, Iterable, Sequence

import pytest


def rest_slow(cases: Iterable[tuple], chosen: Callable[..., bool]) -> list:
    """All cases as parameters; those not chosen, which take no path of their own, are slow."""
    marked = [pytest.param(*c, marks=() if chosen(*c) else pytest.mark.slow) for c in cases]
    assert any(not case.marks for case in marked), "no case is left for every run"
    return marked


def quick(cases: Sequence[tuple[str, bool]]) -> list[bool]:
    """Which of the cases (test id, whether it takes long) the quick run takes.

    Of every test the first and the last case, so that no law is left out but those that take long.
    """
    places: dict[str, list[int]] = {}
    for place, (name, _) in enumerate(cases):
        places.setdefault(name.split("[")[0], []).append(place)
    ends = {place for own in places.values() for place in (own[0], own[-1])}
    return [place in ends and not long for place, (_, long) in enumerate(cases)]
