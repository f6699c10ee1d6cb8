"""A loss in pieces of the batch has the number and the gradients of the loss in one."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from certus.bounding import crown_ibp, margin_rows
from certus.bounding.backward import lower_bound
from certus.graph import trace
from certus.graph.batchnorm import with_batch_statistics
from certus.threats import L2, Linf
from certus.training import CrownIBPLoss, IBPLoss, Moment, pieces


class Residual(nn.Module):
    """A convolution around which the input goes, one set of weights used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.twice = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(3 * 36, 4)

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = y + torch.relu(self.twice(y))
        return self.last(torch.relu(self.twice(y)).flatten(1))


def convolutional(norm):
    def layers(width, channels, stride):
        norms = [nn.BatchNorm2d(width)] if norm else []
        return [nn.Conv2d(channels, width, 3, stride, 1), *norms, nn.ReLU()]

    dense = [nn.Linear(4 * 9, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers(3, 1, 1), *layers(4, 3, 2), nn.Flatten(), *dense, nn.Linear(8, 4))


NETS = {
    "plain": lambda: convolutional(norm=False),
    "batch-norm": lambda: convolutional(norm=True),
    "residual": Residual,
}


def case(name):
    torch.manual_seed(3)
    module = NETS[name]().double()
    x = torch.rand(7, 1, 6, 6, dtype=torch.float64)
    return module.eval(), x, torch.arange(7) % 4


def in_one(graph, logits, x, y, moment, threat):
    """CROWN-IBP's loss as autograd records it."""
    region = threat(moment.eps, moment.clip).region(x)
    rows = margin_rows(y, 4, logits).transpose(0, 1)
    state = crown_ibp().prepare(graph, region)
    crown = lower_bound(state, graph.output, rows)
    plain = lower_bound(replace(state, table=None), graph.output, rows)
    margins = (moment.beta * crown + (1 - moment.beta) * plain).T
    worst = torch.cat([margins.new_zeros(7, 1), -margins], 1)
    robust = cross_entropy(worst, torch.zeros_like(y))
    return moment.kappa * cross_entropy(logits, y) + (1 - moment.kappa) * robust, margins > 0


@pytest.mark.parametrize("threat", [Linf, L2])
@pytest.mark.parametrize("size", [1, 3, 100], ids="{}-inputs".format)
@pytest.mark.parametrize("name", NETS)
def test_pieces_change_nothing(name, size, threat, monkeypatch):
    module, x, y = case(name)
    monkeypatch.setattr(pieces, "_CACHED", size * 3 * 108)  # rows times the widest node
    moment = Moment(eps=0.03, kappa=0.3, beta=0.4, generator=torch.Generator())
    found = []
    for way in ("pieces", "one"):
        graph, logits = with_batch_statistics(trace(module, x[:1]), x, momentum=None)
        if way == "one":
            total, ahead = in_one(graph, logits, x, y, moment, threat)
        else:
            value = CrownIBPLoss(threat=threat)(graph, logits, x, y, moment)
            total, robust = value.total, value.robust
        found.append([total, *torch.autograd.grad(total, list(module.parameters()))])
    assert robust.equal(ahead.all(1))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_float32_agrees_to_rounding():
    module, x, y = case("batch-norm")
    module, x = module.float(), x.float()
    moment = Moment(eps=0.03, kappa=0.0, beta=0.5, generator=torch.Generator())
    graph, logits = with_batch_statistics(trace(module, x[:1]), x, momentum=None)
    values = [
        CrownIBPLoss()(graph, logits, x, y, moment).total,
        in_one(graph, logits, x, y, moment, Linf)[0],
    ]
    slopes = [torch.autograd.grad(v, list(module.parameters()), retain_graph=True) for v in values]
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=0)
    for got, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(
            got, expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())
        )


def test_a_learned_radius_gets_its_gradient():
    """The region records gradients: the batch stays one piece, which autograd sees as a whole."""
    module, x, y = case("plain")
    graph = trace(module, x[:1])
    x.requires_grad_()
    moment = Moment(eps=0.03, kappa=0.0, beta=1.0, clip=(-9.0, 9.0), generator=torch.Generator())
    logits = graph(x)
    got = torch.autograd.grad(CrownIBPLoss()(graph, logits, x, y, moment).total, x)
    expected = torch.autograd.grad(in_one(graph, logits, x, y, moment, Linf)[0], x)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("loss", [IBPLoss(), CrownIBPLoss()])
def test_without_gradients(loss):
    module, x, y = case("plain")
    graph = trace(module, x[:1])
    moment = Moment(eps=0.03, kappa=0.0, beta=0.5, generator=torch.Generator())
    with torch.no_grad():
        value = loss(graph, graph(x), x, y, moment)
    torch.testing.assert_close(value.total, loss(graph, graph(x), x, y, moment).total.detach())


def test_a_frozen_network_has_a_loss():
    """Nothing asks for a gradient though gradients are recorded; then one bias alone does."""
    module, x, y = case("plain")
    graph = trace(module.requires_grad_(False), x[:1])
    moment = Moment(eps=0.03, kappa=0.0, beta=0.5, generator=torch.Generator())
    frozen = CrownIBPLoss()(graph, graph(x), x, y, moment).total
    assert not frozen.requires_grad
    bias = module[-1].bias.requires_grad_()
    value = CrownIBPLoss()(graph, graph(x), x, y, moment).total
    assert value.item() == pytest.approx(frozen.item())
    assert bool(torch.autograd.grad(value, bias)[0].any())


def test_each_piece_is_differentiated_before_the_next(monkeypatch):
    """What a walk keeps for its gradient is never that of two pieces."""
    module, x, y = case("plain")
    graph = trace(module, x[:1])
    monkeypatch.setattr(pieces, "_CACHED", 3 * 108)
    events, evaluate, grad = [], lower_bound, torch.autograd.grad

    def walk(state, *rest):
        if state.relaxations:
            events.append("walk")
        return evaluate(state, *rest)

    def slopes(*given, **options):
        events.append("gradient")
        return grad(*given, **options)

    monkeypatch.setattr("certus.training.loss.lower_bound", walk)
    monkeypatch.setattr(torch.autograd, "grad", slopes)
    moment = Moment(eps=0.03, kappa=0.0, beta=0.5, generator=torch.Generator())
    CrownIBPLoss()(graph, graph(x), x, y, moment)
    assert events == ["walk", "gradient"] * 7
