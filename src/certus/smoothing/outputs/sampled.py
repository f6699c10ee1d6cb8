"""A module under noise, and the values that it returns for noisy copies."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from certus.core import ArgumentError, ModelError, validate
from certus.core.random import generator
from certus.core.replay import refuse_training
from certus.smoothing.checks import keys_of, placed, steady
from certus.smoothing.draws import ATTACK, Stream
from certus.smoothing.engine import Evaluator, Sink, Span
from certus.smoothing.noise import Noise
from certus.smoothing.piece import Piece
from certus.smoothing.twin import twin_of

MEMORY = 2**28  # bytes of values or counts that are held at once, if one input takes no more


@dataclass(frozen=True, eq=False)
class Sampled:
    """What `Smoothed` is for classifiers, for a module [N, *rows] -> [N, *out] of real values.

    The module treats the rows of a batch independently and gives the same answer every time; an
    nn.Module must be in evaluation mode. Which threads call it is said at `Smoothed`. Draws depend on
    (seed, input id, stage, block of samples) only, so that answers do not depend on `batch`, the order or
    the split of the inputs, or threads.
    """

    module: Callable[[Tensor], Tensor]
    noise: Noise
    seed: int = field(default=0, kw_only=True)
    batch: int = field(default=256, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what can never be used: ArgumentError for arguments, ModelError for the module."""
        if not callable(self.module):
            raise ArgumentError(f"module must be callable, got {type(self.module).__name__}")
        if not isinstance(self.noise, Noise):
            raise ArgumentError(f"noise must be a Noise such as Gaussian(0.25), got {self.noise!r}")
        validate.count(self.seed, "seed", 0)
        validate.count(self.batch, "batch")
        refuse_training(self.module)

    def read(self, answers: object, rows: int) -> Tensor:
        """A module's answers to `rows` rows as outputs [rows, *out], finite real values, or ModelError."""
        return values(answers, rows)

    def ready(self, x: Tensor, ids: Sequence[int] | None) -> tuple[Tensor, list[int], Tensor]:
        """Inputs as the module takes them, keys of their noise, and one of the module's outputs; checked."""
        x = placed(self.module, x.detach() if isinstance(x, Tensor) else x)
        keys = keys_of(ids, len(x))
        self.noise.check(x)
        answers = steady(
            lambda rows: self.read(self.module(rows), len(rows)),
            self.noise,
            x,
            generator(self.seed, 0, ATTACK, 2),
        )
        wide = torch.promote_types(answers.dtype, torch.float32)  # numpy knows no bfloat16
        return x, keys, answers[0].to("cpu", wide)

    def pieces(
        self, keys: Sequence[int], inputs: Sequence[int], stage: int, samples: range
    ) -> list[Piece]:
        """These samples of a stage, for these inputs (positions in keys)."""
        streams = ((b, Stream.of(self.noise, self.seed, keys[b], stage)) for b in inputs)
        return [Piece(stream, samples.start, samples.stop, (b,)) for b, stream in streams]

    def evaluator(self, x: Tensor, keys: Sequence[int], stage: int, samples: int) -> Evaluator:
        """What evaluates so many noisy copies of each input, of this stage first; a context manager."""
        streams = [Stream.of(self.noise, self.seed, key, stage) for key in keys]
        twin = twin_of(self.module, None, self.noise, x, streams, samples * len(x))
        called = self.module if twin is None else twin
        return Evaluator(called, self.noise, x, self.batch, several=twin is not None)

    def drawn(
        self,
        evaluator: Evaluator,
        keys: Sequence[int],
        like: Tensor,
        n: int,
        stage: int,
        report: Callable[[int], None] = lambda rows: None,
    ) -> Iterator[np.ndarray]:
        """For each input the module's n answers [n, *out], in the order of the draws.

        like is one of its outputs; report gets the rows done so far.
        """
        for inputs in groups(len(keys), n * like.numel() * like.element_size()):
            held = like.new_empty((len(inputs), n, *like.shape))
            kept = Values(held, inputs.start, self.read)
            pieces = self.pieces(keys, inputs, stage, range(n))
            evaluator.run(pieces, partial(_same, kept), added(report, inputs.start * n))
            yield from held.numpy()


def groups(inputs: int, size: int) -> Iterator[range]:
    """Positions of inputs that are held together, of `size` bytes each: at least one, MEMORY at most."""
    together = max(1, MEMORY // max(1, size))
    for first in range(0, inputs, together):
        yield range(first, min(first + together, inputs))


def _same(kept: "Values") -> "Values":
    return kept


def added(report: Callable[[int], None], done: int) -> Callable[[int], None]:
    """A report of rows after `done` earlier ones."""
    return lambda rows: report(done + rows)


class Values(Sink):
    """The outputs themselves, each at its place in held [G, n, *out]: threads never write to the same one."""

    def __init__(self, held: Tensor, first: int, read: Callable[[object, int], Tensor]) -> None:
        self.held, self.first, self.read = held, first, read

    def take(self, answers: object, owner: Tensor, spans: Sequence[Span]) -> None:
        """Put outputs where they belong."""
        found = alike(self.read(answers, len(owner)), tuple(self.held.shape[2:]))
        row = 0
        for b, start, size in spans:
            self.held[b - self.first, start : start + size] = found[row : row + size]
            row += size


def values(answers: object, rows: int) -> Tensor:
    """A module's answers [rows, *out], finite real values, or ModelError."""
    if not isinstance(answers, Tensor) or not answers.is_floating_point():
        kind = str(answers.dtype) if isinstance(answers, Tensor) else type(answers).__name__
        raise ModelError(f"the module must return a floating-point tensor, got {kind}")
    if answers.ndim < 1 or len(answers) != rows or answers.numel() == 0:
        raise ModelError(
            f"the module must return an output for each of {rows} inputs, got {tuple(answers.shape)}"
        )
    if not bool(torch.isfinite(answers).all()):
        raise ModelError("the module returned NaN or infinite values")
    return answers


def alike(outputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Outputs [rows, *shape], or ModelError."""
    if tuple(outputs.shape[1:]) != shape:
        raise ModelError(
            f"the module's outputs must always have the same shape, got {shape} and then "
            f"{tuple(outputs.shape[1:])}"
        )
    return outputs
