"""All 29 VNN-COMP families: every network loads, equals onnxruntime, and has bounds that hold.

The box of the first property of every network comes from its VNN-LIB file. `make test-slow` runs all
networks; the plain run takes one small network of a few families.
"""

import csv
import gzip
import re

import pytest
import torch
from tests.conftest import DATA

import certus
from certus.core.numerics import sound

pytest.importorskip("onnxruntime")
FAMILIES = DATA / "vnncomp"
LARGE = 20_000  # neurons beyond which intermediate bounds come from interval arithmetic
SAMPLES = 1000
ROWS = 32  # outputs that are bounded
# A patch that may lie at any of 63 x 63 places: the network divides by the area of a union, and may
# do so by zero as far as bounds over all places at once can tell. Every place by itself is plain.
PLACES = {"cctsdb_yolo_2023"}


def networks():
    """(family, network, property): the first property of every network."""
    if not FAMILIES.is_dir():
        return []
    first = {}
    for rows in sorted(FAMILIES.glob("*/instances.csv")):
        with rows.open() as file:
            for net, prop, _ in csv.reader(file):
                first.setdefault((rows.parent.name, net), prop)
    return [(family, net, prop) for (family, net), prop in first.items()]


def box(path):
    """The first limits that a VNN-LIB file gives every input, [n] and [n]."""
    limits = {"<=": {}, ">=": {}}
    with gzip.open(path, "rt") as file:
        for line in file:
            for way, index, value in re.findall(r"\((<=|>=)\s+X_(\d+)\s+([-+.\deE]+)\s*\)", line):
                limits[way].setdefault(int(index), float(value))
    lower, upper = limits[">="], limits["<="]
    assert sorted(lower) == sorted(upper) == list(range(len(lower)))
    ends = [torch.tensor([side[i] for i in range(len(lower))]) for side in (lower, upper)]
    return ends[0], torch.maximum(*ends)


def inside(bounds, values):
    """Values [N, *out] lie in bounds [1, *out], up to the float noise of the network itself."""
    slack = 1e-4 * values.abs().max().clamp(min=1e-3)
    return bool(((values >= bounds.lower - slack) & (values <= bounds.upper + slack)).all())


def check(family, net, prop, samples):
    graph = certus.load(FAMILIES / family / f"{net}.gz")
    lower, upper = (v.reshape(1, *graph.input_shape) for v in box(FAMILIES / family / f"{prop}.gz"))
    x = lower + torch.rand(samples, *graph.input_shape) * (upper - lower)
    x = torch.minimum(torch.maximum(x, lower), upper)
    expected = graph.original(x)
    with torch.no_grad():
        found = torch.cat([graph(part) for part in x.split(100)])
    tolerance = 1e-3 if family == "ml4acopf_2024" else 1e-4  # its float32 noise is 3e-4
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()

    region = certus.Box(lower, upper)
    neurons = sum(n.numel for n in graph.nodes)
    methods = [certus.IBP(), certus.Crown() if neurons < LARGE else certus.crown_ibp()]
    rows = torch.eye(expected[0].numel())[:ROWS]  # a detector has 21,125 outputs
    values = expected.flatten(1) @ rows.T
    if family in PLACES:
        methods = [certus.Cases(certus.IBP()), certus.Cases(certus.crown_ibp())]
    for method in methods:
        with torch.no_grad():
            bounds = method(graph, region, rows.unsqueeze(0))
        assert sound(bounds.lower, bounds.upper).all(), f"{method} is not finite"
        assert inside(bounds, values)


SMALL = {"test", "lsnc", "verivital_2021", "reach_prob_density_2022", "safenlp"}


@pytest.mark.parametrize(("family", "net", "prop"), [n for n in networks() if n[0] in SMALL])
def test_small_networks(family, net, prop, shared_data):
    check(family, net, prop, 100)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "net", "prop"), networks())
def test_every_network(family, net, prop, shared_data):
    check(family, net, prop, SAMPLES)


def test_all_families_are_there(shared_data):
    assert len({family for family, _, _ in networks()}) == 29
