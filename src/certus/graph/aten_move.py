"""ATen operations that only move, copy or drop values: their indices are read off an example."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from certus.graph.affine import Scale, Shift
from certus.graph.builders import Arguments, Unsupported, builds
from certus.graph.layout import is_size, symbolic
from certus.graph.structural import Concat, Gather, Pad, Reshape

_FILLED = -1.0  # marks a place that a number is written to
BATCH = 2


@builds(
    *("repeat.default", "tile.default", "repeat_interleave.self_int", "roll.default"),
    *("index_select.default", "index.Tensor", "_unsafe_index.Tensor", "gather.default"),
    *("take_along_dim.default", "diagonal.default", "diag_embed.default", "rot90.default"),
    *("pixel_shuffle.default", "pixel_unshuffle.default", "channel_shuffle.default"),
    *("native_channel_shuffle.default", "unfold.default", "im2col.default", "tril.default"),
    *(
        "triu.default",
        "slice_scatter.default",
        "select_scatter.default",
    ),
    *("diagonal_scatter.default", "scatter.src", "scatter.value", "index_copy.default"),
    *("index_fill.int_Scalar", "masked_scatter.default", "copy.default", "unfold_copy.default"),
    *(f"{kind}_pad{d}d.default" for kind in ("reflection", "replication") for d in (1, 2, 3)),
    *("fliplr.default", "flipud.default", "_pad_circular.default"),
)
def moved(a: Arguments) -> int:
    """A Gather whose indices are those of numbered values sent through the operation itself."""
    sources = _sources(a)
    positions = [a.at(node, rank_of(a, node)) for node in sources]
    counts = [torch.Size(a.shape(p)).numel() for p in positions]
    total, constant = sum(counts), [0.0]
    examples = {}
    for node, count, start in zip(sources, counts, _starts(counts), strict=True):
        numbers = start + 1 + torch.arange(count, dtype=torch.float64)
        whole = numbers.view(a.one(node))
        if node.meta["val"].is_complex():
            whole = torch.view_as_complex(whole)
        whole = _batched(whole, node.meta["val"].shape)
        if a.is_data(node):  # numbers of the second input of the batch are larger by the total
            step = total * torch.arange(BATCH).view(-1, *[1] * (whole.ndim - 1))
            whole = whole + (
                torch.complex(step.double(), step.double()) if whole.is_complex() else step
            )
        else:
            constant += numbers.tolist()
        examples[node] = whole
    found = _run(a, examples)
    first, second = torch.view_as_real(found) if found.is_complex() else found
    fixed = (first < 0) | torch.isin(first, torch.tensor(constant, dtype=torch.float64))
    if not torch.equal(torch.where(fixed, first, first + total), second):
        raise Unsupported("the result depends on other inputs of the batch")
    return _gathered(a, positions, first)


def rank_of(a: Arguments, node: fx.Node) -> int:
    """Dimensions of a constant whose first one is the batch; -1 where it has no batch."""
    shape = node.meta["val"].shape
    return len(shape) if any(symbolic(size) for size in shape) else -1


def _batched(value: Tensor, shape: Any) -> Tensor:
    """A value for a batch of one, repeated to the example's batch where the shape has it."""
    sizes = [BATCH if symbolic(size) else -1 for size in shape]
    return value.expand(sizes) if sizes else value


def _gathered(a: Arguments, positions: list[int], places: Tensor) -> int:
    """Write the Gather, then zeros and constants where no value went."""
    if len(positions) > 1:
        flat = [a.add(Reshape((torch.Size(a.shape(p)).numel(),)), p) for p in positions]
        source = a.add(Concat(1), *flat)
    else:
        source = positions[0]
    like = a.scope.builder.like
    index = (places.flatten() - 1).clamp(min=0).long().to(like.device)
    result = a.add(Gather(index, tuple(places.shape)), source)
    if bool((places <= 0).any()):
        result = a.add(Scale((places > 0).unsqueeze(0).to(like)), result)
    if bool((places == _FILLED).any()):
        amount = (places == _FILLED).unsqueeze(0).to(like) * float(a["value"])
        result = a.add(Shift(amount), result)
    return result


def _sources(a: Arguments) -> list[fx.Node]:
    """The tensors whose values are moved: all that depend on the input, and constant numbers."""
    found = []
    for node in a.node.all_input_nodes:
        if is_size(node):
            continue
        value = node.meta["val"]
        moves = value.is_floating_point() or node in (a["self"], a["src"], a["values"])
        if a.is_data(node) and not moves:
            raise Unsupported("places that depend on the input: use torch.where")
        if a.is_data(node) or value.is_floating_point():
            found.append(node)
    return found


def _starts(counts: list[int]) -> list[int]:
    return [sum(counts[:i]) for i in range(len(counts))]


def _run(a: Arguments, examples: dict[fx.Node, Tensor]) -> Tensor:
    """The operation on the examples: [2, *shape]."""

    def look(node: fx.Node) -> Any:
        if node in examples:
            return examples[node]
        if is_size(node):
            value = node.meta["val"]
            if not isinstance(value, torch.SymInt):
                return value
            expr = value.node.expr
            return int(expr.subs({symbol: BATCH for symbol in expr.free_symbols}))
        return index_of(a, node)

    args = list(torch.fx.map_arg(a.node.args, look))
    kwargs = torch.fx.map_arg(a.node.kwargs, look)
    if a["value"] is not None and not isinstance(a["value"], fx.Node):
        place = [s.name for s in a.node.target._schema.arguments].index("value")  # type: ignore
        if place < len(args):
            args[place] = _FILLED
        else:
            kwargs["value"] = _FILLED
    return a.node.target(*args, **kwargs)  # type: ignore[operator]


def index_of(a: Arguments, node: fx.Node) -> Tensor:
    """A constant index or condition for the example's batch."""
    return _batched(a.fixed(node).cpu(), node.meta["val"].shape)


@builds("pad.default", "constant_pad_nd.default", anywhere=True)
def _pad(a: Arguments) -> int:
    widths = a["pad"]
    if not all(isinstance(w, int) for w in widths):
        raise Unsupported("padding that depends on the batch size")
    pairs = list(zip(widths[::2], widths[1::2], strict=True))
    used = [k for k, pair in enumerate(pairs) if any(pair)]
    for k in used:
        a.dim(-1 - k)  # never the batch
    if not used:
        return a.x()
    kept = pairs[: max(used) + 1]
    if a["mode"] in (None, "constant"):
        return a.add(
            Pad(tuple(w for pair in kept for w in pair), a.number(a["value"] or 0.0)), a.x()
        )
    x = a.x()
    places = torch.arange(torch.Size(a.shape(x)).numel()).view(a.shape(x))
    for k, pair in enumerate(kept):
        line = torch.arange(places.shape[-1 - k], dtype=torch.float64).view(1, 1, -1)
        places = places.index_select(-1 - k, F.pad(line, pair, a["mode"]).flatten().long())
    return a.add(Gather(places.flatten().to(a.scope.builder.like.device), tuple(places.shape)), x)
