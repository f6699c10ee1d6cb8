"""Source: the module that a graph was captured from, and whether it is still what it was then."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from certus.core import CertusError, ModelError
from certus.graph.expression import Expression
from certus.graph.op import Op, Shape
from certus.graph.signature import BEYOND, Same, signature

_ASK = "call certus.trace again"


class Node(Protocol):
    """A node of a graph, as far as it is compared."""

    @property
    def op(self) -> Op:
        """Its operation."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Positions of what it takes."""

    @property
    def shape(self) -> Shape:
        """Its shape without the batch."""


class Source:
    """What a capture rested on; it is compared with the module before anything is certified.

    before is the module's `signature` after its first call. What has changed at the end of the capture
    changes by calls of the module alone, such as features that it keeps, and is left out of
    comparisons. again captures a module anew.
    """

    def __init__(
        self,
        module: nn.Module,
        before: dict[str, Any],
        again: Callable[[nn.Module], Sequence[Node]],
        nodes: Sequence[Node],
    ) -> None:
        self.module: nn.Module | None = module
        self._again, self._nodes = again, nodes
        self._known = signature(module)
        restless = {name for name in _changed(before, self._known) if not _owned(before.get(name))}
        self._restless = restless - {BEYOND}

    def check(self) -> None:
        """ModelError where the module is not what was captured.

        A replaced parameter is such a change. Where anything else differs, the module is
        captured anew, and both captures must be equal: a change that no answer rests on is none.
        """
        if self.module is None:
            return
        now = signature(self.module)
        if now == self._known:
            return
        changed = [name for name in _changed(self._known, now) if name not in self._restless]
        if not changed:
            return
        for name in changed:
            if _owned(self._known.get(name)) and not _same_thing(self._known[name], now.get(name)):
                raise ModelError(f"the model has changed since it was traced ({name}); {_ASK}")
        try:
            equal = _equal(self._nodes, self._again(self.module))
        except CertusError as error:
            raise ModelError(
                f"the model has changed since it was traced ({changed[0]}); {_ASK} ({error})"
            ) from error
        if not equal:
            raise ModelError(f"the model has changed since it was traced ({changed[0]}); {_ASK}")
        self._known = now

    def __deepcopy__(self, memo: dict[int, Any]) -> "Source":
        """Of the copied module."""
        found = copy.copy(self)
        found.module, found._nodes = copy.deepcopy((self.module, self._nodes), memo)
        found._known = {} if found.module is None else signature(found.module)
        return found

    def __copy__(self) -> "Source":
        """The same, to be changed."""
        found = object.__new__(Source)
        found.__dict__.update(self.__dict__)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is of another module, of which nothing is known."""
        return (_unknown, ())


def _unknown() -> Source:
    found = object.__new__(Source)
    found.module = None
    return found


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of values that differ, in the order of the module."""
    gone = object()
    both = dict.fromkeys([*before, *now])
    return [name for name in both if before.get(name, gone) != now.get(name, gone)]


def _owned(token: Any) -> bool:
    """Whether what is compared is a parameter of the module."""
    return (
        isinstance(token, tuple)
        and isinstance(token[0], Same)
        and isinstance(token[0].thing, nn.Parameter)
    )


def _same_thing(token: Any, other: Any) -> bool:
    """Whether both stand for the same tensor with the same shape and dtype."""
    return isinstance(other, tuple) and bool(token[:3] == other[:3])


def _equal(nodes: Sequence[Node], others: Sequence[Node]) -> bool:
    """Whether two captures of one module are the same operations on the same tensors."""
    return len(nodes) == len(others) and all(
        (a.inputs, a.shape, type(a.op)) == (b.inputs, b.shape, type(b.op))
        and _equal_values(vars(a.op), vars(b.op))
        for a, b in zip(nodes, others, strict=True)
    )


def _equal_values(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(_equal_value(a[name], b[name]) for name in a)


def _equal_value(a: Any, b: Any) -> bool:
    """Tensors of the module must be the same ones, since values of a copy would not follow it."""
    if isinstance(a, Expression) and isinstance(b, Expression):
        with torch.no_grad():
            alike = _equal_value(a.evaluate(), b.evaluate())
        same = _equal_value(tuple(a.known.values()), tuple(b.known.values()))
        return alike and same and a.written() == b.written()  # now equal, and after training
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_equal_value, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        alike = a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))
        return alike and (
            a is b or not (isinstance(a, nn.Parameter) or isinstance(b, nn.Parameter))
        )
    return bool(a is b or (type(a) is type(b) and (a == b or repr(a) == repr(b))))
