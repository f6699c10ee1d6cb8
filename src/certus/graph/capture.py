"""From an nn.Module to a Graph by torch.export; parameters stay the module's own tensors."""

import io
import logging
import operator
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn

import certus.graph.aten  # noqa: F401  (fills the table of builders)
from certus.core import ModelError, UnsupportedError
from certus.core.random import generator
from certus.core.validate import inputs as check_inputs
from certus.graph.builders import BUILDERS, Arguments, Unsupported, fixed_shape
from certus.graph.expression import Expression
from certus.graph.builder import Builder
from certus.graph.graph import Graph
from certus.graph.structural import Expand, Pad, Permute, Reshape, Select, Slice


def trace(module: nn.Module, example: Tensor) -> Graph:
    """Capture a module as a Graph that works for every batch size.

    module: in evaluation mode, one tensor in, one tensor out; it is not changed. example: [B, *shape]
    in the module's dtype and on its device, any B >= 1 (values do not matter, they must be finite).
    The graph holds the module's own parameters, so it follows training and is differentiable. It is
    compared with the module on random inputs before it is returned.

    Raises ModelError (training mode, NaN weights, control flow on values, wrong shape) and
    UnsupportedError, which names every operation without a rule together with its source line.
    """
    check_inputs(example)
    _check_module(module)
    exported = _export(module, example)
    graph = _Capture(module, exported).graph(example)
    _compare(module, graph, example)
    return graph


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(module).__name__}")
    for name, part in module.named_modules():
        if part.training:
            where = f" (its part {name!r} is)" if name else ""
            raise ModelError(f"the model is in training mode{where}; call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"parameter {name} of the model contains NaN or infinite values")


def _export(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    two = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))  # a batch of one is specialised
    batch = {0: torch.export.Dim("batch", min=2)}
    with torch.no_grad():  # the module's own error (wrong shape, dtype) is the clearest
        try:
            module(two)
        except Exception as error:
            raise ModelError(
                f"the model fails on an input {tuple(two.shape)}: {_line(error)}"
            ) from error
    try:
        with _quiet():
            return torch.export.export(module, (two,), dynamic_shapes=(batch,))
    except Exception as error:
        raise ModelError(
            "torch.export cannot capture the model (control flow on values, a fixed batch size, or "
            f"Python side effects): {_line(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export writes pages about a failure, which the one line of the error stands for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _Capture:
    """One walk over an exported program."""

    def __init__(self, module: nn.Module, exported: torch.export.ExportedProgram) -> None:
        self.module, self.exported = module, exported
        self.known: dict[fx.Node, Tensor] = {}
        self.position: dict[fx.Node, int] = {}
        self.constants: set[fx.Node] = set()  # known not to depend on the input
        self.owner: dict[fx.Node, fx.Node] = {}  # whose memory a view or an in-place result shares
        self.builder: Builder
        self.problems: list[str] = []

    def graph(self, example: Tensor) -> Graph:
        self._placeholders()
        self.builder = Builder(tuple(example.shape[1:]), example)
        for node in self.exported.graph.nodes:
            if node.op == "call_function" and not _is_size(node) and self._depends_on_input(node):
                self._add(node)
        if self.problems:
            listing = "; ".join(dict.fromkeys(self.problems))
            raise UnsupportedError(f"the model uses operations without a bound rule: {listing}")
        return self.builder.finish(self.position[self._result()], self.module)

    def _placeholders(self) -> None:
        signature = self.exported.graph_signature
        state = self.exported.state_dict | self.exported.constants
        names = signature.inputs_to_parameters | signature.inputs_to_buffers
        names = names | signature.inputs_to_lifted_tensor_constants
        own: dict[str, Any] = dict(self.module.named_parameters(remove_duplicate=False))
        own |= dict(self.module.named_buffers(remove_duplicate=False))
        for node in self.exported.graph.nodes:
            if node.op == "placeholder" and node.name in names:
                key = names[node.name]
                self.known[node] = own[key] if key in own else state[key]
            elif node.op == "placeholder":
                self.position[node] = 0

    def _depends_on_input(self, node: fx.Node) -> bool:
        """Whether a node is a tensor that depends on the network's input."""
        if node in self.position:
            return True
        if node not in self.constants:
            sources = [n for n in node.all_input_nodes if not _is_size(n)]
            if any(self._depends_on_input(n) for n in sources):
                return True
            self.constants.add(node)
        return False

    def _constant(self, node: fx.Node) -> Tensor | Expression:
        if _is_size(node):
            raise Unsupported("a number that depends on the batch size")
        if _random(node, set()):
            raise Unsupported("a constant drawn at random")
        return self.known[node] if node in self.known else Expression(node, self.known)

    def _add(self, node: fx.Node) -> None:
        target = str(node.target)
        self.position[node] = 0  # also where it fails, so that every problem is found in one pass
        if node.target is operator.getitem:
            return  # an element of a list whose own operation is refused
        try:
            if target not in BUILDERS:
                raise Unsupported("")
            fixed_shape(node)
            built = BUILDERS[target](Arguments(node, self._depends_on_input, self._constant))
        except Unsupported as why:
            reason = f" ({why})" if str(why) else ""
            self.problems.append(f"{target}{reason} {_where(node)}")
            return
        if isinstance(built, fx.Node):
            self.position[node] = self.position[built]
            self.owner[node] = self.owner.get(built, built)
            return
        op, data = built
        if not self.problems:  # after a problem, positions and shapes no longer mean anything
            places = [self.position[d] for d in data]
            self.position[node] = self.builder.add(op, *places, source=_where(node))
        if _in_place(node):
            self._overwrite(node, data[0])
        elif isinstance(op, _MAY_ALIAS) and target != "aten.clone.default":
            self.owner[node] = self.owner.get(data[0], data[0])

    def _overwrite(self, node: fx.Node, old: fx.Node) -> None:
        """An operation in place: whoever reads the overwritten memory from now on sees the result."""
        memory = self.owner.get(old, old)
        same = [n for n in self.position if self.owner.get(n, n) is memory and n is not node]
        plain = all(n is memory or _in_place(n) for n in same)
        if not plain or memory.op == "placeholder":
            self.problems.append(
                f"{node.target} (in place on a view, or on something that has views) {_where(node)}"
            )
        for n in same:
            self.position[n] = self.position[node]
        self.owner[node] = memory

    def _result(self) -> fx.Node:
        results = next(n for n in self.exported.graph.nodes if n.op == "output").args[0]
        mutated = self.exported.graph_signature.buffers_to_mutate
        if len(results) != 1 or mutated or not isinstance(results[0], fx.Node):
            raise ModelError("the model must return one tensor and change no buffer")
        if results[0] not in self.position:
            raise ModelError("the model's output does not depend on its input")
        return results[0]


def _random(node: fx.Node, seen: set[fx.Node]) -> bool:
    """Whether a value depends on random draws."""
    if node in seen:
        return False
    seen.add(node)
    tags = getattr(node.target, "tags", ())
    own = torch.Tag.nondeterministic_seeded in tags
    return own or any(_random(n, seen) for n in node.all_input_nodes)


# operations whose result can share memory with their input
_MAY_ALIAS = (Reshape, Permute, Slice, Select, Expand, Pad)


def _in_place(node: fx.Node) -> bool:
    return str(node.target).split(".")[1].endswith("_")


def _is_size(node: fx.Node) -> bool:
    """A number such as the batch size, neither a tensor nor a list of tensors."""
    plain = int | float | torch.SymInt | torch.SymFloat | torch.SymBool | None
    return node.op == "call_function" and isinstance(node.meta.get("val"), plain)


def _where(node: fx.Node) -> str:
    """The user's source line: the innermost frame outside torch, or the node's name."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    own = [f for f in frames if "/torch/" not in f[0]] or frames
    if not own:
        return f"in {node.name}"
    file, line, code = own[-1]
    return f"at {file.rsplit('/', 1)[-1]}:{line} `{code.strip()}`"


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _compare(module: nn.Module, graph: Graph, example: Tensor) -> None:
    """Graph and module must agree on random inputs at several batch sizes and scales."""
    tolerance = 1e-4 if example.dtype == torch.float32 else 1e-8
    if example.dtype in (torch.float16, torch.bfloat16):
        tolerance = 2e-2
    with torch.no_grad():
        for batch, scale in ((1, 1.0), (3, 1.0), (5, 0.3)):
            noise = torch.randn(batch, *example.shape[1:], generator=generator(0, batch))
            x = example[:1].detach() + scale * noise.to(example)
            expected, found = module(x), graph(x)
            worst = _distance(expected, found)
            if not worst <= tolerance:
                raise ModelError(
                    f"the captured graph differs from the model by {worst:.2g} relative on random "
                    "inputs; the model may be random, or change its input in place"
                )


def _distance(expected: Any, found: Tensor) -> float:
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        return float("inf")
    size = expected.abs().max().clamp(min=1.0)
    return float((expected - found).abs().max() / size)
