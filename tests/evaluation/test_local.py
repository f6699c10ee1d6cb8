"""Worker processes give the rows of a single process, whatever happens to them."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.evaluation.fakes import data, job
from tests.evaluation.fragile import Deadly, Odd, Refusing, Slow, as_bytes

from certus.attacks import PGD
from certus.certifiers import AttackCertifier, certifier
from certus.core import ArgumentError, CertusError
from certus.evaluation import InProcess, Job, Ledger, Local, Pool, evaluate
from certus.evaluation.block import Blocks
from certus.evaluation.local import TRIES, _Tasks
from certus.graph import trace
from certus.threats import L2, Linf
from certus.zoo import load_data
from certus.zoo.nets import build_net

METHODS: dict[str, tuple[str, Callable[[], Any], Any]] = {
    "smoothing": ("mlp-small", lambda: certifier("smoothing", n=300, n0=50, block=8), L2(0.25)),
    "smoothing, sequential and shared": (
        "cnn-small",
        lambda: certifier("smoothing", n=200, n0=20, block=8, shared=True),
        L2(0.25),
    ),
    "crown": ("cnn-small", lambda: certifier("crown", block=8), Linf(0.02)),
    "computed weights": ("lipschitz-mlp", lambda: certifier("crown", block=8), L2(0.05)),
    "pgd": ("mlp-small", lambda: AttackCertifier(attack=PGD(steps=2), block=8), Linf(0.02)),
}


def digits(method: str) -> Job:
    """A job on the first 36 digits: blocks of 8, the last one smaller."""
    net, make, threat = METHODS[method]
    torch.manual_seed(0)
    loaded = load_data("digits")
    module = build_net(net, tuple(loaded.shape), loaded.classes).eval()
    graph = trace(module, loaded.x_test[:1])
    names = {"model": graph, "model_name": net, "model_hash": graph.fingerprint()}
    return Job(**names, data=loaded, certifier=make(), threat=threat, limit=36)


def rows_of(task: Job, tmp_path: Path, pool: Pool | None = None, **named: Any) -> list:
    """Rows in a ledger of their own."""
    name = f"{len(list(tmp_path.iterdir()))}.sqlite"
    with Ledger(tmp_path / name) as ledger:
        return evaluate(task, ledger, pool=pool, **named)


def workers() -> list[int]:
    """Process ids of all workers of this process."""
    found = multiprocessing.active_children()
    return [p.pid for p in found if p.name == "certus-worker" and p.pid is not None]


@pytest.fixture(scope="module")
def pool() -> Iterator[Local]:
    with Local(2) as shared:
        yield shared
    assert not workers()


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_give_the_rows_of_one_process(pool: Local, tmp_path: Path, method: str) -> None:
    expected = rows_of(digits(method), tmp_path)
    found = rows_of(digits(method), tmp_path, pool)
    assert [row["index"] for row in found] == list(range(36))
    assert as_bytes(found) == as_bytes(expected)
    assert (
        len({(row["verdict"], row["radius"] > 0) for row in found}) > 1
        or method == "computed weights"
    )


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_workers(tmp_path: Path, count: int) -> None:
    for method in ("smoothing", "crown"):
        with Local(count) as pool:
            found = rows_of(digits(method), tmp_path, pool)
        assert as_bytes(found) == as_bytes(rows_of(digits(method), tmp_path))


@pytest.mark.slow
def test_smoothing_does_not_depend_on_threads(tmp_path: Path) -> None:
    with Local(1, threads=3) as pool:
        for method in ("smoothing", "smoothing, sequential and shared"):
            found = rows_of(digits(method), tmp_path, pool)
            assert as_bytes(found) == as_bytes(rows_of(digits(method), tmp_path))


def test_blocks_may_finish_in_any_order(tmp_path: Path) -> None:
    class Backwards(InProcess):
        def compute(self, work: Any, blocks: Blocks, *progress: Any) -> Any:
            yield from reversed(list(super().compute(work, blocks)))

    notes: list[tuple[int, int]] = []
    found = rows_of(
        job(), tmp_path, Backwards(), progress=lambda done, total, note: notes.append((done, total))
    )
    assert as_bytes(found) == as_bytes(rows_of(job(), tmp_path))
    assert notes == [(done, 20) for done in (0, 4, 8, 12, 16, 20)]


def test_progress_counts_the_blocks_of_all_workers(pool: Local, tmp_path: Path) -> None:
    notes: list[str] = []
    found = rows_of(
        job(certifier=Slow()), tmp_path, pool, progress=lambda done, total, note: notes.append(note)
    )
    certified = sum(row["verdict"] == "verified" for row in found)
    assert len(notes) == 6 and notes[-1] == f"certified {certified}/20"


def test_an_error_arrives_as_itself_and_finished_rows_stay(pool: Local, tmp_path: Path) -> None:
    refusing = Refusing(at=30)
    with Ledger(tmp_path / "a.sqlite") as ledger:
        with pytest.raises(ArgumentError) as caught:
            evaluate(job(certifier=refusing, data=data(80)), ledger, pool=pool)
        assert str(caught.value) == "input 30 cannot be used"
        assert any("in __call__" in note for note in caught.value.__notes__)
        assert {0, 4, 8} <= {row["index"] for row in ledger.rows()}
        again = evaluate(job(certifier=Slow(), data=data(80)), ledger, pool=pool)
    assert as_bytes(again) == as_bytes(rows_of(job(data=data(80)), tmp_path))
    with pytest.raises(RuntimeError, match="TwoPartError: both parts"):
        rows_of(job(certifier=Odd()), tmp_path, pool)


def test_a_killed_worker_loses_nothing(pool: Local, tmp_path: Path) -> None:
    big = data(100)
    killed: list[int] = []

    def kill_once(done: int, total: int, note: str = "") -> None:
        if done >= 20 and not killed:
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    found = rows_of(job(certifier=Slow(), data=big), tmp_path, pool, progress=kill_once)
    assert killed and killed[0] not in workers()
    assert as_bytes(found) == as_bytes(rows_of(job(data=big), tmp_path))


@pytest.mark.slow
def test_a_block_that_killed_its_worker_once_is_computed_again(pool: Local, tmp_path: Path) -> None:
    mark = tmp_path / "died"
    found = rows_of(job(certifier=Deadly(mark=mark)), tmp_path, pool)
    assert mark.exists() and as_bytes(found) == as_bytes(rows_of(job(), tmp_path))


@pytest.mark.slow
def test_a_block_that_always_kills_its_worker_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger, Local(2) as pool:
        with pytest.raises(CertusError, match=r"inputs 8 to 11 ended 3 workers.*SIGKILL") as error:
            evaluate(job(certifier=Deadly()), ledger, pool=pool)
        assert "\n" not in str(error.value)
        done = {row["index"] for row in ledger.rows()}
        assert {0, 7} <= done and not done & {8, 9, 10, 11}


def test_deaths_are_counted_for_each_block() -> None:
    def tasks() -> _Tasks:
        return _Tasks(b"", Blocks(data(), [[0, 1], [2, 3], [7], [9, 12]]))

    one = tasks()
    for number in (0, 1, 2):
        for _ in range(TRIES - 1):
            one.todo.remove(number)
            one.lost(number, True, "exit status 3")
            assert one.todo[0] == number  # the next to be tried
    one.lost(None, True, "ended by SIGKILL")  # a free worker costs nothing
    assert not list(one.finished())
    one.done([{"index": 9}])
    one.lost(3, True, "")
    one.lost(2, True, "exit status 3")
    found = one.finished()
    assert next(found) == [{"index": 9}] and not one.todo  # what was finished is not lost
    with pytest.raises(CertusError, match=r"^input 7 ended 3 .*exit status 3.*finished rows are"):
        next(found)
    stillborn = tasks()
    for _ in range(TRIES):
        stillborn.lost(None, False, "exit status 1")
    with pytest.raises(CertusError, match=r"before they are ready.*exit status 1.*__main__"):
        list(stillborn.finished())
    listed = tasks()
    for _ in range(TRIES):
        listed.lost(3, True, "")
    with pytest.raises(CertusError, match="inputs 9, 12 ended"):
        list(listed.finished())


def test_workers_of_other_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = job()
    work, blocks = task.work(), Blocks(task.data, [[0, 1]])
    assert len(work.rows(blocks[0])) == 2
    monkeypatch.setattr("certus.evaluation.block.build", lambda: "Certus 0.0")
    with pytest.raises(ArgumentError, match=r"a worker runs Certus 0\.0, the main process Certus"):
        work.rows(blocks[0])


def test_work_that_cannot_be_sent_is_one_clear_line(tmp_path: Path) -> None:
    before = workers()
    with Local(2) as pool, pytest.raises(ArgumentError, match=r"cannot be sent.*lambda") as error:
        rows_of(job(model=lambda x: x[:, :2]), tmp_path, pool)
    assert "\n" not in str(error.value) and workers() == before  # none was started for it


def test_the_precision_of_the_main_process_is_that_of_the_workers(
    pool: Local, tmp_path: Path
) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        work = job().work()
    finally:
        torch.set_default_dtype(torch.float32)
    assert work.precision.dtype is torch.float64
    with work.precision.here():
        assert torch.zeros(1).dtype is torch.float64
    assert torch.zeros(1).dtype is torch.float32


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_bad_numbers_of_workers(bad: Any) -> None:
    with pytest.raises(ArgumentError, match="workers must be"):
        Local(bad)
    with pytest.raises(ArgumentError, match="threads must be"):
        Local(2, threads=bad)
