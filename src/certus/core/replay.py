"""Whether a model can be believed: the same answer each time, for each row by itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from certus.core.errors import CertusError, ModelError

Answer = Callable[[Tensor], Tensor]

_FEW = 3  # rows that are asked for again in a smaller batch


def refuse_training(model: object) -> None:
    """ModelError where any part of an nn.Module is in training mode."""
    if not isinstance(model, nn.Module):
        return
    for name, part in model.named_modules():
        if part.training:
            where = f"its part {name!r}" if name else "the model"
            raise ModelError(f"{where} is in training mode; call model.eval() first")


def repeatable(answer: Answer, rows: Tensor) -> Tensor:
    """The answers to rows [N, *shape], once they are known to be repeatable.

    ModelError where two calls differ in any bit, or where a row's answer depends on the other rows, on
    their order or on their number by more than rounding does. What a model does on other inputs, or after
    many more calls, is left to `same` and `margins`, at the end of the work.
    """
    first = answer(rows.clone()).clone()  # a model may return one buffer each time
    same(first, answer(rows.clone()))
    few = min(_FEW, len(rows))
    turned = answer(rows.flip(0)).flip(0)
    part = answer(rows[:few].flip(0)).flip(0)
    apart = torch.cat([turned, part, answer(rows[-1:].clone())])
    together = torch.cat([first, first[:few], first[-1:]])
    known = first[torch.isfinite(first)].abs()
    scale = known.max() if len(known) else known.new_zeros(())
    room = torch.finfo(first.dtype).eps ** 0.5 * (1 + scale)
    if apart.shape != together.shape or not bool(_close(apart, together, room).all()):
        raise ModelError(
            "the model's answer for an input depends on the rest of the batch (batch statistics, a "
            "softmax over dimension 0?); it must treat each row by itself"
        )
    return first


def _close(first: Tensor, second: Tensor, room: Tensor) -> Tensor:
    """Equal up to some room; a number is never close to NaN or to infinity."""
    return ((first - second).abs() <= room) | _equal(first, second)


def _equal(first: Tensor, second: Tensor) -> Tensor:
    return (first == second) | (first.isnan() & second.isnan())


def same(first: Tensor, second: Tensor) -> None:
    """ModelError unless two answers to the same rows are equal bit by bit; NaN equals NaN."""
    equal = first.shape == second.shape and first.dtype == second.dtype
    if not equal or not bool(_equal(first, second).all()):
        raise ModelError(
            "the model is not deterministic: two calls on the same input differ; turn off dropout and "
            "other randomness inside it, and let it keep nothing from one call to the next"
        )


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{j != y} z_j as [B]; zero is a tie, which already breaks the claim z_y > z_j."""
    rest = logits.scatter(1, y.unsqueeze(1), float("-inf"))
    return logits.gather(1, y.unsqueeze(1)).squeeze(1) - rest.amax(1)


def margins(model: Answer, x: Tensor, y: Tensor, logits: Tensor | None = None) -> Tensor:
    """Margins [B] of what the model answers to x [B, *shape]: at most 0 where it is wrong on a row.

    A counterexample must be one in the batch and by itself: where the margin in the batch is at most 0,
    the row is asked for alone as well, and the larger margin counts. logits [B, K] are the answers to the
    batch where they are known. NaN where a logit is NaN or infinite: nothing is claimed there. Raises
    ModelError for other shapes, and where the batch is answered differently a second time.
    """
    z = _replayed(model, x) if logits is None else logits
    found = _finite_margin(z, y)
    broken = (found <= 0).nonzero().squeeze(1).tolist()
    if broken and logits is None:
        same(z, _replayed(model, x))
    for b in broken:
        alone = _finite_margin(_replayed(model, x[b : b + 1]), y[b : b + 1])
        found[b] = torch.maximum(found[b], alone[0])  # NaN comes through
    return found


def _finite_margin(z: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isfinite(z).all(1), margin(z, y), float("nan"))


def _replayed(model: Answer, x: Tensor) -> Tensor:
    try:
        z = model(x.clone())
    except CertusError:
        raise
    except Exception as error:
        said = f"{type(error).__name__} {' '.join(str(error).split()):.200}".strip()
        raise ModelError(
            f"the model fails on {list(x.shape)} ({said}); it must take any number of inputs"
        ) from error
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(x):
        raise ModelError(f"the model gave no logits [{len(x)}, K] when a candidate was replayed")
    return z
