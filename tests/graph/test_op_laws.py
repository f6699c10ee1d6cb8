"""Laws of every affine operation: transpose, offset and magnitude against the plain definition."""

import pytest
import torch

from certus.core import UnsupportedError
from certus.graph import affine, fusion, structural
from certus.graph.activation import MaxPool, Relu
from certus.graph.op import Affine, Elementwise, Input, Monotone, Op, Selection
from certus.relax import intervals as rules
from certus.relax import relaxations


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def conv(out, inner, kernel, stride, padding, dilation, groups=1, bias=True):
    return affine.Conv(
        randn(out, inner, *kernel), randn(out) if bias else None, stride, padding, dilation, groups
    )


def deconv(inner, out, kernel, stride, padding, extra, dilation, groups=1):
    weight = randn(inner, out, *kernel)
    bias = randn(out * groups)
    return affine.ConvTranspose(weight, bias, stride, padding, extra, dilation, groups)


def norm(channels, weight=True):
    both = (randn(channels), randn(channels)) if weight else (None, None)
    return affine.BatchNorm(*both, randn(channels), randn(channels).square() + 0.1, 1e-3)


CASES = {
    "linear": (affine.Linear(randn(3, 4), randn(3)), [(4,)]),
    "linear-no-bias": (affine.Linear(randn(3, 4)), [(4,)]),
    "fourier": (affine.Fourier(randn(3, 4)), [(2, 4)]),
    "interpolation": (affine.Interpolation(randn(3, 4)), [(2, 4)]),
    "linear-positions": (affine.Linear(randn(3, 4), randn(3)), [(2, 5, 4)]),
    "conv1d": (conv(3, 2, (3,), (2,), (1,), (1,)), [(2, 8)]),
    "conv1d-remainder": (conv(3, 2, (3,), (3,), (0,), (1,)), [(2, 11)]),
    "conv2d": (conv(3, 2, (3, 3), (1, 1), (1, 1), (1, 1)), [(2, 4, 5)]),
    "conv2d-remainder": (conv(3, 2, (3, 2), (2, 3), (1, 0), (1, 1)), [(2, 6, 7)]),
    "conv2d-remainder-1": (conv(3, 2, (2, 2), (3, 3), (0, 0), (1, 1), bias=False), [(2, 7, 8)]),
    "conv2d-dilated": (conv(3, 2, (3, 2), (2, 1), (2, 1), (2, 3)), [(2, 8, 6)]),
    "conv2d-groups": (conv(4, 1, (3, 3), (2, 2), (1, 1), (1, 1), groups=2), [(2, 6, 6)]),
    "conv2d-depthwise": (conv(3, 1, (2, 2), (1, 1), (0, 0), (2, 2), groups=3), [(3, 5, 5)]),
    "conv2d-1x1": (conv(3, 2, (1, 1), (2, 2), (0, 0), (1, 1)), [(2, 6, 5)]),
    "conv2d-wide-padding": (conv(3, 2, (2, 2), (1, 1), (3, 3), (1, 1)), [(2, 3, 3)]),
    "conv3d": (conv(2, 2, (2, 2, 1), (2, 1, 2), (0, 1, 0), (1, 1, 1)), [(2, 5, 3, 4)]),
    "batchnorm": (norm(3), [(3, 2, 2)]),
    "batchnorm-flat": (norm(4), [(4,)]),
    "batchnorm-plain": (norm(3, weight=False), [(3, 5)]),
    "scale": (affine.Scale(randn(3, 1)), [(3, 4)]),
    "scale-spreads": (affine.Scale(randn(5)), [(3, 1)]),
    "scale-number": (affine.Scale(torch.tensor(-2.0).double()), [(3,)]),
    "shift": (affine.Shift(randn(1, 3, 1)), [(3, 4)]),
    "shift-spreads": (affine.Shift(randn(5)), [(3, 1)]),
    "sum": (affine.Sum(), [(3, 2), (3, 2)]),
    "difference": (affine.Sum(-1.5), [(3,), (3,)]),
    "sum-spreads": (affine.Sum(2.0), [(3, 1), (1, 4)]),
    "matmul": (affine.MatMul(randn(4, 3)), [(2, 4)]),
    "matmul-left": (affine.MatMul(randn(3, 4), left=True), [(4, 2)]),
    "matmul-batched": (affine.MatMul(randn(2, 4, 3)), [(2, 5, 4)]),
    "reshape": (structural.Reshape((3, 4)), [(2, 6)]),
    "permute": (structural.Permute((0, 3, 1, 2)), [(2, 3, 4)]),
    "slice": (structural.Slice(2, 1, 6, 2), [(2, 7)]),
    "select": (structural.Select(1, 2), [(3, 4)]),
    "concat": (structural.Concat(1), [(2, 3), (1, 3), (4, 3)]),
    "concat-last": (structural.Concat(2), [(2, 3), (2, 1)]),
    "expand": (structural.Expand((3, 4, 2)), [(1, 4, 1)]),
    "expand-front": (structural.Expand((4, 2)), [(1, 2)]),
    "sum-over": (structural.Reduce((1, 3), False), [(2, 3, 4)]),
    "mean-over": (structural.Reduce((2,), True, 1 / 3), [(2, 3, 4)]),
    "avgpool1d": (structural.AvgPool((3,), (2,), (1,)), [(2, 8)]),
    "avgpool-counted": (structural.AvgPool((3, 2), (2, 2), (1, 1)), [(2, 6, 5)]),
    "avgpool-uncounted": (structural.AvgPool((3, 3), (2, 2), (1, 1), True, False), [(2, 6, 5)]),
    "adaptive": (structural.AdaptiveAvgPool((2, 3)), [(2, 5, 7)]),
    "pad": (structural.Pad((1, 2, 0, 1), 0.7), [(2, 3, 3)]),
    "deconv1d": (deconv(2, 3, (3,), (2,), (1,), (1,), (1,)), [(2, 4)]),
    "deconv2d": (deconv(2, 3, (3, 2), (2, 3), (1, 0), (1, 2), (1, 1)), [(2, 3, 2)]),
    "deconv2d-groups": (deconv(4, 2, (2, 2), (1, 1), (0, 0), (0, 0), (2, 1), 2), [(4, 3, 3)]),
    "deconv2d-extra": (deconv(2, 1, (2, 2), (1, 2), (0, 0), (2, 1), (3, 1)), [(2, 3, 3)]),
    "deconv3d": (
        deconv(1, 2, (2, 1, 2), (2, 1, 1), (0, 0, 1), (0, 0, 0), (1, 1, 1)),
        [(1, 2, 2, 3)],
    ),
    "scatter add": (structural.ScatterAdd(torch.tensor([3, 0, 0, 5, 3, 3]), (7,)), [(2, 3)]),
    "gather": (structural.Gather(torch.tensor([3, 0, 0, 5, 3, 3]), (2, 3)), [(2, 3)]),
    "flip": (structural.Flip((1, 3)), [(2, 3, 2)]),
    "cumsum": (structural.CumSum(1), [(4, 2)]),
    "cumsum-exclusive": (structural.CumSum(2, exclusive=True), [(2, 4)]),
    "cumsum-reverse": (structural.CumSum(1, exclusive=True, reverse=True), [(4,)]),
    "resize-nearest": (structural.Resize((4,)), [(2, 3)]),
    "resize-exact": (structural.Resize((5, 3), "nearest-exact"), [(2, 2, 4)]),
    "resize-linear": (structural.Resize((4,), "linear"), [(2, 3)]),
    "resize-bilinear": (structural.Resize((3, 5), "bilinear", scales=(1.7, 2.5)), [(1, 2, 2)]),
    "resize-corners": (structural.Resize((5, 3), "bilinear", True), [(1, 2, 2)]),
    "resize-trilinear": (structural.Resize((2, 3, 3), "trilinear"), [(1, 2, 2, 2)]),
    "crop": (structural.Pad((-1, 2)), [(2, 4)]),
    "constant": (fusion.Constant(randn(1, 3, 2)), [(4,)]),
    "patches": (fusion.Patches(randn(3, 2, 2, 3), randn(3)), [(2, 4, 6)]),
    "patches-remainder": (fusion.Patches(randn(3, 2, 2, 3), None), [(2, 5, 8)]),
}


def leaves(kind):
    """Every class below `kind` that can be made."""
    found = {kind} if not kind.__abstractmethods__ else set()
    return found.union(*(leaves(sub) for sub in kind.__subclasses__())) if kind else found


def matrices(op, shapes):
    """W_i as [out, in_i], column by column from the definition, and the output's shape."""
    zeros = [torch.zeros(1, *s).double() for s in shapes]
    base = op.forward(*zeros)
    found = []
    for i, shape in enumerate(shapes):
        basis = torch.eye(torch.Size(shape).numel()).double().view(-1, *shape)
        inputs = [z.expand(len(basis), *z.shape[1:]) for z in zeros]
        inputs[i] = basis
        found.append((op.forward(*inputs) - base).flatten(1).T)
    return found, base


@pytest.mark.parametrize("case", CASES)
def test_transpose_is_the_vjp(case):
    op, shapes = CASES[case]
    weights, base = matrices(op, shapes)
    rows = torch.randn(5, *base.shape[1:]).double()
    fast, generic = op.transpose(rows, shapes), Affine.transpose(op, rows, shapes)
    assert len(fast) <= len(generic) == len(shapes)
    assert not any(w.any() for w in weights[len(fast) :])  # left out: not read
    for f, g, w, shape in zip(fast, generic, weights, shapes, strict=False):
        assert f.shape == (5, *shape)
        assert torch.allclose(f, g, atol=1e-12)
        assert torch.allclose(f.flatten(1), rows.flatten(1) @ w, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_offset_is_the_value_at_zero(case):
    op, shapes = CASES[case]
    base = matrices(op, shapes)[1]
    offset = op.offset(shapes, base)
    assert torch.allclose(torch.zeros_like(base) if offset is None else offset + 0 * base, base)


@pytest.mark.parametrize("case", CASES)
def test_magnitude_is_the_absolute_matrix(case):
    op, shapes = CASES[case]
    weights, base = matrices(op, shapes)
    radii = [torch.rand(2, *s).double() for s in shapes]
    expected = sum(r.flatten(1) @ w.abs().T for r, w in zip(radii, weights, strict=True))
    found = op.magnitude(*radii)
    assert found.shape == (2, *base.shape[1:])
    assert torch.allclose(found.flatten(1), expected, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_affine_and_the_same_for_every_element_of_the_batch(case):
    op, shapes = CASES[case]
    weights, base = matrices(op, shapes)
    inputs = [torch.randn(3, *s).double() for s in shapes]
    expected = sum(x.flatten(1) @ w.T for x, w in zip(inputs, weights, strict=True))
    assert torch.allclose(op.forward(*inputs).flatten(1), expected + base.flatten(1), atol=1e-11)
    if isinstance(op, Selection):
        assert all(bool((w >= 0).all()) for w in weights)


def test_every_affine_operation_is_in_the_table():
    missing = leaves(Affine) - {type(op) for op, _ in CASES.values()}
    assert not [c.__name__ for c in missing if c.__module__.startswith("certus")]


def test_every_operation_has_an_interval_rule_and_a_relaxation():
    ours = {c for c in leaves(Op) if c.__module__.startswith("certus")} - {Input}
    assert {Relu, MaxPool, affine.Conv, structural.Concat} <= ours
    assert not [c.__name__ for c in ours if c not in rules]
    assert not [c.__name__ for c in ours if not issubclass(c, Affine) and c not in relaxations]


def test_rules_sit_only_on_classes_that_state_the_property():
    stated = {Affine, Selection, Monotone, Elementwise}
    assert not [kind for kind in set(rules) - stated if kind.__subclasses__()]
    assert Monotone not in relaxations and Elementwise not in relaxations


class Wave(Op):
    """Not monotone, so no rule may be found for it."""

    def forward(self, *inputs):
        return inputs[0].sin()


def test_an_unknown_operation_is_refused_by_name():
    for table in (rules, relaxations):
        with pytest.raises(UnsupportedError, match="no rule for Wave"):
            table[Wave]
