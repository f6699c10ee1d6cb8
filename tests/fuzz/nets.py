"""Networks whose evaluation loses most, each with a place where it does: for the fuzz of verdicts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from tests.laws.networks import Function
from torch import Tensor, nn

import certus
from certus.graph import Graph


@dataclass(frozen=True, eq=False)
class Hard:
    """A network of two logits whose last bias shifts the first, an input [1, *shape] and an eps."""

    net: nn.Module
    bias: Tensor  # shape [2], a parameter of net
    x: Tensor
    eps: float

    @cached_property
    def graph(self) -> Graph:
        """Captured once: parameters are live."""
        return certus.trace(self.net.eval(), self.x)

    def at(self, bias: float) -> Graph:
        """The network with the bias."""
        with torch.no_grad():
            self.bias[0] = bias
        return self.graph


@dataclass(frozen=True, eq=False)
class HardFile:
    """The same as an ONNX file, which onnxruntime evaluates."""

    operators: tuple[tuple[str, dict[str, object]], ...]
    gain: float
    x: Tensor
    eps: float

    def at(self, bias: float) -> Graph:
        """The file with the bias, read anew."""
        from onnx import TensorProto, helper, numpy_helper

        nodes, last = [], "x"
        for i, (name, attributes) in enumerate(self.operators):
            nodes.append(helper.make_node(name, [last], [f"h{i}"], **attributes))
            last = f"h{i}"
        width = self.x.shape[1]
        weight = np.zeros((width, 2), np.float32)
        weight[:, 0] = self.gain
        constants = {"w": weight, "b": np.array([bias, 0.0], np.float32)}
        nodes.append(helper.make_node("Gemm", [last, "w", "b"], ["y"]))
        ports = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])
            for name, size in (("x", width), ("y", 2))
        ]
        held = [numpy_helper.from_array(v, k) for k, v in constants.items()]
        graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        return certus.load(model.SerializeToString())


def long_sum(count: int) -> Hard:
    """All terms of one sign against the same sum computed in another order."""

    def body(m: nn.Module, x: Tensor) -> Tensor:
        rest = x.mean(1, keepdim=True) * count
        return m.last(x) + torch.cat([torch.zeros_like(rest), rest], 1)

    last = nn.Linear(count, 2)
    last.weight.data = torch.tensor([[1.0], [0.0]]).expand(2, count).contiguous()
    return Hard(Function(body, last=last), last.bias, torch.full((1, count), 0.5), 0.1)


def wide_map(side: int, pool: bool) -> Hard:
    """A convolution as large as the map, or average pooling, against a sum in another order."""

    def body(m: nn.Module, x: Tensor) -> Tensor:
        h = nn.functional.avg_pool2d(x, side) * side**2 if pool else m.conv(x)
        both = torch.cat([h.flatten(1), x.flatten(1).sum(1, keepdim=True)], 1)
        return m.last(both)

    conv, last = nn.Conv2d(1, 1, side, bias=False), nn.Linear(2, 2)
    conv.weight.data.fill_(1.0)
    last.weight.data = torch.eye(2)
    parts = {"last": last} if pool else {"conv": conv, "last": last}
    return Hard(Function(body, **parts), last.bias, torch.full((1, 1, side, side), 0.5), 0.1)


def late_terms(count: int) -> Hard:
    """One large term, then small ones that are lost beside it."""

    def body(m: nn.Module, x: Tensor) -> Tensor:
        few = x[:, 1:].sum(1, keepdim=True) + x[:, :1]
        return m.last(x) + torch.cat([torch.zeros_like(few), few], 1)

    last = nn.Linear(count, 2)
    last.weight.data = torch.tensor([[1.0], [0.0]]).expand(2, count).contiguous()
    x = torch.full((1, count), 2.0**-25)
    x[0, 0] = 1.0
    return Hard(Function(body, last=last), last.bias, x, 2.0**-26)


def activation(act: Callable[[Tensor], Tensor], place: float, gain: float) -> Hard:
    """A function where its error is largest, many times enlarged."""

    def body(m: nn.Module, x: Tensor) -> Tensor:
        return m.last(act(x))

    last = nn.Linear(4, 2)
    last.weight.data = torch.tensor([[gain] * 4, [0.0] * 4])
    return Hard(Function(body, last=last), last.bias, torch.full((1, 4), place), 0.02)


def random_net(seed: int, depth: int, width: int, shift: float) -> Hard:
    """ReLU layers after a batch normalisation that subtracts large means."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Linear(8, width), nn.BatchNorm1d(width), nn.ReLU()]
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.ReLU()]
        net = nn.Sequential(*layers, nn.Linear(width, 2))
        net[0].bias.data += shift
        net[1].running_mean = net[0].bias.data.clone()
        return Hard(net.eval(), net[-1].bias, torch.rand(1, 8), 0.02)


def attention(seed: int) -> Hard:
    """Layer normalisation far from zero, softmax, products, GELU."""

    def body(m: nn.Module, x: Tensor) -> Tensor:
        h = m.norm(m.up(x.view(-1, 4, 4)))
        scores = (m.key(h) @ h.mT).softmax(-1)
        return m.last(nn.functional.gelu(scores @ m.value(h)).flatten(1))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {"up": nn.Linear(4, 8), "norm": nn.LayerNorm(8), "key": nn.Linear(8, 8)}
        parts |= {"value": nn.Linear(8, 8), "last": nn.Linear(32, 2)}
        parts["up"].bias.data += 50
        return Hard(Function(body, **parts).eval(), parts["last"].bias, torch.rand(1, 16), 0.002)


FUNCTIONS = {
    "gelu": (nn.functional.gelu, (-5.2, -3.1, 3.08)),
    "gelu-tanh": (lambda x: nn.functional.gelu(x, approximate="tanh"), (-5.2, -3.1)),
    "silu": (nn.functional.silu, (-17.0, -3.0)),
    "mish": (nn.functional.mish, (-15.0, -3.0)),
    "sigmoid": (torch.sigmoid, (-17.9, 0.1)),
    "tanh": (torch.tanh, (0.5, 8.0)),
    "elu": (nn.functional.elu, (-0.05, -5.0)),
    "celu": (nn.functional.celu, (-0.05,)),
    "selu": (nn.functional.selu, (-0.05,)),
    "softplus": (nn.functional.softplus, (-15.0, 0.0, 19.9)),
    "logsigmoid": (nn.functional.logsigmoid, (15.0, 0.0)),
    "hardswish": (nn.functional.hardswish, (-2.9, -1.5)),
    "erf": (torch.erf, (0.4, 3.0)),
    "atan": (torch.atan, (0.4, 30.0)),
    "softsign": (nn.functional.softsign, (0.4, 30.0)),
    "exp": (torch.exp, (0.4, 12.0)),
    "log": (torch.log, (1.05, 30.0)),
    "sqrt": (torch.sqrt, (0.4, 30.0)),
    "reciprocal": (torch.reciprocal, (0.4, 30.0)),
    "sin": (torch.sin, (3.1, 30.0)),
    "cos": (torch.cos, (1.5, 30.0)),
    "tan": (torch.tan, (1.4,)),
    "power": (lambda x: x**1.3, (2.0, 30.0)),
    "cube": (lambda x: x**3, (2.0, 30.0)),
}


FILES = {
    "Sigmoid": ({}, (-17.95, 0.1)),
    "Tanh": ({}, (0.5,)),
    "Gelu": ({}, (-5.6, -3.1)),
    "Elu": ({}, (-0.05,)),
    "Selu": ({}, (-0.05,)),
    "Celu": ({}, (-0.05,)),
    "HardSwish": ({}, (-2.9,)),
    "Softplus": ({}, (-15.0,)),
    "Mish": ({}, (-15.0,)),
    "Erf": ({}, (0.4,)),
    "Exp": ({}, (3.0,)),
    "Softmax": ({"axis": 1}, (0.4,)),
    "LogSoftmax": ({"axis": 1}, (0.4,)),
}


def table() -> dict[str, Callable[[], Hard | HardFile]]:
    """All of them by name."""
    return {name: make for part in (files, sums, functions, layers) for name, make in part()}


Named = Iterator[tuple[str, Callable[[], Hard | HardFile]]]


def files() -> Named:
    """Of onnxruntime."""
    for name, (attributes, places) in FILES.items():
        for place in places:
            for gain in (1e5, -1e5):
                x = torch.full((1, 4), place)
                yield (
                    f"onnx-{name}-{place}-{gain:g}",
                    partial(HardFile, ((name, attributes),), gain, x, 0.02),
                )
    for count in (784, 12288):
        x = torch.full((1, count), 0.5)
        yield f"onnx-sum-{count}", partial(HardFile, (("Identity", {}),), 1.0, x, 0.1)


def sums() -> Named:
    """Long ones, in several kernels."""
    for count in (784, 3072, 12288, 150528):
        yield f"long-sum-{count}", partial(long_sum, count)
        yield f"late-terms-{count}", partial(late_terms, count)
    for side in (16, 56, 64):
        yield f"convolution-{side}", partial(wide_map, side, pool=False)
        yield f"pooling-{side}", partial(wide_map, side, pool=True)


def functions() -> Named:
    """Of one value."""
    for name, (act, places) in FUNCTIONS.items():
        for place in places:
            for gain in (1e4, -1e4):
                yield f"{name}-{place}-{gain:g}", partial(activation, act, place, gain)


def layers() -> Named:
    """Networks of several layers."""
    for seed in range(6):
        for depth in (1, 4):
            yield f"relu-{seed}-{depth}", partial(random_net, seed, depth, 64, 100.0)
    for seed in range(3):
        yield f"attention-{seed}", partial(attention, seed)
