"""Whether a module keeps something from one call to the next, which threads would mix up."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def keeps_state(module: nn.Module, rows: Tensor) -> bool:
    """Whether a call on these rows changes what a part of the module holds, or runs hooks, which may.

    A forward pass that stores a value as `self.features` and reads it back finds another thread's value
    there, where two threads call it at once. Seen are attributes of all parts, the members of containers
    among them, and tensors written in place; what a module keeps elsewhere is not.
    """
    parts = list(module.modules())
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
        return True
    with torch.inference_mode():
        before = list(_held(parts))
        module(rows)
        after = list(_held(parts))
    return len(before) != len(after) or any(
        old is not new or version != later
        for (old, version), (new, later) in zip(before, after, strict=True)
    )


def _held(parts: list[nn.Module]) -> Iterator[tuple[object, int]]:
    """All that the parts hold, with the number of times that a tensor was written to."""
    for part in parts:
        for value in vars(part).values():
            members = value.values() if isinstance(value, dict) else value
            several = isinstance(value, dict | list | set | tuple)
            for one in (value, *(members if several else ())):
                counted = isinstance(one, Tensor) and not one.is_inference()
                yield one, one._version if counted else 0
