"""However a run with workers ends, no process is left behind, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.evaluation.fakes import data, job
from tests.evaluation.fragile import as_bytes

from certus.evaluation import Ledger, evaluate

ROOT = Path(__file__).parents[2]
SIZE = 400
MAIN = f"""
import sys
sys.path.insert(0, sys.argv[1])
from tests.evaluation import fakes, fragile
from certus.evaluation import Ledger, Local, evaluate

slow = fragile.Slow(stuck_from=60)  # the end comes in the middle of a block
with Local(2) as pool, Ledger(sys.argv[2]) as ledger:
    evaluate(fakes.job(certifier=slow, data=fakes.data({SIZE})), ledger, pool=pool)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc"),
]


def group(number: int) -> list[int]:
    """Processes of a process group that are not dead."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[2]) == number and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def soon(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within a minute."""
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def stored(path: Path) -> set[int]:
    """Inputs with a row in a ledger that another process may be writing."""
    if not path.exists() or path.stat().st_size == 0:
        return set()
    with Ledger(path) as ledger:
        return {row["index"] for row in ledger.rows()}


@pytest.mark.parametrize(
    ("how", "to_all", "status"),
    [
        (signal.SIGKILL, False, -signal.SIGKILL),  # the out-of-memory killer
        (signal.SIGTERM, False, -signal.SIGTERM),  # kill
        (signal.SIGINT, True, -signal.SIGINT),  # Ctrl-C in a terminal goes to all processes
    ],
)
def test_the_end_of_the_main_process(
    tmp_path: Path, how: signal.Signals, to_all: bool, status: int
) -> None:
    path = tmp_path / "a.sqlite"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    main = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(ROOT), str(path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert soon(lambda: len(stored(path)) >= 60 or main.poll() is not None)
        assert len(group(main.pid)) >= 3 and main.poll() is None
        (os.killpg if to_all else os.kill)(main.pid, how)
        error = main.communicate(timeout=60)[1]
        assert soon(lambda: not group(main.pid)), "processes are left behind"
    finally:
        for left in group(main.pid):
            os.kill(left, signal.SIGKILL)
    assert main.returncode == status
    assert error.count("Traceback") == (how is signal.SIGINT), (
        error
    )  # only that of the main process
    done = stored(path)
    assert len(done) == 60 and all(i // 4 * 4 + k in done for i in done for k in range(4))
    with Ledger(path) as ledger, Ledger(tmp_path / "whole.sqlite") as other:
        again = evaluate(job(data=data(SIZE)), ledger)
        assert as_bytes(again) == as_bytes(evaluate(job(data=data(SIZE)), other))
        assert len(ledger.runs()) == 1
