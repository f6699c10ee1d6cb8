"""Laws of every bound method on every network and region."""

import pytest
import torch
from tests.laws.networks import AFFINE, NETWORKS, example, graph_of, make
from tests.laws.tables import METHODS, REGIONS, members, per_element_eps
from tests.laws.tiers import rest_slow

from certus.bounding import IBP, Chunked, Crown, Tightest, crown_ibp, margin_rows
from certus.bounding.arithmetic import step
from certus.core import ArgumentError
from certus.graph import trace
from certus.threats import L1, L2, Box, Linf

ROUNDING = 1e-9  # float64, values of size one to a hundred
TIGHTER = ["relu", "residual", "maxpool-overlap", "tanh", "broadcast"]
CORE = ["ibp", "crown-ibp", "crown"]  # the others are held to these by laws of their own
ALL = list(NETWORKS | AFFINE)
WRAPPERS = [
    label for label in METHODS if label not in CORE
]  # they call the others: few networks do
# Every network meets one region of each kind of dual norm and one without; a few meet them all.
REGION_CASES = rest_slow(
    [(name, kind) for name in ALL for kind in REGIONS],
    lambda name, kind: name in TIGHTER or kind in ("linf", "l2-element", "l1-free-input", "box"),
)


def rows_of(batch, count=5, classes=3):
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, count, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("name", "kind"), REGION_CASES)
def test_values_of_members_lie_inside_the_bounds(name, kind):
    graph, x = graph_of(name), example(name, 3)
    region, spec = REGIONS[kind](x), rows_of(3)
    values = members(name, kind)[1][graph.output]
    functionals = torch.einsum("brk,pbk->pbr", spec, values)
    for label in CORE:
        method = METHODS[label]
        plain, own = method(graph, region), method(graph, region, spec)
        assert plain.lower.shape == (3, 3) and own.lower.shape == (3, 5)
        assert bool((values >= plain.lower - ROUNDING).all()), label
        assert bool((values <= plain.upper + ROUNDING).all()), label
        assert bool((functionals >= own.lower - ROUNDING).all()), label
        assert bool((functionals <= own.upper + ROUNDING).all()), label


METHOD_CASES = rest_slow(
    [(name, method) for name in ALL for method in METHODS],
    lambda name, method: name in TIGHTER or method in CORE,
)


@pytest.mark.parametrize(("name", "method"), METHOD_CASES)
def test_eps_zero_gives_the_value(name, method):
    graph, x = graph_of(name), example(name, 3)
    with torch.no_grad():
        value = graph(x)
    for norm in (Linf, L2) if method in CORE else (Linf,):
        found = METHODS[method](graph, norm(0.0).region(x))
        assert torch.allclose(found.lower, value, atol=1e-8, rtol=1e-8)
        assert torch.allclose(found.upper, value, atol=1e-8, rtol=1e-8)


def weights_of(graph, x):
    """The matrix and offset of an affine network, by probing."""
    with torch.no_grad():
        zero = torch.zeros_like(x[:1])
        offset = graph(zero)[0]
        basis = torch.eye(zero.numel(), dtype=x.dtype).view(-1, *x.shape[1:])
        return (graph(basis) - offset).T, offset


@pytest.mark.parametrize("name", AFFINE)
def test_crown_is_exact_on_affine_networks(name):
    """W x + b -+ ||eps W||_q with the dual norm; the box by its corners."""
    graph, x = graph_of(name), example(name, 3)
    weight, offset = weights_of(graph, x)
    eps = per_element_eps(x)
    middle = x.flatten(1) @ weight.T + offset
    scaled = weight * eps.flatten(1).unsqueeze(1)
    reach = {
        Linf: scaled.abs().sum(2),
        L2: scaled.norm(dim=2),
        L1: scaled.abs().amax(2),
    }
    for norm, radius in reach.items():
        region = norm(eps, clip=None).region(x)
        for method in (Crown(), crown_ibp(), Crown(memory=1), Chunked(Crown(), batch=2, rows=3)):
            found = method(graph, region)
            assert torch.allclose(found.lower, middle - radius, atol=1e-10)
            assert torch.allclose(found.upper, middle + radius, atol=1e-10)
    region = Linf(0.4).region(x)  # clipped to [0, 1]
    low, high = region.lower.flatten(1), region.upper.flatten(1)
    bottom = low @ weight.clamp(min=0).T + high @ weight.clamp(max=0).T + offset
    found = Crown()(graph, region)
    assert torch.allclose(found.lower, bottom, atol=1e-10)


BATCH_CASES = [
    (name, method) for name in ALL for method in ([*CORE, "chunked"] if name in TIGHTER else CORE)
]


@pytest.mark.parametrize(("name", "method"), BATCH_CASES)
def test_batched_equals_one_by_one(name, method):
    graph, x = graph_of(name), example(name, 3)
    spec = rows_of(3)
    for kind in ("linf-element",) if method not in CORE else ("linf-element", "l2"):
        region = REGIONS[kind](x)
        together = METHODS[method](graph, region, spec)
        for b in (0, 2):
            alone = METHODS[method](graph, region.select(torch.tensor([b])), spec[b : b + 1])
            assert torch.allclose(together.lower[b], alone.lower[0], atol=1e-9, rtol=1e-9)
            assert torch.allclose(together.upper[b], alone.upper[0], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "kind"),
    rest_slow(
        [(name, kind) for name in NETWORKS for kind in ("linf", "l1", "box")],
        lambda name, kind: name in TIGHTER or kind == "l1",
    ),
)
def test_tightest_lies_inside_each_part(name, kind):
    graph, x = graph_of(name), example(name, 3)
    region, spec = REGIONS[kind](x), rows_of(3)
    parts = (IBP(), crown_ibp(), Crown())
    meet = Tightest(*parts)(graph, region, spec)
    found = [part(graph, region, spec) for part in parts]
    assert torch.equal(meet.lower, torch.stack([b.lower for b in found]).amax(0))
    assert torch.equal(meet.upper, torch.stack([b.upper for b in found]).amin(0))
    assert bool((meet.lower <= meet.upper + ROUNDING).all())


@pytest.mark.parametrize(
    ("name", "inner"),
    rest_slow(
        [(name, inner) for name in NETWORKS for inner in ("ibp", "crown")],
        lambda name, inner: name in TIGHTER,
    ),
)
def test_pieces_change_nothing(name, inner):
    graph, x = graph_of(name), example(name, 5)
    region, spec = REGIONS["linf"](x), rows_of(5, 7)
    whole = METHODS[inner](graph, region, spec)
    pieces = Chunked(METHODS[inner], batch=2, rows=3)(graph, region, spec)
    shared = Chunked(METHODS[inner], batch=2, rows=3)(graph, region, spec[:1])
    for b in range(5):
        assert torch.allclose(whole.lower[b], pieces.lower[b], atol=1e-10)
        assert torch.allclose(whole.upper[b], pieces.upper[b], atol=1e-10)
    assert torch.allclose(shared.upper[0], whole.upper[0], atol=1e-10)
    little = Crown(memory=1)(graph, region, spec)
    assert torch.allclose(little.lower, Crown()(graph, region, spec).lower, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_the_specification_is_never_looser(name):
    """Bounding the logits first and the margins of these boxes afterwards loses."""
    graph, x = graph_of(name), example(name, 3)
    region = REGIONS["linf"](x)
    spec = margin_rows(torch.tensor([0, 1, 2]), 3, x)
    logits = IBP()(graph, region)
    unfolded = torch.einsum("brk,bk->br", spec.clamp(min=0), logits.lower) + torch.einsum(
        "brk,bk->br", spec.clamp(max=0), logits.upper
    )
    folded = IBP()(graph, region, spec).lower
    assert bool((folded >= unfolded - ROUNDING).all())
    assert bool((folded > unfolded + 1e-6).any())


@pytest.mark.parametrize("name", TIGHTER)
def test_inner_intervals_of_crown_hold_and_lie_inside_ibp(name):
    graph, x = graph_of(name), example(name, 3)
    for kind in REGIONS:
        region = REGIONS[kind](x)
        state, plain = Crown().prepare(graph, region), IBP().prepare(graph, region)
        values = members(name, kind)[1]
        gains = [
            float((state.intervals[i][0] - plain.intervals[i][0]).detach().max())
            for i in state.intervals
        ]
        if name not in ("maxpool-overlap", "broadcast"):  # one layer: intervals are exact there
            assert max(gains) > 1e-3, "CROWN would be no more than CROWN-IBP"
        for position, (low, high) in state.intervals.items():
            assert bool((low >= plain.intervals[position][0] - ROUNDING).all())
            assert bool((high <= plain.intervals[position][1] + ROUNDING).all())
            assert bool((values[position] >= low - ROUNDING).all())
            assert bool((values[position] <= high + ROUNDING).all())


def test_intervals_by_hand():
    """f(x) = relu(x1 - 2 x2 + 1) on [0, 1] x [-1, 1]: pre-activation [-1, 4]."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU()).double().eval()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0]]))
        net[0].bias.fill_(1.0)
    box = Box(torch.tensor([[0.0, -1.0]]).double(), torch.tensor([[1.0, 1.0]]).double())
    graph = trace(net, box.lower)
    for name, method in METHODS.items():
        found = method(graph, box)
        assert (found.upper.item(), found.width.item()) == pytest.approx((4.0, found.width.item()))
        expected = 0.0 if name in ("ibp", "tightest") else -1.0  # CROWN keeps the line y = x below
        assert found.lower.item() == pytest.approx(expected), name


def test_crown_by_hand_on_two_relus():
    """relu(x) - relu(x) is 0 for CROWN's exact cancellation only where the lines agree.

    On [-1, 3]: chord 3/4 x + 3/4, lower line x, so relu(x) - relu(-x) is bounded by hand below.
    """
    first, last = torch.nn.Linear(1, 2, bias=False), torch.nn.Linear(2, 1, bias=False)
    net = torch.nn.Sequential(first, torch.nn.ReLU(), last).double().eval()
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        last.weight.copy_(torch.tensor([[1.0, -1.0]]))  # the function is x itself
    box = Box(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
    graph = trace(net, box.lower)
    found = Crown()(graph, box)
    # lower: relu(x) >= x, relu(-x) <= (-x + 3) / 4: x - 3/4 + x/4 at x = -1
    assert found.lower.item() == pytest.approx(-2.0)
    # upper: relu(x) <= 3/4 (x + 1), relu(-x) >= 0 (u = 1 < 3): 3/4 * 4 at x = 3
    assert found.upper.item() == pytest.approx(3.0)
    loose = IBP()(graph, box)
    assert (loose.lower.item(), loose.upper.item()) == pytest.approx((-1.0, 3.0))


def test_margin_rows_leave_the_label_out():
    rows = margin_rows(torch.tensor([1, 0]), 3, torch.zeros(1))
    assert rows.tolist() == [[[-1, 1, 0], [0, 1, -1]], [[1, -1, 0], [1, 0, -1]]]


def test_wrong_shapes_are_refused():
    graph, x = graph_of("relu"), example("relu")
    region = Linf(0.1).region(x)
    with pytest.raises(ArgumentError, match="the model takes"):
        IBP()(graph, Linf(0.1).region(torch.rand(2, 5).double()))
    for shape in [(3, 2, 3), (2, 2, 4), (2, 3)]:
        with pytest.raises(ArgumentError, match="spec must be"):
            IBP()(graph, region, torch.zeros(shape).double())
    with pytest.raises(ArgumentError):
        Tightest()
    with pytest.raises(ArgumentError):
        Chunked(IBP(), batch=0)
    with pytest.raises(ArgumentError):
        Crown(memory=0)


@pytest.mark.parametrize("name", ["relu", "maxpool-overlap", "sigmoid", "residual"])
def test_float32_bounds_agree_with_float64(name):
    """In float32 the members' values stay inside up to rounding of the size of the numbers."""
    double, x = graph_of(name), example(name, 3)
    single = trace(make(name, torch.float32), x.float())
    for kind in ("linf", "l2"):
        region = REGIONS[kind](x.float())
        for label, method in METHODS.items():
            if label in WRAPPERS and (name, kind) != ("relu", "l2"):
                continue
            with torch.no_grad():
                found, wide = method(single, region), method(double, REGIONS[kind](x))
            size = wide.upper.abs().max() + 1
            assert found.lower.dtype == torch.float32
            assert float((found.lower - wide.lower).abs().max()) < 2e-5 * size, label
            assert float((found.upper - wide.upper).abs().max()) < 2e-5 * size, label


def test_a_step_is_the_rule_of_the_nearest_class():
    graph = graph_of("sigmoid")
    intervals = {0: (torch.zeros(1, 4).double(), torch.ones(1, 4).double())}
    for position, node in enumerate(graph.nodes[1:], start=1):
        intervals[position] = step(node, intervals)
    low, high = intervals[2]
    assert bool((low > 0).all() & (high < 1).all() & (low < high).all())
