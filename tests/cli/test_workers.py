"""--workers and --cluster: the same rows, and clear errors."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.helpers import Rows, rows_of, run, same, start

SMOOTHING = ("--threat", "l2:0.25", "--method", "smoothing", "--n", 300, "--limit", 40)


def stored(path: Path) -> Rows:
    """Rows of a ledger that another process may be writing, or not have made yet."""
    return rows_of(path) if path.exists() and path.stat().st_size > 0 else []


@pytest.mark.slow
def test_workers_give_the_rows_of_one_process(model: Path, tmp_path: Path) -> None:
    for count in (1, 2):
        name = tmp_path / f"{count}.sqlite"
        assert run("certify", model, *SMOOTHING, "--ledger", name, "--workers", count) == 0
    assert same(rows_of(tmp_path / "1.sqlite"), rows_of(tmp_path / "2.sqlite"))


@pytest.mark.slow
def test_killed_workers_go_on_to_the_rows_of_one_process(model: Path, tmp_path: Path) -> None:
    size = ("--n", 2000, "--limit", 320)
    asked = ("certify", model, "--threat", "l2:0.25", "--method", "smoothing", *size)
    whole, cut = tmp_path / "whole.sqlite", tmp_path / "cut.sqlite"
    assert run(*asked, "--ledger", whole) == 0
    child = start(*asked, "--ledger", cut, "--workers", 2)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.poll() is None and not stored(cut):
            time.sleep(0.01)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    kept = stored(cut)
    assert 0 < len(kept) < 320, "it was to be killed half-way"
    assert run(*asked, "--ledger", cut, "--workers", 2) == 0
    assert same(rows_of(cut), rows_of(whole))
    seconds = {row["index"]: row["seconds"] for row in rows_of(cut)}
    assert all(seconds[row["index"]] == row["seconds"] for row in kept), "finished blocks stay"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--workers", 0), "workers must be"),
        (("--workers", -2), "workers must be"),
        (("--workers", 2, "--cluster", "tcp://a:1"), "--workers or --cluster, not both"),
        (("--cluster", "tcp://a:1"), "distributed is not installed"),
    ],
)
@pytest.mark.parametrize("command", ["certify", "attack", "compare"])
def test_bad_flags_are_one_line(
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    flags: tuple[Any, ...],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(command, model, *flags) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (model / "ledger.sqlite").exists()
