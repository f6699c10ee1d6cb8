"""What a module answers, before it is captured: one tensor, row for row, on any number of inputs."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from certus.core import CertusError
from certus.graph.calls import watched
from certus.graph.causes import explained
from certus.graph.remedies import remedy
from certus.graph.wrappers import unwrapped

_KEYS = 4  # of a dict that are shown


def check_answers(module: nn.Module, example: Tensor) -> None:
    """ModelError, with what to do, unless a module answers one input and two as one tensor, row for row.

    example [B, *shape]: its first row is what the module is called on.
    """
    one = example[:1].detach()
    two = one.repeat(2, *[1] * (example.ndim - 1))
    pair = _answer(module, two, f"failed {tuple(two.shape)}", lambda: remedy(module, example))
    if not isinstance(pair, Tensor):
        raise _explained(f"returns {_words(pair)}", module, two)
    alone = _answer(module, one, "alone")
    shapes = [list(value.shape) if isinstance(value, Tensor) else None for value in (alone, pair)]
    if shapes != [[k, *pair.shape[1:]] for k in (1, 2)]:
        raise _explained(f"lost {shapes[0]} for one input, {shapes[1]} for two", module, one)


def _answer(module: nn.Module, x: Tensor, failed: str, hint: Callable[[], str] = lambda: "") -> Any:
    own = x.clone()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            answer = module(own)
        except Exception as error:
            raise _explained(f"{failed}: {hint() or _said(error)}", module, x, error) from error
        if not torch.equal(x, own):
            raise _explained("changes its input", module, x)
    return answer


def _explained(
    seen: str, module: nn.Module, x: Tensor, error: Exception | None = None
) -> CertusError:
    return explained(seen, module, watched(unwrapped(module), x.clone()), error)


def _said(error: Exception) -> str:
    """The first line of an error, with its kind where the words alone may be a mere name."""
    said = next(iter(str(error).strip().splitlines()), "")
    plain = isinstance(error, RuntimeError | ValueError) and said
    return said if plain else f"{type(error).__name__} {said}"


def _words(answer: Any) -> str:
    """A dict, a tuple or another object in words."""
    if isinstance(answer, dict):
        return f"a dict with {', '.join(map(repr, list(answer)[:_KEYS]))}"
    if isinstance(answer, tuple | list):
        return f"a {'tuple' if isinstance(answer, tuple) else 'list'} of length {len(answer)}"
    return f"an object of the class {type(answer).__name__}"
