"""Quantised inputs: values k / levels for whole k, such as the pixels of an 8-bit image."""

from torch import Tensor

from certus.core import ArgumentError

_NEAR = 1e-3  # of a level: several roundings of k / levels in float32, far less than half a level


def grid_positions(x: Tensor, levels: int) -> Tensor:
    """The whole numbers k nearest to x * levels, in the dtype and shape of x."""
    return (x * levels).round()


def refuse_off_grid(x: Tensor, levels: int) -> None:
    """ArgumentError unless every value of x is k / levels, up to rounding, with k in 0..levels."""
    scaled = x * levels
    exact = (scaled - scaled.round()).abs() <= _NEAR
    if not bool((exact & (scaled.round() >= 0) & (scaled.round() <= levels)).all()):
        steps = "0 or 1" if levels == 1 else f"k/{levels} with k in 0..{levels}"
        raise ArgumentError(
            f"this smoothing is proven for inputs whose values are {steps}: quantise them first, "
            "as in (x * levels).round() / levels"
        )


def refuse_other_size(x: Tensor, found: int, size: int, unit: str) -> None:
    """ArgumentError unless inputs x [B, *shape] have as many features as the proof is about."""
    if found != size:
        raise ArgumentError(
            f"this smoothing is built for inputs of {size} {unit}, {tuple(x.shape)} has {found}"
        )
