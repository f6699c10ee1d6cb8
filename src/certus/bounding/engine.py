"""The engine that evaluates a model, and what it loses in sums and in functions of one value.

Sums follow Higham 2002, section 3.1: whatever the order, n roundings are off by at most gamma_n of the sum
of absolute terms. Nothing less is true: convolutions and average pooling of real engines add their terms one
by one. Functions are charged by a table that was measured (`make errors`).
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from certus.bounding.precision import precisions
from certus.core import UnsupportedError
from certus.graph import Graph, gated, smooth
from certus.graph.onnx.runtime import OnnxModel, Unchecked
from certus.graph.op import Elementwise, Op

TABLE = Path(__file__).with_name("errors.toml")
# times the measured errors of functions: on other processors GELU was seen four times as far off
_SAFETY = 8.0
# roundings beside those of a sum: of weights that an engine joins, of factors, of the result
_EXTRA = 8
# smallest normal numbers that a function may lose, as where an exponential overflows inside
_UNDERFLOW = 256.0
_LARGEST = 0.1  # of n u; beyond it nothing is known
_ROUNDED = 0.5  # units that a result in the dtype is off by, also where what it was compared with was rounded
_FACTORS = {"tf32": 2.0**-11, "bf16": 2.0**-8}  # of the factors of a product, in reduced precision


@dataclass(frozen=True)
class Engine:
    """An evaluation's arithmetic: torch or onnxruntime, the dtype, and the error of products' factors.

    factors: relative, 0 where products take their factors as they are.
    """

    name: str
    dtype: torch.dtype
    factors: float = 0.0

    @property
    def unit(self) -> float:
        """u, the largest relative error of one rounding to nearest."""
        return torch.finfo(self.dtype).eps / 2

    def gamma(self, roundings: int) -> float:
        """n u / (1 - n u), infinite where n u exceeds a tenth."""
        size = roundings * self.unit
        return size / (1 - size) if size <= _LARGEST else float("inf")

    def sums(self, terms: int) -> float:
        """Error of a sum of so many products, relative to its absolute terms."""
        return self.gamma(terms + _EXTRA) + 2.5 * self.factors

    def function(self, op: Elementwise) -> tuple[float, float]:
        """(relative, absolute) error of a function, with the factor of safety."""
        relative, absolute = _row(self.name, str(self.dtype).removeprefix("torch."), key(op))
        each, lost = _SAFETY * 2 * self.unit, _UNDERFLOW * torch.finfo(self.dtype).tiny
        return each * relative, each * absolute * amplitude(op) + lost


def engine_of(graph: Graph, dtype: torch.dtype) -> Engine:
    """The engine of a graph's original, with the settings for products that hold now."""
    if isinstance(graph.original, OnnxModel | Unchecked):
        return Engine("onnxruntime", dtype)
    factors = max((_FACTORS.get(way, 0.0) for way in precisions(graph.device)), default=0.0)
    return Engine("torch", dtype, factors if dtype == torch.float32 else 0.0)


def key(op: Op) -> str:
    """The operation's row in the table."""
    return "GeluTanh" if isinstance(op, gated.Gelu) and op.tanh else op.name


def amplitude(op: Op) -> float:
    """What the absolute error of a function grows with."""
    if isinstance(op, smooth.Elu):
        return op.scale * max(op.alpha, 1.0)
    if isinstance(op, smooth.Celu):
        return max(op.alpha, 1.0)
    return max(1.0, 1 / op.beta) if isinstance(op, smooth.Softplus) else 1.0


@cache
def _rows() -> dict[str, Any]:
    return tomllib.loads(TABLE.read_text())


@cache
def _row(engine: str, dtype: str, name: str) -> tuple[float, float]:
    """The measured row; onnxruntime's covers torch's too, in which its bounds are computed.

    A type that was not measured rounds the values of float32.
    """
    known, engines = _rows(), ["torch", "onnxruntime"] if engine == "onnxruntime" else ["torch"]
    kind = dtype if dtype in known["torch"] else "float32"
    rows = [known[e][kind][name] for e in engines if name in known[e][kind]]
    if not rows:
        raise UnsupportedError(
            f"the rounding guard has no measured error of {name}; run `make errors`"
        )
    relative = max(_ROUNDED, *(row[0] for row in rows))
    return relative + (kind != dtype), max(row[1] for row in rows)
