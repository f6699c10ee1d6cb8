"""Checks at the edge, so that broken input gives one clear error instead of a wrong answer."""

from collections.abc import Mapping

import torch
from torch import Tensor

from certus.core.errors import ArgumentError, ModelError


def inputs(x: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return x [B, *shape] after checking type, batch dimension, shape and finiteness."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ArgumentError(f"inputs must be a floating-point tensor, got {_kind(x)}")
    if x.ndim < 2 or x.shape[0] == 0:
        raise ArgumentError(
            f"inputs must have a batch dimension [B, *shape], got {tuple(x.shape)}; "
            "a single input is x[None]"
        )
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        raise ArgumentError(
            f"the model takes inputs of shape [B, {_dims(shape)}], got {tuple(x.shape)}"
        )
    if not bool(torch.isfinite(x).all()):
        raise ArgumentError("inputs contain NaN or infinite values")
    return x


def labels(y: Tensor, batch: int, classes: int) -> Tensor:
    """Return y [B] as int64 after checking its length and that every label names one of the classes."""
    if (
        not isinstance(y, Tensor)
        or y.is_floating_point()
        or y.is_complex()
        or y.dtype == torch.bool
    ):
        raise ArgumentError(f"labels must be an integer tensor [B], got {_kind(y)}")
    if y.shape != (batch,):
        raise ArgumentError(f"labels must have shape [{batch}], got {tuple(y.shape)}")
    y = y.long()
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ArgumentError(
            f"labels must lie in 0..{classes - 1}, got {int(y.min())}..{int(y.max())}"
        )
    return y


def logits(z: object, batch: int) -> Tensor:
    """Return a model's output after checking that it is floating-point [B, K], K >= 2, without NaN."""
    fits = isinstance(z, Tensor) and z.ndim == 2 and z.shape[0] == batch and z.shape[1] >= 2
    if not isinstance(z, Tensor) or not fits or not z.is_floating_point():
        raise ModelError(
            f"a classifier must return logits [{batch}, K] with K >= 2, got {_no_logits(z, batch)}"
        )
    if not bool(torch.isfinite(z).all()):
        raise ModelError("the model returned NaN or infinite logits")
    return z


def positive(value: float, name: str) -> float:
    """Return a finite number > 0."""
    if not (isinstance(value, int | float) and 0 < value < float("inf")):
        raise ArgumentError(f"{name} must be a finite number > 0, got {value!r}")
    return float(value)


def count(value: int, name: str, least: int = 1) -> int:
    """Return an integer >= least."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(f"{name} must be an integer >= {least}, got {value!r}")
    return value


def probability(value: float, name: str) -> float:
    """Return a number strictly between 0 and 1."""
    if not (isinstance(value, int | float) and 0 < value < 1):
        raise ArgumentError(f"{name} must lie strictly between 0 and 1, got {value!r}")
    return float(value)


def _no_logits(z: object, batch: int) -> str:
    """What a model returned instead of logits, and how to make logits of it."""
    if isinstance(z, Mapping | tuple | list):
        names = list(z) if isinstance(z, Mapping) else [0]
        key = "logits" if "logits" in names else next(iter(names), 0)
        held = f" of {', '.join(map(str, names))}" if isinstance(z, Mapping) else f" of {len(z)}"
        advice = f"wrap it so that the logits alone come out, as lambda z: model(z)[{key!r}]"
        return f"{type(z).__name__}{held:.80}; {advice}"
    if not isinstance(z, Tensor):
        return type(z).__name__
    found = str(tuple(z.shape))
    if not z.is_floating_point():
        labels = "labels are no logits; return scores, or one_hot(labels, K).float()"
        return f"{z.dtype} {found}: {labels if z.ndim < 2 else 'scores must be floating-point'}"
    if z.shape in {(batch,), (batch, 1)}:
        join = "stack" if z.ndim == 1 else "cat"
        return (
            f"{found}: of one logit z make two, torch.{join}([-z, z], 1), "
            f"of one probability p torch.{join}([1 - p, p], 1)"
        )
    return found


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _dims(shape: tuple[int, ...]) -> str:
    return ", ".join(str(d) for d in shape)
