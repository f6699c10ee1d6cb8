"""Keys rest on the code that computes, not on its words."""

import importlib
import sys
from pathlib import Path

import pytest
from tests.evaluation.fakes import job

from certus.certifiers import certifier
from certus.evaluation import source
from certus.threats import Linf

CODE = '''
"""A method."""
from dataclasses import dataclass

@dataclass(frozen=True)
class Method:
    """What it does."""

    steps: int = 3
    """How many."""

    def run(self, x):  # fast
        return x + self.steps
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name: str, code: str):
        (tmp_path / f"{name}.py").write_text(code)
        return importlib.import_module(name).Method()

    yield made
    for name in ("one", "words", "other"):
        sys.modules.pop(name, None)


def test_words_change_no_hash_and_code_does(module):
    words = CODE.replace("What it does.", "What it does,\n    told better.").replace(
        "# fast", "# sound"
    )
    words = words.replace('    """How many."""\n', "").replace("x + self.steps", "(x + self.steps)")
    first = source._module("one") if "one" in sys.modules else None
    assert first is None
    hashes = {}
    for name, code in (("one", CODE), ("words", words), ("other", CODE.replace("x + ", "x - "))):
        module(name, code)
        hashes[name] = source._module(name)[0]
    assert hashes["one"] == hashes["words"] != hashes["other"]
    method = sys.modules["one"].Method
    assert source.code_of(method()) != source.code_of(sys.modules["other"].Method())


def test_a_module_that_is_no_graph_is_keyed_by_its_code_as_well(module):
    """Its parameters and its repr say nothing of what forward does."""
    code = "from torch import nn\n\n\nclass Method(nn.Module):\n    def forward(self, x):\n        return x\n"

    def key(text: str) -> str:
        sys.modules.pop("one", None)
        importlib.invalidate_caches()
        source._module.cache_clear()
        source._file.cache_clear()
        source._code.cache_clear()
        return job(model=module("one", text), model_hash="same").key

    first = key(code)
    assert key(code.replace("return x", "return x  # as it is")) == first
    assert key(code.replace("return x", "return 2 * x")) != first


def test_a_change_of_what_is_imported_changes_the_hash(monkeypatch: pytest.MonkeyPatch):
    plain, before = source._module, source.code_of(certifier("crown"))

    def changed(name: str):
        digest, imported = plain(name)
        return ("other" if name == "certus.relax.envelope" else digest), imported

    source._code.cache_clear()
    monkeypatch.setattr(source, "_module", changed)
    assert source.code_of(certifier("crown")) != before
    monkeypatch.undo()
    source._code.cache_clear()
    assert source.code_of(certifier("crown")) == before


def test_a_method_rests_on_what_it_imports_and_on_nothing_else():
    def rests_on(*values) -> set[str]:
        seen, todo = set(), [name for value in values for name in source._modules(value)]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                todo += source._module(name)[1]
        return seen

    crown = rests_on(certifier("crown"), Linf(0.1))
    assert {"certus.bounding.crown", "certus.bounding.backward", "certus.relax.envelope"} <= crown
    assert {"certus.bounding.evaluation", "certus.threats.cube", "certus.core.numerics"} <= crown
    assert not any(
        name.startswith(("certus.smoothing", "certus.report", "certus.cli")) for name in crown
    )
    assert "certus.smoothing.engine" in rests_on(certifier("smoothing"))
    assert source.code_of(certifier("crown")) != source.code_of(certifier("smoothing"))
