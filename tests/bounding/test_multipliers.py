"""Slopes survive the call that found them, and a later bound may start from them."""

from dataclasses import replace

import pytest
import torch
from tests.laws.networks import example, graph_of

from certus.bounding import AlphaCrown, Crown
from certus.bounding.alphas import Alphas
from certus.bounding.backward import Walk
from certus.bounding.maps import Maps
from certus.bounding.multipliers import Multipliers
from certus.core import ArgumentError
from certus.graph.activation import Relu
from certus.threats import Linf

METHODS = {
    "whole": AlphaCrown(iterations=6, inner=1),
    "shared": AlphaCrown(iterations=6, inner=1, shared=True),
    "pieces": AlphaCrown(iterations=6, inner=1, memory=20_000),
    "shared-pieces": AlphaCrown(iterations=6, inner=1, memory=1, shared=True),
    "rigorous": AlphaCrown(iterations=6, inner=1, rigorous=True),
}
ROUNDING = 1e-9


def case(eps=0.3, batch=3, name="relu"):
    graph, x = graph_of(name).resolved(), example(name, batch)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(4, batch, *graph.output_shape, generator=generator, dtype=torch.float64)
    return graph, Linf(eps, clip=None).region(x), rows


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["relu", "leaky", "residual"])
def test_slopes_prove_the_bounds_that_they_come_with(name, method):
    """A walk with these slopes and no search finds them again; so does a search that starts there."""
    graph, region, rows = case(name=name)
    how = METHODS[method]
    state = how.prepare(graph, region)
    found, slopes = how.improved(state, rows)
    assert torch.equal(found, how.lower(state, rows))
    assert slopes.slopes and not any(t.requires_grad for t in slopes.slopes.values())
    with torch.no_grad():
        walk = Walk(state, alphas=Alphas(given=slopes.slopes))
        again = walk.run(graph.output, Maps(rows))
    later, _ = how.improved(state, rows, slopes)
    if method == "shared":  # the best of every row may come from slopes of its own
        assert len(next(iter(slopes.slopes.values()))) == 1
        assert bool((later.sum(0) >= again.sum(0) - ROUNDING).all())
        return
    assert bool((again >= found - ROUNDING).all() & (later >= found - ROUNDING).all())


def test_a_start_helps():
    """Steps from where others have led are not lost, on this region and on a smaller one."""
    graph, region, rows = case()
    few, many = AlphaCrown(iterations=1, inner=1), AlphaCrown(iterations=30, inner=1)
    state = few.prepare(graph, region)
    _, slopes = many.improved(state, rows)
    cold, warm = few.improved(state, rows)[0], few.improved(state, rows, slopes)[0]
    assert bool((warm >= cold - ROUNDING).all()) and float((warm - cold).max()) > 1e-3
    small = few.prepare(graph, case(eps=0.29)[1])
    assert bool((few.improved(small, rows, slopes)[0] > warm).any())


def halves(state, position):
    """The state twice, with the widest undecided neuron of every input on either side of zero."""
    twice = torch.arange(len(state.region)).repeat(2)
    lower, upper = (end[twice].clone() for end in state.intervals[position])
    width = torch.where((lower < 0) & (upper > 0), upper - lower, 0.0).flatten(1)
    neuron, count = width.argmax(1), len(state.region)
    for b in range(2 * count):
        (upper if b < count else lower).view(len(twice), -1)[b, neuron[b]] = 0.0
    part = state.select(twice)
    return twice, neuron, replace(part, intervals=part.intervals | {position: (lower, upper)})


@pytest.mark.parametrize("start", ["kept", "none", "far out"])
def test_halves_of_a_neuron_start_from_the_slopes_of_the_whole(start):
    """As branch and bound does: bounds hold in each half, wherever slopes begin."""
    graph, region, rows = case()
    how = AlphaCrown(iterations=2, inner=1)
    state = how.prepare(graph, region)
    _, slopes = how.improved(state, rows)
    position = [n.inputs[0] for n in graph.nodes if isinstance(n.op, Relu)][-1]
    twice, neuron, both = halves(state, position)
    given = None if start == "none" else slopes.select(twice)
    if start == "far out":
        given = Multipliers({at: 8 * torch.randn_like(s) for at, s in given.slopes.items()})
    found, kept = how.improved(both, rows[:, twice], given)
    assert all(s.shape[:2] == (4, 6) for s in kept.slopes.values())
    u = torch.rand(400, *region.lower.shape, dtype=torch.float64)
    points = region.lower + torch.where(u > 0.5, 2 * u - 1, u.round()) * (
        region.upper - region.lower
    )
    for b, point in enumerate(points.transpose(0, 1)):
        values = graph.values(point)
        reached = values[graph.output].flatten(1) @ rows[:, b].flatten(1).T
        own = values[position].flatten(1)[:, neuron[b]]
        assert bool((reached[own <= 0] >= found[:, b] - ROUNDING).all())
        assert bool((reached[own >= 0] >= found[:, b + 3] - ROUNDING).all())


def test_methods_without_multipliers_have_none():
    graph, region, rows = case()
    state = Crown().prepare(graph, region)
    found, none = Crown().improved(state, rows)
    assert torch.equal(found, Crown().lower(state, rows)) and not none.slopes
    assert not none.select(torch.tensor([0])).slopes


def test_slopes_of_other_rows_or_inputs_are_refused():
    graph, region, rows = case()
    how = AlphaCrown(iterations=1, inner=0)
    state = how.prepare(graph, region)
    _, slopes = how.improved(state, rows)
    for wrong in (slopes.select(torch.tensor([0, 1])), Multipliers({1: torch.zeros(2, 3, 6)})):
        with pytest.raises(ArgumentError, match="slopes of node"):
            how.improved(state, rows, wrong)
