"""Parameters that are computed from other parameters, such as an orthogonal weight."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import map_aggregate


@dataclass(frozen=True, eq=False)
class Expression:
    """A torch.fx node that depends on parameters alone; evaluated anew, so that it stays live.

    known maps the fx nodes of parameters, buffers and constants to their tensors. A copy for another
    process names its operations, because fx nodes drag their whole graph along.
    """

    node: torch.fx.Node
    known: dict[torch.fx.Node, Tensor]

    def evaluate(self) -> Tensor:
        """The present value; differentiable with respect to the parameters."""
        return _value(self.node, dict(self.known))

    def __reduce__(self) -> tuple[Any, ...]:
        """The tensors that it takes, and its operations in order of evaluation."""
        places: dict[torch.fx.Node, _Place] = {}
        tensors: list[Tensor] = []
        steps: list[_Step] = []
        for node in _ordered(self.node, self.known):
            if node in self.known:
                places[node] = _Place(True, len(tensors))
                tensors.append(self.known[node])
            else:
                places[node] = _Place(False, len(steps))
                args, named = torch.fx.map_arg((node.args, node.kwargs), places.__getitem__)
                steps.append(_Step(_name(node.target), args, named))
        return _rebuilt, (tensors, steps)


@dataclass(frozen=True)
class _Place:
    """Which of the tensors, or the result of which step."""

    given: bool
    position: int


@dataclass(frozen=True)
class _Step:
    """One operation on places and constants; torch's own operations by their name."""

    target: Any
    args: Any
    kwargs: Any


def _ordered(last: torch.fx.Node, known: dict[torch.fx.Node, Tensor]) -> list[torch.fx.Node]:
    """What the last node depends on, itself included, as its graph orders it; known nodes end a path."""
    needed, frontier = {last}, [last]
    while frontier:
        node = frontier.pop()
        fresh = set() if node in known else set(node.all_input_nodes) - needed
        needed |= fresh
        frontier += fresh
    return [node for node in last.graph.nodes if node in needed]


def _name(target: Any) -> Any:
    return str(target) if isinstance(target, torch._ops.OpOverload) else target


def _rebuilt(tensors: list[Tensor], steps: list[_Step]) -> Expression:
    graph = torch.fx.Graph()
    given = [graph.placeholder(f"tensor_{i}") for i in range(len(tensors))]
    nodes: list[torch.fx.Node] = []

    def look(value: Any) -> Any:
        if not isinstance(value, _Place):
            return value
        return (given if value.given else nodes)[value.position]

    for step in steps:
        target: Callable[..., Any] = step.target
        if isinstance(step.target, str):
            target = reduce(getattr, step.target.split("."), torch.ops)  # type: ignore[arg-type]
        args, named = map_aggregate((step.args, step.kwargs), look)  # type: ignore[misc]
        nodes.append(graph.call_function(target, args, named))
    return Expression((nodes or given)[-1], dict(zip(given, tensors, strict=True)))


def _value(node: torch.fx.Node, done: dict[torch.fx.Node, Any]) -> Any:
    if node not in done:

        def look(arg: torch.fx.Node) -> Any:
            return _value(arg, done)

        args = torch.fx.map_arg(node.args, look)
        kwargs = torch.fx.map_arg(node.kwargs, look)
        done[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return done[node]
