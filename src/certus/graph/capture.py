"""From an nn.Module to a Graph by torch.export; parameters stay the module's own tensors."""

import re
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

import certus.graph.aten  # noqa: F401  (fills the table of builders)
from certus.core import ArgumentError, ModelError, UnsupportedError
from certus.core.random import generator
from certus.core.validate import inputs as check_inputs
from certus.graph.agreement import difference, probes
from certus.graph.builder import Builder
from certus.graph.builders import BUILDERS, Arguments, Scope, entry_of, held
from certus.graph.composite import constant
from certus.graph.constants import Constants
from certus.graph.export import Flat, export
from certus.graph.graph import Graph
from certus.graph.layout import Layout, Unsupported, find_layout, is_size, sizes
from certus.graph.precision import admissible, limits
from certus.graph.signature import signature
from certus.graph.source import Source
from certus.graph.structural import Reshape
from certus.graph.whole import Fits


def trace(module: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Graph:
    """Capture a module as a Graph that works for every batch size.

    module: in evaluation mode, one tensor out; it is not changed. example: [B, *shape] in the
    module's dtype and on its device, any B >= 1 (values do not matter, they must be finite).
    The graph holds the module's own parameters, so it follows training and is differentiable. It is
    compared with the module on random inputs before it is returned. Any other change of the module is
    noticed later, by `Graph.refuse_changed`, before something is certified; functions of torch that
    were replaced in between (`torch.nn.functional.relu = ...`) only where the answers show it.

    A tuple of examples [B, *shape_i] is for a module with several inputs. Its graph has one flat
    input [B, n_1 + n_2 + ...], the inputs flattened and side by side, over which regions and boxes
    are meant; `original` takes the same flat input (a `Flat` module, which splits it).

    Raises ModelError (training mode, NaN weights, control flow on values, wrong shape) and
    UnsupportedError, which names every operation without a rule together with its source line.
    """
    if isinstance(example, tuple | list):
        return trace(*_flatten(module, tuple(example)))
    check_inputs(example)
    _check_module(module)
    exported = export(module, example, BUILDERS.__contains__)
    before = signature(module)  # what the first call alone fills is not what every call changes
    graph = _Capture(module, exported).graph(example)
    _compare(module, graph, example)
    one = example[:1].detach().clone()
    return replace(
        graph, source=Source(module, before, lambda again: trace(again, one).nodes, graph.nodes)
    )


def _flatten(module: nn.Module, examples: tuple[Tensor, ...]) -> tuple[nn.Module, Tensor]:
    for example in examples:
        check_inputs(example)
    if not examples or len({len(example) for example in examples}) != 1:
        raise ArgumentError("several inputs must be examples of one batch size")
    _check_module(module)
    flat = Flat(module, tuple(tuple(example.shape[1:]) for example in examples))
    return flat, torch.cat([example.flatten(1) for example in examples], 1)


def _check_module(module: nn.Module) -> None:
    if not isinstance(module, nn.Module):
        raise ModelError(f"expected a torch.nn.Module, got {type(module).__name__}")
    for name, part in module.named_modules():
        if part.training:
            where = f" (its part {name!r} is)" if name else ""
            raise ModelError(f"the model is in training mode{where}; call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        # a buffer may be a mask of minus infinity; a parameter is a weight
        infinite = isinstance(tensor, nn.Parameter) and bool(torch.isinf(tensor).any())
        if infinite or bool(torch.isnan(tensor).any()):
            raise ModelError(f"parameter {name} of the model contains NaN or infinite values")


class _Capture:
    """One walk over an exported program."""

    def __init__(self, module: nn.Module, exported: torch.export.ExportedProgram) -> None:
        self.module, self.exported = module, exported
        self.constants = Constants(module, exported)
        self.problems: list[str] = []
        self.broken: set[fx.Node] = set()  # nodes whose result has no place in the graph
        self.scope: Scope

    def graph(self, example: Tensor) -> Graph:
        constants = self.constants
        builder = Builder(tuple(example.shape[1:]), example)
        self.scope = Scope(builder, constants.is_data, constants.value, constants.trainable)
        self.scope.position[constants.input] = 0
        self.scope.layout[constants.input] = Layout(0)
        result = self._result()
        needed = _needed(result)
        for node in self.exported.graph.nodes:
            written = node.op == "call_function" and node in needed and not is_size(node)
            if written and constants.is_data(node):
                self._add(node)
        if self.problems:
            listing = "; ".join(dict.fromkeys(self.problems))
            raise UnsupportedError(f"the model uses operations without a bound rule: {listing}")
        if not self.scope.layout[result].standard:
            raise UnsupportedError("the model's output has no batch dimension in front")
        return builder.finish(self.scope.position[result], self.module)

    def _add(self, node: fx.Node) -> None:
        """Write one node; a problem is noted, and a stand-in takes its place, to find them all."""
        target = str(node.target)
        sources = [n for n in node.all_input_nodes if self.constants.is_data(n)]
        if target == "<built-in function getitem>":
            self._pick(node, node.args[0], node.args[1])  # type: ignore[arg-type]
            return
        try:
            if target not in BUILDERS:
                raise Unsupported("")
            if self.broken.isdisjoint(sources):
                self._build(node)
            else:
                self.broken.add(node)
        except (Unsupported, UnsupportedError, ArgumentError, RuntimeError) as why:
            reason = f" ({str(why).splitlines()[0][:200]})" if str(why) else ""
            self.problems.append(f"{target}{reason} {where(node)}")
            self._stand_in(node)

    def _build(self, node: fx.Node) -> None:
        values = node.meta["val"]
        single = isinstance(values, Tensor)
        results = [values] if single else list(values)
        a, entry = Arguments(node, self.scope, where(node)), entry_of(node)
        admissible(a)
        if entry.layout is not None:
            a.settle([entry.layout(a)])
        elif single:
            a.settle([find_layout(values.shape, a.inputs)])
        else:
            a.settle([_layout(value, a) for value in results])
        if a.free and not entry.anywhere:
            raise Unsupported("the batch dimension is not in front")
        built = entry.build(a)
        range_of = limits(a)
        if isinstance(built, int) and range_of is not None:
            built = a.add(Fits(*range_of), built)
        places = [built] if isinstance(built, int) else list(built)
        final = [self._place(a, *of) for of in zip(places, a.results, results, strict=True)]
        self.scope.position[node] = final[0] if single else final
        self.scope.layout[node] = a.results[0] if single else a.results

    def _place(
        self, a: Arguments, place: int | None, layout: Layout | None, value: Any
    ) -> int | None:
        """Position of one result in the form that its layout asks for; its shape must be as exported."""
        if place is None or layout is None:
            return None
        one = held(value)
        expected = one if a.free else one[1:]
        found = a.shape(place)
        if found != expected:
            raise Unsupported(f"its shape is {expected}, and {found} was built")
        return a.add(Reshape(one[1:]), place) if a.free and layout.standard else place

    def _pick(self, node: fx.Node, source: fx.Node, index: int) -> None:
        """One of several results."""
        if source in self.broken:
            self.broken.add(node)
            return
        place, layout = self.scope.position[source][index], self.scope.layout[source][index]
        if place is None or layout is None:
            self.broken.add(node)
            self.problems.append(f"result {index} of {source.target} {where(source)}")
            return
        self.scope.position[node], self.scope.layout[node] = place, layout

    def _stand_in(self, node: fx.Node) -> None:
        """Something of the right shape for an operation that failed, so that the walk goes on."""
        value = node.meta["val"]
        layout = _layout(value, None) if isinstance(value, Tensor) else None
        if layout is None or not layout.standard:
            self.broken.add(node)
            return
        zeros = self.scope.builder.like.new_zeros(1, *sizes(value.shape, 1)[1:])
        self.scope.position[node] = constant(self.scope.builder, zeros)
        self.scope.layout[node] = layout

    def _result(self) -> fx.Node:
        results = next(n for n in self.exported.graph.nodes if n.op == "output").args[0]
        signature = self.exported.graph_signature
        mutated = signature.buffers_to_mutate or signature.user_inputs_to_mutate
        single = self.exported.call_spec.out_spec.is_leaf()
        if not single or mutated or not isinstance(results[0], fx.Node):
            raise ModelError(
                "the model must return one tensor (no tuple or dict) and change no buffer or input"
            )
        if not self.constants.is_data(results[0]):
            raise ModelError("the model's output does not depend on its input")
        return results[0]


def _layout(value: Any, a: Arguments | None) -> Layout | None:
    """Layout of one of several results, or None where it has none (it may well be unused)."""
    try:
        return find_layout(value.shape, a.inputs if a else ())
    except (Unsupported, AttributeError):
        return None


def _needed(result: fx.Node) -> set[fx.Node]:
    """The nodes that a result is computed from; assertions and unused values are not among them."""
    found, left = {result}, [result]
    while left:
        for source in left.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                left.append(source)
    return found


def where(node: fx.Node) -> str:
    """The user's source line: the innermost frame outside torch, or the node's name."""
    frames = re.findall(
        r'File "([^"]+)", line (\d+), in \w+\n\s*(.*)', node.meta.get("stack_trace") or ""
    )
    own = [f for f in frames if "/torch/" not in f[0]] or frames
    if not own:
        return f"in {node.name}"
    file, line, code = own[-1]
    return f"at {file.rsplit('/', 1)[-1]}:{line} `{code.strip()}`"


def _compare(module: nn.Module, graph: Graph, example: Tensor) -> None:
    """Graph and module must agree on inputs around the example and elsewhere, for several batch sizes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module's own, on its own input
        for batch in (1, 3, 5):
            noise = torch.randn(batch, *example.shape[1:], generator=generator(0, batch))
            for share in (
                1.0,
                0.1,
                0.01,
                0.0,
            ):  # nearer, where a function is not defined everywhere
                x = example[:1].detach() + share * noise.to(example)
                expected = module(x)
                if not isinstance(expected, Tensor) or bool(torch.isfinite(expected).all()):
                    break
            _agree(graph, x, expected, batch)
        x = torch.cat([x, probes(graph.input_shape, example)])
        _agree(graph, x, module(x), batch)


def _agree(graph: Graph, x: Tensor, expected: Any, ordinary: int) -> None:
    fits = isinstance(expected, Tensor) and len(expected) == len(x)
    worst = difference(graph, x, expected, ordinary) if fits else float("inf")
    if worst is None or worst != 0:
        size = float("nan") if worst is None else worst
        raise ModelError(
            f"the captured graph differs from the model by {size:.2g} relative on random "
            "inputs; the model may be random, change its input in place, or add truth values or whole "
            "numbers of a short type, which wrap"
        )
