"""Model: a function that can be asked about, whatever it is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from certus.core.errors import ArgumentError, ModelError
from certus.core.fingerprint import fingerprint


@runtime_checkable
class Model(Protocol):
    """What certifiers accept. A `Graph` is one that can be looked into, a `Function` one that can be called.

    A call takes x [B, *input_shape] in `dtype` to [B, *output] and treats every row by itself.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""

    @property
    def original(self) -> Callable[[Tensor], Tensor]:
        """What answers are about: counterexamples are replayed on it."""

    def __call__(self, x: Tensor) -> Tensor:
        """The outputs for a batch."""

    def fingerprint(self) -> str:
        """A hash of all that the outputs depend on."""


@dataclass(frozen=True, eq=False)
class Function:
    """A callable of which nothing is known but its answers: enough for attacks and for smoothing."""

    original: Callable[[Tensor], Tensor]
    input_shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """What the callable answers."""
        return self.original(x)

    def fingerprint(self) -> str:
        """Hash of a module's parameters, buffers and layers; ArgumentError for another callable."""
        if not isinstance(self.original, nn.Module):
            raise ArgumentError("a plain function has no fingerprint; name its version yourself")
        layers = (f"layers {self.original!r}", torch.zeros(1))
        return fingerprint([*self.original.state_dict().items(), layers])


def as_model(model: object, x: Tensor) -> Model:
    """The model itself, or a callable as a `Function` of inputs like x [B, *shape].

    Its dtype is that of a module's parameters, else that of x. ModelError for what cannot be called.
    """
    if isinstance(model, Model):
        return model
    if not callable(model):
        raise ModelError(
            f"a model is a Graph, an nn.Module or a callable, got {type(model).__name__}"
        )
    held = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else ()
    dtype = next((t.dtype for t in held if t.is_floating_point()), x.dtype)
    return Function(model, tuple(x.shape[1:]), dtype)
