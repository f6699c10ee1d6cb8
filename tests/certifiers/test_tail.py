"""Networks that end in probabilities: decided by their logits, true of what the original evaluates to."""

import math

import pytest
import torch
from torch import nn

import certus
from certus.bounding.engine import Engine
from certus.bounding.evaluation import local_error
from certus.certifiers.tail import Tail
from certus.core import Verdict
from certus.graph import trace
from certus.graph.ending import ending_of

ENDINGS = {"softmax": nn.Softmax(1), "log-softmax": nn.LogSoftmax(1), "sigmoid": nn.Sigmoid()}
METHODS = ("ibp", "crown", "milp", "lipschitz", "auto")


def ended(name, classes, dtype=torch.float32):
    """A captured ending alone, of so many logits."""
    return trace(
        nn.Sequential(nn.Identity(), ENDINGS[name]).eval(), torch.zeros(1, classes, dtype=dtype)
    )


def drawn(classes, count, dtype):
    """Logits [count, classes] of all sizes, with rivals near the label's, which is the first."""
    g = torch.Generator().manual_seed(classes)
    size = 10 ** torch.empty(count, 1).uniform_(-2, 2.5, generator=g)
    z = size * torch.randn(count, classes, generator=g)
    return z.double().to(dtype)


def tail_of(name, z, engine):
    graph = ended(name, z.shape[1], z.dtype)
    return graph, Tail(ending_of(graph), engine, z[:, 0].double(), z[:, 0].double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 10, 300])
@pytest.mark.parametrize("name", ENDINGS)
def test_logits_that_are_apart_give_outputs_that_are(name, classes, dtype):
    """At exactly that distance, for the worst errors that the guard charges, and for torch itself."""
    engine = Engine("torch", dtype)
    z = drawn(classes, 400, dtype)
    _, tail = tail_of(name, z, engine)
    apart = tail.apart()
    known = torch.isfinite(apart) & (z[:, 0].abs() < 80)
    assert int(known.sum()) > 100
    z, apart = z[known], apart[known]
    rivals = (z[:, :1].double() - apart[:, None]).to(dtype)
    rivals = torch.nextafter(rivals, torch.full_like(rivals, -math.inf))
    for spread in (0.0, 1.0):  # all rivals as near as may be, or all but one far below
        z = torch.cat([z[:, :1], rivals - spread * z[:, 1:].abs()], 1)
        z[:, 1:2] = rivals
        graph, _ = tail_of(name, z, engine)
        exact = graph.cast(torch.float64)(z.double())
        error = worst(graph, z, engine) if dtype == torch.float32 else torch.zeros_like(exact)
        assert bool(((exact[:, :1] - error[:, :1]) > (exact + error)[:, 1:]).all())
        found = ENDINGS[name](z)
        assert bool((found[:, :1] > found[:, 1:]).all())


def worst(graph, z, engine):
    """[B, K]: what the guard charges for one evaluation of the ending on z."""
    values, errors = [v.double() for v in graph.cast(torch.float64).values(z.double())], []
    for position, node in enumerate(graph.nodes):
        own = (
            local_error(graph, node, [(values[i], values[i]) for i in node.inputs], engine)
            if position
            else None
        )
        before = sum(errors[i] for i in node.inputs) if position else 0.0
        errors.append(before + (torch.zeros_like(values[position]) if own is None else own))
    return errors[graph.output]


@pytest.mark.parametrize("name", ENDINGS)
def test_margins_of_outputs_follow_from_those_of_logits(name):
    z = drawn(7, 3000, torch.float64) / 10
    _, tail = tail_of(name, z, Engine("torch", torch.float64))
    out = ENDINGS[name](z)
    least = z[:, 0] - z[:, 1:].amax(1)
    exact = out[:, 0] - out[:, 1:].amax(1)
    found = tail.margin(least)
    assert bool((found <= exact + 1e-12).all()) and bool((found * least >= 0).all())
    if name != "softmax":
        assert bool((found >= exact - 1e-9)[least > 0].all())


def network(ending=None):
    """Classes in about equal numbers on [0, 1]^3."""
    torch.manual_seed(3)
    layers = [nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)]
    layers[0].bias.data -= layers[0].weight.data.sum(1) / 2
    layers[2].weight.data *= 4
    layers[2].bias.data -= nn.Sequential(*layers)(torch.rand(99, 3)).mean(0)
    return nn.Sequential(*layers, *([] if ending is None else [ENDINGS[ending]])).eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ENDINGS)
def test_verdicts_are_those_of_the_logits(name, method):
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    y = network()(x).argmax(1)
    threat = certus.Linf(0.03) if method != "lipschitz" else certus.L2(0.03)
    plain = certus.certify(network(), x, y, threat, method=method)
    found = certus.certify(network(name), x, y, threat, method=method)
    assert found.verdict == plain.verdict
    assert Verdict.VERIFIED in found.verdict and len({*found.verdict}) > 1


@pytest.mark.parametrize("method", ["ibp", "crown", "milp"])
@pytest.mark.parametrize("name", ENDINGS)
def test_a_margin_is_one_of_the_outputs(name, method):
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    net = network(name)
    y = net(x).argmax(1)
    found = certus.certify(net, x, y, certus.Linf(0.03), method=method)
    noise = torch.rand(400, *x.shape, generator=torch.Generator().manual_seed(1)) * 0.06 - 0.03
    out = net((x + noise).flatten(0, 1)).view(400, 12, 4).double()
    others = out.scatter(2, y.expand(400, 12)[..., None], -math.inf).amax(2)
    margin = (out.gather(2, y.expand(400, 12)[..., None])[..., 0] - others).amin(0)
    known = ~found.margin.isnan()
    assert bool((found.margin <= margin + 1e-6)[known].all()) and int(known.sum()) > 5


@pytest.mark.parametrize("method", METHODS)
def test_logits_apart_whose_probabilities_tie_are_not_verified(method):
    """30 and 20 are apart, their sigmoids are both 1 in float32: the original cannot tell the classes."""
    net = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()).eval()
    net[0].weight.data, net[0].bias.data = 0.1 * torch.eye(2), torch.tensor([30.0, 20.0])
    x, y = torch.zeros(1, 2), torch.zeros(1).long()
    assert net(x).tolist() == [[1.0, 1.0]]
    threat = certus.Linf(0.01) if method != "lipschitz" else certus.L2(0.01)
    assert certus.certify(net, x, y, threat, method=method).verdict != [Verdict.VERIFIED]
    net[0].bias.data -= 25.0
    assert certus.certify(net, x, y, threat, method=method).verdict == [Verdict.VERIFIED]


@pytest.mark.parametrize("method", ["pgd", "fgsm"])
@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("name", ENDINGS)
def test_attacks_climb_on_logits_where_probabilities_are_flat(name, captured, method):
    """In float32 the probabilities are exactly 1 and 0, or both 1, and so are their gradients."""
    net = nn.Sequential(nn.Linear(2, 2, bias=False), ENDINGS[name]).eval()
    net[0].weight.data = 400 * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    x, y = torch.tensor([[0.9, 0.6], [0.8, 0.45], [0.7, 0.35]]), torch.zeros(3).long()
    model = trace(net, x) if captured else net
    found = certus.attack(model, x, y, certus.Linf(0.2), method=method)
    assert bool(found.success.all())
    assert bool((net(found.inputs).argmax(1) == 1).all())
