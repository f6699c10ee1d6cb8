"""Which part or source line makes a module train unlike its captured graph."""

import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

_TORCH = str(Path(torch.__file__).parent)
_STOPS = {
    Tensor.detach: "detach",
    Tensor.detach_: "detach_",
    Tensor.data.__get__: ".data",  # type: ignore[attr-defined]
    Tensor.register_hook: "a hook",
}


def sources(module: nn.Module, x: Tensor) -> list[str]:
    """Where gradients stop or change while the module is evaluated on x, as `file:line code`."""
    watch = _Watch()
    with torch.enable_grad(), watch:
        module(x.clone().requires_grad_())
    return list(watch.found)


def differing_part(
    module: nn.Module, x: Tensor, still: Collection[str], besides: Collection[nn.Module]
) -> str | None:
    """Name of the first part whose training mode alone changes the value on x; None if there is none."""
    tensors = [*module.named_parameters(), *module.named_buffers()]

    def value() -> Any:
        held = {name: t.detach().clone() for name, t in tensors}
        with torch.no_grad():
            return functional_call(module, held, (x,))

    before = {part: part.training for part in module.modules()}
    try:
        module.eval()
        expected = value()
        for name, part in module.named_modules():
            if name in still or part in besides:
                continue
            part.training = True
            found = value()
            part.training = False
            if found.shape != expected.shape or not torch.allclose(found, expected, 1e-3, 1e-5):
                return name
    finally:
        for part, mode in before.items():
            part.training = mode
    return None


class _Watch(TorchFunctionMode):
    """Notes calls that stop a gradient, and calls made without recording gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        stop = _STOPS.get(func) or ("" if torch.is_grad_enabled() else "no gradient recorded")
        if stop and (line := _line()):
            self.found[f"{stop} at {line}"] = None
        return func(*args, **(kwargs or {}))


def _line() -> str:
    """The innermost line outside of torch and below this file's own call."""
    for frame in reversed(traceback.extract_stack()[:-2]):
        if frame.filename == __file__:
            return ""
        if not frame.filename.startswith((_TORCH, "<")):
            return f"{Path(frame.filename).name}:{frame.lineno} `{frame.line}`"
    return ""
