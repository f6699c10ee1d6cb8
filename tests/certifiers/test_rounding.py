"""Certificates where floating point matters: cancellation, ties, and badly scaled programs."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import certus


def cancelling(seed):
    """A BatchNorm that subtracts large means: rounding is far above the logits' own precision."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[0].bias.uniform_(100, 200)
        for _ in range(60):
            net.train()(torch.rand(256, 2))
    return net.eval()


@pytest.mark.parametrize("seed", range(4))
def test_cancellation_is_not_certified_beyond_what_an_attack_leaves(seed):
    net = cancelling(seed)
    graph, x = certus.trace(net, torch.rand(1, 2)), torch.rand(32, 2)
    with torch.no_grad():
        y = net(x).argmax(1)
    low, high = torch.zeros(32), torch.ones(32)
    for _ in range(16):  # the largest eps that is certified, for each input
        middle = (low + high) / 2
        proven = certus.certify(graph, x, y, certus.Linf(middle, clip=None), "crown").certified
        low, high = torch.where(proven, middle, low), torch.where(proven, high, middle)
    assert float(low.max()) > 0
    found = certus.attack(graph, x, y, certus.Linf(low, clip=None), steps=60, restarts=4)
    assert not bool(found.success.any())


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "milp", "auto", "lipschitz"])
def test_a_margin_that_rounds_away_is_not_certified(method):
    net = nn.Sequential(nn.Linear(1, 2)).eval()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([1e-9, 0.0]))
    found = certus.certify(net, torch.tensor([[0.5]]), torch.tensor([0]), certus.Linf(0.1), method)
    assert not bool(found.certified.any())


@pytest.mark.parametrize("scale", [1e8, 1e9])
def test_milp_survives_small_weights_on_a_wide_box(scale):
    """HiGHS ignores entries below 1e-9; unscaled, a quarter of these certificates were false."""
    for seed in range(4):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
        with torch.no_grad():
            net[0].weight.div_(scale)
        x = torch.rand(8, 2).double() * scale
        threat = certus.Linf(0.3 * scale, clip=None)
        y = net(x).argmax(1)
        found = certus.certify(net, x, y, threat, "milp", timeout=5.0)
        broken = certus.attack(net, x, y, threat, steps=60, restarts=6).success
        assert not bool((found.certified & broken).any())


def test_a_model_that_changed_since_it_was_traced_is_refused():
    net = nn.Sequential(nn.Linear(2, 2)).eval()
    x, y = torch.rand(3, 2), torch.zeros(3, dtype=torch.long)
    graph = certus.trace(net, x)
    net[0].weight = nn.Parameter(torch.randn(2, 2) * 5)  # a new tensor: the graph holds the old one
    with pytest.raises(certus.ModelError, match="changed since it was traced"):
        certus.certify(graph, x, y, certus.Linf(0.1), "ibp")
    graph = certus.trace(net, x)
    net.train()
    with pytest.raises(certus.ModelError, match="training mode"):
        certus.certify(graph, x, y, certus.Linf(0.1), "ibp")


def test_an_attack_in_a_ready_region_stays_inside_it():
    net = nn.Sequential(nn.Linear(6, 3)).eval()
    x = torch.rand(40, 6)
    with torch.no_grad():
        y = net(x).argmax(1)
    region = certus.Linf(0.3).region(x)
    found = certus.attack(net, x, y, region)
    assert bool(found.success.any()) and bool(region.contains(found.inputs).all())


def there_and_back(shift):
    """(x + shift) - shift beside zero, and the unit in the last place that x is rounded to."""
    net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 2)).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.zero_()
    net[0].weight.fill_(1.0), net[0].bias.fill_(shift)
    net[1].weight[0], net[1].bias[0] = 1.0, -shift
    return net, torch.nextafter(torch.tensor(shift), torch.tensor(2 * shift)).item() - shift


@pytest.mark.parametrize("shift", [1e4, 3e5])
def test_a_lipschitz_radius_is_reached_by_the_network_that_runs(shift):
    """A shift there and back rounds x up to a whole unit, so that the margin is not the true one."""
    net, unit = there_and_back(shift)
    x = torch.tensor([[0.6 * unit]])
    assert net(x)[0].tolist() == [unit, 0.0] and net(x - 0.7 * unit)[0].tolist() == [0.0, 0.0]
    found = certus.certify(net, x, torch.tensor([0]), certus.L2(0.8 * unit, clip=None), "lipschitz")
    assert not bool(found.certified.any()) and float(found.radius) < 0.7 * unit


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "milp", "auto"])
def test_a_margin_that_the_network_itself_rounds_away_is_not_certified(method):
    """Exactly x - 0.5 unit is positive, but a shift there and back takes it for zero: a tie."""
    net, unit = there_and_back(1e4)
    x = torch.tensor([[0.6 * unit]])
    assert net(x - 0.45 * unit)[0].tolist() == [0.0, 0.0]
    found = certus.certify(net, x, torch.tensor([0]), certus.Linf(0.5 * unit, clip=None), method)
    assert not bool(found.certified.any())


def test_a_solver_that_fails_verifies_nothing(monkeypatch):
    """One rival is beaten without the solver, the other one is not."""

    def failed(cost, **given):
        return SimpleNamespace(status=4, x=None, fun=None, mip_dual_bound=5.0)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    net.requires_grad_(False)
    x = torch.rand(1, 2, dtype=torch.float64)
    net[2].bias.copy_(torch.tensor([0.01, -9.0, 0.0]) - net(x)[0] + net[2].bias)
    monkeypatch.setattr("scipy.optimize.milp", failed)
    found = certus.certify(net, x, torch.tensor([0]), certus.Linf(0.5, clip=None), "milp")
    assert found.verdict == [certus.Verdict.UNKNOWN] and found.reason == [certus.Reason.SOLVER]


def test_a_part_in_training_mode_is_refused():
    net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 2)).eval()
    x = torch.rand(3, 2)
    graph = certus.trace(net, x)
    net[1].train()
    with pytest.raises(certus.ModelError, match="training mode"):
        certus.certify(graph, x, torch.zeros(3, dtype=torch.long), certus.Linf(0.0), "ibp")
