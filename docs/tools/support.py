"""What the tables of rules support for each operation, and what imported functions are written with."""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from docs.tools.examples import Example

from certus.bounding import FAST_LIN
from certus.bounding.outward import wobble
from certus.bounding.safe_relaxations import safe_relaxations
from certus.bounding.terms import terms
from certus.core import UnsupportedError
from certus.graph.fusion import Constant, Patches
from certus.graph.op import Affine, Elementwise, Input, Op
from certus.lipschitz.constant import RULES
from certus.relax import Lines, intervals, relaxations
from certus.verifiers.encoding import encodings

COLUMNS = (
    *("ibp", "zonotope", "forward", "crown", "alpha-crown"),
    *("rigorous", "milp", "lipschitz"),
)

_INNER = {Input, Constant, Patches}  # no importer makes them


def leaves(kind: type) -> set[type[Op]]:
    """Every class below `kind` that can be made."""
    found = set() if inspect.isabstract(kind) else {kind}
    return found.union(*(leaves(sub) for sub in kind.__subclasses__()))


def operations() -> list[type[Op]]:
    """The operations of Certus, by file and then by name."""
    ours = {kind for kind in leaves(Op) if kind.__module__.startswith("certus.")} - _INNER
    return sorted(
        ours, key=lambda kind: (not issubclass(kind, Affine), kind.__module__, kind.__name__)
    )


def cells(kind: type[Op], example: Example) -> tuple[str, ...]:
    """What every column says about an operation."""
    return (
        "yes" if kind in intervals else "no",
        *[_pushed(kind)] * 2,
        _relaxed(kind),
        _own_slopes(kind, example),
        _rigorous(kind, example),
        "exact" if kind in encodings else "no",
        _lipschitz(kind, example),
    )


def _pushed(kind: type[Op]) -> str:
    """Forward methods: one input at a time has lines, everything else its interval."""
    if issubclass(kind, Affine):
        return "exact"
    return "relaxed" if issubclass(kind, Elementwise) and kind in FAST_LIN else "interval"


def _relaxed(kind: type[Op]) -> str:
    if issubclass(kind, Affine):
        return "exact"
    return "relaxed" if kind in relaxations else "no"


def _own_slopes(kind: type[Op], example: Example) -> str:
    """Whether the lower line leaves its slope open, so that every row can choose."""
    found = _relaxed(kind)
    if found != "relaxed":
        return found
    lines = relaxations[kind](example.op, *example.intervals())
    return "own slopes" if isinstance(lines, Lines) and lines.floor is not None else found


def _rigorous(kind: type[Op], example: Example) -> str:
    if issubclass(kind, Affine):
        try:  # a rule may be there to refuse
            graph = example.graph()
            terms[kind](example.op, list(example.shapes), graph.nodes[-2].shape)
        except UnsupportedError:
            return "no"
        return "yes"
    if kind in wobble:
        return "yes" if kind in safe_relaxations else "ibp alone"
    return "no"


def _lipschitz(kind: type[Op], example: Example) -> str:
    bounded = not isinstance(example.op, Elementwise) or example.op.lipschitz < float("inf")
    return "yes" if kind in RULES and bounded else "no"


def refusal(builder: Callable[..., Any]) -> str:
    """The reason of a builder that only says why there is no counterpart; empty for others."""
    assert isinstance(builder, FunctionType)
    first = _definition(builder).body[0]
    if not isinstance(first, ast.Raise) or not isinstance(first.exc, ast.Call):
        return ""
    return str(ast.literal_eval(first.exc.args[0]))


def written_with(builder: Callable[..., Any], name: str) -> list[str]:
    """Names of the operations that a builder's text makes, in helpers of certus.graph too.

    name: the operator, which picks its entry where a builder serves a table of operators. A builder
    may use a part of them only, by the arguments of the call.
    """
    assert isinstance(builder, FunctionType)
    found: set[type[Op]] = set()
    _follow(builder, name, found, set())
    return sorted(kind.__name__ for kind in found)


def _follow(function: FunctionType, name: str, found: set[type[Op]], seen: set[object]) -> None:
    if function in seen:
        return
    seen.add(function)
    module = importlib.import_module(function.__module__)
    for statement in _definition(function).body:
        _read(statement, module, name, found, seen)


def _read(
    tree: ast.AST, module: ModuleType, name: str, found: set[type[Op]], seen: set[object]
) -> None:
    """Values whose names stand in a piece of a module's text."""
    for value, text in _named(tree, module):
        if isinstance(value, type) and issubclass(value, Op) and not inspect.isabstract(value):
            found.add(value)
        elif isinstance(value, FunctionType) and value.__module__.startswith("certus.graph."):
            _follow(value, name, found, seen)
        elif isinstance(value, dict) and text:
            entry = _entry(module, text, name)
            if entry is not None and entry not in seen:
                seen.add(entry)
                _read(entry, module, name, found, seen)


def _named(tree: ast.AST, module: ModuleType) -> Iterator[tuple[Any, str]]:
    """Values of names and of attributes of modules, with the name where it is plain.

    What stands in a question such as isinstance(op, Conv) makes nothing, and annotations neither.
    """
    if isinstance(tree, ast.Call) and getattr(tree.func, "id", "") == "isinstance":
        return
    if isinstance(tree, ast.Name) and isinstance(tree.ctx, ast.Load):
        yield getattr(module, tree.id, None), tree.id
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name):
        owner = getattr(module, tree.value.id, None)
        if isinstance(owner, ModuleType):
            yield getattr(owner, tree.attr, None), ""
    for field, child in ast.iter_fields(tree):
        for node in child if isinstance(child, list) else [child]:
            if isinstance(node, ast.AST) and field not in ("annotation", "returns"):
                yield from _named(node, module)


def _entry(module: ModuleType, table: str, name: str) -> ast.AST | None:
    """The value under a name in a table that stands at the top of a module."""
    for node in _parsed(module).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if not any(isinstance(t, ast.Name) and t.id == table for t in targets):
            continue
        if isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == name:
                    return entry
    return None


def _definition(function: FunctionType) -> ast.FunctionDef:
    """The text of a function without its docstring."""
    for node in ast.walk(_parsed(importlib.import_module(function.__module__))):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            first = min([node.lineno, *[d.lineno for d in node.decorator_list]])
            if first == function.__code__.co_firstlineno:
                described = ast.get_docstring(node) is not None
                return ast.FunctionDef(**{**vars(node), "body": node.body[described:]})
    raise LookupError(f"{function.__qualname__} stands in no module")


@cache
def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))
