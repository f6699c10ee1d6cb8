"""`certify` and `bounds` prepare, split and bound alike: the same groups, the same numbers."""

from dataclasses import dataclass, field
from inspect import signature

import pytest
import torch
from tests.laws.networks import NETWORKS, example, graph_of

import certus
from certus.bounding import Crown, margin_rows
from certus.bounding.budget import groups
from certus.bounding.state import State
from certus.certifiers.bound_methods import BOUNDS

SLOW = {"lp": {"seconds": 1e-6}, "alpha-crown": {"iterations": 2, "inner": 1}}
FEW = {"lp": ("relu", "leaky", "residual")}


@pytest.mark.parametrize("name", NETWORKS)
def test_certify_and_bounds_give_the_same_bounds_bit_by_bit(name):
    graph, x, threat = graph_of(name), example(name, 5), certus.Linf(0.05)
    y = graph(x).argmax(1)
    spec = margin_rows(y, 3, x)
    for method in BOUNDS:
        if name not in FEW.get(method, NETWORKS):
            continue
        options = SLOW.get(method, {})
        lower = certus.bounds(graph, x, threat, method, spec, **options).lower
        found = certus.certify(graph, x, y, threat, method, **options)
        assert torch.equal(found.margin, lower.amin(1)), method
        assert bool((lower.amin(1) > 0)[found.certified].all())


@dataclass(frozen=True, kw_only=True)
class Watched(Crown):
    """CROWN that writes down how many inputs it prepares at once."""

    sizes: list[int] = field(default_factory=list)

    def prepare(self, graph, region) -> State:
        self.sizes.append(len(region))
        return super().prepare(graph, region)


@pytest.mark.parametrize("memory", [1, 6_000, None])
def test_inputs_are_taken_in_the_same_groups(memory):
    graph, x, threat = graph_of("relu"), example("relu", 9), certus.Linf(0.05)
    y = graph(x).argmax(1)
    one, other = Watched(memory=memory), Watched(memory=memory)
    lower = certus.bounds(graph, x, threat, one, margin_rows(y, 3, x)).lower.amin(1)
    found = certus.certify(graph, x, y, threat, other)
    assert one.sizes == other.sizes == [len(part) for part in groups(graph, x, memory)]
    assert torch.equal(found.margin, lower)
    assert len(one.sizes) == {1: 9, 6_000: 5, None: 1}[memory]
    whole = certus.certify(graph, x, y, threat, "crown")
    torch.testing.assert_close(found.margin, whole.margin)
    assert found.verdict == whole.verdict


@torch.no_grad()
def test_groups_grow_with_the_weights_and_never_beyond_memory():
    """Every group reads the weights anew; what a group holds beside them is bounded."""
    graph, x = graph_of("relu"), example("relu", 2)
    values = sum(node.numel for node in graph.nodes)
    many = x[:1].expand(2 * 2**20 // values, -1)
    sizes = [len(part) for part in groups(graph, many)]
    assert len(sizes) in (2, 3) and sizes[0] == 2**20 // values
    assert sum(sizes) == len(many)
    memory = 2**20
    first = groups(graph, many, memory)[0]
    assert len(first) * values * 8 < memory < 13 * (len(first) + 1) * values * 8
    with torch.enable_grad():  # where gradients are recorded only memory divides
        assert len(groups(graph, many, 2**40)) == 1


@pytest.mark.parametrize(
    "name", [name for name, make in BOUNDS.items() if "memory" in signature(make).parameters]
)
@torch.no_grad()
def test_memory_divides_every_method(name):
    graph, x, threat = graph_of("residual"), example("residual", 4), certus.Linf(0.02)
    method, options = BOUNDS[name](memory=1, **SLOW.get(name, {})), SLOW.get(name, {})
    assert [len(part) for part in method.groups(graph, x)] == [1] * 4
    assert len(BOUNDS[name](memory=2**34, **options).groups(graph, x)) == 1
    whole = certus.bounds(graph, x, threat, name, **options)
    parts = certus.bounds(graph, x, threat, method)
    torch.testing.assert_close(parts.lower, whole.lower)
    torch.testing.assert_close(parts.upper, whole.upper)


class OwnIntervals(certus.IBP):
    """A method of somebody else."""


def test_certify_takes_any_bound_method_and_names_it():
    graph, x, threat = graph_of("relu"), example("relu", 3), certus.Linf(0.05)
    y = graph(x).argmax(1)
    for name, make in BOUNDS.items():
        options = SLOW.get(name, {})
        found = certus.certify(graph, x, y, threat, make(**options))
        named = certus.certify(graph, x, y, threat, name, **options)
        assert torch.equal(found.margin, named.margin) and found.verdict == named.verdict
        assert named.method == name
        assert found.method == ("fast-lin" if name == "wong-kolter" else name)  # one method
    assert certus.certify(graph, x, y, threat, OwnIntervals()).method == "own-intervals"
    with pytest.raises(certus.ArgumentError, match="name"):
        certus.certify(graph, x, y, threat, Crown(), memory=3)
