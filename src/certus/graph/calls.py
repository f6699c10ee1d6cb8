"""What a module does while it is called: its calls of torch, each with the user's line."""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from certus.graph import lines

_MOST = 10_000  # calls that are kept


class Calls(TorchFunctionMode):
    """Keeps the calls of torch's functions made inside it, as they pass torch's own override protocol.

    found: pairs of a text such as "torch.Tensor.squeeze/1 in forward" (with the number of arguments and
    the calling function) and a line. fixed: the line where an export first relied on the batch size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.fixed = ""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Note the call and make it."""
        kwargs, caller = kwargs or {}, sys._getframe(1)
        line = lines.of_caller(caller)
        if len(self.found) < _MOST:
            name = resolve_name(func) or f"{func.__module__}.{getattr(func, '__name__', '')}"
            count = len(args) + len(kwargs)
            self.found.append((f"{name}/{count} in {caller.f_code.co_name}", line))
        try:
            return func(*args, **kwargs)
        finally:
            guards = [guard for value in args for guard in _guards(value)]
            if guards and not self.fixed:
                place = getattr(getattr(guards[0], "sloc", None), "framework_loc", None)
                self.fixed = lines.of_summary(place) or line

    def line_of(self, target: str) -> str:
        """Where a function of the name of an ATen target was called, if in one line alone."""
        name = target.removeprefix("aten.").split(".")[0]
        called = {line for call, line in self.found if re.search(rf"\b{name}_?/", call)}
        return called.pop() if len(called) == 1 else ""


def _guards(value: Any) -> Sequence[Any]:
    """The conditions on sizes that an export rests on, if this is one of its tensors."""
    sizes: Sequence[Any] = value.shape if isinstance(value, Tensor) else ()
    symbols = [size for size in sizes if isinstance(size, torch.SymInt)]
    return getattr(symbols[0].node.shape_env, "guards", ()) if symbols else ()


def watched(call: Callable[..., Any], *inputs: Any) -> Calls:
    """The calls of torch that one more call makes, until it ends or fails; without gradients."""
    calls = Calls()
    with suppress(Exception), warnings.catch_warnings(), torch.no_grad(), calls:
        warnings.simplefilter("ignore")
        call(*inputs)
    return calls
