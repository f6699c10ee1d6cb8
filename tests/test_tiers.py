"""No law is lost from a tier: the quick run keeps two cases of each, products keep some for every run."""

import pytest
from tests.laws.tiers import quick, rest_slow


def test_the_quick_run_keeps_the_ends_of_every_test():
    cases = [("a[1]", False), ("b", False), ("a[2]", False), ("a[3-b[]]", False), ("c[1]", True)]
    assert quick(cases) == [True, True, False, True, False]


def test_what_is_not_chosen_is_slow_and_nothing_is_dropped():
    found = rest_slow([(1, 2), (3, 4), (5, 6)], lambda a, b: a + b == 7)
    assert [case.values for case in found] == [(1, 2), (3, 4), (5, 6)]
    assert [[m.name for m in case.marks] for case in found] == [["slow"], [], ["slow"]]
    with pytest.raises(AssertionError, match="no case is left"):
        rest_slow([(1,)], lambda a: a > 1)
