"""ATen normalisations over the input's own values, attention and recurrent layers."""

from collections.abc import Callable
from typing import Any

import torch

from certus.graph import composite
from certus.graph.affine import Scale, Sum
from certus.graph.aten_linear import fixed_norm
from certus.graph.bilinear import Product
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.expression import Expression
from certus.graph.structural import Reshape


def _last(a: Arguments, name: str) -> tuple[int, ...]:
    """The last dimensions, which a layer normalisation works on."""
    return tuple(a.dim(-1 - i, name) for i in range(len(a["normalized_shape"])))


@builds("layer_norm.default", anywhere=True)
def _layer_norm(a: Arguments) -> int:
    return composite.layer_norm(
        a.scope.builder,
        a.x("input"),
        _last(a, "input"),
        a.constant("weight"),
        a.constant("bias"),
        a["eps"],
        a.source,
    )


@builds("native_layer_norm.default", anywhere=True)
def _native_layer_norm(a: Arguments) -> tuple[int | None, ...]:
    return _layer_norm(a), None, None


@builds("rms_norm.default", "_fused_rms_norm.default", anywhere=True)
def _rms_norm(a: Arguments) -> int | tuple[int | None, ...]:
    eps = a["eps"] if a["eps"] is not None else torch.finfo(a.scope.builder.like.dtype).eps
    result = composite.rms_norm(
        a.scope.builder,
        a.x("input"),
        _last(a, "input"),
        a.constant("weight"),
        eps,
        a.source,
    )
    return (result, None) if a.target.startswith("_fused") else result


@builds("group_norm.default")
def _group_norm(a: Arguments) -> int:
    return composite.group_norm(
        a.scope.builder,
        a.x("input"),
        a["num_groups"],
        a.constant("weight"),
        a.constant("bias"),
        a["eps"],
        a.source,
    )


@builds("native_group_norm.default")
def _native_group_norm(a: Arguments) -> tuple[int | None, ...]:
    result = composite.group_norm(
        a.scope.builder,
        a.x("input"),
        a["group"],
        a.constant("weight"),
        a.constant("bias"),
        a["eps"],
        a.source,
    )
    return result, None, None


@builds("instance_norm.default")
def _instance_norm(a: Arguments) -> int:
    if not a["use_input_stats"]:
        return fixed_norm(a, "input")
    return composite.instance_norm(
        a.scope.builder,
        a.x("input"),
        a.constant("weight"),
        a.constant("bias"),
        a["eps"],
        a.source,
    )


@builds("scaled_dot_product_attention.default", anywhere=True)
def _attention(a: Arguments) -> int:
    if a["dropout_p"]:
        raise Unsupported("attention with dropout")
    if a["enable_gqa"]:
        raise Unsupported("attention with enable_gqa; repeat the heads of key and value")
    given = (a["query"], a["key"], a["value"])
    for name in ("query", "key", "value"):
        a.dim(-1, name), a.dim(-2, name)
    a.aligned(*given)
    rank = a.node.meta["val"].ndim
    q, k, v = (a.at(value, rank) for value in given)
    mask = a["attn_mask"]
    if a.is_data(mask):
        return _with_data_mask(a, q, k, v)
    return composite.attention(a.scope.builder, q, k, v, a["scale"], _mask(a), a.source)


def _mask(a: Arguments) -> Any:
    """The constant mask, or the triangle of a causal one."""
    if a["is_causal"]:
        rows, columns = (a[name].meta["val"].shape[-2] for name in ("query", "key"))
        device = a.scope.builder.like.device
        return torch.ones(rows, columns, dtype=torch.bool, device=device).tril()
    if a["attn_mask"] is None:
        return None
    mask = a.fixed(a["attn_mask"])
    a.broadcasts(mask)
    return mask


def _with_data_mask(a: Arguments, q: int, k: int, v: int) -> int:
    if a["attn_mask"].meta["val"].dtype == torch.bool:
        raise Unsupported("an attention mask that depends on the input")
    width = a.shape(q)[-1]
    factor = width**-0.5 if a["scale"] is None else float(a["scale"])
    scores = a.add(Product(transpose_second=True), a.add(Scale(a.value(factor)), q), k)
    scores = a.add(Sum(), *a.pair(scores, a.x("attn_mask")))
    return a.add(Product(), composite.softmax(a.scope.builder, scores, -1, a.source), v)


_RECURRENT: dict[str, Callable[..., Any]] = {
    "lstm": composite.lstm,
    "gru": composite.gru,
    "rnn_tanh": composite.rnn_tanh,
    "rnn_relu": composite.rnn_relu,
}


@builds(*(f"{name}.input" for name in _RECURRENT), anywhere=True)
def _recurrent(a: Arguments) -> tuple[int | None, ...]:
    """Unrolled over the sequence; layers with projections have other weights and are refused."""
    first = bool(a["batch_first"])
    if a.layout("input").axis != (0 if first else 1) or a.ndim("input") != 3:
        raise Unsupported("a sequence without its batch where the layer expects it")
    if a["train"] and a["dropout"]:
        raise Unsupported("dropout in training mode")
    times, width = (s for i, s in enumerate(a.one(a["input"])) if i != (0 if first else 1))
    x = a.add(Reshape((times, width)), a.x("input"))
    weights = [a.value(w) for w in a["params"]]
    count = (4 if a["has_biases"] else 2) * (2 if a["bidirectional"] else 1) * a["num_layers"]
    if len(weights) != count:
        raise Unsupported("a recurrent layer with projections")
    states = _states(a)
    name = a.target.split(".")[0]
    both = states if name == "lstm" else None if states is None else states[0]
    unrolled = _RECURRENT[name](
        a.scope.builder, x, weights, bool(a["has_biases"]), bool(a["bidirectional"]), both, a.source
    )
    output = a.add(Reshape(a.one_of(0) if a.free else a.one_of(0)[1:]), unrolled.output)
    last = [a.add(Reshape(a.one_of(i)), place) for i, place in enumerate(unrolled.states, 1)]
    return (output, *last)


def _states(a: Arguments) -> tuple[int, ...] | None:
    """The initial states [layers, H] as positions; None where they are zeros."""
    given = a["hx"] if isinstance(a["hx"], list | tuple) else [a["hx"]]
    values = [None if a.is_data(h) else a.value(h) for h in given]
    plain = [
        v is not None and not isinstance(v, Expression | torch.nn.Parameter) and not bool(v.any())
        for v in values
    ]
    if all(plain):
        return None
    places = [a.at(h, 3) for h in given]
    shapes = [(h.meta["val"].shape[0], h.meta["val"].shape[2]) for h in given]
    return tuple(a.add(Reshape(s), p) for s, p in zip(shapes, places, strict=True))
