"""Mistakes that taught code makes, each shown to fail, and numbers that certify nothing."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tests.laws.networks import Function, make
from tests.laws.tables import points
from torch import nn

from certus.bounding import IBP, BoundMethod, Crown, Forward, crown_ibp, margin_rows
from certus.certifiers import BoundCertifier
from certus.core import Bounds, CertusError
from certus.core.numerics import sound
from certus.graph import trace
from certus.graph.activation import Relu
from certus.graph.affine import Linear
from certus.relax import relaxations
from certus.threats import L2, Linf

CERTIFIERS = [
    BoundCertifier(method=IBP()),
    BoundCertifier(method=crown_ibp()),
    BoundCertifier(method=Crown()),
]


def net(seed, sizes=(4, 6, 6, 3)):
    torch.manual_seed(seed)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double().eval()


def reversed_intervals(module, lower, upper):
    """Mistake 3: interval arithmetic over the layers in reverse order."""
    for layer in reversed(list(module)):
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight.detach(), layer.bias.detach()
            middle, radius = (
                (lower + upper) / 2 @ weight.T + bias,
                (upper - lower) / 2 @ weight.abs().T,
            )
            lower, upper = middle - radius, middle + radius
        else:
            lower, upper = lower.relu(), upper.relu()
    return lower, upper


def test_intervals_in_reverse_order_are_no_bounds_at_all():
    """Mistake 3: with layers of one size the reversed walk runs, and the truth lies outside."""
    violated = 0
    for seed in range(5):
        module = net(seed, (4, 4, 4, 4))
        x = torch.rand(3, 4).double()
        graph, region = trace(module, x), Linf(0.05).region(x)
        low, high = reversed_intervals(module, region.lower, region.upper)
        truth = points(graph, region).detach()
        values = torch.stack([graph(p) for p in truth]).detach()
        violated += bool(((values < low) | (values > high)).any())
        right = Crown()(graph, region)
        assert bool(((values >= right.lower - 1e-9) & (values <= right.upper + 1e-9)).all())
    assert violated == 5
    with pytest.raises(RuntimeError, match="shape"):  # and with other sizes it does not even run
        reversed_intervals(net(0), torch.zeros(1, 4).double(), torch.ones(1, 4).double())


def test_the_threat_belongs_before_normalisation():
    """Mistake 8: eps taken after division by std is eps * std in pixels, and a pixel attack wins."""
    std, eps = 0.2, 0.1
    head = nn.Linear(2, 2).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
        head.bias.zero_()
    module = Function(lambda m, x: m.head((x - 0.5) / std), head=head).eval()
    x, y = torch.tensor([[0.55, 0.55]]).double(), torch.tensor([0])
    spec = margin_rows(y, 2, x)
    inner = trace(head.eval(), x)
    wrong = Crown()(inner, Linf(eps, clip=None).region((x - 0.5) / std), spec).lower
    assert float(wrong.detach()) > 0.5  # "certified"
    broken = x - eps
    assert float((broken - x).abs().max()) <= eps + 1e-12 and bool((broken >= 0).all())
    assert int(module(broken).argmax(1)) == 1
    graph = trace(module, x)
    right = Crown()(graph, Linf(eps).region(x), spec).lower
    gap = (module(broken)[0, 0] - module(broken)[0, 1]).detach()
    assert float(right.detach()) <= float(gap)
    for certifier in CERTIFIERS:
        assert not bool(certifier(graph, x, y, Linf(eps)).certified.any())
        assert bool(certifier(graph, x, y, Linf(eps * std)).certified.all())


def test_the_margin_leaves_the_label_out():
    """Mistake 4: `lower[y] > upper.max()` with y itself is never true, so it certifies nothing."""
    graph, x = trace(net(1), torch.rand(8, 4).double()), torch.rand(8, 4).double()
    y = graph(x).argmax(1)
    bounds = IBP()(graph, Linf(1e-4).region(x))
    wrong = bounds.lower.gather(1, y.unsqueeze(1))[:, 0] > bounds.upper.amax(1)
    assert not bool(wrong.any())
    assert bool(BoundCertifier(method=IBP())(graph, x, y, Linf(1e-4)).certified.all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["relu", "leaky", "sigmoid", "tanh", "relu6", "maxpool-overlap"])
def test_bad_weights_never_certify(name, bad):
    """Through the sealed call and, past its checks, through the bounds themselves."""
    module = make(name)
    x = torch.rand(4, *((2, 5, 5) if name.startswith("max") else (4,))).double()
    graph = trace(module, x)
    y = graph(x).argmax(1)
    weighted = [(p, node) for p, node in enumerate(graph.nodes) if hasattr(node.op, "weight")]
    assert len(weighted) > 1
    for position, node in weighted:
        weight = node.op.weight.detach().clone()
        weight.view(-1)[0] = bad
        broken = graph.substituted({position: replace(node.op, weight=weight)})
        for certifier in CERTIFIERS:
            try:
                assert not bool(certifier(broken, x, y, Linf(0.01)).certified.any())
            except CertusError as error:
                assert "NaN or infinite" in str(error)
            found = certifier.method(broken, Linf(0.01).region(x), margin_rows(y, 3, x))
            positive = sound(found.lower, found.upper).all(1) & (found.lower > 0).all(1)
            if math.isnan(bad):
                assert not bool(positive.any())


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("certifier", CERTIFIERS, ids=lambda c: c.name)
def test_overflow_never_certifies(certifier, norm):
    """Finite weights whose bounds overflow float32 although the clean logits do not."""
    x = torch.full((2, 3), 0.5)
    module = net(0, (3, 4, 4, 2)).float()
    with torch.no_grad():
        module[0].weight.fill_(3e25), module[0].bias.fill_(-4.5e25)
        module[2].weight.fill_(3e25), module[2].bias.fill_(1.0)
        module[4].weight.copy_(torch.tensor([[1.0] * 4, [-1.0] * 4]))
    graph = trace(net(0, (3, 4, 4, 2)).float(), x)
    graph = replace(trace_weights(graph, module), original=module)
    with torch.no_grad():
        assert bool(torch.isfinite(graph(x)).all())
    y = graph(x).argmax(1)
    found = certifier(graph, x, y, norm(0.2))
    assert not bool(found.certified.any())
    assert bool((found.radius == 0).all())


def trace_weights(graph, module):
    """The graph with another module's weights: capture itself refuses values that overflow."""
    layers = iter(m for m in module if isinstance(m, nn.Linear))
    ops = {}
    for position, node in enumerate(graph.nodes):
        if isinstance(node.op, Linear):
            layer = next(layers)
            ops[position] = Linear(layer.weight, layer.bias)
    return graph.substituted(ops)


class Claims(BoundMethod):
    """Gives fixed bounds whatever it is asked."""

    def __init__(self, lower, upper):
        self.found = lower, upper

    def under(self, rigorous):
        """Itself, so that what is close is not proven by another method."""
        return self

    def prepare(self, graph, region):
        return IBP().prepare(graph, region)

    def bound(self, state, rows):
        low, high = (torch.full(rows.shape[:2], 1.0).double() for _ in range(2))
        low[0], high[0], high[1:] = self.found[0], self.found[1], 2.0
        return Bounds(low, high)


CLAIMS = [(float("nan"), 2.0), (1.0, float("nan")), (1.0, float("inf")), (1.0, 0.5)]
CLAIMS += [(float("inf"), float("inf")), (1e-15, 2.0), (0.0, 2.0), (float("-inf"), 2.0)]


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_a_bound_that_is_nan_infinite_crossed_or_zero_certifies_nothing(claim):
    """One margin of two is bad; the other is well above zero."""
    graph, x = trace(make("relu"), torch.rand(2, 4).double()), torch.rand(3, 4).double()
    y = graph(x).argmax(1)
    threat = Linf(5.0, clip=None)  # where CROWN itself, which settles close claims, proves nothing
    good = BoundCertifier(method=Claims(1.0, 2.0))(graph, x, y, threat)
    assert bool(good.certified.all())
    found = BoundCertifier(method=Claims(*claim))(graph, x, y, threat)
    assert not bool(found.certified.any()) and bool((found.radius == 0).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_inputs_are_refused(bad):
    graph = trace(make("relu"), torch.rand(2, 4).double())
    x = torch.rand(2, 4).double()
    x[0, 0] = bad
    for certifier in CERTIFIERS:
        with pytest.raises(CertusError):
            certifier(graph, x, torch.tensor([0, 1]), Linf(0.1))


def balanced(module, logits):
    """The same network with its last bias moved so that every class has the same mean logit."""
    with torch.no_grad():
        module[-1].bias.sub_(logits.mean(0))
    return module


@pytest.mark.parametrize("certifier", CERTIFIERS, ids=lambda c: c.name)
def test_what_is_certified_survives_every_attack_here(certifier):
    graph = trace(net(2), torch.rand(2, 4).double())
    x = torch.rand(40, 4).double()
    logits = graph(x).detach()
    graph = trace(balanced(net(2), logits), x)  # all classes occur near these inputs
    y = graph(x).argmax(1)
    certified = fallen = 0
    for threat in (Linf(0.02), Linf(0.1), L2(0.1)):
        found = certifier(graph, x, y, threat).certified
        classes = torch.stack([graph(p).argmax(1) for p in points(graph, threat.region(x))])
        broken = (classes != y).any(0)
        assert not bool((found & broken).any())
        certified, fallen = certified + int(found.sum()), fallen + int(broken.sum())
    assert certified and fallen


@pytest.mark.parametrize("method", [Crown, Forward])
def test_inner_bounds_that_contradict_each_other_certify_nothing(method):
    """Lines of a first layer that lie far below it: the next layer's bounds cross intervals'."""

    def wrong(op, interval):
        lines = relaxations[Relu](op, interval)
        return replace(lines, upper_offset=lines.upper_offset - 50.0)

    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)
    ).eval()
    x = torch.rand(2, 3)
    wrongly = method(slopes=relaxations.extended("wrong lines", {Relu: wrong}))
    found = wrongly(trace(module, x), Linf(0.3).region(x))
    assert bool(found.lower.isnan().all() & found.upper.isnan().all())
