"""Pieces of streams: which samples of which inputs, cut so that several threads find work."""

from collections.abc import Iterator
from dataclasses import dataclass

from certus.smoothing.draws import Stream

GROUP = 32  # inputs for which one thread draws the samples that they share


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples number start to stop - 1 of one stream, for some of the inputs (positions)."""

    stream: Stream | None  # None for a set of copies, which are not drawn
    start: int
    stop: int
    inputs: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Noisy copies that it makes."""
        return (self.stop - self.start) * len(self.inputs)

    def cut(self, samples: int, block: int) -> Iterator["Piece"]:
        """Parts of at most so many samples, and of GROUP inputs, so that several threads find work.

        They end where a block ends if they can, or the next one would draw it again.
        """
        start = self.start
        while start < self.stop:
            stop = start + samples
            whole = stop - stop % block
            stop = whole if whole > start else stop
            stop = min(stop, self.stop)
            for first in range(0, len(self.inputs), GROUP):
                yield Piece(self.stream, start, stop, self.inputs[first : first + GROUP])
            start = stop
