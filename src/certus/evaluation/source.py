"""Which code computes: versions and hashes, so that rows of different code are told apart."""

import ast
import hashlib
import importlib.metadata
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

_ROOT = Path(__file__).parents[1]
_ALWAYS = ("certus.graph", "certus.evaluation.block")  # the model's graph, and what makes rows


def version() -> str:
    """Certus's version, `source` where it is not installed."""
    try:
        return importlib.metadata.version("certus")
    except importlib.metadata.PackageNotFoundError:
        return "source"


@cache
def source_hash() -> str:
    """Hash of all of Certus's own code."""
    digest = hashlib.sha256()
    for path in sorted(_ROOT.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build() -> str:
    """Code and torch of this process, in words; workers must have the same."""
    return f"Certus {version()} ({source_hash()[:12]}) with torch {torch.__version__}"


def code_of(*values: Any) -> str:
    """Hash of the code that computes with these settings: no row of an older rule is taken for a newer's.

    Of the modules of their classes, of all modules of Certus that these import, directly or not, and of
    Certus's tables of numbers. What changes no row changes no hash: comments, docstrings, the form of the
    source, other modules.
    """
    return _code(tuple(sorted({name for value in values for name in _modules(value)})))


@cache
def _code(roots: tuple[str, ...]) -> str:
    open_, seen = [*roots, *_ALWAYS], dict[str, str]()
    while open_:
        name = open_.pop()
        if name not in seen:
            seen[name], imported = _module(name)
            open_ += imported
    digest = hashlib.sha256(repr(sorted(seen.items())).encode())
    for path in sorted(_ROOT.rglob("*.toml")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _modules(value: Any) -> Iterator[str]:
    """Names of the modules of a value's class and of its settings' classes."""
    yield type(value).__module__
    if is_dataclass(value):
        for part in fields(value):
            yield from _modules(getattr(value, part.name))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _modules(part)


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """The hash of a module's code, and for a module of Certus those of Certus that it imports."""
    path = _file(name)
    if path is None:
        return "", ()
    tree = ast.parse(path.read_bytes())
    found = set(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _text(part)]
    own = name.partition(".")[0] == "certus"
    known = tuple(sorted(part for part in found if own and _file(part) is not None))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), known


def _text(node: ast.stmt) -> bool:
    """Whether a statement is a text alone: a docstring, of a name as well."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("certus."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("certus"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def _file(name: str) -> Path | None:
    """The source of a module; None where it has none, or is no module."""
    first, *rest = name.split(".")
    if first == "certus":
        at = _ROOT.joinpath(*rest)
        found = [p for p in (at.with_suffix(".py"), at / "__init__.py") if p.is_file()]
        return found[0] if found else None
    if first in sys.stdlib_module_names or first == "builtins":
        return None
    source = getattr(sys.modules.get(name), "__file__", None)
    return Path(source) if source is not None and source.endswith(".py") else None
