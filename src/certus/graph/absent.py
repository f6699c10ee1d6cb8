"""Entries that are minus infinity, as attention masks have them: no number stands for them.

While a graph is built, a `Builder` knows which entries of a node are minus infinity; the node itself
holds zero there. They move with the values, and disappear in what gives them a finite meaning: a
softmax over the other entries, a largest value, a function with a limit. All else is refused.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from certus.core import UnsupportedError
from certus.graph.affine import Scale, Shift, Sum
from certus.graph.op import Op
from certus.graph.softmax import LogSumExp, MaskedSoftmax, Softmax
from certus.graph.structural import (
    Concat,
    Expand,
    Flip,
    Gather,
    Permute,
    Reshape,
    Select,
    Slice,
)

_MOVES = (Concat, Expand, Flip, Gather, Permute, Reshape, Select, Slice)
_INFINITY = float("inf")


def carried(op: Op, gone: Sequence[Tensor | None], values: Sequence[Tensor]) -> Tensor:
    """Which entries of an operation's result are minus infinity: bool [1, *out].

    gone [1, *in] and values [1, *in] are those of the inputs. Raises UnsupportedError where the result
    would be NaN or plus infinity, or is not known for all values of the network's parameters.
    """
    marks = [
        torch.zeros_like(v) if g is None else g.to(v) for g, v in zip(gone, values, strict=True)
    ]
    if isinstance(op, _MOVES):
        return op.forward(*marks) > 0
    if isinstance(op, Shift) and bool(torch.isfinite(op.amount).all()):
        return Shift(torch.zeros_like(op.amount)).forward(*marks) > 0
    if isinstance(op, Scale) and _keeps_sign(op, marks[0]):
        return Scale(torch.ones_like(op.factor)).forward(*marks) > 0
    if isinstance(op, Sum) and (gone[1] is None or op.factor > 0):
        return Sum().forward(*marks) > 0
    raise UnsupportedError(f"minus infinity (of a mask) reaches {op.name}")


def _keeps_sign(op: Scale, mark: Tensor) -> bool:
    """Whether a factor is and stays positive where it meets minus infinity."""
    positive = (op.factor > 0) & torch.isfinite(op.factor)
    return not op.factor.requires_grad and bool((positive | (mark == 0)).all())


def softmax_without(op: Softmax, gone: Tensor) -> MaskedSoftmax:
    """The softmax of the entries that are there."""
    if not bool((~gone).any(op.dim).all()):
        raise UnsupportedError("a mask leaves out every position of a softmax, which is NaN")
    return MaskedSoftmax(op.dim, ~gone)


def present(op: LogSumExp, gone: Tensor) -> Gather:
    """The entries of a sum of exponentials that are there, where they are the same in every row."""
    there = (~gone).movedim(op.dim, -1).reshape(-1, gone.shape[op.dim])
    if not bool((there == there[:1]).all() and there[0].any()):
        raise UnsupportedError("minus infinity reaches LogSumExp, at other places in every row")
    shape = gone.shape[1:]
    places = torch.arange(gone.numel(), device=gone.device).reshape(shape)
    kept = places.index_select(op.dim - 1, there[0].nonzero().flatten())
    return Gather(kept.flatten(), tuple(kept.shape))


def repeated(gone: Tensor, dims: Sequence[int]) -> Gather:
    """Each missing entry takes the value of one that is there: the largest value stays what it is."""
    rest = [d for d in range(1, gone.ndim) if d not in dims]
    order = [d - 1 for d in (*rest, *dims)]
    places = torch.arange(gone.numel(), device=gone.device).reshape(gone.shape[1:]).permute(order)
    there = (~gone[0]).permute(order)
    rows, mask = places.flatten(len(rest)), there.flatten(len(rest))
    if not bool(mask.any(-1).all()):
        raise UnsupportedError("a mask leaves out every position of a largest value")
    first = rows.gather(-1, mask.to(torch.uint8).argmax(-1, keepdim=True))
    index = torch.where(mask, rows, first).reshape(places.shape)
    back = sorted(range(len(order)), key=order.__getitem__)
    return Gather(index.permute(back).flatten(), tuple(gone.shape[1:]))


def limit(op: Op, gone: Tensor, like: Tensor) -> Tensor:
    """A function's value at minus infinity where entries are missing, zero elsewhere."""
    at = op.forward(torch.full_like(like, -_INFINITY))
    plain = op.forward(torch.zeros_like(like))
    if not bool((torch.isfinite(at) & torch.isfinite(plain) | ~gone).all()):
        raise UnsupportedError(f"minus infinity (of a mask) reaches {op.name}")
    return torch.where(gone, at, torch.zeros_like(at))
