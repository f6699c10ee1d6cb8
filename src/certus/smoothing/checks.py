"""What a module and its inputs must be before anything is sampled."""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from certus.core import ArgumentError, CertusError, ModelError, validate
from certus.core.replay import refuse_training, repeatable
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
        module.refuse_changed()
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

    ModelError where the module fails on them, and as `repeatable`. answer checks what it returns by itself.
    """
    ask = partial(_asked, answer, noise, x)
    return repeatable(ask, _probe(noise, x, generator))


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
        said = f"{type(error).__name__} {' '.join(str(error).split()):.80}".strip()
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
            f"{type(noise).__name__} makes rows {made} of inputs {given}: the channels, then "
            "1 - channels; null=0.0 hides by a value and keeps the shape"
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
