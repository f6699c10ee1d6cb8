"""Published networks on real digits: bounds against attacks and against exact verdicts."""

import csv
import gzip

import numpy as np
import torch
from safetensors.torch import load_file
from tests.laws.tables import ascend
from torch import nn

from certus.bounding import IBP, Crown, crown_ibp, margin_rows
from certus.certifiers import BoundCertifier
from certus.graph import trace
from certus.threats import Linf


def digits(folder, count):
    """The first test images, [N, 1, 28, 28] in [0, 1]."""
    with gzip.open(folder / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        raw = np.frombuffer(file.read(16 + count * 784)[16:], dtype=np.uint8)
    images = torch.from_numpy(raw.copy()).view(count, 1, 28, 28).float() / 255
    with gzip.open(folder / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count)[8:], dtype=np.uint8)
    return images, torch.from_numpy(labels.astype(np.int64))


def cnn_a(folder):
    net = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    net.load_state_dict(load_file(folder / "sdp_models" / "mnist_cnn_a_adv.safetensors"))
    return net.eval()


class SamePadding(nn.Sequential):
    """TensorFlow's SAME for kernel 5, stride 2: one at top and left, two at bottom and right."""


def realadv(folder):
    body = nn.Sequential(
        nn.Conv2d(1, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    body.load_state_dict(load_file(folder / "nets" / "realadv_mnist.safetensors"))
    pad = nn.ZeroPad2d((1, 2, 1, 2))
    return SamePadding(pad, body[0], body[1], pad, *body[2:]).eval()


def verdicts(folder):
    path = folder / "ground_truth" / "realadv_mnist_linf_0.1_0000_1999.csv.gz"
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def test_crown_of_a_real_network_stays_below_its_attack(shared_data):
    net = cnn_a(shared_data)
    x, y = digits(shared_data, 20)
    graph, region = trace(net, x[:2]), Linf(0.1).region(x)
    spec = margin_rows(y, 10, x)
    with torch.no_grad():
        lower = Crown()(graph, region, spec).lower.amin(1)

    def loss(p):
        return -torch.einsum("brk,bk->br", spec, net(p)).amin(1)

    ends = ascend(loss, region, x, 25)
    assert bool(region.contains(ends).all())
    with torch.no_grad():
        attacked = -loss(ends)
        clean = -loss(x)
    assert bool((lower <= attacked + 1e-4).all()) and bool((attacked <= clean).all())
    assert int((lower > 0).sum()) >= 10
    found = BoundCertifier(method=Crown())(graph, x, y, Linf(0.1))
    assert torch.equal(found.certified, lower > 1e-3)


def test_nothing_with_a_known_counterexample_is_certified(shared_data):
    """All 103 inputs whose exact verdict is not_robust, by every bound method."""
    rows = [r for r in verdicts(shared_data) if r["verdict"] == "not_robust"]
    assert len(rows) == 103
    index = torch.tensor([int(r["index"]) for r in rows])
    images, labels = digits(shared_data, 2000)
    x, y = images[index], labels[index]
    graph = trace(realadv(shared_data), x[:2])
    with torch.no_grad():
        assert graph(x).argmax(1).tolist() == [int(r["predicted"]) for r in rows]
    assert torch.equal(graph(x).argmax(1), y)
    for certifier in (
        BoundCertifier(method=IBP()),
        BoundCertifier(method=crown_ibp()),
        BoundCertifier(method=Crown()),
    ):
        for part in torch.arange(103).split(35):
            found = certifier(graph, x[part], y[part], Linf(0.1))
            assert not bool(found.certified.any()), (
                f"{certifier.name}: {index[part][found.certified]}"
            )


def test_robust_inputs_are_certified_often(shared_data):
    """The other side: a network trained for this is certified by CROWN on most robust inputs."""
    rows = [r for r in verdicts(shared_data)[:40] if r["verdict"] == "robust"]
    index = torch.tensor([int(r["index"]) for r in rows])
    images, labels = digits(shared_data, 40)
    graph = trace(realadv(shared_data), images[:2])
    found = BoundCertifier(method=Crown())(graph, images[index], labels[index], Linf(0.1))
    assert float(found.certified.double().mean()) > 0.5
