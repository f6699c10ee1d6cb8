"""Engine: noisy copies through a module, as fast as the network answers, and counts of its classes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from time import monotonic
from typing import NamedTuple, Self, TypeVar

import torch
from torch import Tensor

from certus.core import ModelError, validate
from certus.core.memory import keep_freed
from certus.smoothing.derandomized import Derandomized
from certus.smoothing.draws import block_of
from certus.smoothing.noise import Noise
from certus.smoothing.piece import Piece
from certus.smoothing.response import Response

_TICK = 0.2  # seconds between two reports of progress


class Span(NamedTuple):
    """Rows that lie one after the other: samples start, start + 1, ... of input b."""

    b: int
    start: int
    size: int


class Sink(ABC):
    """What is kept of the module's answers; one thread at a time writes to it."""

    @abstractmethod
    def take(self, answers: object, owner: Tensor, spans: Sequence[Span]) -> None:
        """Answers of one call of the module, to be checked; owner [rows] is the input of each row.

        spans tell the same rows in the same order by their sample numbers.
        """


S = TypeVar("S", bound=Sink)


class Evaluator:
    """Noisy copies of inputs x [B, *shape] through a module, `batch` rows at most in a call.

    The module is called by the thread that asks, unless `several` may call it at once (`twin_of`). Then
    every thread of torch works by itself: it draws, adds and evaluates its own pieces with single-threaded
    operations, so that no core waits for another. Which rows share a call depends on the pieces and on
    `batch`, never on the threads. A context manager: leaving it stops the threads.
    """

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        noise: Noise | Derandomized,
        x: Tensor,
        batch: int,
        response: Response | None = None,
        several: bool = False,
    ) -> None:
        keep_freed()
        self.noise, self.x, self.batch = noise, x, batch
        self.response, self.several = response, several
        self.answer: Callable[[Tensor], Tensor] = response or module
        wide = torch.promote_types(x.dtype, torch.float32)  # half precision would coarsen the draws
        local = x.detach().to(device="cpu", dtype=wide)
        self.local = local if response is None else response.of_inputs(local)
        shape = tuple(x.shape[1:])
        drawn = noise.draw_shape(shape) if isinstance(noise, Noise) else shape
        self._block = block_of(torch.Size(drawn).numel())
        self.rows_shape = noise.rows_shape(shape) if response is None else response.shape
        probe = _laid((2, *self.rows_shape), wide).zero_().to(x)
        images = probe.stride() != torch.empty(probe.shape).stride()
        self.laid = images and _taken(self.answer, probe)
        self._desks: list[_Desk] = []
        self._threads = torch.get_num_threads()
        # it starts a thread when it gets work, none where it gets none
        self._pool = ThreadPoolExecutor(
            self._threads, initializer=torch.set_num_threads, initargs=(1,)
        )

    def __enter__(self) -> Self:
        """The evaluator itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the threads; torch's number of threads is what it was."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)

    def run(
        self,
        pieces: Iterable[Piece],
        sink: Callable[[], S],
        report: Callable[[int], None] = lambda rows: None,
    ) -> list[S]:
        """Evaluate these pieces; what each thread's sink has kept.

        sink is asked once by each thread, which may be given the same one where writes do not meet.
        report is called from this thread with the rows done so far.
        """
        queue = _Queue(self._loads(pieces))
        kept = (self._by_several if self.several else self._by_this)(queue, sink, report)
        report(queue.done)
        return kept

    def _by_this(
        self, queue: "_Queue", sink: Callable[[], S], report: Callable[[int], None]
    ) -> list[S]:
        """By the thread that asks, with torch's operations as they are set there."""
        last = monotonic()

        def now_and_then() -> None:
            nonlocal last
            if monotonic() > last + _TICK:
                report(queue.done)
                last = monotonic()

        return [self._work(queue, sink(), now_and_then)]

    def _by_several(
        self, queue: "_Queue", sink: Callable[[], S], report: Callable[[int], None]
    ) -> list[S]:
        """By as many threads as torch has."""
        workers = [self._pool.submit(self._work, queue, sink()) for _ in range(self._threads)]
        try:
            while wait(workers, timeout=_TICK, return_when=FIRST_EXCEPTION).not_done:
                report(queue.done)
                if any(w.done() and w.exception() for w in workers):
                    break
        finally:
            queue.close()  # after an error or an interrupt the others stop at their next piece
            wait(workers)
        return [worker.result() for worker in workers]

    def _loads(self, pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
        """Pieces cut to `batch` samples of GROUP inputs, and put together to about `batch` rows."""
        load: list[Piece] = []
        rows = 0
        for part in (part for piece in pieces for part in piece.cut(self.batch, self._block)):
            if load and rows + part.rows > self.batch:
                yield load
                load, rows = [], 0
            load.append(part)
            rows += part.rows
        if load:
            yield load

    @torch.inference_mode()
    def _work(self, queue: "_Queue", sink: S, after: Callable[[], None] = lambda: None) -> S:
        """One thread's share of the loads; after is called after each."""
        try:
            desk = self._desks.pop()
        except IndexError:  # the first run, or another thread was faster
            desk = _Desk(self)
        desk.sink = sink
        while (load := queue.take()) is not None:
            rows = sum(piece.rows for piece in load)
            for piece in load:
                desk.add(piece)
            desk.flush()
            queue.finished(rows)
            after()
        self._desks.append(desk)
        return sink


class Engine(Evaluator):
    """An evaluator of classifiers, whose answers are counted."""

    def __init__(
        self,
        module: Callable[[Tensor], Tensor],
        noise: Noise | Derandomized,
        num_classes: int,
        x: Tensor,
        batch: int,
        response: Response | None = None,
        several: bool = False,
    ) -> None:
        super().__init__(module, noise, x, batch, response, several)
        self.num_classes = num_classes

    def tally(
        self, pieces: Iterable[Piece], report: Callable[[int], None] = lambda rows: None
    ) -> Tensor:
        """How often each class wins for each input in these pieces: int64 [B, K].

        report is called from this thread with the rows done so far.
        """
        kept = self.run(pieces, lambda: Counter(len(self.x), self.num_classes), report)
        total = torch.stack([counter.counts for counter in kept]).sum(0)
        return total.view(len(self.x), self.num_classes)


class Counter(Sink):
    """How often each class wins: counts [B * K] int64."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(inputs * num_classes, dtype=torch.int64)

    def take(self, answers: object, owner: Tensor, spans: Sequence[Span]) -> None:
        """Count the largest logits."""
        winner = checked(answers, len(owner), self.num_classes).argmax(1).cpu()
        self.counts += torch.bincount(owner * self.num_classes + winner, minlength=len(self.counts))


class _Queue:
    """Loads that several threads take from."""

    def __init__(self, loads: Iterator[list[Piece]]) -> None:
        self._loads: Iterator[list[Piece]] = loads
        self._lock = Lock()
        self.done = 0

    def take(self) -> list[Piece] | None:
        with self._lock:
            return next(self._loads, None)

    def finished(self, rows: int) -> None:
        with self._lock:
            self.done += rows

    def close(self) -> None:
        with self._lock:
            self._loads = iter(())


class _Desk:
    """The buffers of one thread, written again and again: fresh ones would cost page faults."""

    sink: Sink

    def __init__(self, engine: Evaluator) -> None:
        self._engine = engine
        shape, noise, dtype = tuple(engine.x.shape[1:]), engine.noise, engine.local.dtype
        drawn = noise.draw_shape(shape) if isinstance(noise, Noise) else (0,)
        rows = (engine.batch, *engine.rows_shape)
        self._rows = _laid(rows, dtype) if engine.laid else torch.empty(rows, dtype=dtype)
        self._draws = torch.empty((engine.batch, *drawn), dtype=engine.local.dtype)
        self._owner = torch.empty(engine.batch, dtype=torch.int64)
        self._spans: list[Span] = []
        self._used = 0
        self._generator = torch.Generator()

    def add(self, piece: Piece) -> None:
        """Noisy copies of a piece, evaluated whenever the buffer is full."""
        size, draws = piece.stop - piece.start, self._prepared(piece)
        for b in piece.inputs:
            if self._used + size > len(self._rows):
                self.flush()
            rows = self._rows[self._used : self._used + size]
            self._write(piece, b, draws, rows)
            self._owner[self._used : self._used + size] = b
            self._spans.append(Span(b, piece.start, size))
            self._used += size

    def _prepared(self, piece: Piece) -> Tensor | None:
        """Draws that several inputs take, or that are not noisy copies yet."""
        noise, stream = self._engine.noise, piece.stream
        if not isinstance(noise, Noise) or stream is None:
            return None
        alone = len(piece.inputs) == 1 and self._engine.response is None
        if noise.additive and alone and self._rows.is_contiguous():
            return None  # drawn in place
        draws, response = self._draws[: piece.stop - piece.start], self._engine.response
        stream.fill(draws, piece.start, self._generator)
        return draws if response is None else response.of_draws(draws)

    def _write(self, piece: Piece, b: int, draws: Tensor | None, rows: Tensor) -> None:
        noise, x = self._engine.noise, self._engine.local[b]
        if isinstance(noise, Derandomized):
            rows.copy_(noise.rows(x, piece.start, piece.stop))
            return
        if draws is None:
            assert piece.stream is not None
            piece.stream.fill(rows, piece.start, self._generator)
            draws = rows
        if self._engine.response is None:
            noise.apply(x, draws, rows)
        else:
            torch.add(draws, x, out=rows)

    def flush(self) -> None:
        """Evaluate what the buffer holds."""
        if not self._used:
            return
        engine = self._engine
        owner = self._owner[: self._used]
        # What is not known to keep nothing may keep the very rows, and these are written again.
        rows = self._rows[: self._used].to(engine.x, copy=not engine.several)
        self.sink.take(engine.answer(rows), owner, self._spans)
        self._spans.clear()
        self._used = 0


def _laid(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty buffer for rows; images in single precision have their channels last in memory.

    That is how convolutions on a CPU are fastest, up to 1.8 times, whatever layout the weights have.
    """
    if len(shape) != 4 or dtype != torch.float32:
        return torch.empty(shape, dtype=dtype)
    count, channels, high, wide = shape
    return torch.empty((count, high, wide, channels), dtype=dtype).as_strided(
        shape, (high * wide * channels, 1, wide * channels, channels)
    )


@torch.inference_mode()
def _taken(answer: Callable[[Tensor], object], rows: Tensor) -> bool:
    """Whether a module takes rows in their layout: `view` refuses some."""
    try:
        answer(rows)
    except RuntimeError:
        return False
    return True


def checked(logits: object, rows: int, num_classes: int) -> Tensor:
    """Logits [rows, num_classes] without NaN, or ModelError."""
    found = validate.logits(logits, rows)
    if found.shape[1] != num_classes:
        raise ModelError(
            f"the module returns {found.shape[1]} logits but num_classes is {num_classes}"
        )
    return found
