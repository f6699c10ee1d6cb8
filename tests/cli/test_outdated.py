"""A command that starts over because Certus changed says why."""

from pathlib import Path

import pytest
from tests.cli.helpers import run

ASKED = ("--threat", "linf:0.02", "--limit", 4)


def test_rows_of_other_code_are_named_once(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        assert run("certify", model, "--method", "ibp", *ASKED) == 0
        return " ".join(capsys.readouterr().err.split())

    assert "another version" not in said() + said()
    monkeypatch.setattr("certus.evaluation.job.code_of", lambda *settings: "later")
    assert "4 rows by another version of Certus in" in (first := said())
    assert "ledger.sqlite: not reused, computed anew" in first
    assert "another version" not in said()
