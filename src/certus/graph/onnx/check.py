"""An imported graph against onnxruntime on random inputs."""

import math

import torch
from torch import Tensor

from certus.core import CertusError, ModelError
from certus.core.random import generator
from certus.graph.graph import Graph
from certus.graph.onnx.runtime import OnnxModel
from certus.graph.piecewise import Jumps

_TOLERANCE = 1e-4  # relative to the largest output
_NOISY = 1e-3  # where float32 itself is no better


def compare(graph: Graph) -> None:
    """Raise ModelError where the graph and its original differ.

    Inputs are drawn at several scales and places; those on which onnxruntime gives NaN or infinite
    values say nothing. A network that jumps (Sign, Floor, comparisons) may fall on different sides of
    a jump, so there half of the inputs must agree; elsewhere all of them.
    """
    verdicts = []
    for trial in range(6):
        x = _draw(graph, trial)
        expected = graph.original(x)
        if not bool(torch.isfinite(expected).all()):
            continue
        with torch.no_grad():
            distance = _distance(graph(x), expected)
            limit = _TOLERANCE if distance <= _TOLERANCE else _limit(graph, x, expected)
        verdicts.append((distance <= limit, distance))
    if not verdicts:
        raise ModelError(
            "the network gives NaN or infinite values on every random input, so the import cannot be "
            "compared with onnxruntime"
        )
    jumps = any(isinstance(node.op, Jumps) or node.op.name == "ArgMax" for node in graph.nodes)
    agreed = sum(good for good, _ in verdicts)
    if agreed * 2 < len(verdicts) if jumps else agreed < len(verdicts):
        worst = max(distance for _, distance in verdicts)
        raise ModelError(
            f"the imported graph differs from onnxruntime by {worst:.2g} relative on random inputs; "
            "this is an error of the importer, please report it with the file"
        )


def takes_batches(model: OnnxModel, graph: Graph) -> bool:
    """Whether the file itself gives the same for several inputs at once as for each alone."""
    x = torch.cat([_draw(graph, trial) for trial in range(3)])
    alone = model(x)
    model.batched = True
    try:
        together = model(x)
    except (CertusError, ValueError):
        return False
    finally:
        model.batched = False
    return bool(torch.isfinite(alone).all()) and _distance(together, alone) <= _TOLERANCE


def _draw(graph: Graph, trial: int) -> Tensor:
    """One input: normal or uniform, small to large."""
    source = generator(0, trial + 1)
    like = torch.zeros((), dtype=graph.original.dtype)  # type: ignore[attr-defined]
    shape = (1, *graph.input_shape)
    if trial % 2:
        return torch.rand(shape, generator=source, dtype=like.dtype)
    return torch.randn(shape, generator=source, dtype=like.dtype) * (1.0, 0.1, 3.0)[trial // 2]


def _limit(graph: Graph, x: Tensor, expected: Tensor) -> float:
    """How much rounding explains: ten times the graph's own distance from float64, at most 1e-3."""
    if x.dtype != torch.float32:
        return _TOLERANCE
    exact = graph.cast(torch.float64)(x.double())
    noise = _distance(graph(x).double(), exact)
    return min(_NOISY, _TOLERANCE + 10 * noise)


def _distance(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    size = expected.abs().max().clamp(min=1e-6)
    difference = float((found - expected).abs().max() / size)
    return float("inf") if math.isnan(difference) else difference
