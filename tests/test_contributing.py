"""The recipes of CONTRIBUTING.md work as they stand there."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import certus
from certus.attacks import Attack
from certus.bounding import BoundMethod
from certus.core.kinds import text
from certus.training.loss import Loss, Value

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def made() -> dict:
    """What the complete blocks of the page define."""
    found: dict = {"__name__": "pasted"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        if "from dataclasses" in block:
            exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    return found


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    net[2].bias.data -= net(torch.rand(50, 3)).mean(0)  # both classes occur
    return net


def test_the_attack_attacks(made, net):
    attack = made["RandomSearch"](samples=50)
    x = torch.rand(20, 3)
    y = net(x).argmax(1)
    assert isinstance(attack, Attack) and "samples" in text(attack)
    found = certus.attack(net, x, y, certus.Linf(0.1), attack)
    assert bool(found.success.any()) and not bool(found.success.all())
    same = certus.certify(
        net, x, y, certus.Linf(0.1), certus.certifiers.AttackCertifier(attack=attack)
    )
    assert [v is certus.Verdict.FALSIFIED for v in same.verdict] == found.success.tolist()


def test_the_certifier_certifies(made, net):
    x = torch.rand(20, 3)
    y = net(x).argmax(1)
    ours = certus.certify(net, x, y, certus.Linf(0.01), made["MineCertifier"]())
    theirs = certus.certify(net, x, y, certus.Linf(0.01), "crown")
    assert ours.method == "mine" and bool(ours.certified.any())
    assert bool((theirs.certified | ~ours.certified).all())


def test_the_bound_method_is_one(made):
    assert issubclass(made["Mine"], BoundMethod) and made["Mine"]()


def test_the_loss_is_one(made, net):
    loss = made["LabelSmoothing"](amount=0.1)
    x, y = torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 1])
    value = loss(certus.trace(net, x), net(x), x, y, None)
    assert isinstance(loss, Loss) and isinstance(value, Value)


def test_the_noise_is_that_of_certus(made):
    ours, theirs = made["Uniform"](0.5), certus.smoothing.noise.Uniform(0.5)
    for lower, upper in ((0.9, 0.1), (0.6, 0.3)):
        radius = float(ours.radius(lower, upper))
        assert radius == pytest.approx(float(theirs.radius(lower, upper)), rel=1e-6)
