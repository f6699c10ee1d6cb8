"""torch.export of a module in evaluation mode, without operations in place or without a builder."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from certus.core import ModelError
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


def export(module: nn.Module, example: Tensor, known: Callable[[str], bool]) -> ExportedProgram:
    """The program of a module for any batch size.

    Operations in place are rewritten as functions of values, and an operation whose target is not
    `known` is decomposed where torch can do so.
    """
    two = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))  # a batch of one is specialised
    batch = {0: torch.export.Dim("batch", min=2)}
    with torch.no_grad(), warnings.catch_warnings():  # its own error (shape, dtype) is the clearest
        warnings.simplefilter("ignore")
        try:
            module(two)
        except Exception as error:
            raise ModelError(
                f"the model fails on an input {tuple(two.shape)}: {_line(error)}"
            ) from error
    try:
        with _quiet(), _spelled_attention():
            program = torch.export.export(module, (two,), dynamic_shapes=(batch,))
            return _simplified(program, known)
    except Exception as error:
        raise ModelError(
            "torch.export cannot capture the model (control flow on values, a fixed batch size such as "
            f"len(x) in place of x.shape[0], or Python side effects): {_line(error)}"
        ) from error


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
    logging.disable(logging.WARNING)
    try:
        out, err = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
        with out, err, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
