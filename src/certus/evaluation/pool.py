"""Pools: where the blocks of a job are computed; here, in the process itself."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Self

from certus.core import Progress
from certus.core.progress import silent
from certus.evaluation.block import Blocks, Row, Work


class Pool(ABC):
    """Computes blocks, in this process or in others; a context manager that gives back what it holds.

    The rows of a block are the same wherever it is computed, except for `seconds` (`evaluate` says for
    which methods). Only the process that asks writes the ledger.
    """

    @abstractmethod
    def compute(
        self, work: Work, blocks: Blocks, progress: Progress = silent
    ) -> Generator[list[Row]]:
        """The rows of each block, block by block as they are finished, in any order.

        progress hears how far a block is, where that is known: (done, total) of its own units; total 0
        and a note say what is waited for before there is a block. Raises what the certifier raises.
        Closing the generator gives up what is not finished.
        """

    def close(self) -> None:
        """End at once what the pool has started; by default nothing."""
        return

    def __enter__(self) -> Self:
        """The pool itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()


class InProcess(Pool):
    """One block after the other, in this process."""

    def compute(
        self, work: Work, blocks: Blocks, progress: Progress = silent
    ) -> Generator[list[Row]]:
        """The rows of each block in order."""
        for block in blocks:
            yield work.rows(block, progress)
