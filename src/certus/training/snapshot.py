"""Snapshot: the state of a training after an epoch, in one file, to go on from later."""

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from certus.core import FileError
from certus.core.files import opened, replace_file
from certus.training.key import difference

_WEIGHTS, _OPTIMISER = "weights.", "optimiser."
_LARGEST = 1 << 40  # bytes


@dataclass(frozen=True, eq=False)
class State:
    """Weights and buffers by name, optimiser tensors as `parameter.name`, one row for each epoch."""

    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Snapshot:
    """A safetensors file that is replaced as a whole after every epoch.

    The key that is stored with it names the training; randomness needs no state, since it derives
    from (seed, epoch, step).
    """

    path: Path

    def save(self, key: str, state: State) -> None:
        """Write the state; an interruption leaves the previous file.

        Raises FileError where it cannot be written, or has become that of a training with another key.
        """
        tensors = {_WEIGHTS + name: value for name, value in state.weights.items()}
        tensors |= {_OPTIMISER + name: value for name, value in state.optimiser.items()}
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        data = save(plain, {"key": key, "rows": json.dumps(state.rows)})
        self._read(key, tensors=False)
        replace_file(self.path, data)

    def load(self, key: str) -> State | None:
        """The state, or None where there is no file yet.

        Raises FileError where the file is damaged or belongs to a training with another key.
        """
        return self._read(key, tensors=True)

    def _read(self, key: str, *, tensors: bool) -> State | None:
        """The state, without its tensors where they are not asked for."""
        if not os.path.lexists(self.path):
            return None
        found: dict[str, Tensor] = {}
        try:
            with ExitStack() as stack:
                stack.enter_context(opened(self.path, _LARGEST))  # no pipe, no device
                file = stack.enter_context(safe_open(self.path, "pt"))
                held = file.metadata() or {}
                if tensors:
                    found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            rows = json.loads(held.get("rows", "[]"))
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise FileError(
                f"{self.path} is damaged ({error}); delete it to start again"
            ) from error
        if held.get("key") != key:
            raise FileError(
                f"{self.path} belongs to another training (other: {difference(held.get('key', ''), key)}); "
                "delete it or choose another file"
            )
        return State(_part(found, _WEIGHTS), _part(found, _OPTIMISER), rows)


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
