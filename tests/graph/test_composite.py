"""Layers that are spelled out equal torch's, and their bounds contain samples."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from certus.bounding import IBP, Crown, crown_ibp, rounding_guard
from certus.core import ArgumentError, UnsupportedError
from certus.graph import composite
from certus.graph.affine import Linear, Scale, Shift
from certus.graph.builder import Builder
from certus.graph.structural import Reshape, Slice
from certus.threats import Box

INF = float("inf")


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def module(layer, seed=0):
    """A layer in float64 with parameters that are not their initial ones."""
    torch.manual_seed(seed)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    return layer.double().eval()


def parts(b, count, position=0):
    """The input [count * n, ...] as `count` values [n, ...]."""
    size = b.shape(position)[0] // count
    return [b.add(Slice(1, k * size, (k + 1) * size), position) for k in range(count)]


def recurrent(name, cls, bidirectional, layers, bias=True, state=0, **settings):
    layer = module(
        cls(3, 2, layers, bias=bias, batch_first=True, bidirectional=bidirectional, **settings)
    )

    def build(b):
        x, start = 0, None
        if state:
            rows = layers * (1 + bidirectional)
            x = b.add(Reshape((2, 3)), b.add(Slice(1, 0, 6), 0))
            starts = [
                b.add(
                    Reshape((rows, 2)),
                    b.add(Slice(1, 6 + 2 * rows * k, 6 + 2 * rows * (k + 1)), 0),
                )
                for k in range(state)
            ]
            start = tuple(starts) if state == 2 else starts[0]
        function = getattr(composite, name)
        found = function(b, x, layer._flat_weights, bias, bidirectional, start)
        last = [b.add(Reshape((layers * (1 + bidirectional) * 2,)), p) for p in found.states]
        flat = b.add(Reshape((2 * 2 * (1 + bidirectional),)), found.output)
        return b.add(composite.Concat(1), flat, *last)

    def truth(x):
        start = None
        if state:
            rows = layers * (1 + bidirectional)
            starts = x[:, 6:].unflatten(1, (state, rows, 2)).permute(1, 2, 0, 3).contiguous()
            start, x = tuple(starts) if state == 2 else starts[0], x[:, :6].unflatten(1, (2, 3))
        out, last = layer(x, start)
        last = last if isinstance(last, tuple) else (last,)
        return torch.cat([out.flatten(1), *[s.transpose(0, 1).flatten(1) for s in last]], 1)

    rows = layers * (1 + bidirectional)
    return build, truth, (6 + state * rows * 2,) if state else (2, 3)


def attention(mask=None, causal=False, scale=None):
    def build(b):
        return composite.attention(b, *parts(b, 3), scale, mask)

    def truth(x):
        return F.scaled_dot_product_attention(*x.chunk(3, 1), mask, scale=scale)

    return build, truth, (6, 3, 4)


def norm(layer, shape, build):
    return (lambda b: build(b, module(layer))), module(layer), shape


def binary(function, truth, shape=(4,), first=1.0):
    """Of two inputs; the second is moved up by `first`."""

    def build(b):
        x, y = parts(b, 2)
        return function(b, x, b.add(Shift(torch.tensor(first, dtype=torch.float64)), y))

    return (
        build,
        lambda x: truth(x.chunk(2, 1)[0], x.chunk(2, 1)[1] + first),
        (2 * shape[0], *shape[1:]),
    )


def unary(function, truth, shape):
    return (lambda b: function(b, 0)), truth, shape


LOW = torch.ones(3, 3).tril().bool()
ADD = torch.where(LOW, randn(3, 3), -INF)
MASK = randn(3, 4) > 0
FILL = torch.where(randn(3, 4) > 1, -INF, randn(3, 4))

CASES = {
    "maximum": binary(composite.maximum, torch.maximum, first=0.1),
    "minimum": binary(composite.minimum, torch.minimum, (2, 3), 0.1),
    "reduce-max": unary(
        lambda b, x: composite.reduce_max(b, x, (2, -3)), lambda x: x.amax((1, 2)), (3, 3, 2)
    ),
    "reduce-max-many": unary(
        lambda b, x: composite.reduce_max(b, x, (-1,)), lambda x: x.amax(2), (2, 20)
    ),
    "reduce-min": unary(
        lambda b, x: composite.reduce_min(b, x, (1,), True), lambda x: x.amin(1, True), (5, 2)
    ),
    "norm-1": unary(lambda b, x: composite.norm(b, x, 1.0, (1,)), lambda x: x.norm(1, 1), (5, 2)),
    "norm-2": unary(
        lambda b, x: composite.norm(b, x, 2.0, (1,), True), lambda x: x.norm(2, 1, True), (5, 2)
    ),
    "square-sum": unary(
        lambda b, x: composite.square_sum(b, x, (1,)), lambda x: x.square().sum(1), (5, 2)
    ),
    "mean": unary(
        lambda b, x: composite.mean(b, x, (1, 2)), lambda x: x.mean((1, 2), True), (5, 2)
    ),
    "div": binary(composite.div, torch.div, first=9.0),
    "multiply": binary(composite.multiply, torch.mul),
    "square": unary(lambda b, x: composite.multiply(b, x, x), torch.square, (5,)),
    "hard-sigmoid": unary(composite.hard_sigmoid, F.hardsigmoid, (6,)),
    "softmax": unary(lambda b, x: composite.softmax(b, x, -1), lambda x: x.softmax(2), (2, 5)),
    "log-softmax": unary(
        lambda b, x: composite.log_softmax(b, x, 1), lambda x: x.log_softmax(1), (4, 2)
    ),
    "layer-norm": norm(
        nn.LayerNorm(6),
        (3, 6),
        lambda b, m: composite.layer_norm(b, 0, (-1,), m.weight, m.bias, m.eps),
    ),
    "layer-norm-2d": norm(
        nn.LayerNorm((2, 3)),
        (2, 2, 3),
        lambda b, m: composite.layer_norm(b, 0, (-2, -1), m.weight, m.bias),
    ),
    "layer-norm-plain": norm(
        nn.LayerNorm(4, 1e-2, False), (4,), lambda b, m: composite.layer_norm(b, 0, (1,), eps=1e-2)
    ),
    "layer-norm-pair": norm(
        nn.LayerNorm(2), (3, 2), lambda b, m: composite.layer_norm(b, 0, (2,), m.weight, m.bias)
    ),
    "layer-norm-one": norm(
        nn.LayerNorm(1), (3, 1), lambda b, m: composite.layer_norm(b, 0, (2,), m.weight, m.bias)
    ),
    "rms-norm": norm(
        nn.RMSNorm(5, 1e-4), (3, 5), lambda b, m: composite.rms_norm(b, 0, (-1,), m.weight, m.eps)
    ),
    "group-norm": norm(
        nn.GroupNorm(2, 4), (4, 3, 2), lambda b, m: composite.group_norm(b, 0, 2, m.weight, m.bias)
    ),
    "group-norm-flat": norm(
        nn.GroupNorm(3, 6, affine=False), (6,), lambda b, m: composite.group_norm(b, 0, 3)
    ),
    "instance-norm": norm(
        nn.InstanceNorm1d(3, affine=True),
        (3, 5),
        lambda b, m: composite.instance_norm(b, 0, m.weight, m.bias),
    ),
    "attention": attention(),
    "attention-scaled": attention(scale=1.5),
    "attention-causal": attention(LOW),
    "attention-mask": attention(ADD),
    "where-two": binary(
        lambda b, x, y: composite.where(b, MASK, x, y), lambda x, y: torch.where(MASK, x, y), (3, 4)
    ),
    "where-spread": binary(
        lambda b, x, y: composite.where(
            b, MASK, composite.align(b, x, 2), composite.align(b, y, 2)
        ),
        lambda x, y: torch.where(MASK, x.unsqueeze(1), y.unsqueeze(1)),
        (4,),
    ),
    "where-second": unary(
        lambda b, x: composite.where(b, MASK, randn(3, 4), x),
        lambda x: torch.where(MASK, randn(3, 4), x),
        (3, 4),
    ),
    "where-infinite": unary(
        lambda b, x: composite.softmax(b, composite.where(b, FILL.isinf(), FILL, x), 1),
        lambda x: torch.where(FILL.isinf(), FILL, x).softmax(1),
        (3, 4),
    ),
    "constant": unary(
        lambda b, x: b.add(composite.Concat(1), x, composite.constant(b, randn(2, 3))),
        lambda x: torch.cat([x, randn(2, 3).expand(len(x), -1, -1)], 1),
        (1, 3),
    ),
    "channelwise": unary(
        lambda b, x: composite.channelwise(b, x, randn(3), None),
        lambda x: x * randn(3).view(3, 1),
        (3, 2),
    ),
    "lstm": recurrent("lstm", nn.LSTM, False, 1),
    "lstm-both": recurrent("lstm", nn.LSTM, True, 1),
    "lstm-deep": recurrent("lstm", nn.LSTM, True, 2, bias=False),
    "lstm-start": recurrent("lstm", nn.LSTM, True, 2, state=2),
    "gru": recurrent("gru", nn.GRU, False, 1),
    "gru-deep": recurrent("gru", nn.GRU, True, 2),
    "gru-start": recurrent("gru", nn.GRU, True, 1, bias=False, state=1),
    "rnn-tanh": recurrent("rnn_tanh", nn.RNN, True, 2),
    "rnn-relu": recurrent("rnn_relu", nn.RNN, False, 2, nonlinearity="relu", state=1),
}


def graph_of(name):
    build, truth, shape = CASES[name]
    b = Builder(shape, torch.zeros(1).double())
    return b.finish(build(b), truth), shape


@pytest.mark.parametrize("name", CASES)
def test_the_graph_equals_torch(name):
    graph, shape = graph_of(name)
    for scale in (0.3, 1.0, 3.0):
        x = scale * randn(3, *shape)
        expected = graph.original(x)
        assert graph(x).shape == expected.shape
        assert torch.allclose(graph(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_bounds_contain_samples(name):
    graph, shape = graph_of(name)
    g = torch.Generator().manual_seed(7)
    x = randn(2, *shape)
    for eps in (0.02, 0.3):
        box = Box(x - eps, x + eps)
        for method in (IBP(), crown_ibp(), Crown()):
            found = method(graph, box)
            assert bool(torch.isfinite(found.lower).all() and torch.isfinite(found.upper).all())
            for k in range(40):
                u = torch.rand(x.shape, generator=g, dtype=torch.float64) * 2 - 1
                value = graph.original(x + eps * (u.sign() if k % 2 else u))
                slack = 1e-9 * (1 + value.abs())
                assert bool((value >= found.lower - slack).all())
                assert bool((value <= found.upper + slack).all())


@pytest.mark.parametrize("name", CASES)
def test_bounds_of_one_point_are_its_value(name):
    graph, shape = graph_of(name)
    x = randn(2, *shape)
    for method in (IBP(), Crown()):
        found = method(graph, Box(x, x))
        assert torch.allclose(found.lower, graph.original(x), rtol=1e-7, atol=1e-7)
        assert torch.allclose(found.upper, graph.original(x), rtol=1e-7, atol=1e-7)


def test_gru_with_the_reset_gate_first():
    """ONNX's linear_before_reset = 0: n = tanh(W x + b + U (r h) + c)."""
    layer = module(nn.GRU(3, 2, batch_first=True))
    b = Builder((4, 3), torch.zeros(1).double())
    graph = b.finish(composite.gru(b, 0, layer._flat_weights, reset_after=False).output, layer)
    w, u, c, d = (p.detach() for p in layer._flat_weights)
    x = randn(3, 4, 3)
    h, outputs = torch.zeros(3, 2).double(), []
    for t in range(4):
        inner, hidden = (x[:, t] @ w.T + c).chunk(3, 1), (h @ u.T + d).chunk(3, 1)
        r, z = ((inner[k] + hidden[k]).sigmoid() for k in (0, 1))
        n = torch.tanh(inner[2] + (r * h) @ u[4:].T + d[4:])
        h = (1 - z) * n + z * h
        outputs.append(h)
    assert torch.allclose(graph(x), torch.stack(outputs, 1))


def test_crown_is_tight_on_attention():
    """At a small radius bounds are close to the linearised range, which planes by decomposition are not."""
    graph, shape = graph_of("attention")
    x = randn(2, *shape)
    found = Crown()(graph, Box(x - 1e-3, x + 1e-3))
    jacobian = torch.autograd.functional.jacobian(lambda v: graph(v).sum(0), x)
    reach = 2e-3 * jacobian.movedim(3, 0).flatten(4).abs().sum(4)
    assert bool(((found.upper - found.lower) <= 1.1 * reach).all())


def test_normalised_values_are_bounded_however_wide_the_box():
    """|layer_norm| <= sqrt(n - 1), also where the variance may be nearly zero."""
    b = Builder((8,), torch.zeros(1).double())
    graph = b.finish(composite.normalize(b, 0, (1,), 1e-5), None)
    x = randn(2, 8)
    found = IBP()(graph, Box(x - 3, x + 3))
    assert float(found.upper.max()) <= 1.001 * 7**0.5
    assert float(found.lower.min()) >= -1.001 * 7**0.5


def test_a_masked_score_weighs_nothing():
    """The masked key has no influence on the bounds, and rounding of the mask does not either."""
    mask = torch.tensor([True, True, False])
    b = Builder((9, 2), torch.zeros(1).double())
    q, k, v = parts(b, 3)
    rank = [b.add(Reshape((1, 3, 2)), p) for p in (q, k, v)]
    graph = b.finish(composite.attention(b, *rank, None, mask), None)
    x = randn(2, 9, 2)
    wide = torch.full_like(x, 0.05)
    wide[:, 5], wide[:, 8] = 50.0, 50.0
    found = Crown()(graph, Box(x - wide, x + wide))
    narrow = Crown()(graph, Box(x - 0.05, x + 0.05))
    assert torch.allclose(found.lower, narrow.lower) and torch.allclose(found.upper, narrow.upper)
    state = IBP().prepare(graph, Box(x - 0.05, x + 0.05))
    assert float(rounding_guard(graph, state.intervals, torch.float32).max()) < 1e-3


def test_parameters_stay_live():
    layer = module(nn.GroupNorm(2, 4))
    b = Builder((4, 3), torch.zeros(1).double())
    graph = b.finish(composite.group_norm(b, 0, 2, layer.weight, layer.bias), layer)
    with torch.no_grad():
        layer.weight.mul_(-2.0)
    x = randn(3, 4, 3)
    assert torch.allclose(graph(x), layer(x))


def test_constants_take_the_dtype_of_the_network():
    b = Builder((3, 4), torch.zeros(1))
    q = b.add(Linear(torch.randn(4, 4)), 0)
    out = composite.layer_norm(b, composite.attention(b, q, q, 0), (-1,))
    graph = b.finish(composite.hard_sigmoid(b, composite.reduce_min(b, out, (1,))), None)
    assert {t.dtype for _, t in graph.tensors()} == {torch.float32}
    assert graph(torch.randn(2, 3, 4)).dtype == torch.float32


def test_what_reaches_the_batch_or_leaves_out_everything_is_refused():
    b = Builder((3, 4), torch.zeros(1))
    with pytest.raises(ArgumentError, match="reach the batch"):
        composite.softmax(b, 0, 0)
    with pytest.raises(UnsupportedError, match="every position"):
        composite.softmax(b, composite.masked(b, 0, torch.eye(3, 4)[:, 1:2] > 0), -1)
    with pytest.raises(ArgumentError, match="twice"):
        composite.reduce_max(b, 0, (1, -2))
    with pytest.raises(ArgumentError, match="broadcast"):
        composite.where(b, torch.ones(2, 3, 4).bool(), 0, 0)
    with pytest.raises(ArgumentError, match="do not make layers"):
        composite.lstm(b, 0, [torch.ones(8, 4)])
    assert isinstance(b.add(Scale(torch.tensor(2.0)), 0), int)
