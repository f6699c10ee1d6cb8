"""The twin of a module: what several threads may call at once in its place."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from certus.graph import Graph, trace
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.draws import Stream
from certus.smoothing.noise import Noise

WORTH = 2**16  # rows from which on capturing a module pays: it takes as long as some 10^4 of them
_INPUTS, _COPIES = 4, 16  # on which a twin is compared with its module

_PLAIN = frozenset(
    (
        *(
            nn.Sequential,
            nn.Identity,
            nn.Flatten,
            nn.Unflatten,
            nn.Linear,
            nn.Dropout,
            nn.Dropout2d,
        ),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d),
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.PReLU),
        *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh, nn.ReLU6, nn.Hardsigmoid, nn.Hardswish),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    )
)
"""Layers of torch that keep nothing from one call to the next in evaluation mode."""


def twin_of(
    module: Callable[[Tensor], Tensor],
    graph: Graph | None,
    noise: Noise | Derandomized,
    x: Tensor,
    streams: Sequence[Stream | None],
    work: int,
) -> Callable[[Tensor], Tensor] | None:
    """What threads may call in place of a module, or None where nothing is known to be harmless.

    Nobody looks for state: what a module keeps, in its parts, in closures or in globals, cannot be seen
    from outside, and a second thread would overwrite it. Known are a Graph, a module made of torch's
    own layers alone, and the graph captured of a module: `graph`, or one that is captured here if `work`,
    the rows that will be asked for, pays for it. On some of the noisy copies of x [B, *shape] that the
    run begins with, those of these streams, a twin must answer as the module does but for rounding.
    """
    if x.device.type != "cpu":
        return None
    if isinstance(module, Graph):
        return module
    if not isinstance(module, nn.Module):
        return None
    twin: Callable[[Tensor], Tensor] | None = module if _plain(module) else graph
    if twin is None and work < WORTH:
        return None
    rows = _beginning(noise, x, streams)
    twin = _captured(module, rows[:1]) if twin is None else twin
    if isinstance(twin, Graph):
        twin.refuse_changed()
        twin = twin.resolved()
    return twin if twin is not None and _agree(module, twin, rows) else None


def _beginning(noise: Noise | Derandomized, x: Tensor, streams: Sequence[Stream | None]) -> Tensor:
    """The first copies of the first inputs, as the module gets them."""
    made = []
    for row, stream in zip(x[:_INPUTS], streams, strict=False):
        local = row.detach().to(device="cpu", dtype=torch.promote_types(x.dtype, torch.float32))
        shape = tuple(local.shape)
        if isinstance(noise, Derandomized):
            made.append(noise.rows(local, 0, min(_COPIES, noise.copies(shape))))
            continue
        assert stream is not None
        draws = local.new_empty((_COPIES, *noise.draw_shape(shape)))
        stream.fill(draws, 0, torch.Generator())
        rows = local.new_empty((_COPIES, *noise.rows_shape(shape)))
        made.append(noise.apply(local, draws, rows))
    return torch.cat(made).to(x)


def _plain(module: nn.Module) -> bool:
    """Whether a module is nothing but torch's own layers, without hooks or replaced methods."""
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return False
    return all(
        type(part) in _PLAIN
        and type(part).forward.__module__.startswith("torch.nn.modules.")
        and not part._forward_hooks
        and not part._forward_pre_hooks
        and not any(map(callable, vars(part).values()))
        and all(type(held) in (Tensor, nn.Parameter) for held in _tensors(part))
        for part in module.modules()
    )


def _captured(module: nn.Module, example: Tensor) -> Graph | None:
    """The graph of a module, None where there is none. It is a copy that is captured, with the same tensors.

    Capturing calls `forward` with other values and stand-ins for tensors, which a module might keep.
    """
    shared = {id(held): held for part in module.modules() for held in _tensors(part)}
    try:
        return trace(deepcopy(module, shared), example)
    except Exception:  # whatever a module of another's making cannot do, it is called as it is
        return None


def _tensors(part: nn.Module) -> Iterator[Tensor]:
    held = (*part._parameters.values(), *part._buffers.values(), *vars(part).values())
    return (value for value in held if isinstance(value, Tensor))


def _agree(
    module: Callable[[Tensor], Tensor], twin: Callable[[Tensor], Tensor], rows: Tensor
) -> bool:
    """Whether a thread of its own gets from the twin what this one gets from the module."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is found must not depend on their number
    try:
        expected = _asked(module, rows)
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return _alike(expected, pool.submit(_asked, twin, rows).result())
    except Exception:  # whoever asks the module next sees what is wrong with it
        return False
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _asked(module: Callable[[Tensor], Tensor], rows: Tensor) -> object:
    return module(rows.clone())


def _alike(expected: object, found: object) -> bool:
    """Equal but for rounding, beside how far the answers lie apart."""
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor) and expected.numel()):
        return False
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    eps = torch.finfo(expected.dtype).eps if expected.is_floating_point() else 0.0
    low, high = expected.min(), expected.max()
    room = 3 * eps**0.5 * (high - low) + 32 * eps * torch.maximum(high.abs(), low.abs())
    return bool(((expected - found).abs() <= room).all())
