"""Losses against hand computation, and the two mistakes that are often taught."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from certus.bounding import IBP, margin_rows
from certus.core import ArgumentError
from certus.graph import trace
from certus.smoothing import Gaussian
from certus.threats import L1, L2, Linf
from certus.training import (
    Adversarial,
    CrownIBPLoss,
    IBPLoss,
    LipschitzLoss,
    Moment,
    NoiseAugmentation,
    Standard,
)


def moment(**changes):
    return Moment(**({"eps": 0.1, "generator": torch.Generator().manual_seed(1)} | changes))


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    return net.double().eval()


@pytest.fixture
def x():
    return 0.3 + 0.4 * torch.rand(7, 4, dtype=torch.float64)


@pytest.fixture
def y():
    return torch.tensor([0, 1, 2, 0, 1, 2, 1])


def by_hand(net, x, y, eps):
    """Robust cross entropy of one hidden layer, in loops."""
    w1, b1, w2, b2 = [p.detach() for p in net.parameters()]
    total = 0.0
    for point, label in zip(x, y, strict=True):
        low = (w1 @ point + b1 - w1.abs().sum(1) * eps).clamp(min=0)
        high = (w1 @ point + b1 + w1.abs().sum(1) * eps).clamp(min=0)
        terms = 0.0
        for j in range(3):
            row = w2[label] - w2[j]
            margin = float(b2[label] - b2[j])
            for i in range(5):
                margin += float(row[i] * (low[i] if row[i] > 0 else high[i]))
            terms += math.exp(-margin) if j != label else 1.0
        total += math.log(terms)
    return total / len(x)


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_ibp_loss_equals_hand_computation(x, y, kappa):
    net = network()
    graph = trace(net, x[:1])
    logits = graph(x)
    found = IBPLoss()(graph, logits, x, y, moment(eps=0.05, kappa=kappa)).total
    expected = kappa * cross_entropy(logits, y) + (1 - kappa) * by_hand(net, x, y, 0.05)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loss", [IBPLoss(), CrownIBPLoss(), LipschitzLoss(), Adversarial()])
def test_eps_zero_gives_cross_entropy(x, y, loss):
    graph = trace(network(), x[:1])
    found = loss(graph, graph(x), x, y, moment(eps=0.0, kappa=0.0, beta=0.5))
    torch.testing.assert_close(found.total, cross_entropy(graph(x), y))


@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_robust_loss_is_above_the_loss_of_every_point(x, y, threat):
    graph = trace(network(), x[:1])
    bound = IBPLoss(threat=threat)(graph, graph(x), x, y, moment(kappa=0.0)).total
    attack = Adversarial(threat=threat)(graph, graph(x), x, y, moment(kappa=0.0)).total
    assert cross_entropy(graph(x), y) < attack < bound


def test_crown_ibp_mixes_from_crown_to_ibp(x, y):
    graph = trace(network(), x[:1])
    values = {
        beta: CrownIBPLoss()(graph, graph(x), x, y, moment(kappa=0.0, beta=beta)).total
        for beta in (0.0, 0.5, 1.0)
    }
    ibp = IBPLoss()(graph, graph(x), x, y, moment(kappa=0.0)).total
    torch.testing.assert_close(values[0.0], ibp)
    assert len({round(v.item(), 9) for v in values.values()}) == 3


def test_the_region_is_cut_by_the_range_of_inputs(y):
    x = torch.zeros(7, 4, dtype=torch.float64)
    graph = trace(network(), x[:1])
    cut = IBPLoss()(graph, graph(x), x, y, moment(kappa=0.0)).total
    wide = IBPLoss()(graph, graph(x), x, y, moment(kappa=0.0, clip=(-1.0, 1.0))).total
    assert cut < wide


def test_a_check_that_includes_the_label_is_never_true(x, y):
    """Mistake: lower[y] > upper.max() over all classes compares the label with itself."""
    net = network()
    net[3].weight.data *= 50
    graph = trace(net, x[:1])
    y = graph(x).argmax(1)
    bounds = IBP()(graph, Linf(1e-4).region(x))
    wrong = bounds.lower.gather(1, y[:, None]).squeeze(1) > bounds.upper.amax(1)
    right = IBPLoss()(graph, graph(x), x, y, moment(eps=1e-4, kappa=0.0)).robust
    assert not wrong.any()
    assert right.sum() >= 5


def test_masking_the_label_with_zero_is_wrong_for_negative_logits():
    """Mistake: the label's upper bound is set to 0 and stays in the maximum as a class."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    with torch.no_grad():
        net[3].bias.copy_(torch.tensor([-5.0, -9.0, -9.0]))
        net[3].weight.mul_(0.1)
    x, y = torch.rand(6, 4, dtype=torch.float64), torch.zeros(6, dtype=torch.int64)
    graph, region = trace(net, x[:1]), Linf(0.01).region(x)
    bounds = IBP()(graph, region)
    masked = bounds.upper.scatter(1, y[:, None], 0.0)
    wrong = bounds.lower[:, 0] > masked.amax(1)  # z_y = -5 "loses" against the mask
    right = IBP()(graph, region, margin_rows(y, 3, x)).lower.amin(1) > 0
    assert right.all() and not wrong.any()
    ours = IBPLoss()(graph, graph(x), x, y, moment(eps=0.01, kappa=0.0))
    # a loss that puts zeros into the worst-case logits wants z_y above 0, not above the others
    worst = bounds.upper.scatter(1, y[:, None], bounds.lower[:, :1])
    zeroed = worst.masked_fill(torch.nn.functional.one_hot(y, 3) == 0, 0.0)
    assert ours.robust.all() and ours.total < 0.1 < cross_entropy(zeroed, y)


def test_lipschitz_loss_is_above_the_loss_of_every_point(x, y):
    graph = trace(network(), x[:1])
    state = moment(eps=0.3, kappa=0.0)
    bound = LipschitzLoss()(graph, graph(x), x, y, state).total
    region = L2(0.3, None).region(x)
    for seed in range(30):
        gens = [torch.Generator().manual_seed(seed * 10 + b) for b in range(len(x))]
        assert cross_entropy(graph(region.sample(gens)), y) < bound


def test_gaussian_view_adds_noise_of_sigma():
    x = torch.zeros(50, 1000)
    seen = NoiseAugmentation(noise=Gaussian(0.5)).view(x, moment())
    again = NoiseAugmentation(noise=Gaussian(0.5)).view(x, moment())
    assert abs(float(seen.std()) - 0.5) < 0.01
    assert torch.equal(seen, again)


@pytest.mark.parametrize(
    "loss",
    [Standard(), NoiseAugmentation(noise=Gaussian(0.1)), Adversarial(), IBPLoss(), CrownIBPLoss(),
     LipschitzLoss(), IBPLoss(threat=L2)],
)  # fmt: skip
def test_gradient_flows_to_every_parameter(x, y, loss):
    net = network()
    graph = trace(net, x[:1])
    seen = loss.view(x, moment())
    loss(graph, graph(seen), seen, y, moment(kappa=0.5, beta=0.5)).total.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseAugmentation(noise=0.5),
        lambda: Adversarial(steps=0),
        lambda: IBPLoss(threat="linf"),
    ],
)
def test_refusals(make):
    with pytest.raises(ArgumentError):
        make()
