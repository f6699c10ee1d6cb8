"""One run of some tests on a copy of the sources, in a process forked from one that has torch loaded."""

import importlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.table import ROOT, Mutant

# What a test ends with that a change broke as a program: nothing is learnt of what it computes.
BROKEN = ("SyntaxError", "NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError")
_PAUSE = 0.02


@dataclass(frozen=True)
class Trial:
    """Some tests, on the sources with a mutant in them, or on the sources as they are."""

    tests: tuple[str, ...]
    mutant: Mutant | None
    limit: float  # seconds


@dataclass(frozen=True)
class Outcome:
    """kind: passed, failed, hung, empty (no test ran) or broken (no verdict); detail: the first failure."""

    trial: Trial
    kind: str
    detail: str
    seconds: float


def trials(todo: Iterable[Trial], pristine: Path, work: Path, jobs: int) -> Iterator[Outcome]:
    """Outcomes as they come, `jobs` at a time."""
    waiting, running = list(reversed(list(todo))), dict[int, tuple[Trial, Path, float]]()
    number = 0
    while waiting or running:
        while waiting and len(running) < jobs:
            trial, number = waiting.pop(), number + 1
            place = work / str(number)
            running[_started(trial, pristine, place)] = trial, place, time.monotonic()
        time.sleep(_PAUSE)
        for pid, (trial, place, start) in list(running.items()):
            seconds = time.monotonic() - start
            late = seconds > trial.limit
            if late:
                os.kill(pid, 9)
            if os.waitpid(pid, 0 if late else os.WNOHANG)[0]:
                del running[pid]
                yield Outcome(trial, *_read(place, late), seconds)
                shutil.rmtree(place)


def _started(trial: Trial, pristine: Path, place: Path) -> int:
    """The process that runs the tests on a copy of its own."""
    source = place / "src"
    shutil.copytree(pristine, source)
    if trial.mutant is not None:
        changed = source / "certus" / trial.mutant.file
        changed.write_text(trial.mutant.mutated, encoding="utf-8")
        for compiled in (changed.parent / "__pycache__").glob(f"{changed.stem}.*"):
            compiled.unlink()
    pid = os.fork()
    if pid:
        return pid
    try:  # the child never returns
        _silence(place / "output")
        (place / "result").write_text(json.dumps(_run(trial, source)))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)


def _silence(output: Path) -> None:
    sink = os.open(output, os.O_WRONLY | os.O_CREAT)
    os.dup2(sink, 1)
    os.dup2(sink, 2)


def _run(trial: Trial, source: Path) -> tuple[str, str]:
    import pytest

    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(source)  # for tests that start processes
    sys.path.insert(0, str(source))
    assert "certus" not in sys.modules, "loaded before the change was made"
    module = importlib.import_module(trial.mutant.module if trial.mutant else "certus")
    assert Path(str(module.__file__)).is_relative_to(source), "another copy was loaded"
    watcher = _Watcher()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = int(pytest.main([*options, *trial.tests], plugins=[watcher]))
    kind = {0: "passed", 1: "failed", 5: "empty"}.get(code, "broken")
    return ("broken" if watcher.error in BROKEN else kind), watcher.detail


class _Watcher:
    """Remembers the first failure."""

    def __init__(self) -> None:
        self.detail, self.error = "", ""

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        """Called by pytest for each exception that a test or a collection ended with."""
        if not self.detail:
            self.error = call.excinfo.typename
            self.detail = f"{report.nodeid}: {call.excinfo.exconly().splitlines()[0][:150]}"


def _read(place: Path, late: bool) -> tuple[str, str]:
    result = place / "result"
    if late:
        return "hung", "stopped at its time limit"
    if not result.exists():
        output = (place / "output").read_text(errors="replace").splitlines()
        return "broken", "the process ended: " + " | ".join(output[-3:])
    kind, detail = json.loads(result.read_text())
    return kind, detail
