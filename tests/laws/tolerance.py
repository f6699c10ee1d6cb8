"""How far one evaluation of an operation may be off: what the tolerances of numeric laws follow from.

The last digits of a function differ from one CPU and library to the next, so no law may rest on what
one machine computes. It allows for `evaluation_error`; `perturbed` shows that it does.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from certus.bounding.engine import Engine
from certus.bounding.terms import terms
from certus.graph.activation import Clamp, Relu
from certus.graph.affine import BatchNorm, Conv, ConvTranspose, Linear, MatMul
from certus.graph.op import Elementwise, Op
from certus.graph.periodic import Tan, Wave
from certus.graph.piecewise import Abs, Jumps
from certus.graph.smooth import Softplus
from certus.graph.whole import Fits

EXACT = (Relu, Clamp, Abs, Jumps, Fits)
SUMS = (Linear, Conv, ConvTranspose, BatchNorm, MatMul)


def evaluation_error(op: Op, x: Tensor, value: Tensor) -> Tensor:
    """The largest error of op(x) in the dtype of x on any machine, elementwise; value is op(x).

    Sums as the rounding guard charges them; functions half as much as it does, which is four times
    what was measured.
    """
    engine = Engine("torch", x.dtype)
    if isinstance(op, SUMS):
        shapes, out = [tuple(x.shape[1:])], tuple(value.shape[1:])
        rate = engine.sums(terms[type(op)](op, shapes, out).forward)
        return rate * (op.magnitude(x.abs()) + value.abs())
    if not isinstance(op, Elementwise) or isinstance(op, EXACT):
        return torch.zeros_like(value)
    relative, absolute = engine.function(op)
    found = (relative * value.abs() + absolute) / 2
    if isinstance(op, Softplus):  # rounding may choose the side of the switch
        near = 4 * engine.unit * x.abs()
        return torch.where(op.switches(x - near, x + near), found + op.jump, found)
    return found


def line_error(op: Op, x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """How far a line may cross op [N, 1], where it was computed in the dtype of x [N, points].

    x spreads over the interval, value is op(x) in float64. Lines touch the function at ends or at a
    point of contact, each off by the error of an evaluation, and what lies between is off by no more;
    which of them serves is decided by differences of evaluations, off by as much again. A slope is off
    by a few units, which count over the width, an offset by the rounding of slope * x, and a place in
    a period by the rounding of x and of pi in float64.
    """
    eps = torch.finfo(x.dtype).eps
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    reach = torch.maximum(low.abs(), high.abs()).double()
    rounding = slope.abs() * (high - low + reach) + value.abs().amax(1, keepdim=True)
    place = torch.zeros_like(reach)
    if isinstance(op, Wave | Tan):
        steepest = torch.maximum(*[end.abs() for end in op.slopes(low.double(), high.double())])
        place = torch.finfo(torch.float64).eps * (reach + math.pi) * steepest
    return 2 * evaluation_error(op, x, value).amax(1, keepdim=True) + 4 * (eps * rounding + place)


def signs(value: Tensor) -> Tensor:
    """+1 or -1 for each element, by its bits alone: equal values are off by the same."""
    bits = value.contiguous().view(torch.int32 if value.element_size() == 4 else torch.int64)
    return 1.0 - 2.0 * (((bits ^ (bits >> 15)) * 0x9E3779B1 >> 13) & 1).to(value.dtype)


@contextmanager
def perturbed() -> Iterator[None]:
    """Every evaluation of an operation is off by its largest error, up or down."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in {*_below(Elementwise), *SUMS}:
            for name in {"forward", "smooth"} & vars(kind).keys():
                if vars(kind)[name].__name__ != _coarse.__name__:  # not twice
                    patch.setattr(kind, name, _coarse(vars(kind)[name]))
        yield


def _below(kind: type) -> set[type]:
    return {kind}.union(*(_below(sub) for sub in kind.__subclasses__()))


def _coarse(function: Callable[[Op, Tensor], Tensor]) -> Callable[[Op, Tensor], Tensor]:
    def _coarse(op: Op, x: Tensor) -> Tensor:
        value = function(op, x)
        if isinstance(op, EXACT):
            return value
        with torch.no_grad():
            # less by the rounding of the sum below
            error = 0.85 * signs(value) * evaluation_error(op, x, value)
        return value + error

    return _coarse
