"""What a module and its inputs must be before anything is sampled."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, CertusError, ModelError, validate
from certus.graph import Graph
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.engine import checked
from certus.smoothing.noise import Noise

_ROWS = 8


def placed(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Check x [B, *shape] and move it to the module's device and dtype, if that keeps every value."""
    x = validate.inputs(x)
    refuse_training(module)
    if isinstance(module, Graph):
        moved = x.to(device=module.device, dtype=module.dtype)
    elif isinstance(module, nn.Module):
        held = chain(module.parameters(), module.buffers())
        moved = x.to(next((t for t in held if t.is_floating_point()), x))
    else:
        return x
    if not torch.equal(moved.detach().to(x), x.detach()):
        raise ArgumentError(
            f"the module computes in {moved.dtype} and inputs in {x.dtype} do not fit exactly; "
            f"hand over x.to({moved.dtype}), so that the certificate is about these values, "
            f"or convert the module by model.to({x.dtype})"
        )
    return moved


def keys_of(ids: Sequence[int] | None, batch: int) -> list[int]:
    """One key of randomness for each input."""
    if ids is None:
        return list(range(batch))
    try:
        keys = [operator.index(i) for i in ids]
    except TypeError:
        raise ArgumentError("ids must be a list of integers, one for each input") from None
    if len(keys) != batch or min(keys) < 0:
        raise ArgumentError(
            f"ids must be {batch} integers >= 0, one for each input, got {ids!r:.80}"
        )
    return keys


def refuse_training(module: object) -> None:
    """ModelError where any part of an nn.Module is in training mode."""
    if not isinstance(module, nn.Module):
        return
    for name, part in module.named_modules():
        if part.training:
            where = f"its part {name!r}" if name else "the module"
            raise ModelError(f"{where} is in training mode; call module.eval() first")


def refuse_unrepeatable(
    module: Callable[[Tensor], Tensor],
    noise: Noise | Derandomized,
    num_classes: int,
    x: Tensor,
    generator: torch.Generator,
) -> None:
    """`steady` for a classifier."""
    steady(lambda rows: checked(module(rows), len(rows), num_classes), noise, x, generator)


@torch.inference_mode()
def steady(
    answer: Callable[[Tensor], Tensor],
    noise: Noise | Derandomized,
    x: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Answers to a few noisy rows of the first input, once they are known to be repeatable.

    ModelError where the module fails on them, two calls on the same rows differ, or a row's answer
    depends on other rows. answer checks what it returns by itself.
    """
    rows = _probe(noise, x, generator)
    ask = partial(_asked, answer, noise, x)
    first, second = ask(rows), ask(rows)
    if not torch.equal(first, second):
        raise ModelError(
            "the module is not deterministic: two calls on the same input differ; turn off "
            "dropout and other randomness inside it"
        )
    few = min(3, len(rows))
    alone = ask(rows[:few].flip(0)).flip(0)
    room = torch.finfo(first.dtype).eps ** 0.5 * (1 + first.abs().max())
    if bool(((alone - first[:few]).abs() > room).any()):
        raise ModelError(
            "the module's answer for an input depends on the rest of the batch (batch "
            "statistics?); a certificate needs each row treated by itself"
        )
    return first


def _probe(noise: Noise | Derandomized, x: Tensor, generator: torch.Generator) -> Tensor:
    """A few noisy copies of the first input."""
    local = x[0].to(device="cpu", dtype=torch.promote_types(x.dtype, torch.float32))
    shape = tuple(local.shape)
    if isinstance(noise, Derandomized):
        return noise.rows(local, 0, min(_ROWS, noise.copies(shape))).to(x)
    draws = noise.sample((_ROWS, *shape), generator, local.dtype)
    return noise.apply(local, draws, torch.empty(_ROWS, *noise.rows_shape(shape)).to(local)).to(x)


def _asked(
    answer: Callable[[Tensor], Tensor], noise: Noise | Derandomized, x: Tensor, rows: Tensor
) -> Tensor:
    """The answers to noisy copies of x[0]; where the module raises, one line that says what it was given."""
    try:
        return answer(rows.clone())
    except CertusError:
        raise
    except Exception as error:
        said = f"{type(error).__name__} {' '.join(str(error).split()):.200}".strip()
        advice = _advice(answer, noise, x, rows)
        raise ModelError(
            f"the module fails on noisy copies {list(rows.shape)} ({said}); {advice}"
        ) from error


def _advice(
    answer: Callable[[Tensor], Tensor], noise: Noise | Derandomized, x: Tensor, rows: Tensor
) -> str:
    """What would help a module that raised on noisy copies of x[0], found by trying."""
    made, given = _batch(rows.shape[1:]), _batch(x.shape[1:])
    if made != given:
        return (
            f"{noise!r:.80} makes rows {made} of inputs {given}: the channels, then 1 - channels, "
            "both 0 where hidden; null=0.0 hides by that value and keeps the input's own shape"
        )
    if _takes(answer, x[None]):
        return f"{list(x.shape)} was read as {len(x)} inputs; hand over a single one as x[None]"
    if _takes(answer, rows[:1]):
        return "it takes one row at a time: lambda z: torch.cat([model(row[None]) for row in z])"
    return f"it must take {made} for any N"


def _batch(shape: Sequence[int]) -> str:
    return f"[N, {', '.join(map(str, shape))}]"


def _takes(answer: Callable[[Tensor], Tensor], rows: Tensor) -> bool:
    """Whether the module answers these rows."""
    try:
        answer(rows.clone())
    except Exception:
        return False
    return True
