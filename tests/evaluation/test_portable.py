"""A portable model computes what the model computes, bit for bit, and can be sent."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from certus.evaluation.parcel import pack, unpack
from certus.evaluation.portable import portable
from certus.graph import trace


def orthogonal() -> nn.Module:
    """Two layers with computed weights around a plain one."""
    first = parametrizations.orthogonal(nn.Linear(6, 6))
    last = parametrizations.spectral_norm(nn.Linear(5, 3))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), last).eval()


def test_computed_weights_become_plain_ones() -> None:
    module, x = orthogonal(), torch.randn(7, 6)
    graph = trace(module, x[:1])
    with pytest.raises(RuntimeError):
        pack(graph)  # the reason for all this
    sent = unpack(pack(portable(graph)))
    with torch.no_grad():
        assert torch.equal(sent(x), graph(x)) and torch.equal(sent.original(x), module(x))
        assert torch.equal(unpack(pack(portable(module)))(x), module(x))
    assert sent.fingerprint() == graph.fingerprint() and not sent.original.training
    assert "parametrizations" in dict(module[0].named_children())  # the model itself is as before


def test_other_models_are_sent_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(3, 2)).eval()
    assert portable(module) is module and portable(len) is len
    graph = portable(trace(module, torch.zeros(1, 3)))
    assert graph.original is module
    found = unpack(pack(graph))
    tensors = {id(tensor) for _, tensor in found.tensors()}
    assert {
        id(p) for p in found.original.parameters()
    } <= tensors  # sent once, still the module's own


def test_tensors_travel_by_value() -> None:
    x = torch.randn(100)
    before = x.data_ptr()
    parcel = pack(x[:50].clone())
    assert torch.equal(unpack(parcel), x[:50]) and len(parcel) < 1000
    assert x.data_ptr() == before and not x.is_shared()
