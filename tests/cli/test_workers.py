"""--workers and --cluster: the same rows, and clear errors."""

import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.helpers import rows_of, run, same

SMOOTHING = ("--threat", "l2:0.25", "--method", "smoothing", "--n", 300, "--limit", 40)


@pytest.mark.slow
def test_workers_give_the_rows_of_one_process(model: Path, tmp_path: Path) -> None:
    for count in (1, 2):
        name = tmp_path / f"{count}.sqlite"
        assert run("certify", model, *SMOOTHING, "--ledger", name, "--workers", count) == 0
    assert same(rows_of(tmp_path / "1.sqlite"), rows_of(tmp_path / "2.sqlite"))


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
