"""What to do with inputs that a module fails on: changes that are tried, each with its sentence."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Remedy:
    """A change of the inputts, given a parameter of the module, and what is said if the module then runs."""

    change: Callable[[Tensor, Tensor], Tensor]
    says: str


_ALIKE = (
    "it runs on {count}, and must on any number: use x.shape[0] or -1 where its code has a number"
)
_CHANNELS = "its channels come before height and width"
_IMAGES = "it expects images, not rows of numbers"
REMEDIES = (
    Remedy(lambda x, own: x, _ALIKE),
    Remedy(lambda x, own: x[:1], _ALIKE),
    Remedy(
        lambda x, own: x.to(own),
        "it computes in {own}, the inputs are {given}: pass x.to({own}), or call model.to({given})",
    ),
    Remedy(
        lambda x, own: x[None].to(own),
        "its first dimension is the batch: pass one input as x[None]",
    ),
    Remedy(lambda x, own: x.movedim(-1, 1).to(own), f"{_CHANNELS}: pass x.movedim(-1, 1)"),
    Remedy(
        lambda x, own: x.movedim(-1, 0)[None].to(own), f"{_CHANNELS}: pass x.movedim(-1, 0)[None]"
    ),
    Remedy(lambda x, own: x.unsqueeze(1).to(own), "it expects channels: pass x.unsqueeze(1)"),
    Remedy(lambda x, own: x.flatten(1).to(own), "it expects rows of numbers: pass x.flatten(1)"),
    Remedy(
        lambda x, own: _image(x, 1).to(own), f"{_IMAGES}: pass x.unflatten(1, (1, height, width))"
    ),
    Remedy(
        lambda x, own: _image(x, 3).to(own), f"{_IMAGES}: pass x.unflatten(1, (3, height, width))"
    ),
    Remedy(
        lambda x, own: x.long(),
        "it takes whole numbers, around which there are no regions: pass what follows its embedding",
    ),
)


def _image(x: Tensor, channels: int) -> Tensor:
    """Rows of numbers as square images."""
    side = math.isqrt(x.shape[1] // channels)
    return x.reshape(-1, channels, side, side)


def remedy(module: nn.Module, x: Tensor) -> str:
    """The sentence of the first of the REMEDIES by which a module runs on x [B, *shape]; "" if none does."""
    own = next((p for p in module.parameters() if p.is_floating_point()), x)
    for one in REMEDIES:
        try:
            changed = one.change(x, own)
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fits = len(module(changed)) == len(changed)
        except Exception:
            continue
        if fits:
            return one.says.format(
                own=_kind(own, x), given=_kind(x, own), count=_inputs(len(changed))
            )
    return ""


def _kind(tensor: Tensor, other: Tensor) -> str:
    """Its dtype as torch writes it, or its device where that is the difference."""
    return str(tensor.dtype if tensor.dtype != other.dtype else repr(str(tensor.device)))


def _inputs(count: int) -> str:
    return "one input" if count == 1 else f"{count} inputs"
