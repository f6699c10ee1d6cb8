"""On a linear classifier the optimum is known: min_j (z_y - z_j) - eps ||w_y - w_j||_q."""

import pytest
import torch
from torch import nn

from certus.attacks import FGSM, PGD
from certus.threats import L1, L2, Box, Linf

DUAL = {Linf: 1.0, L2: 2.0, L1: float("inf")}


def linear(features, classes, dtype=torch.float32):
    model = nn.Linear(features, classes).to(dtype).eval()
    x = torch.rand(12, features, dtype=dtype)
    return model, x, model(x).argmax(1)


def differences(model, x, y):
    """Margins [B, K] to each class (inf for the label) and their gradients [B, K, n]."""
    z = model(x).detach()
    gaps = z.gather(1, y.unsqueeze(1)) - z
    return gaps.scatter(1, y.unsqueeze(1), float("inf")), model.weight.detach()[y].unsqueeze(
        1
    ) - model.weight.detach()


@pytest.mark.parametrize("features", [5, 200])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_pgd_reaches_the_optimum(threat, classes, features):
    model, x, y = linear(features, classes)
    gaps, rows = differences(model, x, y)
    eps = 0.7 * (gaps / rows.norm(p=DUAL[threat], dim=2)).amin(1)  # below the exact radius
    exact = (gaps - eps.unsqueeze(1) * rows.norm(p=DUAL[threat], dim=2)).amin(1)
    result = PGD(restarts=classes)(model, x, y, threat(eps, clip=None))
    assert not bool(result.success.any())
    assert bool((result.margin >= exact - 1e-5).all())  # nothing is below the optimum
    torch.testing.assert_close(
        result.margin, exact, atol=1e-3 * float(gaps[gaps < 1e9].max()), rtol=0
    )


@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_pgd_breaks_exactly_what_can_be_broken(threat):
    model, x, y = linear(20, 3, torch.float64)
    gaps, rows = differences(model, x, y)
    radius = (gaps / rows.norm(p=DUAL[threat], dim=2)).amin(1)
    attack = PGD(restarts=3)
    assert bool(attack(model, x, y, threat(1.01 * radius, clip=None)).success.all())
    assert not bool(attack(model, x, y, threat(0.99 * radius, clip=None)).success.any())


@pytest.mark.parametrize("attack", [FGSM(), PGD(steps=1, restarts=1)], ids=["fgsm", "pgd"])
@pytest.mark.parametrize("clip", [(0.0, 1.0), None])
def test_one_step_in_a_box_is_exact_from_an_edge_too(clip, attack):
    """Inputs at the limits of their range: the region then lies on one side of them."""
    model, x, y = linear(40, 2)
    x = x.round()
    y = model(x).argmax(1)
    box = Linf(0.002, clip=clip).region(x)
    _, rows = differences(model, x, y)
    row = rows.gather(1, (1 - y).reshape(-1, 1, 1).expand(-1, 1, 40)).squeeze(1)
    bias = model.bias.detach()[y] - model.bias.detach()[1 - y]
    exact = torch.where(row > 0, row * box.lower, row * box.upper).sum(1) + bias
    result = attack(model, x, y, Box(box.lower, box.upper))
    alive = exact > 0
    assert bool(alive.any())
    torch.testing.assert_close(result.margin[alive], exact[alive], atol=1e-5, rtol=0)
    assert torch.equal(result.success, ~alive)
