"""The table of small networks that every law runs over: name -> (builder, input shape)."""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from certus.graph import Graph, trace


class Function(nn.Module):
    """A module from a function of (self, x) and named parts (modules, parameters, buffers)."""

    def __init__(self, body: Callable[[nn.Module, Tensor], Tensor], **parts: object) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def mlp(activation: Callable[[], nn.Module] = nn.ReLU, width: int = 6) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, 3),
    )


def convolutional(*middle: nn.Module, features: int, channels: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1), *middle, nn.Flatten(), nn.Linear(features, 3)
    )


def residual() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:
        h = F.relu(m.bn1(m.conv1(x)))
        return m.fc(torch.relu(m.bn2(m.conv2(h)) + m.short(x)).flatten(1))

    parts = {
        "conv1": nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(3),
        "conv2": nn.Conv2d(3, 3, 3, padding=1, bias=False),
        "bn2": nn.BatchNorm2d(3, affine=False),
        "short": nn.Conv2d(2, 3, 1, stride=2),
        "fc": nn.Linear(27, 3),
    }
    for name in ("bn1", "bn2"):
        parts[name].running_mean.uniform_(-0.5, 0.5)
        parts[name].running_var.uniform_(0.3, 2.0)
    nn.init.uniform_(parts["bn1"].weight, -1.5, 1.5)
    return Function(body, **parts)


def rearranged() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:  # [B, 2, 4, 4]
        h = m.conv(x).relu()
        a = h[:, :, 1:4:2, :].permute(0, 2, 3, 1).reshape(-1, 2 * 4 * 3)
        b = h[:, 1].transpose(1, 2).flatten(1)
        c = torch.cat([a, b, h[..., -1].view(x.shape[0], -1)], dim=-1)
        c = c.unsqueeze(1).expand(-1, 2, -1).mean(1, keepdim=True).squeeze(1)
        return m.fc(torch.relu(c) - 0.5 * torch.sum(h, (2, 3))[:, :1])

    return Function(body, conv=nn.Conv2d(2, 3, 3, padding=1), fc=nn.Linear(24 + 16 + 12, 3))


def normalised() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:
        return m.net(((x - m.mean) / m.std).flatten(1))

    mean = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)
    std = torch.tensor([0.2, 0.5]).view(2, 1, 1)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    return Function(body, mean=mean, std=std, net=net)


def functional() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:
        h = F.hardtanh(F.linear(x, m.first, m.bias), -0.4, 0.7)
        h = torch.clamp(m.shift + 2.0 * (-h) @ m.second, min=0)
        return F.linear(F.relu6(3 * h).clamp(0.1, 4.0), m.last)

    return Function(
        body,
        first=nn.Parameter(torch.randn(6, 4)),
        bias=nn.Parameter(torch.randn(6)),
        second=nn.Parameter(torch.randn(6, 5)),
        shift=nn.Parameter(torch.randn(5)),
        last=nn.Parameter(torch.randn(3, 5)),
    )


def in_place() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:
        h = m.first(x)
        h.relu_()
        g = F.leaky_relu_(m.second(h), 0.2)
        g += h
        return m.last(g)

    return Function(body, first=nn.Linear(4, 5), second=nn.Linear(5, 5), last=nn.Linear(5, 3))


def tied() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:
        return m.last(m.same(m.same(x).relu()).relu() + x)

    return Function(body, same=nn.Linear(4, 4), last=nn.Linear(4, 3))


def orthogonal() -> nn.Module:
    first = parametrizations.orthogonal(nn.Linear(4, 4).double())
    return nn.Sequential(first, nn.ReLU(), nn.Linear(4, 3))


def broadcast_sum() -> nn.Module:
    def body(m: nn.Module, x: Tensor) -> Tensor:  # [B, 4] -> outer sum [B, 3, 2]
        a, b = m.a(x).unsqueeze(2), m.b(x).unsqueeze(1)
        return m.last(torch.relu(m.left @ torch.sub(a, b, alpha=0.5)).flatten(1))

    left = nn.Parameter(torch.randn(4, 3))
    parts = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 2), "last": nn.Linear(8, 3)}
    return Function(body, left=left, **parts)


def _pools() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    max_pools = {
        "maxpool-overlap": (nn.MaxPool2d(3, 2, 1), 3 * 9),
        "maxpool-ceil": (nn.MaxPool2d(2, 2, 0, ceil_mode=True), 3 * 9),
        "maxpool-dilated": (nn.MaxPool2d(2, 1, 1, dilation=2), 3 * 25),
        "avgpool-counted": (nn.AvgPool2d(3, 2, 1, count_include_pad=True), 3 * 9),
        "avgpool-uncounted": (
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
            3 * 9,
        ),
        "avgpool-adaptive": (nn.AdaptiveAvgPool2d((2, 3)), 3 * 6),
    }
    return {
        name: (
            lambda pool=pool, features=features: convolutional(nn.ReLU(), pool, features=features),
            (2, 5, 5),
        )
        for name, (pool, features) in max_pools.items()
    }


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "relu": (mlp, (4,)),
    "leaky": (lambda: mlp(lambda: nn.LeakyReLU(0.2)), (4,)),
    "sigmoid": (lambda: mlp(nn.Sigmoid), (4,)),
    "tanh": (lambda: mlp(nn.Tanh), (4,)),
    "hardtanh": (lambda: mlp(lambda: nn.Hardtanh(-0.3, 0.5)), (4,)),
    "relu6": (lambda: mlp(nn.ReLU6), (4,)),
    "residual": (residual, (2, 5, 5)),
    **_pools(),
    "rearranged": (rearranged, (2, 4, 4)),
    "normalised": (normalised, (2, 2, 2)),
    "functional": (functional, (4,)),
    "in-place": (in_place, (4,)),
    "tied": (tied, (4,)),
    "orthogonal": (orthogonal, (4,)),
    "broadcast": (broadcast_sum, (4,)),
    "grouped": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=2, dilation=2, groups=2),
            nn.ReLU(),
            nn.Conv2d(4, 4, 2, stride=2, groups=4, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 5, 5),
    ),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 3, 3, padding="same"),
            nn.BatchNorm1d(3),
            nn.ReLU(),
            nn.AvgPool1d(2),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.Linear(9, 3),
        ),
        (2, 7),
    ),
    "same": (
        lambda: convolutional(
            nn.ZeroPad2d((1, 2, 0, 1)), nn.ReLU(), nn.Conv2d(3, 2, (3, 5), padding="same"),
            nn.Tanh(), features=2 * 5 * 7, channels=3,
        ),
        (2, 4, 4),
    ),
}  # fmt: skip

# Without any non-linear operation: CROWN must be exact on these.
AFFINE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), (4,)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1),
            nn.BatchNorm2d(3),
            nn.AvgPool2d(2, 1),
            nn.Flatten(),
            nn.Linear(12, 3),
        ),
        (2, 5, 5),
    ),
}

PIECEWISE = ["relu", "leaky", "residual", "in-place"]  # small enough for exact minima


def make(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network of the tables with weights that depend on its name alone."""
    builder, _ = (NETWORKS | AFFINE)[name]
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        module = builder().to(dtype).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1.0 if name == "orthogonal" else 1.5)
    return module


def example(name: str, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    """Inputs in [0, 1] of the network's shape."""
    _, shape = (NETWORKS | AFFINE)[name]
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch), dtype=dtype)


@cache
def graph_of(name: str) -> Graph:
    """The captured network, once a process: laws only read it."""
    return trace(make(name), example(name))
