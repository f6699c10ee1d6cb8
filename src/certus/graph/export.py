"""torch.export of a module in evaluation mode, without operations in place or without a builder."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

from certus.graph.calls import Calls
from certus.graph.causes import explained
from certus.graph.op import Shape

_DROPOUT = ("aten.dropout.", "aten.feature_dropout.", "aten.alpha_dropout.", "aten.dropout_.")
_ROUNDS = 6  # decompositions may lead to operations that must be decomposed in turn


class Flat(nn.Module):
    """A module with several inputs as one of a single flat input [B, n_1 + n_2 + ...]."""

    def __init__(self, module: nn.Module, shapes: tuple[Shape, ...]) -> None:
        super().__init__()
        self.module, self.shapes = module, shapes
        self.train(module.training)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The inputs [B, *shape_i] of the module."""
        counts = [torch.Size(shape).numel() for shape in self.shapes]
        pieces = x.split(counts, 1)
        return tuple(p.reshape(-1, *s) for p, s in zip(pieces, self.shapes, strict=True))

    def forward(self, x: Tensor) -> Any:
        """The module on the split input."""
        return self.module(*self.split(x))


class Single(nn.Module):
    """A module as one that takes a single positional argument, whatever it is called or wrapped in."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.train(module.training)

    def forward(self, x: Tensor) -> Any:
        """The module itself."""
        with _OneMode():
            return self.module(x)


class _Watched(Single):
    """The same, with its calls of torch kept."""

    def __init__(self, module: nn.Module, calls: Calls) -> None:
        super().__init__(module)
        self.calls = calls

    def forward(self, x: Tensor) -> Any:
        """The module itself."""
        with _OneMode(), self.calls:
            return self.module(x)


class _OneMode(TorchFunctionMode):
    """Turns gradients neither on nor off, which changes no value, but is an operation for torch.export."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """All other functions as they are."""
        return None if func is torch._C._set_grad_enabled else func(*args, **(kwargs or {}))


def export(single: Single, example: Tensor, known: Callable[[str], bool]) -> ExportedProgram:
    """The program of a module for any batch size.

    Operations in place are rewritten as functions of values, and an operation whose target is not
    `known` is decomposed where torch can do so. Raises what `explained` finds to be the cause of a failure.
    """
    two = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))  # a batch of one is specialised
    try:
        program = _exported(single, two)
    except Exception as error:
        calls = Calls()
        with suppress(Exception):  # the same once more, watched
            _exported(_Watched(single.module, calls), two)
        raise explained("export", single.module, calls, error) from error
    try:
        with _quiet():
            return _simplified(program, known)
    except Exception as error:
        raise explained("export", single.module, Calls(), error) from error


def _exported(single: nn.Module, two: Tensor) -> ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=2)}
    with _quiet(), _spelled_attention(), torch.no_grad():
        return torch.export.export(single, (two,), dynamic_shapes=(batch,))


def _simplified(program: ExportedProgram, known: Callable[[str], bool]) -> ExportedProgram:
    _drop_dropout(program.graph)
    if any(_mutates(node) for node in program.graph.nodes):
        program = program.run_decompositions({})
    tried: set[Any] = set()
    for _ in range(_ROUNDS):
        unknown = {
            n.target for n in program.graph.nodes if _is_aten(n) and not known(str(n.target))
        }
        unknown -= tried
        table = torch.export.default_decompositions() if unknown else {}
        chosen = {target: table[target] for target in unknown if target in table}
        if not chosen:
            break
        tried |= unknown
        program = program.run_decompositions(chosen)
    return program


def _drop_dropout(graph: fx.Graph) -> None:
    """In evaluation mode dropout returns its very input, which a decomposition would copy.

    A later operation in place on the result would then be lost.
    """
    for node in list(graph.nodes):
        if str(node.target).startswith(_DROPOUT) and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _is_aten(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _mutates(node: fx.Node) -> bool:
    return _is_aten(node) and node.target._schema.is_mutable  # type: ignore[union-attr]


@contextmanager
def _spelled_attention() -> Iterator[None]:
    """torch.nn's attention layers without their fused inference kernels, which hide the operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export writes pages about a failure, which the one line of the error stands for."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        out, err = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
        with out, err, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
