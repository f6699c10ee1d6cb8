"""certus.load: from an ONNX file to a Graph that was compared with onnxruntime."""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

import certus.graph.onnx.builders  # noqa: F401  (fills the tables)
from certus.core import ModelError, UnsupportedError
from certus.graph.graph import Graph
from certus.graph.onnx.check import compare, takes_batches
from certus.graph.onnx.importer import Importer
from certus.graph.onnx.reader import Network, Port, read
from certus.graph.onnx.runtime import OnnxModel, Unchecked
from certus.graph.op import Shape

_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def load(
    source: str | Path | bytes, output: str | None = None, sizes: Mapping[str, int] | None = None
) -> Graph:
    """Read an ONNX network as a Graph.

    source: a path or the bytes of a model, gzipped or not, operator sets 7 to 21 (newer ones where
    their operators have not changed). output: the name of the output, needed where there are several.
    sizes: sizes of named dimensions other than the batch, which counts as 1.

    The graph takes [B, *shape], where shape is the ONNX shape without a leading batch dimension of 1
    or without a size; a network without one (a vector, a scalar output) gets one in front. Several
    inputs become one flat input [B, n1 + n2 + ...] in the order of the file. Batch is any number,
    also where the file fixes it.

    `original` is the file itself, run by onnxruntime, and the graph is compared with it on ordinary,
    whole, large and tiny inputs: relative to the spread of each output, and what goes beyond a few
    roundings must be explained by a unit of every operation's terms (`graph.agreement`). Changes of
    floating type are refused; whole numbers have no bounds beyond their type. Without onnxruntime
    nothing is compared, and the repr of `original` says so.

    Raises FileError (missing, damaged, not ONNX, external data outside the file's folder), ModelError
    (NaN weights, several outputs, open sizes, a difference from onnxruntime), UnsupportedError (names
    every operator without a sound rule, all at once) and DependencyError (onnx is not installed).
    """
    network = read(source, output)
    shapes = [_shape(port, sizes or {}) for port in network.inputs]
    dtype = _dtype(network.inputs)
    chosen = _output(network, output)
    like = torch.zeros((), dtype=dtype)
    graph = Importer(network, shapes, like).graph(chosen.name)
    if importlib.util.find_spec("onnxruntime") is None:
        return replace(graph, original=Unchecked(graph))
    parts = tuple((p.name, s) for p, s in zip(network.inputs, shapes, strict=True))
    model = OnnxModel(network.body, parts, chosen.name, graph.output_shape, dtype)
    graph = replace(graph, original=model)
    compare(graph)
    if all(p.dims and not isinstance(p.dims[0], int) for p in network.inputs):
        model.batched = takes_batches(model, graph)
    return graph


def _dtype(ports: tuple[Port, ...]) -> torch.dtype:
    kinds = {port.dtype for port in ports}
    if not kinds:
        raise ModelError("the network has no input")
    if len(kinds) > 1 or not kinds <= set(_DTYPES):
        raise UnsupportedError(
            f"inputs of type {', '.join(sorted(kinds))}; bounds are about float32 or float64"
        )
    return _DTYPES[kinds.pop()]


def _shape(port: Port, sizes: Mapping[str, int]) -> Shape:
    """The shape at batch 1; dimensions without a size other than the first must be given."""
    shape = []
    for i, dim in enumerate(port.dims):
        if isinstance(dim, int) and dim > 0:
            shape.append(dim)
        elif isinstance(dim, str) and dim in sizes:
            shape.append(int(sizes[dim]))
        elif i == 0:
            shape.append(1)
        else:
            raise ModelError(
                f"dimension {i} ({dim or 'without a name'}) of input {port.name!r} has no size; "
                "pass it as load(..., sizes={'name': size})"
            )
    return tuple(shape)


def _output(network: Network, name: str | None) -> Port:
    names = [port.name for port in network.outputs]
    if name is None and len(names) == 1:
        return network.outputs[0]
    for port in network.outputs:
        if port.name == name:
            return port
    if name is None:
        raise ModelError(f"the network has several outputs; pass output=, one of {names}")
    raise ModelError(f"the network has no output {name!r}; it has {names}")
