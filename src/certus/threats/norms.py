"""Threats: what an adversary may do to an input, in the input's own units."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor

from certus.core import ArgumentError
from certus.core.kinds import KIND, to_json
from certus.threats.ball import Ball
from certus.threats.cube import Cube
from certus.threats.patch import Patched
from certus.threats.region import Region, spread
from certus.threats.rounding import rounded
from certus.threats.sparse import Sparse, whole

Clip = tuple[float, float] | None


class Threat(Protocol):
    """Anything that turns inputs into the region an adversary may choose from."""

    norm: str

    @property
    def inputs(self) -> int | None:
        """How many inputs it is given for, one by one; None where it is for any."""

    def region(self, x: Tensor) -> Region:
        """The region around each input of x [B, *shape]."""

    def radius(self, x: Tensor) -> Tensor:
        """[B] float64: the size of the region in the threat's norm; NaN where it has no single one."""

    def describe(self) -> str:
        """A short name that a report prints, such as `linf:0.1`."""

    def to_json(self) -> dict[str, Any]:
        """The threat as data: {"kind": norm, ...}, equal for equal threats."""

    def at(self, indices: Sequence[int]) -> "Threat":
        """The threat for these inputs of the data set that it is given for."""


class NormBall(ABC):
    """All inputs within eps of the clean one in some Lp norm, cut by the valid range of inputs.

    eps >= 0 in input units: a number, [B] (one per input) or [B, *shape] / [1, *shape] (one per
    element). clip is the valid range of every input value, (0, 1) by default, None for no limit.
    The threat applies before any normalisation: put normalisation into the model.
    """

    norm: str

    def __init__(self, eps: float | Tensor, clip: Clip = (0.0, 1.0)) -> None:
        eps = _held(eps)
        clip = None if clip is None else _range(clip)
        if torch.as_tensor(eps).is_complex():
            raise ArgumentError(f"eps must be a real number or tensor, got {eps}")
        value = _tensor(eps)
        if not bool((torch.isfinite(value) & (value >= 0)).all()):
            raise ArgumentError(f"eps must be finite and >= 0, got {eps}")
        self.eps, self.clip = eps, clip

    @abstractmethod
    def _around(self, x: Tensor, eps: Tensor) -> Region:
        """The region for eps in float64, already spread to [B, *shape]."""

    def region(self, x: Tensor) -> Region:
        """The region around each input; raises ArgumentError where x lies outside clip.

        Inputs may lie on a limit that was rounded to their dtype.
        """
        if self.clip is not None and _off(x, self.clip):
            raise ArgumentError(
                f"inputs lie outside clip {self.clip}: give the range of your data as clip, or None"
            )
        return self._around(x, self._spread(x))

    def radius(self, x: Tensor) -> Tensor:
        """eps of each input [B]; NaN where eps differs between the elements of an input."""
        eps = self._spread(x).flatten(1)
        same = (eps == eps[:, :1]).all(1)
        return torch.where(same, eps[:, 0], float("nan"))

    def describe(self) -> str:
        """Norm and eps, such as `linf:0.1`; `linf:various` for a tensor eps."""
        value = _tensor(self.eps)
        return f"{self.norm}:{value.item()!r}" if value.numel() == 1 else f"{self.norm}:various"

    @property
    def inputs(self) -> int | None:
        """How many inputs have an eps of their own; None where all share one."""
        if isinstance(self.eps, Tensor) and self.eps.ndim > 0 and len(self.eps) > 1:
            return len(self.eps)
        return None

    def at(self, indices: Sequence[int]) -> "NormBall":
        """With the eps of these inputs of a data set; itself where all share one."""
        if not isinstance(self.eps, Tensor) or self.inputs is None:
            return self
        return type(self)(self.eps[list(indices)], self.clip)

    def to_json(self) -> dict[str, Any]:
        """{"kind": norm, "eps": number, "clip": [low, high] or None}; of a tensor eps stands its hash."""
        clip = None if self.clip is None else [float(limit) for limit in self.clip]
        eps = self.eps if isinstance(self.eps, Tensor) else float(self.eps)
        return {KIND: self.norm, "eps": to_json(eps), "clip": to_json(clip)}

    def __repr__(self) -> str:
        """Constructor form."""
        eps = self.eps if isinstance(self.eps, int | float) else f"<{tuple(self.eps.shape)}>"
        return f"{type(self).__name__}({eps}, clip={self.clip})"

    def _spread(self, x: Tensor) -> Tensor:
        eps = _tensor(self.eps).to(x.device)
        if eps.ndim == 0:
            return eps.expand_as(x)
        if eps.ndim == 1 and len(eps) in (1, len(x)):
            return spread(eps, x).expand_as(x)
        if eps.ndim == x.ndim and eps.shape[0] in (1, len(x)) and eps.shape[1:] == x.shape[1:]:
            return eps.expand_as(x)
        raise ArgumentError(
            f"eps must be a number, [B] or [B, *shape]; {tuple(eps.shape)} does not fit {tuple(x.shape)}"
        )


class Linf(NormBall):
    """Every input value may change by up to eps."""

    norm = "linf"

    def _around(self, x: Tensor, eps: Tensor) -> Region:
        return Cube(x, eps, self.clip)


class L2(NormBall):
    """The Euclidean length of the change is at most eps."""

    norm = "l2"

    def _around(self, x: Tensor, eps: Tensor) -> Region:
        return Ball(x, eps, 2, self.clip)


class L1(NormBall):
    """The absolute changes add up to at most eps."""

    norm = "l1"

    def _around(self, x: Tensor, eps: Tensor) -> Region:
        return Ball(x, eps, 1, self.clip)


class Counted(NormBall):
    """A threat whose eps counts what may change to anything inside clip: a whole number, or [B] of them."""

    def __init__(self, eps: float | Tensor, clip: Clip = (0.0, 1.0)) -> None:
        super().__init__(eps, clip)
        value = _tensor(eps)
        if clip is None or not all(map(math.isfinite, clip)):
            raise ArgumentError(
                f"the {self.norm} threat needs a finite clip: it limits what a value becomes"
            )
        if not bool((value == value.round()).all()):
            raise ArgumentError(f"the {self.norm} threat takes a whole number as eps, got {eps}")
        self.eps = int(value) if value.ndim == 0 else eps
        self.limits = clip

    def describe(self) -> str:
        """As for every ball, with a whole number: `l0:3`."""
        return f"{self.norm}:{self.eps}" if isinstance(self.eps, int) else super().describe()


class L0(Counted):
    """At most eps values change, each to anything inside clip."""

    norm = "l0"
    pixels = False

    def _around(self, x: Tensor, eps: Tensor) -> Region:
        return Sparse(x, whole(eps), self.limits, self.pixels)


class L0Pixels(L0):
    """At most eps pixels change, each in all of its channels (dimension 1 of [B, C, *space])."""

    norm = "l0-pixels"
    pixels = True

    def region(self, x: Tensor) -> Region:
        """As for L0; refuses inputs without channels."""
        if x.ndim < 3:
            raise ArgumentError(f"pixels need inputs [B, C, *space], got {tuple(x.shape)}; use L0")
        return super().region(x)


class Patch(Counted):
    """The pixels of one square of eps x eps change, in all channels, to anything inside clip.

    Inputs are images [B, C, H, W]; the square lies inside, anywhere.
    """

    norm = "patch"

    def _around(self, x: Tensor, eps: Tensor) -> Region:
        if x.ndim != 4:
            raise ArgumentError(f"a patch needs images [B, C, H, W], got {tuple(x.shape)}")
        return Patched(x, whole(eps), self.limits)


def _tensor(eps: float | Tensor) -> Tensor:
    """eps in float64: 0.7 as float32 would be a smaller ball than the one asked for."""
    return torch.as_tensor(eps, dtype=None if isinstance(eps, Tensor) else torch.float64).double()


def _range(clip: Any) -> tuple[float, float]:
    """Two finite or infinite numbers, the smaller one first."""
    try:
        low, high = clip
        ordered = not isinstance(clip, str | dict) and float(low) < float(high)
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise ArgumentError(f"clip must be (low, high) with low < high, or None, got {clip!r:.80}")
    return _held(low), _held(high)


def _held(number: Any) -> Any:
    """The number, where float64 holds it: a Decimal, a Fraction or a large int may lie between two."""
    if not isinstance(number, int | Decimal | Fraction):
        return number
    if isinstance(number, Decimal) and number.is_nan():
        return math.nan
    near = float(number) if -(2**1000) < number < 2**1000 else math.inf
    if near != number:
        raise ArgumentError(f"{number!r:.60} is no number in float64; give the float that you mean")
    return number if isinstance(number, int) else near


def _off(x: Tensor, clip: tuple[float, float]) -> bool:
    """Whether a value of x lies outside limits that are rounded outward to its dtype."""
    low, high = (torch.tensor(float(limit), dtype=torch.float64, device=x.device) for limit in clip)
    low, high = rounded(low, x.dtype, up=False), rounded(high, x.dtype, up=True)
    return bool(((x < low) | (x > high)).any())


NORMS: dict[str, type[NormBall]] = {ball.norm: ball for ball in (Linf, L2, L1, L0, L0Pixels, Patch)}


def parse(text: str, clip: Clip = (0.0, 1.0)) -> NormBall:
    """A threat from text such as `linf:0.1`, `l2:0.5`, `linf:8/255` or `l0:3`."""
    name, _, number = text.partition(":")
    if name.lower() not in NORMS:
        raise ArgumentError(
            f"unknown threat {text!r}; write one of {', '.join(NORMS)}:EPS, e.g. linf:0.1"
        )
    try:
        top, _, bottom = number.partition("/")
        eps = float(top) / (abs(float(bottom)) if bottom else 1.0)
    except (ValueError, ZeroDivisionError):
        raise ArgumentError(
            f"{text!r} needs a number after the colon, e.g. {name}:0.1 or {name}:8/255"
        ) from None
    return NORMS[name.lower()](eps, clip)
