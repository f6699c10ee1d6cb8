"""Importing this module fills the tables of operators."""

from certus.graph.onnx import (
    build_arithmetic,
    build_conv,
    build_elementwise,
    build_gather,
    build_linear,
    build_logic,
    build_moves,
    build_norm,
    build_pool,
    build_recurrent,
    build_reduce,
    build_resize,
    fold_math,
    fold_moves,
)
from certus.graph.onnx.table import BUILDERS, FOLDS

MODULES = (
    build_arithmetic,
    build_conv,
    build_elementwise,
    build_gather,
    build_linear,
    build_logic,
    build_moves,
    build_norm,
    build_pool,
    build_recurrent,
    build_reduce,
    build_resize,
    fold_math,
    fold_moves,
)


def known() -> list[str]:
    """The ONNX operators that can be imported, in order of the alphabet."""
    return sorted(set(BUILDERS) | set(FOLDS) | {"If"})
