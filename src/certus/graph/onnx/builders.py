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
    build_quantised,
    build_recurrent,
    build_reduce,
    build_resize,
)

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
    build_quantised,
    build_recurrent,
    build_reduce,
    build_resize,
)
