"""The Dask pool: its logic on a stand-in for Dask, and the rows of a real cluster where Dask is installed."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tests.evaluation.fakes import Exact, data, job
from tests.evaluation.fragile import Refusing, Slow, as_bytes

from certus.core import ArgumentError, CertusError, DependencyError
from certus.evaluation import Cluster, Ledger, evaluate

PACKAGES = {
    "python": "3.11.4.final.0",
    "dask": "1",
    "distributed": "1",
    "cloudpickle": "3",
    "torch": "2",
    "certus": "1",
}


class KilledError(Exception):
    """Stands for distributed.KilledWorker."""


class LostError(Exception):
    """Stands for distributed.CancelledError."""


class Completed:
    """Futures in the order in which they end."""

    def __init__(self, loop: object) -> None:
        self.queue: SimpleQueue[Future] = SimpleQueue()

    def add(self, future: Future) -> None:
        """Wait for one more."""
        future.add_done_callback(self.queue.put)

    def has_ready(self) -> bool:
        """Whether one has ended."""
        return not self.queue.empty()

    def __next__(self) -> Future:
        return self.queue.get(timeout=30)


class Client:
    """Two workers, which are threads."""

    workers: dict[str, dict] = {"a": PACKAGES, "b": PACKAGES}  # noqa: RUF012
    in_flight, most = 0, 0

    def __init__(self, address: str, timeout: float, set_as_default: bool) -> None:
        assert not set_as_default and timeout == 20
        if address != "tcp://host:1":
            raise OSError(f"Timed out trying to connect to {address}\nafter 30 s")
        self.loop, self.threads = object(), ThreadPoolExecutor(2)
        Client.most, Client.in_flight, self.lock = 0, 0, threading.Lock()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(cancel_futures=True)

    def wait_for_workers(self, number: int, timeout: float) -> None:
        """Whether there is one."""
        if not self.workers:
            raise TimeoutError

    def nthreads(self) -> dict[str, int]:
        """Workers and their threads."""
        return dict.fromkeys(self.workers, 1)

    def run(self, function: Any, *arguments: Any) -> dict[str, Any]:
        """On every worker, of which one may lack Certus."""
        if "lacking" in self.workers:
            raise ModuleNotFoundError("No module named 'certus'")
        return {name: function(*arguments) for name in self.workers}

    def get_versions(self, packages: list[str]) -> dict[str, Any]:
        """Of everyone."""
        others = {name: {"packages": found} for name, found in self.workers.items()}
        own = {"packages": PACKAGES}
        return {"client": own, "scheduler": own, "workers": others}

    def submit(self, function: Any, *arguments: Any, pure: bool) -> Future:
        """A future, whose arguments may be futures."""
        assert not pure
        with self.lock:
            Client.in_flight += len(arguments) > 1
            Client.most = max(Client.most, Client.in_flight)

        def call() -> Any:
            try:
                return function(*(a.result() if isinstance(a, Future) else a for a in arguments))
            finally:
                with self.lock:
                    Client.in_flight -= len(arguments) > 1

        return self.threads.submit(call)


@pytest.fixture
def dask(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module: Any = ModuleType("distributed")
    module.Client, module.as_completed = Client, Completed
    module.KilledWorker, module.CancelledError = KilledError, LostError
    module.TimeoutError = TimeoutError
    module.get_worker = lambda: SimpleNamespace(state=SimpleNamespace(nthreads=1))
    monkeypatch.setitem(sys.modules, "distributed", module)
    yield module
    assert torch.get_num_threads() == 1


def rows_of(path: Path, pool: Cluster | None = None, **changes: Any) -> list:
    with Ledger(path) as ledger:
        return evaluate(job(**changes), ledger, pool=pool)


def test_tasks_give_the_rows_of_one_process(dask: ModuleType, tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a", Cluster("tcp://host:1"), data=data(90))
    assert as_bytes(found) == as_bytes(rows_of(tmp_path / "b", data=data(90)))
    assert 2 <= Client.most <= 4  # blocks are sent as they are needed, not all at once


def test_an_error_of_a_task_arrives_as_itself(dask: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^input 9 cannot be used$"):
        rows_of(tmp_path / "a", Cluster("tcp://host:1"), certifier=Refusing(pause=0.0))


class Failing(Exact):
    """Raises what Dask raises."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        object.__setattr__(self, "error", error)

    def __call__(self, *args: Any, **named: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KilledError, r"^inputs \d+ to \d+ ended one worker of the cluster after the other"),
        (LostError, r"^the cluster at tcp://host:1 lost inputs \d+ to \d+; finished rows are kept"),
    ],
)
def test_what_the_cluster_loses_is_named(
    dask: ModuleType, tmp_path: Path, error: type[Exception], message: str
) -> None:
    with pytest.raises(CertusError, match=message) as caught:
        rows_of(tmp_path / "a", Cluster("tcp://host:1"), certifier=Failing(error))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ({}, r"the cluster at tcp://host:1 has no workers; start some: dask worker"),
        ({"b": PACKAGES | {"torch": "1.9"}}, "torch is 2 here and 1.9 on b"),
        ({"b": PACKAGES | {"certus": None}}, "certus is 1 here and missing on b"),
        ({"lacking": PACKAGES}, "cannot import Certus .No module named 'certus'.; install it"),
        ({"b": {}}, "python is 3.11 here and missing on b"),
        ({"b": PACKAGES | {"python": "3.12.1.final.0"}}, "python is 3.11 here and 3.12 on b"),
        ({"b": PACKAGES | {"python": "3.11.9.final.0"}}, None),
    ],
)
def test_clusters_that_cannot_be_used(
    dask: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: dict,
    message: str | None,
) -> None:
    monkeypatch.setattr(Client, "workers", workers)
    if message is None:
        assert len(rows_of(tmp_path / "a", Cluster("tcp://host:1"))) == 20
        return
    with pytest.raises(ArgumentError, match=message) as caught:
        rows_of(tmp_path / "a", Cluster("tcp://host:1"))
    assert "\n" not in str(caught.value)


class Deserted(Client):
    """Its workers leave with the first block, and do not finish it."""

    def nthreads(self) -> dict[str, int]:
        """Workers that are left."""
        return {} if Client.in_flight else super().nthreads()

    def submit(self, function: Any, *arguments: Any, pure: bool) -> Future:
        """Blocks never end."""
        if len(arguments) == 1:
            return super().submit(function, *arguments, pure=pure)
        Client.in_flight += 1
        return Future()


def test_a_cluster_without_workers_is_given_up(
    dask: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "Client", Deserted)
    monkeypatch.setattr("certus.evaluation.cluster._ALONE", 0.3)
    monkeypatch.setattr("certus.evaluation.cluster._ASK", 0.1)
    notes: list[str] = []
    with (
        Ledger(tmp_path / "a") as ledger,
        pytest.raises(
            CertusError, match=r"has no worker left; start some .dask worker tcp://host:1"
        ),
    ):
        evaluate(job(), ledger, lambda *said: notes.append(said[2]), Cluster("tcp://host:1"))
    assert "no worker is left, waiting for another" in notes


class Unreadable:
    """What a worker cannot make anew."""

    def __reduce__(self) -> tuple:
        return _refuse, ()


def _refuse() -> None:
    raise FileNotFoundError("weights.bin")


def test_a_worker_that_cannot_read_the_work_says_so() -> None:
    from certus.evaluation.cluster import _held, _packed

    with pytest.raises(
        ArgumentError, match=r"cannot read the work \(FileNotFoundError: weights.bin"
    ):
        _held(_packed(Unreadable()))  # type: ignore[arg-type]


def test_what_is_waited_for_is_said(dask: ModuleType, tmp_path: Path) -> None:
    notes: list[tuple[int, str]] = []
    with Ledger(tmp_path / "a") as ledger:
        evaluate(
            job(),
            ledger,
            lambda done, total, note="": notes.append((done, note)),
            Cluster("tcp://host:1"),
        )
    waits = [(0, "connecting to tcp://host:1"), (0, "connected to tcp://host:1")]
    assert notes[1:3] == waits and notes[-1][1].startswith("certified ")


def test_no_scheduler_is_one_clear_line(dask: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError, match=r"used at tcp://no:1 \(Timed out trying to connect to tcp://no:1\)"
    ) as caught:
        rows_of(tmp_path / "a", Cluster("tcp://no:1"))
    assert "\n" not in str(caught.value)


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DependencyError, match=r"distributed is not installed.*certus\[cluster\]"):
        Cluster("tcp://host:1")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Dask's own
def test_a_real_cluster_and_a_worker_killed_in_the_middle(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    expected = as_bytes(rows_of(tmp_path / "one", data=data(200)))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())

        def kill_once(done: int, total: int, note: str = "") -> None:
            if done >= 40 and pids:
                os.kill(pids.pop(), signal.SIGKILL)
                pids.clear()

        with Ledger(tmp_path / "two") as ledger:
            task = job(certifier=Slow(pause=0.1), data=data(200))
            found = evaluate(task, ledger, kill_once, Cluster(cluster))
        assert not pids and as_bytes(found) == expected
        with pytest.raises(ArgumentError, match=r"^input 9 cannot be used$"):
            rows_of(tmp_path / "three", Cluster(cluster.scheduler_address), certifier=Refusing())
