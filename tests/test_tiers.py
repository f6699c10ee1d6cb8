"""No law is lost from a tier: the quick run keeps two cases of each, products keep some for every run."""

from pathlib import Path

import pytest
from tests.laws.tiers import LONG, quick, rest_slow

ROOT = Path(__file__).resolve().parents[1]


def test_the_quick_run_keeps_the_ends_of_every_test():
    names = ["f.py::a[1]", "f.py::b", "f.py::a[2]", "f.py::a[3-b[]]", "g.py::c[1]"]
    assert quick(names, ("g.py",)) == [True, True, False, True, False]


@pytest.mark.parametrize("name", LONG)
def test_what_is_long_exists(name):
    path, _, test = name.partition("::")
    assert f"def {test}" in (ROOT / path).read_text(encoding="utf-8")


def test_what_is_not_chosen_is_slow_and_nothing_is_dropped():
    found = rest_slow([(1, 2), (3, 4), (5, 6)], lambda a, b: a + b == 7)
    assert [case.values for case in found] == [(1, 2), (3, 4), (5, 6)]
    assert [[m.name for m in case.marks] for case in found] == [["slow"], [], ["slow"]]
    with pytest.raises(AssertionError, match="no case is left"):
        rest_slow([(1,)], lambda a: a > 1)
