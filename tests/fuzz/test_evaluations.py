"""Certificates that are about to fall, held against the model at points chosen to hurt."""

import importlib.util

import pytest
import torch
from tests.fuzz.evaluations import main, run
from tests.fuzz.nets import table

HARD = table()
SOME = [
    *("long-sum-3072", "late-terms-784", "convolution-56", "pooling-64", "gelu--5.2--10000"),
    *("elu--0.05-10000", "relu-0-1", "attention-0"),
]
FILES = ["onnx-Sigmoid--17.95--100000", "onnx-Gelu--5.6--100000", "onnx-Elu--0.05-100000"]


@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("name", [*SOME, *FILES])
def test_no_evaluation_contradicts_a_certificate(name, method):
    if name in FILES and importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("needs onnxruntime")
    done, wrong = run(HARD[name](), method, 300)
    assert done >= 100 and wrong == 0


@pytest.mark.parametrize(
    "name", ["long-sum-3072", "convolution-56", "relu-0-1", "onnx-Sigmoid-0.1-100000"]
)
def test_no_evaluation_contradicts_a_rigorous_certificate(name):
    if name.startswith("onnx"):
        pytest.importorskip("onnxruntime")
    done, wrong = run(HARD[name](), "crown", 300, rigorous=True)
    assert done >= 100 and wrong == 0


@pytest.mark.parametrize("name", ["long-sum-3072", "gelu--5.2--10000", "convolution-56"])
def test_the_search_finds_what_a_guard_of_a_few_units_misses(name, monkeypatch):
    """Without charges the same points contradict the certificate: the search above can fail."""
    monkeypatch.setattr(
        "certus.certifiers.bounds.rounding_guard", lambda graph, known, dtype: torch.zeros(1, 2)
    )
    done, wrong = run(HARD[name](), "ibp", 2000)
    assert done >= 100 and wrong > 0


@pytest.mark.slow
def test_no_verdict_is_contradicted_anywhere():
    assert main() == 0
