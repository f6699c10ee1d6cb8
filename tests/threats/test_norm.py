"""One record for each norm: it fits the balls, its conversions hold, and every help names it."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from certus.cli import commands
from certus.core import ArgumentError
from certus.core.kinds import text
from certus.threats import NORMS, Box, Linf
from certus.threats.norm import norm_of
from certus.threats.norms import of_json


def test_every_ball_has_a_record():
    for name, ball in NORMS.items():
        known = norm_of(name)
        assert known.name == name and "{size}" in known.clause
        threat = ball(1, (0.0, 1.0))
        assert known.counts == (type(threat.eps) is int and known.order is None)


@pytest.mark.parametrize(("p", "q"), [*itertools.product(("l1", "l2", "linf"), repeat=2)])
def test_the_exponent_is_the_least_that_holds(p, q):
    one, other = norm_of(p), norm_of(q)
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 40):
        changes = [rng.standard_normal((500, size)), np.eye(size), np.ones((1, size))]
        ratio = max(
            (np.linalg.norm(d, one.order, axis=1) / np.linalg.norm(d, other.order, axis=1)).max()
            for d in changes
        )
        assert math.isclose(ratio, size ** one.exponent(other), rel_tol=1e-12)


def test_counts_convert_to_nothing_but_what_lies_within():
    counts = ("l0", "l0-pixels", "patch")
    for one, other in itertools.product(counts, NORMS):
        expected = 0.0 if one == other or (one, other) == ("l0-pixels", "l0") else None
        assert norm_of(one).exponent(norm_of(other)) == expected
        if one != other and other not in counts:
            assert norm_of(other).exponent(norm_of(one)) is None


def test_dual_norms():
    assert [norm_of(n).dual for n in ("l1", "l2", "linf", "l0")] == [math.inf, 2.0, 1.0, None]


def test_a_name_may_end_in_a_hash_or_be_unknown():
    assert norm_of("box:1a2b").symbol == "box" and not norm_of("box").counts
    assert norm_of("rotation").symbol == "rotation" and not norm_of("rotation").counts


@pytest.mark.parametrize("command", [commands.certify_command, commands.compare_command])
def test_help_names_every_norm(command):
    assert all(name in command.__doc__ for name in NORMS)


@pytest.mark.parametrize("clip", [(0.0, 1.0), (-1.5, 2.0), (0, 255)])
@pytest.mark.parametrize("name", NORMS)
def test_balls_are_data_and_back(name, clip):
    threat = NORMS[name](2, clip)
    again = of_json(json.loads(text(threat.to_json())))
    assert type(again) is type(threat) and (again.eps, again.clip) == (threat.eps, clip)
    assert again.to_json() == threat.to_json()


def test_what_has_no_single_size_is_a_hash():
    each = Linf(torch.tensor([0.1, 0.2]))
    assert each.to_json() != Linf(torch.tensor([0.1, 0.3])).to_json()
    box = Box(torch.zeros(1, 2), torch.ones(1, 2))
    for told in (
        each.to_json(),
        box.to_json(),
        {"kind": "linf"},
        {"kind": "l3", "eps": 1, "clip": None},
        3,
    ):
        with pytest.raises(ArgumentError):
            of_json(told)
