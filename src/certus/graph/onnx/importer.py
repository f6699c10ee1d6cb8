"""One walk over an ONNX network: constants are folded, the rest is written to a graph."""

import math
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import CertusError, ModelError, UnsupportedError
from certus.graph.graph import Graph
from certus.graph.onnx import ragged
from certus.graph.onnx.build_moves import as_data
from certus.graph.onnx.extent import extent
from certus.graph.onnx.reader import Network, Node
from certus.graph.onnx.table import BUILDERS, FOLDS, Call, Result, Unsupported, Value, affordable
from certus.graph.onnx.types import typed
from certus.graph.onnx.values import Broken, Data, canonical
from certus.graph.onnx.writer import Writer
from certus.graph.op import Shape
from certus.graph.structural import Slice

_MOST_INPUTS = 2**22
_CONSTANTS = 2**26  # numbers that folding may make, beside a few times those of the file


class Importer:
    """Imports one network; shapes are those of its inputs at batch 1."""

    def __init__(self, network: Network, shapes: list[Shape], like: Tensor) -> None:
        self.network, self.like = network, like
        self.problems: list[str] = []
        self.uses: Counter[str] = Counter()
        self.values: dict[str, Value] = {}
        self._left = _CONSTANTS + 4 * sum(array.size for array in network.constants.values())
        self._count(network)
        self._inputs(shapes)

    def graph(self, output: str) -> Graph:
        """The graph of one output; its original is a placeholder that the caller replaces."""
        self._run(self.network, self.values)
        if self.problems:
            listing = "; ".join(dict.fromkeys(self.problems))
            raise UnsupportedError(f"the network uses operations without a bound rule: {listing}")
        found = self.values.get(output)
        if not isinstance(found, Data):
            raise ModelError(f"the output {output!r} does not depend on the network's input")
        position = self.writer.view(found.position, canonical(found.shape))
        return self.writer.finish(position, torch.nn.Identity())

    def _inputs(self, shapes: list[Shape]) -> None:
        """One input as it is; several as slices of one flat input."""
        if any(d == 0 for shape in shapes for d in shape):
            raise ModelError("an input of the network is empty")
        total = sum(math.prod(shape) for shape in shapes)
        if total > _MOST_INPUTS:
            raise UnsupportedError(
                f"inputs of {total:,} numbers; at most {_MOST_INPUTS:,} are bounded"
            )
        names = [port.name for port in self.network.inputs]
        if len(shapes) == 1:
            self.writer = Writer(canonical(shapes[0]), self.like)
            self.values[names[0]] = Data(0, shapes[0])
            return
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
        self.writer = Writer((sum(sizes),), self.like)
        start = 0
        for name, shape, size in zip(names, shapes, sizes, strict=True):
            position = self.writer.add(Slice(1, start, start + size), 0, source=name)
            self.values[name] = Data(position, shape)
            start += size

    def _count(self, network: Network) -> None:
        for node in network.nodes:
            self.uses.update(name for name in node.inputs if name)
            for branch in node.attributes.values():
                if isinstance(branch, Network):
                    self._count(branch)
        self.uses.update(port.name for port in network.outputs)

    def _run(self, network: Network, values: dict[str, Value]) -> None:
        values.update(network.constants)
        for node in network.nodes:
            missing = [name for name in node.inputs if name and name not in values]
            if missing:
                raise ModelError(
                    f"{node.where()} reads {missing[0]!r}, which nothing before it computes"
                )
            results = self._node(node, [values[n] if n else None for n in node.inputs], values)
            for name, value in zip(node.outputs, results, strict=False):
                if name:
                    values[name] = value

    def _node(self, node: Node, inputs: list[Value], scope: dict[str, Value]) -> list[Value]:
        """The results of one node; Broken ones after a problem."""
        broken: list[Value] = [Broken()] * len(node.outputs)
        self.writer.where = f"{node.op} {node.name or node.outputs[0]}"
        try:
            if node.op == "If" and not node.domain:
                return self._branch(node, inputs[0], scope)
            if node.domain or (node.op not in BUILDERS and node.op not in FOLDS):
                raise Unsupported("")
            if any(isinstance(value, Broken) for value in inputs):
                return broken
            call = Call(node, inputs, self.writer, self.network.opset, self.uses)
            found = self._result(call)
        except (Unsupported, UnsupportedError) as why:
            reason = f" ({why})" if str(why) else ""
            self.problems.append(
                f"{node.domain + ':' if node.domain else ''}{node.op}{reason} in {node.where()}"
            )
            return broken
        except CertusError:
            raise
        except Exception as error:  # a file may say anything; what it breaks is named, not shown
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise ModelError(
                f"{node.op} in {node.where()} does not fit its inputs: {line}"
            ) from error
        results = found if isinstance(found, list) else [found]
        return results + broken[len(results) :]

    def _result(self, call: Call) -> Result:
        """Fold, or write operations."""
        op = call.node.op
        if ragged.applies(call):
            return ragged.build(call)
        affordable([extent(call)])
        if any(isinstance(value, Data) for value in call.values):
            if op not in BUILDERS:
                raise Unsupported("on values that depend on the input")
            return typed(call, BUILDERS[op])
        found = FOLDS[op](call) if op in FOLDS else self._evaluated(call)
        results = [np.asarray(v) for v in (found if isinstance(found, list) else [found])]
        self._left -= sum(array.size for array in results)
        if self._left < 0:
            raise Unsupported("the constants take too much memory")
        return results

    def _evaluated(self, call: Call) -> list[Any]:
        """An operation on constants alone that numpy lacks: its first input is fed to a small graph."""
        first = call.array(0)
        if first is None or first.dtype.kind != "f":
            raise Unsupported("on constants of this type")
        like = torch.zeros((), dtype=torch.float64)
        writer = Writer(canonical(first.shape), like)
        values = [Data(0, first.shape), *call.values[1:]]
        found = BUILDERS[call.node.op](Call(call.node, values, writer, call.opset))
        results = []
        for value in found if isinstance(found, list) else [found]:
            own = writer.view(as_data(call, value).position, canonical(value.shape))
            graph = writer.finish(own, torch.nn.Identity())
            x = torch.tensor(first, dtype=torch.float64).reshape(1, *graph.input_shape)
            with torch.no_grad():
                results.append(graph(x).numpy().reshape(value.shape).astype(first.dtype))
        return results

    def _branch(self, node: Node, condition: Value, scope: dict[str, Value]) -> list[Value]:
        """The branch that a constant condition selects, evaluated in place."""
        if not isinstance(condition, np.ndarray):
            raise Unsupported("a branch that depends on the input")
        taken = node.attributes["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]
        inner = dict(scope)
        self._run(taken, inner)
        return [inner[port.name] for port in taken.outputs]
