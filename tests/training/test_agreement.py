"""A training starts only where the captured graph is what the module is when torch trains it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from certus.core import ModelError
from certus.training import Adversarial, Constant, Plan, Standard, train

PLAN = Plan(epochs=1, batch=16, rate=Constant(1e-2))
DRAWS = torch.Generator().manual_seed(0)
X = torch.rand(48, 6, generator=DRAWS)
Y = torch.randint(3, (48,), generator=DRAWS)


class Net(nn.Module):
    """Two layers and what happens between them."""

    def __init__(self, between, **parts):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.last, self.between = nn.Linear(6, 8), nn.Linear(8, 3), between
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.last(self.between(self, self.first(x).relu()))


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx, h):
        return (4 * h).round() / 4

    @staticmethod
    def backward(ctx, g):
        return g


class Shortened(torch.autograd.Function):
    """The identity, whose gradient is clipped where it is large."""

    @staticmethod
    def forward(ctx, h):
        return h.clone()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-50, 50)


def hooked(net, h):
    if h.requires_grad:
        h.register_hook(lambda g: 0.5 * g)
    return h * 1


def averaged(net, h):
    if net.training:
        with torch.no_grad():
            net.mean.mul_(0.9).add_(0.1 * h.mean(0))
    return h


def counted(net, h):
    if net.training:
        net.calls = getattr(net, "calls", 0) + 1
        return h * (1 + 0.1 * net.calls)
    return h


def chain(*parts):
    torch.manual_seed(3)
    return nn.Sequential(*parts)


def between(part, width=8):
    return chain(nn.Linear(6, width), part, nn.ReLU(), nn.Linear(width, 3))


def with_hook():
    net = Net(lambda net, h: h)
    net.first.register_full_backward_hook(lambda part, before, after: None)
    return net


def zero_gate():
    """The branch without gradient is switched off at the initial weights."""
    gate = nn.Parameter(torch.zeros(1))
    return Net(lambda n, h: h + n.gate * n.side(h.detach()), gate=gate, side=nn.Linear(8, 8))


def without_gradients(net, h):
    """The branch without gradient is switched off at the initial weights."""
    with torch.no_grad():
        side = net.side(h)
    return h + net.gate * side


REFUSED = {
    "no_grad": (lambda: Net(torch.no_grad()(lambda n, h: 2 * h)), "no gradient recorded at"),
    "no_grad behind a zero": (
        lambda: Net(without_gradients, gate=nn.Parameter(torch.zeros(1)), side=nn.Linear(8, 8)),
        "no gradient recorded at test_agreement.py",
    ),
    "detach": (lambda: Net(lambda n, h: h.detach()), "detach at test_agreement.py"),
    "detach in a residual": (lambda: Net(lambda n, h: h + h.detach()), "'first.weight'"),
    "detach behind a zero": (zero_gate, "detach"),
    "straight through": (lambda: Net(lambda n, h: Rounded.apply(h)), "Rounded|round"),
    "straight through by hand": (lambda: Net(lambda n, h: h + (h.round() - h).detach()), "detach"),
    "clipped gradient": (lambda: Net(lambda n, h: Shortened.apply(h)), "gradient of"),
    "hook": (lambda: Net(hooked), "a hook at"),
    "backward hook": (with_hook, "Linear 'first' has a backward hook"),
    "spectral norm": (
        lambda: chain(parametrizations.spectral_norm(nn.Linear(6, 3))),
        "_SpectralNorm '0.parametrizations.weight.0' changes",
    ),
    "former spectral norm": (
        lambda: chain(nn.utils.spectral_norm(nn.Linear(6, 3))),
        "Linear '0' changes its 'weight_u'",
    ),
    "own average": (lambda: Net(averaged, mean=nn.Buffer(torch.zeros(8))), "changes its 'mean'"),
    "own counter": (lambda: Net(counted), "something else in training mode"),
    "own branch": (lambda: Net(lambda n, h: h * (2 if n.training else 1)), "something else"),
    "not a number": (
        lambda: Net(lambda n, h: h + (h - h) / (0.0 if n.training else 1.0)), "not finite"
    ),
    "noise": (lambda: Net(lambda n, h: F.dropout(h, 0.5, n.training)), "something else"),
    "random slopes": (lambda: chain(nn.Linear(6, 8), nn.RReLU(), nn.Linear(8, 3)), "RReLU '1'"),
    "dropout": (lambda: between(nn.Dropout(0.5)), "Dropout '1' would be off"),
    "instance statistics": (
        lambda: chain(
            nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True),
            nn.Flatten(), nn.Linear(6, 3),
        ),
        "InstanceNorm1d '1' changes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_train_otherwise_is_refused(name):
    make, words = REFUSED[name]
    module = make()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ModelError, match=words) as caught:
        train(module, X, Y, Standard(), PLAN)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def frozen_first():
    net = Net(lambda n, h: h.detach())
    net.first.requires_grad_(False)
    return net


def frozen_without_gradients():
    net = Net(torch.no_grad()(lambda n, h: 2 * h))
    net.first.requires_grad_(False)
    return net


def kept():
    net = chain(nn.Linear(6, 8), nn.RReLU(), nn.Linear(8, 3)).train()
    net[1].eval()
    return net


ACCEPTED = {
    "plain": lambda: Net(lambda n, h: h),
    "detach of what is frozen": frozen_first,
    "no_grad around what is frozen": frozen_without_gradients,
    "checkpoint": lambda: Net(lambda n, h: checkpoint(torch.tanh, h, use_reentrant=False)),
    "float64": lambda: Net(lambda n, h: h).double(),
    "constants of its dtype": lambda: Net(lambda n, h: h @ n.mix, mix=torch.eye(8)),
    "weight norm": lambda: chain(parametrizations.weight_norm(nn.Linear(6, 3))),
    "orthogonal": lambda: chain(parametrizations.orthogonal(nn.Linear(6, 3))),
    "batch norm": lambda: chain(  # a bias before it has no gradient but rounding
        nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "group norm": lambda: between(nn.GroupNorm(2, 8)),
    "dropout in evaluation mode": lambda: between(nn.Dropout(0.5)).eval(),
    "a part kept in evaluation mode": kept,
    "ties": lambda: chain(nn.Unflatten(1, (1, 6)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(3, 3)),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_trains_as_torch_does(name):
    """One step of Adam on the whole batch, against the module's own backward pass."""
    module = ACCEPTED[name]()
    twin = copy.deepcopy(module)
    for part in twin.modules():
        part.training &= not isinstance(part, nn.Dropout)
    x = (X * 4).round().div(4).to(next(module.parameters()).dtype)
    optimiser = torch.optim.Adam([p for p in twin.parameters() if p.requires_grad], 1e-2)
    F.cross_entropy(twin(x), Y).backward()
    optimiser.step()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    train(
        module, x, Y, Standard(), Plan(epochs=1, batch=48, rate=Constant(1e-2), gradient_norm=1e9)
    )
    assert torch.equal(state, torch.get_rng_state())
    for (key, ours), theirs in zip(
        module.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        if "num_batches" not in key:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=key)


def test_gradients_of_the_inputs_count_where_the_loss_follows_them():
    def net():
        module = frozen_first()
        module.requires_grad_(True)
        module.first.requires_grad_(False)
        return module

    train(net(), X, Y, Standard(), PLAN)
    with pytest.raises(ModelError, match="gradient of the input"):
        train(net(), X, Y, Adversarial(steps=1), PLAN)
