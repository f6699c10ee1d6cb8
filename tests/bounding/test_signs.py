"""Walks for signs alone say of every neuron what whole walks say, or more."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certus.bounding import Crown, budget, signs, windows
from certus.bounding.backward import Query, Walk
from certus.bounding.maps import Maps
from certus.graph import trace
from certus.graph.activation import Relu
from certus.graph.affine import Conv, Linear, Sum
from certus.threats import Linf


class Residual(nn.Module):
    """Three relaxed layers on maps, two of them in a block, and one of numbers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.strided = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.dense, self.last = nn.Linear(54, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.third(F.relu(self.second(x))) + x)
        x = F.relu(self.strided(x)).flatten(1)
        return self.last(F.relu(self.dense(x)))


def prepared(batch, seed=0):
    torch.manual_seed(seed)
    net = Residual().double().eval().requires_grad_(False)
    x = torch.rand(batch, 2, 6, 6, dtype=torch.float64)
    graph = trace(net, x[:1]).resolved()
    region = Linf(0.04, clip=None).region(x)
    return graph, region, Crown().prepare(graph, region)


def queries(state, position, small):
    """Every neuron of every input, its sign guessed right or wrong."""
    node, count = state.graph.nodes[position], len(state.region)
    batch = torch.arange(count).repeat_interleave(node.numel)
    neuron = torch.arange(node.numel).repeat(count)
    like = state.intervals[position][0]
    if small:
        rows = windows.start(node, neuron, batch, like)
    else:
        eye = torch.eye(node.numel, dtype=like.dtype)
        rows = Maps(eye[neuron].view(1, -1, *node.shape), batch)
    middle = sum(state.intervals[position]).flatten()
    for likely in (middle > 0, middle <= 0):
        yield Query(position, rows, likely=likely.unsqueeze(0))


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_signs_are_those_of_whole_walks(small, batch, monkeypatch):
    """Undecided neurons keep CROWN's bounds; what a whole walk decides is decided."""
    kept, dropped = signs.kept, []

    def counted(rows, index):
        dropped.append(len(index))
        return kept(rows, index)

    monkeypatch.setattr(signs, "kept", counted)
    _, _, state = prepared(batch)
    decided = undecided = 0
    for position, node in enumerate(state.graph.nodes):
        kinds = (Conv, Sum) if small else (Conv, Sum, Linear)
        if not isinstance(node.op, kinds) or not signs.stops(state.graph, position):
            continue
        for query in queries(state, position, small):
            walk = Walk(state, both=True)
            whole = query.bounds(walk.run(query.start, query.rows))
            found = signs.signs(state, query)
            low, high = whole.lower, whole.upper
            open_ = (low < 0) & (high > 0)
            assert bool((found.lower >= low - 1e-9)[open_].all())
            assert bool((found.upper <= high + 1e-9)[open_].all())
            assert bool((found.lower >= -1e-9)[low >= 0].all())
            assert bool((found.upper <= 1e-9)[high <= 0].all())
            decided, undecided = decided + int((~open_).sum()), undecided + int(open_.sum())
    assert decided > 50 and undecided > 50
    assert min(dropped) < max(dropped)


@pytest.mark.parametrize("batch", [1, 4])
def test_values_lie_inside_and_margins_stay(batch, monkeypatch):
    """Inner intervals hold samples; the output's bounds are those that whole walks lead to."""
    graph, region, state = prepared(batch, seed=1)
    for _ in range(40):
        u = torch.rand_like(region.center).round()
        values = graph.values(region.lower + u * (region.upper - region.lower))
        for position, (low, high) in state.intervals.items():
            assert bool((values[position] >= low - 1e-9).all())
            assert bool((values[position] <= high + 1e-9).all())
    found = Crown()(graph, region)
    kinks = [n.inputs[0] for n in graph.nodes if isinstance(n.op, Relu)]
    monkeypatch.setattr("certus.bounding.crown.stops", lambda graph, position: set())
    whole, plain = Crown().prepare(graph, region), Crown()(graph, region)
    assert any(bool((whole.intervals[i][0] != state.intervals[i][0]).any()) for i in kinks)
    assert torch.allclose(found.lower, plain.lower, rtol=1e-3, atol=1e-3)
    assert torch.allclose(found.upper, plain.upper, rtol=1e-3, atol=1e-3)
    for i in kinks:
        low, high = whole.intervals[i]
        assert bool((state.intervals[i][0][low >= 0] >= -1e-9).all())
        assert bool((state.intervals[i][1][high <= 0] <= 1e-9).all())


@pytest.mark.parametrize("memory", [60_000, 200_000])
def test_rows_that_may_end_stay_within_the_budget(memory, monkeypatch):
    """Caches may hold more rows where most of them end; memory that is given holds no more."""
    send, largest = Walk._send, []

    def measured(self, positions, parts):
        send(self, positions, parts)
        rows = [r.coefs for r in self.pending.values()]
        largest.extend(r.numel() * r.element_size() for r in rows)

    graph, region, _ = prepared(3)
    monkeypatch.setattr(Walk, "_send", measured)
    Crown(memory=memory)(graph, region)
    assert memory / 8 < max(largest) * budget._COPIES <= memory
