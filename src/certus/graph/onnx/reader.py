"""From bytes to plain records: the only place that touches the onnx package and files.

A model file is hostile until proven otherwise: it may be truncated, no protobuf at all, or point to
data outside its folder. Every failure is a FileError or ModelError of one line.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from certus.core import FileError, ModelError, UnsupportedError
from certus.core.errors import require
from certus.core.files import content, opened, unpacked
from certus.graph.onnx.external import place_of
from certus.graph.onnx.prune import called, every_node, graphs_of, prune

_LIMIT = 2**31 - 1  # bytes: protobuf's own limit, so that a small archive cannot fill the memory
_EXTERNAL = 1  # TensorProto.EXTERNAL
# ONNX element types to numpy's; the others are refused where they are met
TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}


@dataclass(frozen=True)
class Node:
    """One ONNX node: names of values in and out ("" stands for an absent input), plain attributes."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def where(self) -> str:
        """The node's name, or what it computes."""
        return f"node {self.name!r}" if self.name else f"the node that computes {self.outputs[0]!r}"


@dataclass(frozen=True)
class Port:
    """An input or output of the network; dims hold a number, a name, or None where nothing is said."""

    name: str
    dims: tuple[int | str | None, ...]
    dtype: str


@dataclass(frozen=True)
class Network:
    """A graph of nodes in order of evaluation, with its constants."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    opset: int = 0
    body: bytes = field(default=b"", repr=False)  # the whole model, self-contained, for onnxruntime


def read(source: str | Path | bytes, output: str | None = None) -> Network:
    """Read a model from a path or from bytes, gzipped or not, as far as the output needs it (default: all).

    Raises FileError (missing, no regular file, damaged, not ONNX, external data outside the folder),
    ModelError (NaN weights) and UnsupportedError (more nodes than networks have).
    """
    name, raw, folder = _contents(source)
    model = _parse(name, raw)
    del raw
    try:
        return _read(name, model, folder, output)
    except UnicodeDecodeError as error:
        raise FileError(f"{name}: a name in the model is not UTF-8") from error
    except MemoryError as error:
        raise FileError(f"{name}: the model does not fit into the memory") from error


def _read(name: str, model: Any, folder: Path | None, output: str | None) -> Network:
    names: list[str] = [port.name for port in model.graph.output]
    outputs = names if output is None or output not in names else [output]
    prune(model.graph, outputs)
    functions = called(model, name)
    if functions:
        del model.functions[:]
        model.functions.extend(functions)
        model = _without_functions(name, model)
        prune(model.graph, outputs)
    else:
        del model.functions[:]
    _inline(name, model, folder)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    found = _network(model.graph, name)
    return Network(
        found.inputs,
        found.outputs,
        found.nodes,
        found.constants,
        versions.get("", versions.get("ai.onnx", 1)),
        model.SerializeToString(),
    )


def _contents(source: str | Path | bytes) -> tuple[str, bytes, Path | None]:
    """A name for messages, the raw bytes, and the folder in which external data may lie."""
    if isinstance(source, bytes | bytearray):
        name, raw, folder = "the given bytes", bytes(source), None
    else:
        path = Path(source)
        name, folder = path.name, path.parent
        with opened(path, _LIMIT) as file:
            if file.peek(1)[:1] == b"\0":  # a hole, perhaps of gigabytes
                raise FileError(f"{name}: not an ONNX model, or a damaged one")
        raw = content(path, _LIMIT)
    return name, unpacked(raw, name, _LIMIT), folder


def _parse(name: str, raw: bytes) -> Any:
    onnx: Any = require("onnx", "onnx")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except Exception as error:  # the class of the error depends on protobuf's build
        raise FileError(f"{name}: not an ONNX model, or a damaged one") from error
    if not model.graph.node or not model.opset_import:
        raise FileError(f"{name}: not an ONNX model (it has no nodes or no operator set)")
    return model


def _inline(name: str, model: Any, folder: Path | None) -> None:
    """Bring external data into the model; it must lie in the model's folder or below."""
    outside = [t for t in _tensors(model.graph) if t.data_location == _EXTERNAL]
    places = [place_of(name, tensor, folder) for tensor in outside]
    if sum(place.length for place in places) > _LIMIT:
        raise FileError(f"{name}: its external data are larger than 2 GiB")
    for tensor, place in zip(outside, places, strict=True):
        tensor.raw_data = place.data()
        tensor.ClearField("external_data")
        tensor.data_location = 0


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph, also in attributes and branches."""
    for part in (graph, *graphs_of(graph.node)):
        yield from part.initializer
    for node in every_node(graph.node):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _without_functions(name: str, model: Any) -> Any:
    inliner: Any = require("onnx.inliner", "onnx")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        raise FileError(f"{name}: the model's own functions cannot be put in place") from error


def _network(graph: Any, name: str) -> Network:
    if graph.sparse_initializer:
        raise UnsupportedError(f"{name}: sparse initializers are not supported")
    constants = {t.name: _array(t, f"{name}: {t.name!r}") for t in graph.initializer}
    return Network(
        tuple(_port(v) for v in graph.input if v.name not in constants),
        tuple(_port(v) for v in graph.output),
        tuple(_node(n, name) for n in graph.node),
        constants,
    )


def _port(value: Any) -> Port:
    kind = value.type.tensor_type
    dims = tuple(
        int(d.dim_value) if d.HasField("dim_value") else (d.dim_param or None)
        for d in kind.shape.dim
    )
    return Port(value.name, dims, TYPES.get(kind.elem_type, f"type {kind.elem_type}"))


def _node(node: Any, name: str) -> Node:
    if not node.output:
        raise FileError(f"{name}: node {node.name!r} ({node.op_type}) computes nothing")
    domain = "" if node.domain == "ai.onnx" else node.domain
    attributes = {a.name: _attribute(a, name) for a in node.attribute}
    return Node(node.op_type, domain, node.name, tuple(node.input), tuple(node.output), attributes)


def _attribute(attribute: Any, name: str) -> Any:
    """The plain value: number, text, list, array, or Network for a branch."""
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _array(attribute.t, f"{name}: {attribute.t.name or attribute.name!r}")
    if attribute.type == kinds.GRAPH:
        return _network(attribute.g, name)
    try:
        value = onnx.helper.get_attribute_value(attribute)
    except ValueError as error:
        raise FileError(f"{name}: the attribute {attribute.name!r} is damaged") from error
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _array(tensor: Any, what: str) -> np.ndarray:
    from onnx import numpy_helper

    try:
        if any(d < 0 for d in tensor.dims):
            raise ValueError("negative size")
        array = np.asarray(numpy_helper.to_array(tensor))
    except Exception as error:
        raise FileError(f"{what} is damaged: its data do not fit its shape or type") from error
    if array.dtype.kind == "V" or array.dtype.name not in {*TYPES.values(), "object"}:
        array = array.astype(np.float32)  # bfloat16 and the small floats
    if array.dtype.kind == "f" and bool(np.isnan(array).any()):
        raise ModelError(f"{what} contains NaN")
    return array
