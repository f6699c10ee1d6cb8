"""The scripts of docs/distribution.md run as they are written, with workers, and go on from their ledger."""

import re
import sys

import pytest
import torch
from tests.pages import DOCS, agree

import certus.evaluation
from certus.evaluation import InProcess, Ledger

TEXT = (DOCS / "distribution.md").read_text()
SCRIPTS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
PRINTED = re.search(r"prints about\n\n```\n(.*?)```", TEXT, re.DOTALL).group(1)


def test_every_block_of_the_page_is_one_of_the_scripts():
    assert list(SCRIPTS) == ["my_model.py", "certify_mine.py"]
    assert TEXT.count("```python") == 2


class Idle(InProcess):
    """Has nothing to do where all rows are in the ledger."""

    def __init__(self, workers: int) -> None:
        assert workers == 2

    def compute(self, work, blocks, progress=lambda *a: None):
        assert len(blocks) == 0
        yield from ()

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, code in SCRIPTS.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_model", None)


def test_own_model_and_tensors_get_workers_and_a_ledger(folder, monkeypatch, capsys):
    code = compile(SCRIPTS["certify_mine.py"], "certify_mine.py", "exec")
    exec(code, {"__name__": "__main__"})
    first = capsys.readouterr().out
    agree(first, PRINTED)
    assert len((folder / "rows.csv").read_text().splitlines()) == 65
    with Ledger("rows.sqlite") as ledger:
        (run,) = ledger.runs()
        assert (run["model"], run["data"], run["method"]) == ("my-net", "my-digits", "smoothing")
    monkeypatch.setattr(certus.evaluation, "Local", Idle)
    exec(code, {"__name__": "__main__"})
    assert capsys.readouterr().out == first
    assert torch.is_grad_enabled()
