"""From an nn.Module to a Graph by torch.export; parameters stay the module's own tensors."""

import warnings
from dataclasses import replace
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

import certus.graph.aten  # noqa: F401  (fills the table of builders)
from certus.core import ArgumentError, ModelError, UnsupportedError
from certus.core.random import generator
from certus.core.replay import repeatable, same
from certus.core.validate import inputs as check_inputs
from certus.graph import lines
from certus.graph.agreement import difference, probes
from certus.graph.answers import check_answers
from certus.graph.builder import Builder
from certus.graph.builders import BUILDERS, Arguments, Scope, entry_of, held
from certus.graph.calls import Calls, watched
from certus.graph.causes import LONGEST, explained, tidy
from certus.graph.composite import constant
from certus.graph.constants import Constants
from certus.graph.export import Flat, Single, export
from certus.graph.graph import Graph
from certus.graph.layout import Layout, Unsupported, find_layout, is_size, sizes
from certus.graph.precision import admissible, limits
from certus.graph.signature import signature
from certus.graph.source import Source
from certus.graph.structural import Reshape
from certus.graph.whole import Fits
from certus.graph.wrappers import unwrapped


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
    check_answers(module, example)
    single = Single(unwrapped(module))
    exported = export(single, example, BUILDERS.__contains__)
    before = signature(module)  # what the first call alone fills is not what every call changes
    graph = _Capture(single, exported).graph(example, module)
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
        if part.training and "eval" in vars(part):  # torch.export puts a refusal there
            raise ModelError(
                "the model is an exported program, which has no evaluation mode; pass the module that was "
                "exported"
            )
        if part.training:
            where = f" (its part {name!r} is)" if name else ""
            raise ModelError(f"the model is in training mode{where}; call model.eval() first")
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_meta or is_lazy(tensor):
            raise ModelError(
                f"parameter {name} of the model has no values yet; load them, or call a lazy model once"
            )
        # a buffer may be a mask of minus infinity; a parameter is a weight
        infinite = isinstance(tensor, nn.Parameter) and bool(torch.isinf(tensor).any())
        if infinite or bool(torch.isnan(tensor).any()):
            raise ModelError(f"parameter {name} of the model contains NaN or infinite values")


# of operations that stand for a part of the model
_REASONS = {
    "wrap_with_autocast": "autocast computes in a shorter type: leave it out",
    "cond": "it decides on values: write it with torch.where",
    "while_loop": "it decides on values",
    "_remove_batch_dim": "torch.func.vmap over parameters: write a loop, or torch.matmul with all of them",
}
_CALLS = 8  # after which a model that chooses at random is known
_QUOTED = 110  # characters of a reason


class _Capture:
    """One walk over an exported program."""

    def __init__(self, module: Single, exported: torch.export.ExportedProgram) -> None:
        self.module, self.exported = module, exported
        self.constants = Constants(module, exported)
        self.problems: list[tuple[str, str, fx.Node]] = []  # name, reason, and which node it is
        self.broken: set[fx.Node] = set()  # nodes whose result has no place in the graph
        self.scope: Scope

    def graph(self, example: Tensor, original: nn.Module) -> Graph:
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
            calls = watched(self.module.module, example[:1].detach().clone())
            raise UnsupportedError(_listed(self.problems, calls))
        if not self.scope.layout[result].standard:
            raise UnsupportedError("the model's output has no batch dimension in front")
        return builder.finish(self.scope.position[result], original)

    def _add(self, node: fx.Node) -> None:
        """Write one node; a problem is noted, and a stand-in takes its place, to find them all."""
        target = _name(node)
        sources = [n for n in node.all_input_nodes if self.constants.is_data(n)]
        if target == "<built-in function getitem>":
            self._pick(node, node.args[0], node.args[1])  # type: ignore[arg-type]
            return
        try:
            if target not in BUILDERS:
                raise Unsupported(_REASONS.get(target, ""))
            if self.broken.isdisjoint(sources):
                self._build(node)
            else:
                self.broken.add(node)
        except Exception as why:  # whatever a builder stumbles over: it has no rule for this
            reason = f"({str(why).splitlines()[0][:_QUOTED]}) " if str(why) else ""
            self.problems.append((target, reason, node))
            self._stand_in(node)

    def _build(self, node: fx.Node) -> None:
        values = node.meta["val"]
        single = isinstance(values, Tensor)
        results = [values] if single else list(values)
        a, entry = Arguments(node, self.scope, lines.of_node(node)), entry_of(node)
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
            self.problems.append((f"result {index} of {source.target}", "", source))
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
        kept = [*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()]
        if kept:
            name = kept[0].removeprefix("module.")
            raise explained(f"changes its buffer or parameter {name!r}", self.module, Calls())
        if not isinstance(results[0], fx.Node) or not self.constants.is_data(results[0]):
            raise ModelError("the model's output does not depend on its input")
        return results[0]


def _name(node: fx.Node) -> str:
    """How an operation is called: as in the table of builders, or a Python function by its own name."""
    plain = node.target if isinstance(node.target, FunctionType) else None
    return plain.__name__ if plain else str(node.target)


def _listed(problems: list[tuple[str, str, fx.Node]], calls: Calls) -> str:
    """All operations without a rule, those that stand for a part of the model before all others.

    Reasons and lines are given as far as there is room.
    """
    known = dict.fromkeys(
        (target, f"{reason}{calls.line_of(target) or lines.of_node(node)}")
        for target, reason, node in sorted(problems, key=lambda p: p[0] not in _REASONS)
    )
    said, full = "the model uses operations without a bound rule: ", [" ".join(k) for k in known]
    for shown in range(len(full), 0, -1):
        there = {target for target, _ in list(known)[:shown]}
        rest = dict.fromkeys(t.removesuffix(".default") for t, _ in known if t not in there)
        text = said + "; ".join(full[:shown]) + ("; and " + ", ".join(rest) if rest else "")
        if len(text) <= LONGEST:
            break
    return tidy(text)


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
            _agree(module, graph, x, expected, batch)
        x = torch.cat([x, probes(graph.input_shape, example)])
        _agree(module, graph, x, module(x), batch)
        _steady(module, x[:1])


def _agree(module: nn.Module, graph: Graph, x: Tensor, expected: Any, ordinary: int) -> None:
    fits = isinstance(expected, Tensor) and expected.ndim > 0 and len(expected) == len(x)
    worst = difference(graph, x, expected, ordinary) if fits else float("inf")
    if worst is None:
        raise ModelError(
            "the model gives NaN or infinite values on all random inputs near the example"
        )
    if worst != 0:
        _steady(module, x)
        repeatable(module, x)  # it may mix the batch
        raise ModelError(
            f"the captured graph differs from the model by {worst:.2g} relative on random inputs; the model "
            "may keep something from call to call, write into its input or into a view, or add truth values "
            "or whole numbers of a short type, which wrap"
        )


def _steady(module: nn.Module, x: Tensor) -> None:
    """A choice that Python makes at random may have been the captured one so far."""
    first = module(x)
    room = torch.finfo(x.dtype).eps ** 0.5
    for _ in range(_CALLS):
        again = module(x)
        if not torch.allclose(first, again, rtol=room, atol=room, equal_nan=True):
            same(first, again)
