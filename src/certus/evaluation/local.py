"""Local: a pool of worker processes on this machine."""

from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

import torch

from certus.core import ArgumentError, CertusError, Progress, validate
from certus.core.progress import silent
from certus.evaluation.block import Blocks, Row, Work
from certus.evaluation.parcel import pack, unpack
from certus.evaluation.pool import Pool
from certus.evaluation.worker import Worker

TRIES = 3
"""So many workers may die of a block before it is given up."""

_LAST_BREATH = 5.0  # seconds between the end of a worker's pipe and that of its process, at most


@dataclass(frozen=True, eq=False)
class Local(Pool):
    """Blocks go to worker processes, each to the next that is free.

    workers is how many processes; threads how many threads of torch each uses (default: those of this
    process shared out evenly, at least one). The work is sent once to each worker, a block with its
    inputs only. The processes start with the first block, stay for further jobs and end with the `with`
    block, or with the main process, however that ends. A worker that dies is replaced and its block
    computed again.

    Raises ArgumentError where workers or threads is below 1, or where the model or the method cannot be sent;
    CertusError where a block ends its worker TRIES times, or where workers cannot start.
    """

    workers: int
    threads: int | None = None
    _staff: list[Worker] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        validate.count(self.workers, "workers")
        if self.threads is not None:
            validate.count(self.threads, "threads")

    def close(self) -> None:
        """End the worker processes at once."""
        while self._staff:
            self._staff.pop().stop()

    def compute(
        self, work: Work, blocks: Blocks, progress: Progress = silent
    ) -> Generator[list[Row]]:
        """The rows of each block as they are finished; what is given up ends with its worker."""
        job = _Tasks(_packed(work), blocks)
        try:
            while True:
                self._hand_out(job)  # before the rows, which the caller stores while workers work
                yield from job.finished()
                if not job.todo and not self._busy():
                    return
                self._listen(job)
        finally:
            for worker in self._busy():
                self._dismiss(worker)

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._staff if worker.task is not None]

    def _hand_out(self, job: "_Tasks") -> None:
        """As many workers as there is work for, and a block to each that is free."""
        while len(self._staff) < min(self.workers, len(self._busy()) + len(job.todo)):
            shared = max(1, torch.get_num_threads() // self.workers)
            self._staff.append(Worker(self.threads or shared))
        for worker in self._staff:
            if worker.ready and worker.task is None and job.todo:
                number = job.todo.popleft()
                worker.give(number, job.blocks[number], job.work)

    def _listen(self, job: "_Tasks") -> None:
        """Wait until workers say something, or end, and take note of it."""
        speakers = {worker.pipe: worker for worker in self._staff}
        for pipe in wait(list(speakers)):
            assert isinstance(pipe, Connection)
            worker = speakers[pipe]
            try:
                message = worker.pipe.recv_bytes()
            except (EOFError, OSError):
                worker.process.join(_LAST_BREATH)
                job.lost(worker.task, worker.ready, self._dismiss(worker))
                continue
            if worker.ready:
                worker.task = None
                job.done(unpack(message))
            worker.ready = True

    def _dismiss(self, worker: Worker) -> str:
        self._staff.remove(worker)
        return worker.stop()


class _Tasks:
    """The blocks of one job: which are to do, what was answered, what went wrong."""

    def __init__(self, work: bytes, blocks: Blocks) -> None:
        self.work, self.blocks = work, blocks
        self.todo = deque(range(len(blocks)))
        self._rows: list[list[Row]] = []
        self._error: Exception | None = None
        self._deaths: Counter[int | None] = Counter()

    def done(self, answer: list[Row] | Exception) -> None:
        """A worker has answered."""
        if isinstance(answer, Exception):
            self._fail(answer)
        else:
            self._rows.append(answer)

    def lost(self, task: int | None, ready: bool, how: str) -> None:
        """A worker has died of a task, or before it was ready, or while it was free (which costs nothing)."""
        if task is None and ready:
            return
        self._deaths[task] += 1
        if task is None:
            what = "workers end before they are ready"
            advice = (
                "a script that uses workers needs `if __name__ == '__main__':` around its main part"
            )
        else:
            self.todo.appendleft(task)
            what = f"{self.blocks[task]!r} ended {TRIES} workers in turn"
            advice = "perhaps there is too little memory; finished rows are kept"
        if self._deaths[task] == TRIES:
            self._fail(CertusError(f"{what} (the last: {how}); {advice}"))

    def finished(self) -> Iterator[list[Row]]:
        """What has come since the last call; then raises what went wrong."""
        rows, self._rows = self._rows, []
        yield from rows
        if self._error is not None:
            raise self._error

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self.todo.clear()


def _packed(work: Work) -> bytes:
    try:
        return pack(work.portable())
    except Exception as error:
        raise ArgumentError(
            f"the model or the method cannot be sent to workers ({str(error)[:200]}); define its classes "
            "and functions at the top of a module (no lambda), or use a single process"
        ) from error
