"""Ablated inputs: some features keep their value, the others carry no information (NULL)."""

import torch
from torch import Tensor

from certus.core import ArgumentError


def ablated_shape(shape: tuple[int, ...], null: float | None) -> tuple[int, ...]:
    """Shape of an ablated copy of an input [C, *space] (or [d])."""
    return shape if null is not None else (2 * shape[0], *shape[1:])


def ablated(x: Tensor, kept: Tensor, null: float | None, out: Tensor) -> Tensor:
    """Copies of one input x [C, *space] that show only the features in `kept`, written to `out`.

    kept [n, C or 1, *space] holds ones (shown) and zeros (ablated). With null None the copies have
    twice the channels, first x, then 1 - x, and an ablated feature is 0 in both, which no value of
    an input in [0, 1] is (Levine and Feizi 2020). Otherwise an ablated feature takes the value
    `null`, in as many channels as x has. `out` is [n, *ablated_shape].
    """
    if null is not None:
        return out.copy_(torch.where(kept != 0, x, torch.full_like(x, null)))
    channels = x.shape[0]
    torch.mul(kept, x, out=out[:, :channels])
    torch.mul(kept, 1 - x, out=out[:, channels:])
    return out


def checked_null(null: float | None) -> None:
    """ArgumentError unless null is None or a finite number."""
    if null is None or (isinstance(null, int | float) and abs(null) < float("inf")):
        return
    raise ArgumentError(f"null must be None (twice the channels) or a finite number, got {null!r}")
