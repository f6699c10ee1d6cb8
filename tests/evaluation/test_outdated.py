"""Rows by another version of Certus are known as such, and never taken for those of this one."""

from pathlib import Path

import pytest
from tests.evaluation.fakes import Exact, job

from certus.evaluation import Ledger, evaluate, outdated
from certus.threats import Linf


def test_rows_by_other_code_are_counted_until_they_are_computed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        assert outdated(job(), ledger) == 0
        evaluate(job(limit=12), ledger)
        assert outdated(job(), ledger) == 0
        monkeypatch.setattr("certus.evaluation.job.code_of", lambda *settings: "later")
        assert outdated(job(), ledger) == 12 and outdated(job(limit=5), ledger) == 5
        for other in (
            job(seed=1),
            job(model_hash="m1"),
            job(certifier=Exact(block=5)),
            job(threat=Linf(0.2, clip=None)),
        ):
            assert outdated(other, ledger) == 0
        evaluate(job(limit=8), ledger)
        assert outdated(job(), ledger) == 4 and outdated(job(limit=8), ledger) == 0
