"""Which cases the quick run takes, which every run, and which only the slow one."""

from collections.abc import Callable, Iterable, Sequence

import pytest

# What takes about a second or more a case, by the beginning of its name: none of it is quick.
LONG = (
    "tests/bounding/test_engine_corners.py::test_windows_that_meet_equal_whole_maps",
    "tests/bounding/test_rigorous.py",
    "tests/bounding/test_bound_laws.py::test_float32_bounds_agree_with_float64",
    "tests/bounding/test_real_networks.py",
    "tests/cli/test_errors.py::test_a_full_device_for_standard_output",
    "tests/cli/test_flow.py",
    "tests/evaluation/test_distribution_page.py",
    "tests/evaluation/test_ledger.py::test_an_upgrade_that_is_killed_leaves_the_old_ledger",
    "tests/evaluation/test_local.py",
    "tests/evaluation/test_run.py::test_kill_9",
    "tests/graph/test_capture.py::test_in_place_through_an_alias_is_refused_or_right",
    "tests/graph/test_fusion.py",
    "tests/graph/test_torch_architectures.py",
    "tests/test_structure.py::test_every_module_is_reachable",
    "tests/test_operations_page.py::test_the_page_is_up_to_date",
)


def rest_slow(cases: Iterable[tuple], chosen: Callable[..., bool]) -> list:
    """All cases as parameters; those not chosen, which take no path of their own, are slow."""
    marked = [pytest.param(*c, marks=() if chosen(*c) else pytest.mark.slow) for c in cases]
    assert any(not case.marks for case in marked), "no case is left for every run"
    return marked


def quick(names: Sequence[str], long: tuple[str, ...] = LONG) -> list[bool]:
    """Which of the cases the quick run takes: of every test the first and the last, if it is not long."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.split("[")[0], []).append(place)
    ends = {place for own in places.values() for place in (own[0], own[-1])}
    return [place in ends and not name.startswith(long) for place, name in enumerate(names)]
