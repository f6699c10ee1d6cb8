"""Gather: constant places of a value, or places that depend on the input in a constant table."""

from dataclasses import replace

import numpy as np

from certus.graph.onnx.build_logic import look_up
from certus.graph.onnx.build_moves import cut, moved
from certus.graph.onnx.table import Call, axis_of, builds
from certus.graph.onnx.values import Data


@builds("Gather")
def _gather(call: Call) -> Data:
    if not isinstance(call[0], Data):
        return look_up(call, call.array(0), call.data(1), int(call.attribute("axis", 0)))
    x = call.data()
    axis = axis_of(int(call.attribute("axis", 0)), x.rank)
    places = call.array(1).astype(np.int64)
    flat = places.reshape(-1) % x.shape[axis]
    run = len(flat) > 0 and bool((np.diff(flat) == 1).all())
    if not run:
        return moved(call)
    part = cut(call, x, axis, slice(int(flat[0]), int(flat[-1]) + 1, 1))
    return replace(part, shape=(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))
