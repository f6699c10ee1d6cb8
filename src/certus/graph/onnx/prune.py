"""What an output of a model needs: the rest is dropped before anything looks at it.

Initialisers, nodes and functions that the chosen output does not depend on may be damaged, unsupported or
missing on the disk; they hinder nothing. What is left must be of a size that networks have.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from certus.core import FileError, UnsupportedError

_NODES = 30_000  # with those of functions, as often as they are called
_BRANCHES = 1_000
_DEPTH = 100  # of calls of functions by functions

Function = tuple[str, str]


def prune(graph: Any, outputs: Sequence[str]) -> None:
    """Keep in a GraphProto what these outputs need, in its order; names of branches count as read."""
    wanted, nodes = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(name for inner in every_node([node]) for name in inner.input)
            wanted.update(v.name for part in graphs_of([node]) for v in part.output)
    _keep(graph.node, nodes[::-1])
    _keep(graph.initializer, [t for t in graph.initializer if t.name in wanted])
    _keep(
        graph.sparse_initializer, [t for t in graph.sparse_initializer if t.values.name in wanted]
    )
    _keep(graph.output, [v for v in graph.output if v.name in outputs])
    del graph.value_info[:]


def called(model: Any, name: str) -> list[Any]:
    """The functions that a pruned model calls; FileError for recursion, UnsupportedError above a size.

    Putting functions in place may multiply nodes at every call, so they are counted first.
    """
    functions = {(f.domain, f.name): f for f in model.functions}
    counts: dict[Function, int] = {}

    def count(nodes: Any, open_calls: tuple[Function, ...]) -> int:
        total = 0
        for node in every_node(nodes):
            key = (node.domain, node.op_type)
            if key in open_calls or len(open_calls) > _DEPTH:
                raise FileError(
                    f"{name}: the function {node.op_type!r} calls itself, or too many others"
                )
            if key in functions and key not in counts:
                counts[key] = count(functions[key].node, (*open_calls, key))
            total += counts.get(key, 1)
            if total > _NODES:
                raise UnsupportedError(f"{name}: the network has more than {_NODES:,} nodes")
        return total

    count(model.graph.node, ())
    branches = sum(1 for _ in zip(graphs_of(model.graph.node), range(_BRANCHES + 1), strict=False))
    if branches > _BRANCHES:
        raise UnsupportedError(f"{name}: the network has more than {_BRANCHES:,} branches")
    return [function for key, function in functions.items() if key in counts]


def every_node(nodes: Any) -> Iterator[Any]:
    """Nodes and those of their branches."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from every_node(attribute.g.node)


def graphs_of(nodes: Any) -> Iterator[Any]:
    """The branches of nodes, and those inside."""
    for node in every_node(nodes):
        yield from (a.g for a in node.attribute if a.HasField("g"))


def _keep(field: Any, kept: list[Any]) -> None:
    """Leave these of a repeated field; nothing is copied where that is all."""
    if len(kept) < len(field):
        del field[:]
        field.extend(kept)
