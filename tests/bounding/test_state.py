"""States: relaxations made when asked for, parts of a batch, other intervals."""

from dataclasses import fields, replace

import pytest
import torch
from tests.laws.networks import example, graph_of

from certus.bounding import (
    IBP,
    AlphaCrown,
    Cases,
    Chunked,
    Crown,
    DeepZ,
    SdpCrown,
    Tightest,
    crown_ibp,
)
from certus.bounding.engine import Engine
from certus.bounding.guarded import Guarded
from certus.bounding.state import State
from certus.core import Rules, UnsupportedError
from certus.graph.activation import Relu
from certus.relax import relaxations
from certus.threats import L2, Linf
from certus.verifiers import LP

GUARDED = Guarded(Engine("torch", torch.float32))
METHODS = {
    "ibp": IBP(),
    "crown": Crown(),
    "crown-ibp": crown_ibp(),
    "alpha": AlphaCrown(iterations=2, inner=1),
    "sdp": SdpCrown(),
    "tightest": Tightest(IBP(), Crown()),
    "chunked": Chunked(Crown(), batch=2),
    "cases": Cases(Crown()),
    "lp": LP(),
    "rigorous": Crown(rigorous=True),
    "rigorous-ibp": IBP(rigorous=True),
    "guarded": Crown().under(GUARDED),
}


def rows_of(graph, batch):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(4, batch, *graph.output_shape, generator=generator, dtype=torch.float64)


def case(name, batch=4):
    graph, x = graph_of(name), example(name, batch)
    return graph.resolved(), L2(0.3).region(x), rows_of(graph, batch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["relu", "residual"])
def test_a_state_of_some_inputs_bounds_as_the_whole_does(name, method):
    """Also after the whole was used, so that what it has computed must not be taken over."""
    graph, region, rows = case(name)
    with torch.no_grad():
        state = METHODS[method].prepare(graph, region)
        whole = METHODS[method].bound(state, rows)
        for index in (torch.tensor([3, 1, 1, 0]), torch.tensor([False, True, False, True])):
            found = METHODS[method].bound(state.select(index), rows[:, index])
            assert torch.allclose(found.lower, whole.lower[:, index], rtol=1e-9, atol=1e-9)
            assert torch.allclose(found.upper, whole.upper[:, index], rtol=1e-9, atol=1e-9)


def test_what_cannot_be_taken_apart_is_refused():
    graph, region, _ = case("relu")
    with pytest.raises(UnsupportedError, match="prepare anew"):
        DeepZ().prepare(graph, region).select(torch.tensor([0]))


def kinds(kind=State):
    return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))


def test_every_state_with_parts_says_what_a_selection_of_them_is():
    """The selection of the base class would leave them those of the whole batch."""
    known = {f.name for f in fields(State)} | {"engine"}  # an engine is the same for every input
    for kind in kinds():
        given = {f.name for f in fields(kind) if f.init}
        assert given <= known or kind.select is not State.select, kind


def counted(calls):
    def relu(op, interval):
        calls.append(interval)
        return relaxations[Relu](op, interval)

    return relaxations.extended("counted relaxations", {Relu: relu})


def test_relaxations_are_made_once_and_when_asked_for():
    graph, region, rows = case("relu")
    kinks = sum(isinstance(node.op, Relu) for node in graph.nodes)
    calls, method = [], crown_ibp()
    method = replace(method, slopes=counted(calls))
    with torch.no_grad():
        state = method.prepare(graph, region)
        assert not calls and len(state.relaxations) == kinks > 1
        method.bound(state, rows)
        method.bound(state, rows)
    assert len(calls) == kinks
    assert 0 not in state.relaxations and state.relaxations.get(1) is None


def test_gradients_do_not_depend_on_who_asked_first():
    """What was made while nothing was recorded has no gradient to pass on."""
    _, region, rows = case("relu")
    tensors = list(graph_of("relu").original.parameters())
    found = []
    for asked in (False, True):
        state = crown_ibp().prepare(graph_of("relu").resolved(), region)
        if asked:
            with torch.no_grad():
                crown_ibp().bound(state, rows)
        lower = crown_ibp().bound(state, rows).lower.sum()
        found.append(torch.autograd.grad(lower, tensors))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", ["crown", "rigorous", "guarded"])
def test_other_intervals_are_relaxed_and_charged_anew(method):
    """Halves of a neuron's interval: each bound holds where the neuron lies in its half."""
    graph, x = graph_of("relu").resolved(), example("relu", 1)
    region, how = Linf(0.3, clip=None).region(x), METHODS[method]
    rows = rows_of(graph, 1)
    state = how.prepare(graph, region)
    whole = how.bound(state, rows)
    position = [n.inputs[0] for n in graph.nodes if isinstance(n.op, Relu)][-1]
    lower, upper = state.intervals[position]
    width = torch.where((lower < 0) & (upper > 0), upper - lower, 0.0)
    neuron = int(width.flatten().argmax())
    points = region.lower + torch.rand(500, *x.shape[1:], dtype=x.dtype) * (
        region.upper - region.lower
    )
    values = graph.values(points)
    own, outputs = values[position].flatten(1)[:, neuron], values[graph.output]
    for sign in (-1.0, 1.0):
        low, high = lower.clone(), upper.clone()
        (high if sign < 0 else low).view(-1)[neuron] = 0.0
        half = replace(state, intervals=state.intervals | {position: (low, high)})
        found = how.bound(half, rows)
        inside = sign * own >= 0
        assert bool(inside.any())
        reached = outputs[inside].flatten(1) @ rows[:, 0].flatten(1).T
        assert bool((reached >= found.lower[:, 0] - 1e-9).all())
        assert bool((reached <= found.upper[:, 0] + 1e-9).all())
        assert bool(
            (found.lower > whole.lower + 1e-6).any() or (found.upper < whole.upper - 1e-6).any()
        )


def test_a_table_may_lack_a_rule():
    graph, region, rows = case("tanh")
    method = Crown(slopes=Rules("an empty table"))
    with pytest.raises(UnsupportedError, match="an empty table has no rule for Tanh"):
        method.bound(method.prepare(graph, region), rows)
