"""Threats: what they accept, how they name themselves, and which region they give."""

import pytest
import torch

from certus.core import ArgumentError
from certus.threats import L1, L2, NORMS, Box, Linf, parse

BALLS = [Linf, L2, L1]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize(
    "eps",
    [-0.1, NAN, INF, -INF, torch.tensor([0.1, -0.1]), torch.tensor([0.1, NAN]), torch.tensor(1j)],
    ids=str,
)
def test_bad_eps_is_refused(threat, eps):
    with pytest.raises(ArgumentError, match="eps"):
        threat(eps)


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("clip", [(1.0, 0.0), (0.5, 0.5), (NAN, 1.0), (0.0, NAN)], ids=str)
def test_bad_clip_is_refused(threat, clip):
    with pytest.raises(ArgumentError, match="clip"):
        threat(0.1, clip=clip)


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("value", [-1e-6, 1.0 + 1e-6])
def test_inputs_off_the_range_are_refused(threat, value):
    x = torch.full((2, 3), 0.5)
    x[1, 2] = value
    with pytest.raises(ArgumentError, match="clip"):
        threat(0.1).region(x)
    assert bool(threat(0.1, clip=None).region(x).contains(x).all())
    assert bool(threat(0.1, clip=(-1, 2)).region(x).contains(x).all())


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("clip", [None, (0.0, 1.0)])
def test_broken_inputs_are_refused(threat, value, clip):
    with pytest.raises(ArgumentError):
        threat(0.1, clip=clip).region(torch.full((2, 3), value))


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize(
    "shape", [(3,), (2, 5), (4, 1), (1, 4, 5), (3, 5), (4, 5, 1), (0,)], ids=str
)
def test_eps_of_another_shape_is_refused(threat, shape):
    with pytest.raises(ArgumentError, match="does not fit"):
        threat(torch.ones(shape)).region(torch.rand(4, 5))


@pytest.mark.parametrize("threat", BALLS)
def test_radius_is_eps_where_there_is_one(threat):
    x = torch.rand(3, 4)
    assert threat(0.25).radius(x).tolist() == [0.25] * 3
    assert threat(torch.tensor([0.25])).radius(x).tolist() == [0.25] * 3
    each = torch.tensor([0.0, 0.5, 1.0])
    assert threat(each).radius(x).tolist() == each.tolist()
    mixed = torch.full((3, 4), 0.5)
    mixed[1, 2] = 0.25
    assert threat(mixed).radius(x).isnan().tolist() == [False, True, False]
    assert threat(torch.rand(1, 4)).radius(x).isnan().all()


@pytest.mark.parametrize("threat", BALLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_regions_follow_the_inputs(threat, dtype):
    x = torch.rand(3, 4, dtype=dtype)
    for eps in (0.1, torch.full((3,), 0.1), torch.full((3, 4), 0.1, dtype=torch.float64), 1):
        region = threat(eps).region(x)
        assert {region.lower.dtype, region.upper.dtype, region.center.dtype} == {dtype}
        assert region.lower.shape == x.shape and len(region) == 3


@pytest.mark.parametrize(
    ("text", "norm", "eps"),
    [
        ("linf:0.1", "linf", 0.1),
        ("LINF:.5", "linf", 0.5),
        ("linf:8/255", "linf", 8 / 255),
        ("l2:0", "l2", 0.0),
        ("L2:36/255", "l2", 36 / 255),
        ("l1:1e-3", "l1", 1e-3),
        ("l1:12", "l1", 12.0),
        ("l0:3", "l0", 3),
        ("l0-pixels:3", "l0-pixels", 3),
        ("patch:2", "patch", 2),
    ],
)
def test_text_that_is_a_threat(text, norm, eps):
    threat = parse(text)
    assert type(threat) is NORMS[norm] and threat.norm == norm
    assert threat.eps == eps and threat.clip == (0.0, 1.0)
    if norm in ("linf", "l2", "l1"):
        assert parse(text, clip=None).clip is None


@pytest.mark.parametrize(
    "text",
    ["", "linf", "linf:", ":0.1", "l0:1.5", "l0:-1", "l3:1", "linf:x", "linf:1/0", "linf:1/2/3", "linf:-1",
     "l2:nan", "l2:inf", "l1:1e999", "linf 0.1", "l2:/", "l2:/2", "linf:0,1"],
)  # fmt: skip
def test_text_that_is_none(text):
    with pytest.raises(ArgumentError):
        parse(text)


@pytest.mark.parametrize("threat", BALLS)
def test_threats_name_themselves(threat):
    assert threat(0.1).describe() == f"{threat.norm}:0.1"
    assert threat(torch.tensor([0.1], dtype=torch.float64)).describe() == f"{threat.norm}:0.1"
    assert threat(torch.rand(4)).describe() == f"{threat.norm}:various"
    assert repr(threat(0.1)) == f"{threat.__name__}(0.1, clip=(0.0, 1.0))"
    assert "(4,)" in repr(threat(torch.rand(4)))


def test_names_tell_threats_apart():
    assert parse(Linf(8 / 255).describe()).eps == 8 / 255


def test_a_box_as_a_threat():
    box = Box(torch.zeros(1, 3), torch.ones(1, 3))
    x = torch.rand(5, 3)
    region = box.region(x)
    assert len(region) == 5 and bool(region.contains(x).all())
    assert box.radius(x).isnan().all() and box.describe() == "box" and box.norm == "box"
    assert box.region(x.double()).lower.dtype == torch.float64
    with pytest.raises(ArgumentError, match="outside its box"):
        box.region(x + 1)
    with pytest.raises(ArgumentError, match="does not fit"):
        box.region(torch.rand(5, 4))
    with pytest.raises(ArgumentError, match="does not fit"):
        Box(torch.zeros(2, 3), torch.ones(2, 3)).region(x)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (torch.ones(1, 2), torch.zeros(1, 2)),
        (torch.zeros(1, 2), torch.ones(1, 3)),
        (torch.zeros(2), torch.ones(2)),
        (torch.full((1, 2), NAN), torch.ones(1, 2)),
        (torch.zeros(1, 2), torch.full((1, 2), INF)),
    ],
    ids=["crossed", "shapes", "no batch", "nan", "infinite"],
)
def test_bad_boxes_are_refused(lower, upper):
    with pytest.raises(ArgumentError):
        Box(lower, upper)
