"""Cluster: a pool of the workers of a Dask cluster."""

import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Any

import torch

from certus.core import ArgumentError, CertusError, Progress
from certus.core.errors import require
from certus.core.progress import silent
from certus.evaluation.block import Block, Blocks, Row, Work
from certus.evaluation.pool import Pool

SAME = ("python", "dask", "distributed", "cloudpickle", "torch", "certus")
"""Packages whose versions must agree on the whole cluster."""

_ALONE = 20.0  # seconds for which a cluster may be without a worker
_LOOK, _ASK = (
    0.02,
    1.0,
)  # seconds between looks for finished blocks, and between questions for workers

AHEAD = 2  # blocks on their way for each worker, so that none waits for the next
_ONE = (
    Lock()
)  # a process computes one block at a time: torch's number of threads is that of a process


@dataclass(frozen=True, eq=False)
class Cluster(Pool):
    """Blocks are tasks of a Dask cluster (the extra `cluster`), which computes those of lost workers again.

    address is that of the scheduler, such as tcp://host:8786, or a cluster object of Dask; timeout is how
    many seconds it may take to connect and until there is a worker. Scheduler and workers need the same
    Certus, torch and Dask as this process. The work is held by the cluster and sent once to each worker, a
    block with its inputs only. A worker process computes one block at a time, with as many threads of torch
    as Dask gave it. Workers may come and go.

    Dask carries Python objects and code: connect only to a cluster that you trust, and only over a network
    that you trust or with TLS (Dask's own configuration).

    Raises DependencyError without Dask; ArgumentError where nothing answers, where no worker comes or where
    versions differ; CertusError where a block ends one worker after the other or the cluster is lost.
    """

    address: Any
    timeout: float = 20.0

    def __post_init__(self) -> None:
        require("distributed", "cluster")

    def compute(
        self, work: Work, blocks: Blocks, progress: Progress = silent
    ) -> Generator[list[Row]]:
        """The rows of each block as they are finished; tasks that are given up are cancelled."""
        dask: Any = require("distributed", "cluster")
        progress(0, 0, f"connecting to {self._place}")
        with self._connected(dask) as client:
            progress(0, 0, f"connected to {self._place}")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
                # a result: made anew where it is lost; as bytes, what a worker lacks is an error of a task
                held = client.submit(_held, _packed(work), pure=False)
            finished = dask.as_completed(loop=client.loop)
            running: dict[Any, Block] = {}
            for number in range(len(blocks)):
                while len(running) >= AHEAD * max(1, len(client.nthreads())):
                    self._wait(client, finished, progress)
                    yield self._next(dask, finished, running)
                future = client.submit(_rows, held, blocks[number], pure=False)
                running[future] = blocks[number]
                finished.add(future)
            while running:
                self._wait(client, finished, progress)
                yield self._next(dask, finished, running)

    def _wait(self, client: Any, finished: Any, progress: Progress) -> None:
        """Until a block is finished; CertusError where the cluster has lost all its workers."""
        asked = seen = time.monotonic()
        while not finished.has_ready():
            time.sleep(_LOOK)
            now = time.monotonic()
            if now - asked < _ASK:
                continue
            asked = now
            if client.nthreads():
                seen = now
                continue
            progress(0, 0, "no worker is left, waiting for another")
            if now - seen > _ALONE:
                raise CertusError(
                    f"the cluster at {self._place} has no worker left; start some (dask worker "
                    f"{self._place}) and run again: finished rows are kept"
                )

    def _next(self, dask: Any, finished: Any, running: dict[Any, Block]) -> list[Row]:
        """The rows of the next block that is finished."""
        future = next(finished)
        block = running.pop(future)
        try:
            rows: list[Row] = future.result()
        except dask.KilledWorker as error:
            raise CertusError(
                f"{block!r} ended one worker of the cluster after the other; perhaps there is too little "
                "memory; finished rows are kept"
            ) from error
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise CertusError(
                f"the scheduler at {self._place} cannot read the work; it needs the packages of this process"
            ) from error
        except dask.CancelledError as error:
            raise CertusError(
                f"the cluster at {self._place} lost {block!r}; finished rows are kept, and the same call "
                "goes on with the others"
            ) from error
        return rows

    @property
    def _place(self) -> str:
        return str(getattr(self.address, "scheduler_address", self.address))

    @contextmanager
    def _connected(self, dask: Any) -> Iterator[Any]:
        """A client of a cluster that has workers of the same versions."""
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Mismatched versions")  # looked at below
                client = dask.Client(self.address, timeout=self.timeout, set_as_default=False)
        except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ArgumentError(
                f"no Dask scheduler can be used at {self._place} ({why}); give the address that "
                "`dask scheduler` shows, such as tcp://host:8786"
            ) from error
        with client:
            try:
                client.wait_for_workers(1, timeout=self.timeout)
            except dask.TimeoutError as error:
                raise ArgumentError(
                    f"the cluster at {self._place} has no workers; start some: dask worker {self._place}"
                ) from error
            _same_versions(client.get_versions(packages=["torch", "certus"]))
            try:
                client.run(
                    import_module, __name__
                )  # on every worker; a task would fail without a word
            except ImportError as error:
                raise ArgumentError(
                    f"a worker of {self._place} cannot import Certus ({error}); install it on all"
                ) from error
            yield client


def _same_versions(found: dict[str, Any]) -> None:
    """ArgumentError at the first package of another version than here."""
    own = found["client"]["packages"]
    for where, there in [("scheduler", found["scheduler"]), *found["workers"].items()]:
        packages = (there or {}).get("packages", {})
        for name in SAME:
            if _version(packages, name) != _version(own, name):
                raise ArgumentError(
                    f"versions differ: {name} is {_version(own, name)} here and "
                    f"{_version(packages, name)} on {where}; install the same on all"
                )


def _version(packages: dict[str, Any], name: str) -> str:
    """The version, of Python without its patch level; `missing` where there is none."""
    text = str(packages.get(name) or "missing")
    return ".".join(text.split(".")[:2]) if name == "python" else text


def _packed(work: Work) -> bytes:
    cloudpickle: Any = require("cloudpickle", "cluster")
    packed: bytes = cloudpickle.dumps(work)
    return packed


def _held(packed: bytes) -> Work:
    """The work as a result that every worker fetches once; ArgumentError where a worker cannot read it."""
    cloudpickle: Any = require("cloudpickle", "cluster")
    try:
        work: Work = cloudpickle.loads(packed)
    except Exception as error:  # the model's own modules, data, classes: whatever they need
        raise ArgumentError(
            f"a worker cannot read the work ({type(error).__name__}: {error}); workers need the modules and "
            "files of the model and of the method"
        ) from error
    return work


def _rows(work: Work, block: Block) -> list[Row]:
    """One task: the rows of a block, on a worker."""
    dask: Any = require("distributed", "cluster")
    with _ONE:
        torch.set_num_threads(dask.get_worker().state.nthreads)
        return work.rows(block)
